"""Which tokens the user's preferences cause: causal effects by ablation passes.

The effect of a token is its log-probability with the user's other writing in the context, minus
its log-probability without (SteerX, arXiv 2510.22256; PerContrast, arXiv 2603.06595). It is a
conditional pointwise mutual information. It cannot by itself tell style from topic, and one short
text says little: see `word_effects` for what many texts say.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from steerx_edge.history.words import WORD, without_format
from steerx_edge.learning.texts import requests_for
from steerx_edge.llamacpp.requests import ScoreResult
from steerx_edge.profile import Word

if TYPE_CHECKING:
    from steerx_edge.history.item import HistoryItem
    from steerx_edge.llamacpp.engine import Engine
    from steerx_edge.steering.ledger import Ledger

_RESAMPLES = 1000
_LONGEST_WORD = 60
# They join letters and emoji; flags of regions are spelled with invisible letters.
_JOINERS = re.compile("[\u200c\u200d\U000e0020-\U000e007f]")


@dataclass(frozen=True)
class Effects:
    """The causal effects of one item's T tokens.

    Args:
        tokens: (T,) the response.
        pieces: the bytes of each token.
        nats: (T,) log p in the treatment arm minus log p in the control arm.
    """

    tokens: list[int]
    pieces: list[bytes]
    nats: NDArray[np.float32]


def read_control(
    engine: Engine, items: Sequence[HistoryItem], layers: Sequence[int]
) -> list[ScoreResult]:
    """Run the control arm: each text after its request, with nothing else in the context.

    Gives scores, the rows of `layers`, final rows, and how often each token was to be expected.

    Raises:
        ModelError: llama.cpp fails.
    """
    return engine.run_many(
        requests_for(engine, items, layers=tuple(layers), final=True, expected=True)
    )


def read_treatment(
    engine: Engine,
    items: Sequence[HistoryItem],
    others: Sequence[HistoryItem],
    layers: Sequence[int],
    biases: NDArray[np.float32] | None = None,
) -> list[ScoreResult]:
    """Run the treatment arm: each text with other texts of the same user in its context.

    Args:
        engine: the model.
        items: the texts and their requests.
        others: the in-context texts, most relevant last; none of `items`.
        layers: blocks to read on the way; may be none.
        biases: (bias, n_vocab) also score under each of these.

    Raises:
        ModelError: the texts do not fit the analysis context.
    """
    return engine.run_many(
        requests_for(engine, items, others, layers=tuple(layers), final=True, biases=biases)
    )


def effects_of(
    engine: Engine, item: HistoryItem, treatment: ScoreResult, control: ScoreResult
) -> Effects:
    """The effects of an item's tokens, from both arms."""
    tokens = engine.tokenize(item.response)
    return Effects(tokens, engine.pieces(tokens), treatment.scored - control.scored)


def anchors(
    nats: NDArray[np.float32], *, threshold: float = 1.0, at_least: int = 3
) -> NDArray[np.bool_]:
    """The preference-driven tokens: (T,) bool.

    Args:
        nats: (T,) effects.
        threshold: a token with a higher effect is an anchor, in nats (tau in SteerX).
        at_least: where fewer tokens are above it, the ones with the highest effects are taken.
    """
    above = nats > threshold
    if above.sum() < at_least:
        above = np.zeros(len(nats), dtype=np.bool_)
        above[np.argsort(-nats, kind="stable")[:at_least]] = True
    return above


def word_effects(items: Sequence[Effects], *, limit: int = 30) -> tuple[Word, ...]:
    """The words with the largest summed effect over all items: see `WordTally.words`.

    Args:
        items: the effects of each item.
        limit: the most words to return, largest first.
    """
    tally = WordTally()
    for effects in items:
        tally.add(effects)
    return tally.words(limit)


