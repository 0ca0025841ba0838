"""From which of the user's texts a memory took what it added to an answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from steerx_edge.forgetting import same_keys
from steerx_edge.learning.ablation import Progress
from steerx_edge.learning.texts import requests_for, shortened
from steerx_edge.learning.totals import CHUNK
from steerx_edge.llamacpp.requests import asked_for
from steerx_edge.steering.memory import TEMPERATURE, Memory

if TYPE_CHECKING:
    from steerx_edge.explaining.answers import Answers, Attribution
    from steerx_edge.history.item import HistoryItem
    from steerx_edge.llamacpp.engine import Engine

SHOWN = 3
"""Rows that are named for a token, at most."""

_AROUND = 8
"""Tokens of a text that are shown before and after the one that was found."""


class Neighbor(NamedTuple):
    """A row of the memory that offered a token.

    Args:
        row: its place in the memory.
        share: of what the memory offered for this token, 0 to 1.
    """

    row: int
    share: float


class Source(NamedTuple):
    """A token of a text of the user that the memory offered.

    Args:
        place: of the text in the history, from 0.
        before: the text before the token, shortened.
        token: its text.
        after: the text after it, shortened.
    """

    place: int
    before: str
    token: str
    after: str


def neighbors(memory: Memory, found: Attribution) -> list[list[Neighbor]]:
    """The rows that offered each token of an answer, the largest share first; none if none did."""
    offers = memory.offers(found.rows)
    keys = memory.space.keys(found.rows)
    nearest = []
    for place, token in enumerate(found.tokens):
        tokens, shares = offers.after(np.array(found.tokens[:place], np.int32), place)[:2]
        is_offered = len(tokens) == offers.tokens.shape[1] and shares[tokens == token].sum() > 0
        n_rows = int((offers.tokens[place] == token).sum()) if is_offered else 0
        nearest.append(_nearest(memory, keys[place], token, n_rows))
    return nearest


class Origins(NamedTuple):
    """Where the memory has the tokens of an answer from.

    Args:
        neighbors: of each token, the rows that offered it, the largest share first.
        texts: where these rows stand in the history; None if no history is at hand.
    """

    neighbors: list[list[Neighbor]]
    texts: dict[int, list[Source]] | None


def sources_of(
    engine: Engine,
    answers: Answers,
    history: Sequence[HistoryItem] | None,
    progress: Progress = lambda _what, _done, _of: None,
) -> Origins:
    """Where the memory has the tokens of the steered answer from.

    Args:
        engine: the model.
        answers: of this model.
        history: the texts that the profile was learned from, if they are at hand.
        progress: called with "your texts".

    Raises:
        ModelError: llama.cpp fails.
    """
    memory = answers.memory
    if memory is None:
        return Origins([[] for _ in answers.steered.tokens], None if history is None else {})
    nearest = neighbors(memory, answers.steered)
    if history is None:
        return Origins(nearest, None)
    rows = [each.row for token in nearest for each in token[:SHOWN]]
    return Origins(nearest, find_rows(engine, memory, rows, history, progress))


def find_rows(
    engine: Engine,
    memory: Memory,
    wanted: Sequence[int],
    history: Sequence[HistoryItem],
    progress: Progress = lambda _what, _done, _of: None,
) -> dict[int, list[Source]]:
    """Find rows of a memory in the texts of a history.

    Only texts that hold a token of these rows are read, those first that hold most of them, until
    every row is found.

    Args:
        engine: the model.
        memory: the rows.
        wanted: places of rows.
        history: the texts, with their requests as they were learned.
        progress: called with "your texts".

    Returns:
        Where each row that was found occurs; texts that begin alike share rows.

    Raises:
        ModelError: llama.cpp fails.
    """
    rows = np.unique(np.array(wanted, np.int64))
    missing = {*rows.tolist()}
    items = [shortened(engine, item) for item in history]
    offered = {*memory.tokens[rows].tolist()}
    counts = [len(offered & {*engine.tokenize(item.response), memory.end}) for item in items]
    order = [place for place in np.argsort(counts)[::-1].tolist() if counts[place]]
    found: dict[int, list[Source]] = defaultdict(list)
    for begin in range(0, len(order), CHUNK):
        if not missing:
            break
        progress("your texts", begin, len(order))
        chunk = order[begin : begin + CHUNK]
        requests = requests_for(engine, [items[place] for place in chunk], final=True)
        results = engine.run_many(requests)
        for place, request, result in zip(chunk, requests, results, strict=True):
            tokens = [*request.response, memory.end]
            keys = memory.space.keys(asked_for(result.final))
            for row, at in zip(*_matches(memory, rows, tokens, keys), strict=True):
                found[row].append(_source(engine, place, tokens, at))
        missing -= found.keys()
    progress("your texts", len(order), len(order))
    return dict(found)


def _nearest(memory: Memory, key: NDArray[np.float32], token: int, n_rows: int) -> list[Neighbor]:
    """The `n_rows` rows of a token that are nearest to a key, with their shares."""
    if not n_rows:
        return []
    rows = np.flatnonzero(memory.tokens == token)
    units = memory.keys[rows].astype(np.float32)
    similarity = units @ key / np.linalg.norm(units, axis=1)
    best = np.argsort(-similarity, kind="stable")[:n_rows]
    shares = np.exp((similarity[best] - similarity[best[0]]) / TEMPERATURE)
    shares *= memory.weights[rows[best]]
    shares /= shares.sum()
    order = np.argsort(-shares, kind="stable")
    return [Neighbor(int(rows[best[i]]), float(shares[i])) for i in order if shares[i] > 0]


def _matches(
    memory: Memory, rows: NDArray[np.int64], tokens: Sequence[int], keys: NDArray[np.float32]
) -> tuple[list[int], list[int]]:
    """Which of some rows are which tokens of a text: the rows, and the places in the text."""
    same = same_keys(memory.keys[rows], keys) & (memory.tokens[rows, None] == np.array(tokens))
    which, places = np.nonzero(same)
    return rows[which].tolist(), places.tolist()


def _source(engine: Engine, place: int, tokens: Sequence[int], at: int) -> Source:
    pieces = [*engine.pieces(tokens[:-1]), b""]

    def text(begin: int, end: int) -> str:
        return b"".join(pieces[max(0, begin) : end]).decode(errors="ignore")

    cut_before, cut_after = at > _AROUND, at + 1 + _AROUND < len(pieces) - 1
    return Source(
        place,
        ("…" if cut_before else "") + text(at - _AROUND, at),
        text(at, at + 1),
        text(at + 1, at + 1 + _AROUND) + ("…" if cut_after else ""),
    )
