"""Remove the rows of some texts from a memory.

A memory file holds no text ids, so the rows of a text are found as they were computed: the model
reads the text, and the rows with the same tokens and keys are removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from steerx_edge.learning.texts import items_of, requests_for, shortened
from steerx_edge.llamacpp.requests import asked_for
from steerx_edge.profile import MemoryPart, Profile
from steerx_edge.steering.memory import KeySpace, Memory, hashes_of

if TYPE_CHECKING:
    from steerx_edge.history.item import HistoryItem
    from steerx_edge.llamacpp.engine import Engine

SAME_KEY = 0.98
"""Cosine above which two keys count as equal: keys are rounded, and batches differed."""


class Forgotten(NamedTuple):
    """A profile without the rows of some texts.

    Attributes:
        profile: not saved yet.
        n_removed: how many rows were removed.
        n_tokens: how many tokens the texts have, their ends included.
        n_missing: for how many of these no row was found.
    """

    profile: Profile
    n_removed: int = 0
    n_tokens: int = 0
    n_missing: int = 0


def forget_texts(engine: Engine, profile: Profile, items: Sequence[str | HistoryItem]) -> Forgotten:
    """Remove the rows of some texts from the memory of a model.

    Args:
        engine: the model.
        profile: a profile with an entry for the model.
        items: the texts as they were learned, with their requests if they had any.

    Returns:
        The profile without these rows, and how much of the texts was found.

    Raises:
        ProfileError: the profile has no entry for this model.
        ModelError: llama.cpp fails.
        HistoryError: an item is no text.
    """
    entry = profile.entry_for(engine.model_id)
    part = entry.memory
    if part is None or part.memory is None:
        return Forgotten(profile)
    memory, end = part.memory, engine.end_of_turn
    read = _read(engine, memory.space, items_of(items))
    rows, tokens = _found(memory, read, end)
    kept = ~rows
    n_removed, n_missing = int(rows.sum()), int((~tokens).sum())
    if not n_removed:
        return Forgotten(profile, 0, len(tokens), n_missing)
    left = None
    if kept.any():
        rest = replace(
            memory,
            keys=memory.keys[kept],
            tokens=memory.tokens[kept],
            weights=memory.weights[kept],
            single=np.setdiff1d(
                memory.single, np.concatenate([hashes_of(np.array(t.tokens)) for t in read])
            ),
            ledger=None,  # its sums are over all texts
        )
        left = MemoryPart.of(rest, strength=part.strength, level=part.level)
    changed = profile.with_entry(replace(entry, memory=left))
    return Forgotten(changed, n_removed, len(tokens), n_missing)


def rows_of(engine: Engine, memory: Memory, items: Sequence[HistoryItem]) -> NDArray[np.bool_]:
    """Return which rows of a memory belong to some texts: (n,)."""
    return _found(memory, _read(engine, memory.space, items), engine.end_of_turn)[0]


class _Text(NamedTuple):
    """A text of T tokens, including its end, and the keys of the rows that predict them: (T, d)."""

    tokens: list[int]
    keys: NDArray[np.float32]


def _read(engine: Engine, space: KeySpace, items: Sequence[HistoryItem]) -> list[_Text]:
    """Read texts as `learn` does."""
    texts = [shortened(engine, item) for item in items]
    passes = requests_for(engine, texts, final=True)
    return [
        _Text([*request.response, engine.end_of_turn], space.keys(asked_for(result.final)))
        for request, result in zip(passes, engine.run_many(passes), strict=True)
    ]


def _found(
    memory: Memory, texts: Sequence[_Text], end: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows of the memory belong to the texts (n,), and which tokens have rows (m,)."""
    keys = np.concatenate([text.keys for text in texts])
    tokens = np.concatenate([text.tokens for text in texts])
    found, has_row = np.zeros(len(memory.tokens), np.bool_), np.zeros(len(tokens), np.bool_)
    for token in np.unique(tokens):
        rows, places = np.flatnonzero(memory.tokens == token), np.flatnonzero(tokens == token)
        same = same_keys(memory.keys[rows], keys[places])
        found[rows], has_row[places] = same.any(axis=1), same.any(axis=0)
    # A token that the level excludes is stored as the end of a text, with weight 0 and its own key.
    hidden = np.flatnonzero((memory.tokens == end) & (memory.weights == 0))
    same = same_keys(memory.keys[hidden], keys)
    found[hidden] |= same.any(axis=1)
    has_row |= same.any(axis=0)
    return found, has_row


def same_keys(stored: NDArray[np.int8], keys: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which stored keys (n, d) equal which keys (m, d) of unit length: (n, m)."""
    units = stored.astype(np.float32)
    same: NDArray[np.bool_] = units @ keys.T > SAME_KEY * np.linalg.norm(
        units, axis=1, keepdims=True
    )
    return same
