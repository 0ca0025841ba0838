"""The rows of a memory: each token of the user's texts, its weight, and its key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from steerx_edge.history.words import WORD, without_format
from steerx_edge.learning.effects import words_of_tokens
from steerx_edge.steering.memory import KeySpace, Level, Memory, hashes_of

if TYPE_CHECKING:
    from steerx_edge.learning.effects import Effects
    from steerx_edge.steering.ledger import Ledger

_NO_WORD = -1
_HIDDEN = -1  # no token
_HIGHEST = 127  # of int8
_USUAL = 0.125
"""A word in this share of the requests, and in two at least, is not about one of them."""


def causal_weights(nats: NDArray[np.floating]) -> NDArray[np.float32]:
    """How far the user, rather than the topic, caused each token, from 0 to 1: (T,).

    The logistic function of twice the effect.

    Args:
        nats: (T,) causal effects.
    """
    weights: NDArray[np.float32] = (1 / (1 + np.exp(-2 * nats.astype(np.float64)))).astype(
        np.float32
    )
    return weights


def usual_words(requests: Collection[str]) -> frozenset[str]:
    """Return the words, in lower case, that are too common in requests to be about one of them."""
    n_requests = Counter(word for request in requests for word in _words_in(request))
    fewest = max(2, _USUAL * len(requests))
    return frozenset(word for word, n in n_requests.items() if n >= fewest)


class MemoryRows:
    """The rows of all texts that were read.

    Args:
        space: how residual rows become keys.
        level: what is kept of the texts.
        end: the token that ends a text.
        usual: `usual_words` of the requests.
        before: a memory of earlier texts, whose rows stay as they are; or None.
        several: with `before`: (r,) hashes of the runs that occur in two or more of those texts.
        shared: with `before`: words that occur in two or more of those texts.
    """

    def __init__(
        self,
        space: KeySpace,
        level: Level,
        end: int,
        *,
        usual: Collection[str] = (),
        before: Memory | None = None,
        several: NDArray[np.uint32] | None = None,
        shared: Iterable[str] = (),
    ) -> None:
        self._space = space
        self.level = level
        self._end = end
        self.usual = frozenset(usual)
        self._before = before
        self._several = np.empty(0, np.uint32) if several is None else several
        self._keys: list[NDArray[np.int8]] = []
        self._tokens: list[NDArray[np.int32]] = []
        self._weights: list[NDArray[np.float32]] = []
        self._words: list[NDArray[np.int32]] = []  # their numbers; only for the level "shared"
        self._numbers: dict[str, int] = {word: i for i, word in enumerate(shared)}
        self._n_shared = len(self._numbers)

    @classmethod
    def continuing(cls, memory: Memory, ledger: Ledger, level: Level) -> MemoryRows:
        """After the rows of a memory of this level, whose ledger says what is in its texts."""
        return cls(
            memory.space,
            level,
            memory.end,
            usual=ledger.usual,
            before=memory,
            several=ledger.several,
            shared=ledger.words,
        )

    @property
    def n_texts(self) -> int:
        """How many texts there are, without those of `before`."""
        return len(self._keys)

    @property
    def continues(self) -> bool:
        """Whether the rows of earlier texts are in every memory."""
        return self._before is not None

    def keys(self, final: NDArray[np.floating]) -> NDArray[np.int8]:
        """(n, d) of final normed rows (n, n_embd)."""
        keys = self._space.keys(final)
        keys *= _HIGHEST / np.abs(keys).max(axis=1, keepdims=True)
        return np.round(keys).astype(np.int8)

    def add(self, effects: Effects, request: str, keys: NDArray[np.int8]) -> None:
        """Add a text of T tokens, and its end.

        A word that also occurs in the request, such as a name, gets weight 0, as it was copied from
        there, unless it is usual in requests.

        Args:
            effects: of its tokens.
            request: what the text answers.
            keys: (T + 1, d) of the rows that predict them, read with no other text in the context.
        """
        words, owners = words_of_tokens(effects.pieces)
        weights = np.ones(len(effects.tokens) + 1, np.float32)  # an end is never topic
        if self.level != "all":
            weights[:-1] = causal_weights(effects.nats)
            asked = _words_in(request) - self.usual
            taken = [w >= 0 and words[w].casefold() in asked for w in owners]
            weights[:-1][taken] = 0
        self._keys.append(keys)
        self._tokens.append(np.array([*effects.tokens, self._end], np.int32))
        self._weights.append(weights)
        if self.level == "shared":
            numbers = [self._numbers.setdefault(word, len(self._numbers)) for word in words]
            self._words.append(np.array([*numbers, _NO_WORD], np.int32)[[*owners, -1]])

    def memory(self, without: Collection[int] = ()) -> Memory:
        """The memory of all texts but some.

        A token that the memory may not hold keeps its key, with weight 0 and another token: such a
        neighbour leaves the prediction as it is.

        Args:
            without: places of texts; one at least is left, or one of `before`.
        """
        texts = [text for text in range(self.n_texts) if text not in without]
        held = self._held(texts)
        tokens = [
            np.where(holds, self._tokens[text], self._end)
            for text, holds in zip(texts, held, strict=True)
        ]
        weights = [
            np.where(holds, self._weights[text], 0) for text, holds in zip(texts, held, strict=True)
        ]
        keys = [self._keys[text] for text in texts]
        if self._before is not None:
            tokens = [self._before.tokens, *tokens]
            weights = [self._before.weights, *weights]
            keys = [self._before.keys, *keys]
        return Memory(
            self._space,
            np.concatenate(keys),
            np.concatenate(tokens).astype(np.int32, copy=False),
            np.concatenate(weights).astype(np.float32, copy=False),
            self.runs(texts)[0],
            self._end,
        )

    def runs(
        self, texts: Sequence[int] | None = None
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Hashes of the runs that occur in one text only, and of those that occur in several.

        Runs with a token that the memory may not hold are left out: from the other three tokens it
        could be found by trying the whole vocabulary.

        Args:
            texts: places of texts, in addition to those of `before`; None for all.
        """
        places = range(self.n_texts) if texts is None else texts
        each = [
            hashes_of(np.where(holds, self._tokens[text], _HIDDEN))
            for text, holds in zip(places, self._held(places), strict=True)
        ]
        if self._before is not None:
            each += [self._before.single, self._several, self._several]
        if not each:
            return np.empty(0, np.uint32), np.empty(0, np.uint32)
        hashes, counts = np.unique(np.concatenate(each), return_counts=True)
        return hashes[counts == 1], hashes[counts > 1]

    def _held(self, texts: Sequence[int]) -> list[NDArray[np.bool_]]:
        """Which tokens of each of the texts the memory may hold."""
        if self.level != "shared":
            return [np.ones(len(self._tokens[text]), np.bool_) for text in texts]
        may_hold = self._shared(texts)
        return [may_hold[self._words[text]] for text in texts]

    def _shared(self, texts: Sequence[int]) -> NDArray[np.bool_]:
        """Which words occur in two of the texts, by number; the last entry, white space, may."""
        n_texts = np.zeros(len(self._numbers) + 1, np.int64)
        n_texts[: self._n_shared] = 2
        for text in texts:
            n_texts[np.unique(self._words[text])] += 1
        n_texts[_NO_WORD] = 2
        return n_texts > 1


def _words_in(request: str) -> set[str]:
    """In lower case."""
    return {without_format(word).casefold() for word in WORD.findall(request)}
