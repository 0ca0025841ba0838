"""Request gate: which requests a user's profile is for.

The final normed row that predicts the first token of an answer tells what kind of answer it will
be. A ridge regression tells the rows before the user's own answers from those before answers to
neutral requests. An answer whose row looks more like the latter is not steered at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_OPEN = 0.6
"""A prediction from here on is let through: neutral rows are to give 0, the user's 1."""

_RIDGE = 0.1
"""What is added to the squares, as a share of what a row adds to them on average."""

_LEAST_RIDGE = 1e-12  # rows of unit length that are closer differ only by rounding
_FOLDS = 8


@dataclass(frozen=True, eq=False)
class Gate:
    """A direction of rows, and how far along it a row must be.

    Args:
        direction: (n_embd,) what the regression predicts, per unit of a row of unit length.
        threshold: a row of unit length is let through if its product with the direction reaches it.
    """

    direction: NDArray[np.float32]
    threshold: float

    @classmethod
    def fit(cls, own: NDArray[np.floating], neutral: NDArray[np.floating]) -> Gate:
        """Tell rows before the user's answers from those before neutral ones.

        Args:
            own: (n, n_embd), at least one.
            neutral: (m, n_embd), at least one; in total they weigh as much as the user's.
        """
        rows = _unit(np.concatenate([own, neutral]))
        target = np.repeat((0.5, -0.5), (len(own), len(neutral)))
        weights = np.repeat((0.5 / len(own), 0.5 / len(neutral)), (len(own), len(neutral)))
        mean = weights @ rows
        roots = np.sqrt(weights)[:, None]
        scaled = (rows - mean) * roots
        products = scaled @ scaled.T
        ridge = max(_RIDGE * products.trace() / len(products), _LEAST_RIDGE)
        products += ridge * np.eye(len(products))
        direction = scaled.T @ np.linalg.solve(products, target * roots[:, 0])
        return cls(direction.astype(np.float32), float(mean @ direction + _OPEN - 0.5))

    def is_open(self, rows: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which of the rows that predict an answer's first token (n, n_embd) it lets through."""
        is_open: NDArray[np.bool_] = _unit(rows) @ self.direction >= self.threshold
        return is_open


def held_out(
    own: NDArray[np.floating], neutral: NDArray[np.floating]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether a gate fitted to the others lets each row through: the user's (n,), neutral (m,).

    Args:
        own: (n, n_embd), at least two.
        neutral: (m, n_embd), at least two.
    """
    is_open = np.empty(len(own), np.bool_), np.empty(len(neutral), np.bool_)
    folds = [np.arange(len(rows)) % min(_FOLDS, len(own), len(neutral)) for rows in (own, neutral)]
    for fold in np.unique(folds[0]):
        gate = Gate.fit(own[folds[0] != fold], neutral[folds[1] != fold])
        for rows, places, found in zip((own, neutral), folds, is_open, strict=True):
            found[places == fold] = gate.is_open(rows[places == fold])
    return is_open


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    rows = rows.astype(np.float64)
    units: NDArray[np.float64] = rows / np.maximum(
        np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny
    )
    return units
