"""Entries that were learned while others changed the file they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from steerx_edge.errors import ProfileError
from steerx_edge.profile.editing import with_edits
from steerx_edge.profile.entry import Entry
from steerx_edge.profile.fields import equal
from steerx_edge.profile.parts import LogitBias, MemoryPart

_Part = TypeVar("_Part", LogitBias, MemoryPart)

_EDITABLE = ("description", "positions", "gate", "strengths", "with_history")
_OF_DIRECTIONS = ("gate", "strengths", "with_history")
"""These mean nothing with other directions, except None."""


def merged(
    entries: Sequence[Entry], before: Sequence[Entry], current: Sequence[Entry]
) -> tuple[Entry, ...]:
    """The entries of a file, with those that changed in the place of the old ones.

    Args:
        entries: as they are to be saved.
        before: as they were in the file when the work on them began.
        current: as they are in the file now.

    Raises:
        ProfileError: the entry was learned anew meanwhile, or its memory was changed.
    """
    old, result = _by_model(before), _by_model(current)
    for fingerprint, entry in _by_model(entries).items():
        base = old.get(fingerprint)
        if entry != base:
            result[fingerprint] = _merged(entry, base, result.get(fingerprint))
    return tuple(result.values())


def _by_model(entries: Sequence[Entry]) -> dict[str, Entry]:
    return {entry.model.fingerprint: entry for entry in entries}


def _merged(entry: Entry, before: Entry | None, current: Entry | None) -> Entry:
    if current is None:
        return entry
    same_memory = current.memory is None or _memory_of(current) == _memory_of(before)
    if before is None or current.created != before.created or not same_memory:
        raise ProfileError(
            f"another program changed the entry for {current.model} meanwhile, so it was not "
            "saved. Run the same command again to replace or extend the entry as it is now"
        )
    deleted = {word.word for word in before.words} - {word.word for word in current.words}
    deleted -= {word.word for edit in current.edits for word in edit.learned}
    same_directions = np.array_equal(entry.directions, current.directions)
    edits: dict[str, Any] = {
        name: getattr(current, name)
        for name in _EDITABLE
        if not equal(getattr(current, name), getattr(before, name))
        and (same_directions or name not in _OF_DIRECTIONS or getattr(current, name) is None)
    }
    if current.description.origin == "user":
        edits["description"] = current.description
    changed = replace(
        entry,
        words=tuple(word for word in entry.words if word.word not in deleted),
        logit_bias=_part(entry.logit_bias, before.logit_bias, current.logit_bias),
        memory=_part(entry.memory, before.memory, current.memory),
        **edits,
    )
    return with_edits(changed, current.edits)


def _memory_of(entry: Entry | None) -> str:
    """The hash of its file."""
    return entry.memory.sha256 if entry and entry.memory else ""


def _part(part: _Part | None, before: _Part | None, current: _Part | None) -> _Part | None:
    """The part, or None if it was set to null meanwhile, at its new strength if that was edited."""
    if part is None or before is None:
        return part
    if current is None:
        return None
    return part if current.strength == before.strength else replace(part, strength=current.strength)
