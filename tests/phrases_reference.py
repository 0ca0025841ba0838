"""The formula of steerx_edge/phrases.py in NumPy, over a whole vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from steerx_edge.phrases import ORDER, START


def with_phrases(
    p: NDArray[np.float64],
    before: Sequence[int],
    texts: Sequence[Sequence[int]],
    strength: float,
    min_texts: int = 1,
) -> NDArray[np.float64]:
    """What the model's prediction becomes, (n_vocab,).

    Args:
        p: (n_vocab,) the prediction.
        before: what was written so far.
        texts: those that the phrases are of.
        strength: what a wholly consistent occurrence weighs.
        min_texts: in how many of them a phrase must occur.
    """
    for length in range(1, ORDER + 1):
        context = [START, *before][-length:]
        if len(context) < length:
            break
        found = np.zeros((len(texts), len(p)))
        for place, text in enumerate(texts):
            begun = [START, *text]
            for end in range(length, len(begun)):
                found[place, begun[end]] += begun[end - length : end] == context
        n = found.sum()
        c = np.where((found > 0).sum(axis=0) >= min_texts, found.sum(axis=0), 0)
        w = c * (c * (c - 1)).sum() / (n * (n - 1)) if n > 1 else 0 * c
        for v in range(len(p)):  # no pair of tokens is offered again
            if (context[-1], v) in set(pairwise(before)):
                w[v] = 0
        p = (p + strength * w) / (1 + strength * w.sum())
    return p