class WordTally:
    """The effects of every word, without the texts they come from.

    Attributes:
        n_texts: how many texts were added.
        counts: occurrences of each word.
        effects: of each word, float32, one for each text that has it, in nats.
    """

    def __init__(self) -> None:
        self.n_texts = 0
        self.counts: dict[str, int] = defaultdict(int)
        self.effects: dict[str, list[float]] = defaultdict(list)

    @classmethod
    def of(cls, ledger: Ledger) -> WordTally:
        """Where a ledger ends."""
        tally = cls()
        tally.n_texts = len(ledger.texts)
        tally.counts.update(zip(ledger.words, ledger.counts.tolist(), strict=True))
        begin = 0
        for word, n_texts in zip(ledger.words, ledger.occurs.tolist(), strict=True):
            tally.effects[word] = ledger.effects[begin : begin + n_texts].tolist()
            begin += n_texts
        return tally

    def add(self, effects: Effects) -> None:
        """Add a text. A word's effect in it is the sum over its tokens there."""
        sums: dict[str, float] = defaultdict(float)
        for word, effect in _words(effects):
            if len(word) > _LONGEST_WORD or not is_printable(word):
                continue  # no word of a language
            sums[word] += effect
            self.counts[word] += 1
        for word, total in sums.items():
            self.effects[word].append(float(np.float32(total)))
        self.n_texts += 1

    def words(self, limit: int = 30) -> tuple[Word, ...]:
        """The words with the largest summed effect.

        A word's effect is 0 in a text that does not have it. The interval is a 95% bootstrap over
        texts of its mean; neither depends on the order of the texts. Words of one text alone are
        left out, as they are mostly its topic, unless there is no other.

        Args:
            limit: the most words to return, largest first.
        """
        totals = {word: math.fsum(each) for word, each in self.effects.items()}
        words = [word for word in totals if len(self.effects[word]) > 1] or list(totals)
        words = [word for word in words if totals[word] > 0]
        words = sorted(words, key=lambda word: (-totals[word], word))[:limit]
        if not words:
            return ()
        by_text = np.zeros((self.n_texts, len(words)))
        for i, word in enumerate(words):
            by_text[: len(self.effects[word]), i] = self.effects[word]
        by_text.sort(axis=0)
        low, high = bootstrap_mean_interval(by_text)
        mean = by_text.mean(axis=0)
        return tuple(
            Word(
                word=word,
                effect=float(mean[i]),
                low=float(low[i]),
                high=float(high[i]),
                count=self.counts[word],
                items=len(self.effects[word]),
            )
            for i, word in enumerate(words)
        )


def bootstrap_mean_interval(
    values: NDArray[np.float64], *, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95% percentile bootstrap of the mean over the first axis: low and high, one a column."""
    n = len(values)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
    low, high = np.percentile(draws @ values / n, [2.5, 97.5], axis=0)
    return low, high


def is_printable(text: str) -> bool:
    """Whether a text shows as it is; letters and emoji may be joined from several."""
    return _JOINERS.sub("", text).isprintable()


def _words(effects: Effects) -> list[tuple[str, float]]:
    """Words of the text, each with the summed effect of its tokens."""
    words, owners = words_of_tokens(effects.pieces)
    belongs = owners >= 0
    sums = np.bincount(owners[belongs], effects.nats[belongs], minlength=len(words))
    return [(word, float(value)) for word, value in zip(words, sums, strict=True)]


def words_of_tokens(pieces: Sequence[bytes]) -> tuple[list[str], NDArray[np.int64]]:
    """The words of a text, and the place of the word that each token belongs to.

    A token belongs to the word that holds the last of its bytes that is in a word; a token of white
    space alone belongs to none, -1.

    Args:
        pieces: the bytes of each token.
    """
    # Surrogates keep the bytes of a cut character countable; no word has one.
    data = b"".join(pieces)
    text = data.decode(errors="surrogateescape")
    words: list[str] = []
    word_of_byte = np.full(len(data), -1)
    for match in WORD.finditer(text):
        start = len(text[: match.start()].encode(errors="surrogateescape"))
        word_of_byte[start : start + len(match.group().encode())] = len(words)
        words.append(without_format(match.group()))
    ends = np.cumsum([len(piece) for piece in pieces])
    owners = np.full(len(pieces), -1)
    for place, (end, piece) in enumerate(zip(ends, pieces, strict=True)):
        found = word_of_byte[end - len(piece) : end]
        if (found >= 0).any():
            owners[place] = found[found >= 0][-1]
    return words, owners
