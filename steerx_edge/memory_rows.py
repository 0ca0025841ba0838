"""The rows of a memory: each token of the person's texts, its weight, and its key."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from steerx_edge.effects import WORD, words_of_tokens
from steerx_edge.memory import OPENINGS, SINGLE_RUN, KeySpace, Level, Memory, run_hashes

if TYPE_CHECKING:
    from steerx_edge.effects import Effects

_NO_WORD = ""
_HIDDEN = -1  # no token
_HIGHEST = 127  # of int8


def causal_weights(nats: NDArray[np.floating]) -> NDArray[np.float32]:
    """How far the person caused each token, from 0 to 1: (T,).

    The odds that it was written with the person's other texts in mind, twice over: the logistic
    function of twice the effect.

    Args:
        nats: (T,) causal effects.
    """
    weights: NDArray[np.float32] = (1 / (1 + np.exp(-2 * nats.astype(np.float64)))).astype(
        np.float32
    )
    return weights


class MemoryRows:
    """The rows of all texts that were read.

    Args:
        space: how residual rows become keys.
        level: what is kept of the texts.
        end: the token that ends a text.
    """

    def __init__(self, space: KeySpace, level: Level, end: int) -> None:
        self._space = space
        self.level = level
        self._end = end
        self._keys: list[NDArray[np.int8]] = []
        self._tokens: list[list[int]] = []
        self._weights: list[NDArray[np.float32]] = []
        self._words: list[list[str]] = []
        self._occurs: dict[str, set[int]] = defaultdict(set)

    @property
    def n_texts(self) -> int:
        """How many texts there are."""
        return len(self._keys)

    def keys(self, final: NDArray[np.floating]) -> NDArray[np.int8]:
        """(n, d) of final normed rows (n, n_embd)."""
        keys = self._space.keys(final)
        keys *= _HIGHEST / np.abs(keys).max(axis=1, keepdims=True)
        return np.round(keys).astype(np.int8)

    def add(self, effects: Effects, request: str, keys: NDArray[np.int8]) -> None:
        """Add a text of T tokens, and its end.

        A word that stands in the request, such as a name, was taken from there: it weighs nothing.

        Args:
            effects: of its tokens.
            request: what the text answers.
            keys: (T + 1, d) of the rows that predict them, read with no other text in the context.
        """
        words, owners = words_of_tokens(effects.pieces)
        weights = np.ones(len(effects.tokens) + 1, np.float32)  # to end is nobody's topic
        if self.level != "all":
            weights[:-1] = causal_weights(effects.nats)
            asked = {word.casefold() for word in WORD.findall(request)}
            taken = [w >= 0 and words[w].casefold() in asked for w in owners]
            weights[:-1][taken] = 0
        for word in words:
            self._occurs[word].add(self.n_texts)
        self._keys.append(keys)
        self._tokens.append([*effects.tokens, self._end])
        self._weights.append(weights)
        self._words.append([words[w] if w >= 0 else _NO_WORD for w in owners] + [_NO_WORD])

    def memory(self, without: Collection[int] = ()) -> Memory:
        """The memory of all texts but some.

        A token that it may not hold keeps its key, with no weight and another token: a neighbour
        that is topic leaves the model its own mind.

        Args:
            without: places of texts; one at least is left.
        """
        texts = [text for text in range(self.n_texts) if text not in without]
        tokens = np.concatenate([np.array(self._tokens[text], np.int32) for text in texts])
        weights = np.concatenate([self._weights[text] for text in texts])
        hidden = ~self._may_hold(texts)
        single = self._single(texts, hidden)
        tokens[hidden], weights[hidden] = self._end, 0
        return Memory(
            self._space,
            np.concatenate([self._keys[text] for text in texts]),
            tokens,
            weights,
            np.stack([self._keys[text][0] for text in self._spread(texts)]),
            single,
            self._end,
        )

    def _single(self, texts: Sequence[int], hidden: NDArray[np.bool_]) -> NDArray[np.uint32]:
        """Hashes of the runs that stand in one of the texts alone, and hold no hidden token.

        Whoever knows three tokens of a run finds the fourth by going through the vocabulary.

        Args:
            texts: places of texts.
            hidden: (n,) of their tokens, one text after the other.
        """
        each, begin = [], 0
        for text in texts:
            tokens = np.array(self._tokens[text])
            tokens[hidden[begin : begin + len(tokens)]] = _HIDDEN
            begin += len(tokens)
            if len(tokens) >= SINGLE_RUN:
                runs = np.lib.stride_tricks.sliding_window_view(tokens, SINGLE_RUN)
                each.append(np.unique(run_hashes(runs[(runs != _HIDDEN).all(axis=1)])))
        if not each:
            return np.empty(0, np.uint32)
        hashes, counts = np.unique(np.concatenate(each), return_counts=True)
        single: NDArray[np.uint32] = hashes[counts == 1]
        return single

    @staticmethod
    def _spread(texts: Sequence[int]) -> Sequence[int]:
        """At most OPENINGS of the texts."""
        n = min(len(texts), OPENINGS)
        return [texts[k * len(texts) // n] for k in range(n)]

    def _may_hold(self, texts: Sequence[int]) -> NDArray[np.bool_]:
        """Which tokens of the texts belong to a word of two of them, or to none."""
        words = [word for text in texts for word in self._words[text]]
        if self.level != "shared":
            return np.ones(len(words), np.bool_)
        among = set(texts)
        shared = {word for word, where in self._occurs.items() if len(where & among) > 1}
        return np.array([word == _NO_WORD or word in shared for word in words], np.bool_)
