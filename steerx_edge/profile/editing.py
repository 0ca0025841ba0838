"""What a user decides about words, applied to an entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from steerx_edge.profile.entry import Entry
from steerx_edge.profile.words import Edit


def with_edits(entry: Entry, edits: Sequence[Edit]) -> Entry:
    """The entry with these edits in the place of those that it has.

    Words that are dropped, or never to be written, move from the entry's list into the edit, and
    back when the edit is no longer there. A word is the same in capitals and in small letters.

    Args:
        entry: the entry; its words may have been learned anew.
        edits: one for each word.
    """
    words = list(entry.words)
    listed = {word.word for word in words}
    words += [w for edit in entry.edits for w in edit.learned if w.word not in listed]
    if len(words) > len(entry.words):
        words.sort(key=lambda word: -word.effect)
    applied = []
    for edit in edits:
        taken = [word for word in words if edit.action != "pin" and is_same(word.word, edit.word)]
        words = [word for word in words if word not in taken]
        applied.append(replace(edit, learned=tuple(taken)))
    return replace(entry, words=tuple(words), edits=tuple(applied))


def with_edit(edits: Sequence[Edit], edit: Edit) -> list[Edit]:
    """Edits with one more, in the place of an earlier one of the same word."""
    return [*without_edit(edits, edit.word), edit]


def without_edit(edits: Sequence[Edit], word: str) -> list[Edit]:
    """Edits without that of a word, if there is one."""
    return [edit for edit in edits if not is_same(edit.word, word)]


def is_same(word: str, other: str) -> bool:
    """Whether two words differ in case at most."""
    return word.casefold() == other.casefold()
