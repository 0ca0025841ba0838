"""From per-item differences to unit directions and the typical size of the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from steerx_edge.errors import SteerxError

Estimate = Literal["mean", "pca", "logistic"]
"""How one direction is computed from many differences."""

NO_DIRECTION = (
    "The texts do not change the model's residual stream, so there is no direction "
    "to steer along. Use more texts, or texts with more in common."
)

_PENALTY = 0.1  # of differences that are scaled to a mean square length of 1
_NEWTON_STEPS = 20


def direction_of(differences: NDArray[np.float32], estimate: Estimate) -> NDArray[np.float32]:
    """One direction for many differences, of unit length.

    The mean; or the first principal component of {d, -d}, with the sign of the mean; or the normal
    of the plane that best keeps the differences on one side (logistic regression of {d, -d} with an
    L2 penalty), which looks less at those that are on that side anyway.

    Args:
        differences: (item, n_embd).
        estimate: which one.

    Returns:
        (n_embd,) float32.

    Raises:
        SteerxError: the differences cancel out or are not finite.
    """
    mean: NDArray[np.float32] = mean_direction(differences[:, None])[0]
    if estimate == "mean":
        return mean
    # Items are few and dimensions many: both are weighted sums of the items.
    scaled = differences.astype(np.float64)
    scaled /= np.sqrt((scaled**2).sum(axis=1).mean())
    similarity = scaled @ scaled.T
    if estimate == "pca":
        weights = np.linalg.eigh(similarity)[1][:, -1]
    else:
        weights = _logistic_weights(similarity)
    direction = weights @ scaled
    direction *= np.sign(direction @ mean) / np.linalg.norm(direction)
    unit: NDArray[np.float32] = direction.astype(np.float32)
    return unit


def _logistic_weights(similarity: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each item weighs in the normal w = sum of weights * items, by Newton's method.

    It minimizes sum(log(1 + exp(-item @ w))) + _PENALTY / 2 * w @ w.
    """
    n = len(similarity)
    weights = np.zeros(n)
    for _ in range(_NEWTON_STEPS):
        wrong = 1 / (1 + np.exp(np.clip(similarity @ weights, -500, 500)))
        curvature = wrong * (1 - wrong)
        gradient = _PENALTY * weights - wrong
        weights = weights - np.linalg.solve(
            curvature[:, None] * similarity + _PENALTY * np.eye(n), gradient
        )
    return weights


def mean_direction(differences: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean difference, of unit length at each layer.

    Args:
        differences: (item, layer, n_embd).

    Returns:
        (layer, n_embd) float32.

    Raises:
        SteerxError: the differences cancel out or are not finite at some layer.
    """
    if not has_direction(differences):
        raise SteerxError(NO_DIRECTION)
    mean = differences.astype(np.float64).mean(axis=0)
    length = np.linalg.norm(mean, axis=-1, keepdims=True)
    direction: NDArray[np.float32] = (mean / length).astype(np.float32)
    return direction


def has_direction(differences: NDArray[np.float32]) -> bool:
    """Whether differences (item, ..., n_embd) are finite and do not cancel out anywhere."""
    length = np.linalg.norm(differences.astype(np.float64).mean(axis=0), axis=-1)
    return bool(np.isfinite(length).all() and (length > 0).all())


def median_norms(norms: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The typical length of a residual row at each layer: (layer,) float32.

    The median over the rows of all items; a median, since a few rows, such as the very first of a
    sequence, are tens of times longer than the rest.

    Args:
        norms: lengths of the residual rows, one (layer, row) an item.
    """
    return np.median(np.concatenate(norms, axis=1), axis=1).astype(np.float32)
