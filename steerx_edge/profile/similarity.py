"""How alike two entries are, for the same model: directions, logit bias, words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from steerx_edge.profile.entry import Entry
from steerx_edge.profile.parts import LogitBias


def direction_cosines(a: Entry, b: Entry) -> dict[int, float]:
    """The cosine of the directions at each layer that both entries have.

    Returns:
        From -1 to 1, by layer, the lowest first; empty for entries of different models, whose rows
        cannot be compared.
    """
    if a.model.fingerprint != b.model.fingerprint:
        return {}
    others = dict(zip(b.layers, b.directions.astype(np.float64), strict=True))
    return {
        layer: _cosine(direction.astype(np.float64), others[layer])
        for layer, direction in zip(a.layers, a.directions, strict=True)
        if layer in others
    }


def bias_correlation(a: Entry, b: Entry) -> float | None:
    """The correlation of two logit biases over the vocabulary, at whatever strengths.

    It is not centered, since 0 is what a bias has for a token that says nothing: a token that only
    one of them names counts as 0 in the other.

    Returns:
        From -1 to 1; None where an entry has no logit bias, or the models differ.
    """
    if a.model.fingerprint != b.model.fingerprint or a.logit_bias is None or b.logit_bias is None:
        return None
    tokens = np.union1d(a.logit_bias.tokens, b.logit_bias.tokens)
    values, others = (_values_at(each, tokens) for each in (a.logit_bias, b.logit_bias))
    return _cosine(values, others) if values.any() and others.any() else None


def shared_words(a: Entry, b: Entry) -> tuple[str, ...]:
    """The words that both entries list, in the order of `a`; the models may differ."""
    others = {word.word for word in b.words}
    return tuple(word.word for word in a.words if word.word in others)


def _values_at(bias: LogitBias, tokens: NDArray[np.int32]) -> NDArray[np.float64]:
    """The values of tokens (m,), among them all those of the bias; (m,)."""
    values = np.zeros(len(tokens))
    values[np.searchsorted(tokens, bias.tokens)] = bias.values
    return values


def _cosine(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    cosine = one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.clip(cosine, -1, 1))
