"""Phrases: what a user goes on with after the words just written.

A tilt knows how often the user writes a word; phrases know after what. They are counts of the
user's own runs of tokens, mixed into the model's prediction as a Dirichlet posterior whose prior is
the model itself (a cache language model, Kuhn and De Mori 1990; hierarchical Dirichlet smoothing,
MacKay and Peto 1995). From the shortest context to the longest, where c(v) of N occurrences go on
with v:

    P[n](v) = (P[n-1](v) + strength * w[n](v)) / (1 + strength * W[n]),  P[0] the model's prediction
    w[n](v) = c(v) * sum(c * (c - 1)) / (N * (N - 1)),  W[n] the sum of w[n]

An occurrence weighs as much as the user is consistent: the second factor is how often two
occurrences of the context go on alike. "The" goes on with anything, and the model knows better; "I
never hesitate" may always go on in the same way. `strength` is what an occurrence of a wholly
consistent context weighs against the whole of the model's prediction. No pass of the model is
needed to count, and none to score: the new probability of a token depends on the old one of that
token alone. Within one text a pair of tokens is offered once, or a phrase would lead into itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ORDER = 3
"""Tokens that are looked back at, at most."""

START = -1
"""Stands before the first token of a text."""

NOTHING = -2
"""Fills the places of a context that is shorter than ORDER."""


class Grams(NamedTuple):
    """Runs of tokens and what they weigh.

    Args:
        tokens: (m, ORDER + 1) int32, distinct and in lexical order: the context, filled up from the
            left with NOTHING, and what it goes on with.
        weights: (m,) float32, above 0.
    """

    tokens: NDArray[np.int32]
    weights: NDArray[np.float32]


def weigh_grams(texts: Sequence[Sequence[int]], min_texts: int) -> Grams:
    """The runs that occur in at least so many of the texts, and go on alike more than once.

    With 2, a run that stands in one text alone is not kept, and so no text can be put together from
    the runs, except what the user wrote in two texts.

    Args:
        texts: the user's texts, as tokens.
        min_texts: 1 keeps every run.
    """
    occurs: dict[tuple[int, ...], dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, text in enumerate(texts):
        for end, token in enumerate(text):
            for context in _contexts(text, end):
                occurs[context][token].append(number)
    weights: dict[tuple[int, ...], float] = {}
    for context, goes_on in occurs.items():
        n = sum(map(len, goes_on.values()))
        kept = {v: len(where) for v, where in goes_on.items() if len({*where}) >= min_texts}
        alike = sum(count * (count - 1) for count in kept.values())
        if alike:
            filled = (NOTHING,) * (ORDER - len(context)) + context
            for token, count in kept.items():
                run = (*filled, token)
                weights[run] = count * alike / (n * (n - 1))
    runs = sorted(weights)
    return Grams(
        np.array(runs, np.int32).reshape(-1, ORDER + 1),
        np.array([weights[run] for run in runs], np.float32),
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
        grams: the runs.
        strength: what their weights are multiplied by; 0 or more.
    """

    def __init__(self, grams: Grams, strength: float) -> None:
        self._weights = _by_context(grams)
        self._strength = strength

    def added(self, before: Sequence[int]) -> dict[int, float]:
        """What the next token's probability is increased by, before all are scaled to 1 again.

        A token that stands after the last one already is not offered again: a phrase would lead
        into itself.

        Args:
            before: the tokens of the text so far, without what it answers.
        """
        return self._added(before, len(before), set(pairwise(before)))

    def _added(
        self, text: Sequence[int], end: int, pairs: Set[tuple[int, int]]
    ) -> dict[int, float]:
        added: dict[int, float] = defaultdict(float)
        total = self._strength
        for context in _contexts(text, end):
            weights = {
                token: weight
                for token, weight in self._weights.get(context, {}).items()
                if (context[-1], token) not in pairs
            }
            for token, weight in weights.items():
                added[token] += total * weight
            total *= 1 + self._strength * sum(weights.values())
        return added

    def of_text(self, text: Sequence[int]) -> Mixed:
        """What a text's own tokens are given by the phrases.

        Args:
            text: T tokens.
        """
        own, total = np.zeros(len(text)), np.zeros(len(text))
        pairs: set[tuple[int, int]] = set()
        for row, token in enumerate(text):
            added = self._added(text, row, pairs)
            own[row], total[row] = added.get(token, 0.0), sum(added.values())
            if row:
                pairs.add((text[row - 1], token))
        return Mixed(own, total)

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


def _contexts(text: Sequence[int], end: int) -> Iterator[tuple[int, ...]]:
    """Before a place in a text: the last token, the last two, ...; its beginning counts as one."""
    last = text[max(0, end - ORDER) : end]
    known = (START, *last) if end < ORDER else tuple(last)
    for length in range(1, len(known) + 1):
        yield known[-length:]


def _by_context(grams: Grams) -> Mapping[tuple[int, ...], Mapping[int, float]]:
    found: dict[tuple[int, ...], dict[int, float]] = defaultdict(dict)
    for (*context, token), weight in zip(
        grams.tokens.tolist(), grams.weights.tolist(), strict=True
    ):
        found[tuple(each for each in context if each != NOTHING)][token] = weight
    return found
