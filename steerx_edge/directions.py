"""From per-item differences to unit directions and the typical size of the residual stream."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from steerx_edge.errors import SteerxError

NO_DIRECTION = (
    "The texts make no difference to the model's residual stream, so there is no direction "
    "to steer in. Use more texts, or texts that have more in common."
)


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
