"""How much two profiles have in common."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from steerx_edge.profile import Entry, LogitBias


class Similarity(NamedTuple):
    """What two entries have in common. The vectors of two different models cannot be compared.

    Args:
        cosines: of the directions, by the layers that both steer; empty for two models.
        logit_bias: correlation of the two logit biases over the tokens in either, 0 where a token
            is in one only; None for two models, or where one has no logit bias, or a constant one.
        words: words of both, those of the first in their order.
        n_words: different words in either.
    """

    cosines: dict[int, float]
    logit_bias: float | None
    words: tuple[str, ...]
    n_words: int


def similarity(entry: Entry, other: Entry) -> Similarity:
    """Compare two entries."""
    own, others = ([word.word for word in each.words] for each in (entry, other))
    shared = tuple(word for word in own if word in set(others))
    n_words = len({*own, *others})
    if entry.model.fingerprint != other.model.fingerprint:
        return Similarity({}, None, shared, n_words)
    return Similarity(_cosines(entry, other), _correlation(entry, other), shared, n_words)


def _cosines(entry: Entry, other: Entry) -> dict[int, float]:
    """Of directions, which have unit length only to within rounding."""
    cosines = {}
    for layer, direction in zip(entry.layers, entry.directions.astype(np.float64), strict=True):
        if layer in other.layers:
            theirs = other.directions[other.layers.index(layer)].astype(np.float64)
            lengths = np.linalg.norm(direction) * np.linalg.norm(theirs)
            cosines[layer] = float(direction @ theirs / lengths)
    return cosines


def _correlation(entry: Entry, other: Entry) -> float | None:
    if entry.logit_bias is None or other.logit_bias is None:
        return None
    tokens = np.union1d(entry.logit_bias.tokens, other.logit_bias.tokens)
    own, theirs = (_dense(bias, tokens) for bias in (entry.logit_bias, other.logit_bias))
    if not (own.std() and theirs.std()):
        return None
    return float(np.corrcoef(own, theirs)[0, 1])


def _dense(bias: LogitBias, tokens: NDArray[np.int32]) -> NDArray[np.float64]:
    """(m,) values of these tokens."""
    values = np.zeros(len(tokens))
    values[np.searchsorted(tokens, bias.tokens)] = bias.values
    return values
