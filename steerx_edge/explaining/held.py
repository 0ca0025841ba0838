"""What a memory holds of a text, token by token.

A memory knows no texts. As in `forgetting`, the rows of a text are found by their tokens and keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from steerx_edge.forgetting import SAME_KEY
from steerx_edge.steering.memory import Memory, hashes_of

Fate = Literal["kept", "request", "single", "absent"]
"""What became of a token.

"kept": it is in the memory; "request": with weight 0, because its word is in the request; "single":
only its key, because its word occurs in one text and the level is "shared"; "absent": not at all.
"""

FATES: tuple[Fate, ...] = get_args(Fate)

NOWHERE = -1


class Held(NamedTuple):
    """What a memory holds of a text of T tokens, its end included.

    Args:
        rows: (T,) places in the memory, NOWHERE where there is none.
        weights: (T,) from 0 to 1; 0 where there is none.
        fates: T of them.
    """

    rows: NDArray[np.int64]
    weights: NDArray[np.float32]
    fates: tuple[Fate, ...]


def held(memory: Memory, tokens: Sequence[int], keys: NDArray[np.float32]) -> Held:
    """Look up the tokens of a text.

    Args:
        memory: where.
        tokens: T of them, the last one is the end.
        keys: (T, d) unit vectors, of the rows that predict them in the control arm.
    """
    written = np.asarray(tokens)
    rows = np.full(len(written), NOWHERE)
    hidden = np.flatnonzero((memory.tokens == memory.end) & (memory.weights == 0))
    for token in np.unique(written):
        places = np.flatnonzero(written == token)
        known = np.flatnonzero(memory.tokens == token)
        if token == memory.end:
            known = np.setdiff1d(known, hidden)
        rows[places] = _same(memory, known, keys[places])
    single = rows == NOWHERE
    rows[single] = _same(memory, hidden, keys[single])
    single &= rows != NOWHERE
    weights = np.where(rows == NOWHERE, np.float32(0), memory.weights[rows])
    return Held(rows, weights, tuple(map(_fate, rows, weights, single)))


def without(
    memory: Memory, found: Held, tokens: Sequence[int], in_two: NDArray[np.uint32]
) -> Memory | None:
    """Return the memory of all other texts, or None if there are none.

    Args:
        memory: of all texts.
        found: what it holds of one of them.
        tokens: of this text, with its end.
        in_two: hashes of the runs that occur in two texts; those of this one then occur in one.
    """
    kept = np.ones(len(memory.tokens), np.bool_)
    kept[found.rows[found.rows != NOWHERE]] = False
    if not kept.any():
        return None
    runs = hashes_of(np.array(tokens))
    return replace(
        memory,
        keys=memory.keys[kept],
        tokens=memory.tokens[kept],
        weights=memory.weights[kept],
        single=np.union1d(np.setdiff1d(memory.single, runs), np.intersect1d(in_two, runs)),
        ledger=None,
    )


def _same(memory: Memory, known: NDArray[np.int64], keys: NDArray[np.float32]) -> NDArray[np.int64]:
    """(m,) the one of the known rows with the same key as each of (m, d), or NOWHERE."""
    if not len(known) or not len(keys):
        return np.full(len(keys), NOWHERE)
    units = memory.keys[known].astype(np.float32)
    cosines = keys @ units.T / np.linalg.norm(units, axis=1)
    nearest = cosines.argmax(axis=1)
    return np.where(cosines.max(axis=1) > SAME_KEY, known[nearest], NOWHERE)


def _fate(row: int, weight: float, is_single: bool) -> Fate:
    if row == NOWHERE:
        return "absent"
    if is_single:
        return "single"
    return "kept" if weight else "request"
