"""What `edit` opens in an editor: the description, and a line for each word."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, get_args

from steerx_edge.editing import Wish
from steerx_edge.errors import ProfileError
from steerx_edge.profile.editing import is_same
from steerx_edge.profile.words import Action

if TYPE_CHECKING:
    from steerx_edge.profile import Profile

_RULE = "-------- words --------"
_HELP = """
# Above the rule: your description, in your own words.
# Below it, a word a line. Put in the place of "keep"
#   drop   the profile adds nothing for this word
#   never  and no answer contains it; also for words and phrases that you add
#   pin    the memory offers it wherever you used it
# "keep" undoes this. Here, lines that begin with # are left out.
# Change nothing to leave all as it is.
"""
_LINE = re.compile(r"(keep|drop|never|pin)\s+(\S.*)")


def sheet_of(profile: Profile) -> str:
    """The description and the words of a profile's first entry, and its edits."""
    entry = profile.entries[0]
    lines = [f"keep   {word.word}" for word in entry.words if not _action(profile, word.word)]
    lines += [f"{edit.action:6} {edit.word}" for edit in entry.edits]
    return "\n".join([entry.description.text, "", _RULE, *lines, _HELP])


def read_sheet(profile: Profile, text: str) -> tuple[str | None, list[Wish], tuple[str, ...]]:
    """What was changed in the sheet of a profile.

    Returns:
        The description, or None where it is as before; decisions that are new; and the words whose
        edits are undone. Lines that were removed change nothing.

    Raises:
        ProfileError: a line is not one of these.
    """
    lines = [line for line in text.splitlines() if line not in _HELP.splitlines()[1:]]
    rule = lines.index(_RULE) if _RULE in lines else len(lines)
    description = "\n".join(lines[:rule]).strip()
    wishes, undone = [], []
    for line in filter(None, map(str.strip, lines[rule + 1 :])):
        if line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if not found:
            raise ProfileError(
                f"{line[:40]!r} is not a line such as 'drop cheers'. Nothing was changed."
            )
        choice, word = found.groups()
        before = _action(profile, word)
        if choice == "keep" and before:
            undone.append(word)
        for action in get_args(Action):
            if choice == action != before:
                wishes.append(Wish.of(action, word))
    changed = description != profile.entries[0].description.text.strip()
    return description if changed else None, wishes, tuple(undone)


def _action(profile: Profile, word: str) -> Action | None:
    """What was decided about a word."""
    for edit in profile.entries[0].edits:
        if is_same(edit.word, word):
            return edit.action
    return None
