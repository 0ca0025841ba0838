"""Which tokens the user's preferences cause: causal effects by ablation passes.

The effect of a token is its log-probability with the user's other writing in the context, minus
its log-probability without (SteerX, arXiv 2510.22256; PerContrast, arXiv 2603.06595). It is a
conditional pointwise mutual information. It cannot by itself tell style from topic, and one short
text says little: see `word_effects` for what many texts say.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from steerx_edge.analysis import Pass, PassResult
from steerx_edge.profile import Word
from steerx_edge.prompts import messages_for

if TYPE_CHECKING:
    from steerx_edge.engine import Engine
    from steerx_edge.history import HistoryItem

# Chinese, Japanese and South-East Asian scripts, which put no spaces between words.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"

WORD = re.compile(
    rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:['’-][^\W{_UNSPACED}]+)*|[^\w\s\udc80-\udcff]+"
)
"""A word with its apostrophes and hyphens, a character of a script without spaces, or a run of
punctuation. So no word is a whole sentence of the user's."""

_RESAMPLES = 1000
_LONGEST_WORD = 60


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


def read_alone(
    engine: Engine, items: Sequence[HistoryItem], layers: Sequence[int]
) -> list[PassResult]:
    """Run the control arm: each text after its request, with nothing else in the context.

    Gives scores, the rows of `layers`, final rows, and how often each token was to be expected.

    Raises:
        ModelError: llama.cpp fails.
    """
    return engine.run_many(
        [
            Pass(
                engine.prompt(messages_for(item.request)),
                engine.tokenize(item.response),
                layers=tuple(layers),
                final=True,
                expected=True,
            )
            for item in items
        ]
    )


def read_beside(
    engine: Engine,
    items: Sequence[HistoryItem],
    others: Sequence[HistoryItem],
    layers: Sequence[int],
    tilts: NDArray[np.float32] | None = None,
) -> list[PassResult]:
    """Run the treatment arm: each text with other texts of the same user in its context.

    Args:
        engine: the model.
        items: the texts whose tokens are asked about, and their requests.
        others: the other texts, the most relevant last; none of `items`.
        layers: blocks to read on the way; may be none.
        tilts: (tilt, n_vocab) also score under each of these.

    Raises:
        ModelError: the texts do not fit the analysis context.
    """
    return engine.run_many(
        [
            Pass(
                engine.prompt(messages_for(item.request, history=others)),
                engine.tokenize(item.response),
                layers=tuple(layers),
                final=True,
                tilts=tilts,
            )
            for item in items
        ]
    )


def effects_of(
    engine: Engine, item: HistoryItem, treatment: PassResult, control: PassResult
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
        threshold: a token above it is an anchor (METHOD's tau), in nats.
        at_least: where fewer are above, the highest so many are taken.
    """
    above = nats > threshold
    if above.sum() < at_least:
        above = np.zeros(len(nats), dtype=np.bool_)
        above[np.argsort(-nats, kind="stable")[:at_least]] = True
    return above


def word_effects(items: Sequence[Effects], *, limit: int = 30) -> tuple[Word, ...]:
    """The words with the largest summed effect over all items.

    A word's effect in an item is the sum over its tokens there, and 0 where it does not occur. The
    interval is a 95% bootstrap over items of its mean. Words of one item alone are left out, as
    they are mostly its topic, unless there is no other.

    Args:
        items: the effects of each item.
        limit: at most so many words, the largest first.
    """
    table: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(len(items)))
    counts: dict[str, int] = defaultdict(int)
    occurs: dict[str, set[int]] = defaultdict(set)
    for item, effects in enumerate(items):
        for word, effect in _words(effects):
            if len(word) > _LONGEST_WORD or not is_printable(word):
                continue  # no word of a language
            table[word][item] += effect
            counts[word] += 1
            occurs[word].add(item)
    words = [word for word in table if len(occurs[word]) > 1] or list(table)
    words = [word for word in words if table[word].sum() > 0]
    words = sorted(words, key=lambda word: (-table[word].sum(), word))[:limit]
    if not words:
        return ()
    by_item = np.stack([table[word] for word in words], axis=1)  # (item, word)
    low, high = bootstrap_mean_interval(by_item)
    mean = by_item.mean(axis=0)
    return tuple(
        Word(
            word=word,
            effect=float(mean[i]),
            low=float(low[i]),
            high=float(high[i]),
            count=counts[word],
            items=len(occurs[word]),
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
    """Whether a text shows as it is; emoji may be joined from several."""
    return text.replace("\u200d", "").isprintable()


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
        words.append(match.group())
    ends = np.cumsum([len(piece) for piece in pieces])
    owners = np.full(len(pieces), -1)
    for place, (end, piece) in enumerate(zip(ends, pieces, strict=True)):
        found = word_of_byte[end - len(piece) : end]
        if (found >= 0).any():
            owners[place] = found[found >= 0][-1]
    return words, owners
