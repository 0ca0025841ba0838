"""Phrases: what a user goes on with after the words just written.

A tilt knows how often the user writes a word; phrases know after what. They are counts of the
user's own runs of tokens, mixed into the model's prediction as a Dirichlet posterior whose prior is
the model itself (a cache language model, Kuhn and De Mori 1990; hierarchical Dirichlet smoothing,
MacKay and Peto 1995). From the shortest context to the longest, c(v) of C occurrences going on
with v:

    P[n](v) = (P[n-1](v) + strength * c[n](v)) / (1 + strength * C[n]),  P[0] the model's prediction

`strength` is what one occurrence weighs against the whole of the model's prediction. No pass of the
model is needed to count, and none to score: the new probability of a token depends on the old one
of that token alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

ORDER = 3
"""Tokens that are looked back at, at most."""

START = -1
"""Stands before the first token of a text."""

NOTHING = -2
"""Fills the places of a context that is shorter than ORDER."""

_Counts: TypeAlias = Mapping[tuple[int, ...], tuple[NDArray[np.int32], NDArray[np.float64]]]


class Grams(NamedTuple):
    """Runs of tokens and how often they occur.

    Args:
        tokens: (m, ORDER + 1) int32, distinct and in lexical order: the context, filled up from the
            left with NOTHING, and what it goes on with.
        counts: (m,) int32, above 0.
    """

    tokens: NDArray[np.int32]
    counts: NDArray[np.int32]


def count_grams(texts: Sequence[Sequence[int]], min_texts: int) -> Grams:
    """The runs that occur in at least so many of the texts.

    With 2, a run that stands in one text alone is not kept, and so no text can be put together from
    the runs, except where the user wrote the same thing twice.

    Args:
        texts: the user's texts, as tokens.
        min_texts: 1 keeps every run.
    """
    counts: dict[tuple[int, ...], int] = defaultdict(int)
    occurs: dict[tuple[int, ...], set[int]] = defaultdict(set)
    for number, text in enumerate(texts):
        for end, token in enumerate(text):
            for context in _contexts(text[:end]):
                gram = (NOTHING,) * (ORDER - len(context)) + context + (token,)
                counts[gram] += 1
                occurs[gram].add(number)
    kept = sorted(gram for gram in counts if len(occurs[gram]) >= min_texts)
    return Grams(
        np.array(kept, np.int32).reshape(-1, ORDER + 1),
        np.array([counts[gram] for gram in kept], np.int32),
    )


class Mixed(NamedTuple):
    """What phrases do to the T tokens of a text.

    Args:
        own: (T,) what is added to the probability of each token.
        total: (T,) what is added to all tokens there.
    """

    own: NDArray[np.float64]
    total: NDArray[np.float64]

    def log_prob(self, log_prob: NDArray[np.float32]) -> NDArray[np.float32]:
        """With the phrases, from that without: (..., T), nats."""
        with np.errstate(divide="ignore"):
            grown = np.logaddexp(log_prob, np.log(self.own))
        mixed: NDArray[np.float32] = (grown - np.log1p(self.total)).astype(np.float32)
        return mixed


class PhraseBook:
    """Phrases at some strength, ready to be mixed into predictions.

    Args:
        grams: what was counted.
        strength: what an occurrence weighs; 0 or more.
    """

    def __init__(self, grams: Grams, strength: float) -> None:
        self._counts = _by_context(grams)
        self._strength = strength

    def added(self, before: Sequence[int]) -> dict[int, float]:
        """What the next token's probability is increased by, before all are scaled to 1 again.

        Args:
            before: the tokens of the text so far, without what it answers.
        """
        added: dict[int, float] = defaultdict(float)
        total = 1.0
        for context in _contexts(before):
            if context in self._counts:
                tokens, counts = self._counts[context]
                for token, weight in zip(
                    tokens.tolist(), self._strength * total * counts, strict=True
                ):
                    added[token] += weight
                total += self._strength * total * counts.sum()
        return added

    def of_text(self, text: Sequence[int]) -> Mixed:
        """What a text's own tokens are given by the phrases.

        Args:
            text: T tokens.
        """
        gains = [self.added(text[:row]) for row in range(len(text))]
        return Mixed(
            np.array([gain.get(token, 0.0) for token, gain in zip(text, gains, strict=True)]),
            np.array([sum(gain.values()) for gain in gains]),
        )

    def shift(self, before: Sequence[int], logits: NDArray[np.float32]) -> None:
        """Change the logits of the next token in place, so that they give the mixed prediction.

        Args:
            before: the tokens of the text so far, without what it answers.
            logits: (n_vocab,).
        """
        added = {token: weight for token, weight in self.added(before).items() if weight > 0}
        if not added:
            return
        highest = logits.max()
        log_total = highest + np.log(np.exp(logits - highest).sum(dtype=np.float64))
        tokens = np.fromiter(added, np.int64)
        weights = np.fromiter(added.values(), np.float64)
        logits[tokens] = np.logaddexp(logits[tokens], log_total + np.log(weights))


def _contexts(before: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The last token, the last two, ...; the beginning of the text counts as one."""
    last = tuple(before[-ORDER:]) if len(before) >= ORDER else (START, *before)
    for length in range(1, len(last) + 1):
        yield last[-length:]


def _by_context(grams: Grams) -> _Counts:
    places: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, (*context, _) in enumerate(grams.tokens.tolist()):
        places[tuple(token for token in context if token != NOTHING)].append(place)
    return {
        context: (grams.tokens[rows, -1], grams.counts[rows].astype(np.float64))
        for context, rows in places.items()
    }
