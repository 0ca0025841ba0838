"""The lines of a mail, and how deep they are quoted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

_QUOTED = re.compile(r"(?:>[ ]?)*>")
_ITEM = re.compile(r"\s*(?:[-*+•–—>|]\s|\d{1,3}[.)]\s|\s{2,})")
_WIDTH, _WIDEST = 72, 80
_SHORT = 3


class Line(NamedTuple):
    """A line, without its marks of quotation.

    Attributes:
        text: What it says, without the line end.
        depth: 0 is the sender's own, 1 a quote, 2 a quote in a quote.
    """

    text: str
    depth: int = 0


def fixed_lines(text: str) -> list[Line]:
    """Read lines that end where the text says so."""
    return [fixed_line(line) for line in text.split("\n")]


def fixed_line(line: str, depth: int = 0) -> Line:
    """Read a line with its marks of quotation, which add to a depth."""
    marks = _QUOTED.match(line)
    if not marks:
        return Line(line.rstrip(), depth)
    return Line(line[marks.end() :].removeprefix(" ").rstrip(), depth + marks.group().count(">"))


def flowed_lines(text: str, *, delete_space: bool) -> list[Line]:
    """Read `format=flowed` (RFC 3676): a line that ends with a space goes on in the next one.

    Args:
        text: The text.
        delete_space: `DelSp=yes`: the space is not part of the text.
    """
    lines: list[Line] = []
    is_open = False
    for raw in text.split("\n"):
        bare = raw.lstrip(">")
        depth = len(raw) - len(bare)
        stuffed = bare.removeprefix(" ")
        if depth and (more := _QUOTED.match(stuffed)):  # by programs that break the rule
            depth += more.group().count(">")
            stuffed = stuffed[more.end() :].removeprefix(" ")
        flows = stuffed.endswith(" ") and stuffed != "-- "
        content = stuffed[:-1] if flows and delete_space else stuffed
        if is_open and lines[-1].depth == depth and stuffed != "-- ":
            lines[-1] = Line(lines[-1].text + content, depth)
        else:
            lines.append(Line(content, depth))
        is_open = flows
    return [Line(line.text.rstrip(), line.depth) for line in lines]


def unwrapped(lines: Sequence[str]) -> list[str]:
    """Join lines that a program broke, because the next word had no place in 72 columns.

    A text with a longer line than 80 was not broken.
    """
    width = max((len(line) for line in lines if " " in line.strip()), default=0)
    if width > _WIDEST:
        return list(lines)
    joined: list[str] = []
    was = ""  # the last line as it stood, which says whether there was place
    for line in lines:
        if joined and _goes_on(was, line):
            joined[-1] = f"{joined[-1]} {line.lstrip()}"
        else:
            joined.append(line)
        was = line
    return joined


def _goes_on(line: str, following: str) -> bool:
    if not line.strip() or not following.strip() or _ITEM.match(following):
        return False
    if line.rstrip().endswith((".", "!", "?", ":", ",")) and len(following.split()) < _SHORT:
        return False  # a sign-off, or a name
    first = following.split()[0]
    return len(line) > _WIDTH // 2 and len(line) + 1 + len(first) > _WIDTH
