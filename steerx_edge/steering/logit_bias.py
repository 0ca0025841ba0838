"""Token counts, and the logit bias they give.

The ablation passes tell, for free, how often the user uses each token and how often the unsteered
model expected it. The logarithm of the ratio is the one-step maximum-likelihood exponential logit
bias of the model to the user's unigrams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SMOOTHING = 0.5
"""Occurrences that are added to what was counted and to what was expected."""

BIAS_STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Strengths that are tried."""

_NEGLIGIBLE = 0.1  # nats


@dataclass(frozen=True)
class TokenCounts:
    """Token counts of the control arm, by fold.

    Args:
        used: (fold, n_vocab) how often the user uses each token.
        expected: (fold, n_vocab) how often the model expected it there.
    """

    used: NDArray[np.float32]
    expected: NDArray[np.float32]

    def values(self, folds: Sequence[int] | None = None) -> NDArray[np.float32]:
        """What is added to the logits at strength 1, from some of the folds: (n_vocab,), nats.

        Small values are 0, so that few are left.
        """
        rows = slice(None) if folds is None else list(folds)
        used, expected = self.used[rows].sum(axis=0), self.expected[rows].sum(axis=0)
        values: NDArray[np.float32] = np.log((used + SMOOTHING) / (expected + SMOOTHING))
        values[np.abs(values) < _NEGLIGIBLE] = 0
        return values

    def tried(self, without: int | None = None) -> NDArray[np.float32]:
        """What is added at each of BIAS_STRENGTHS: (bias, n_vocab).

        Args:
            without: a fold that is left out.
        """
        folds = [fold for fold in range(len(self.used)) if fold != without]
        return np.outer(BIAS_STRENGTHS, self.values(folds)).astype(np.float32)
