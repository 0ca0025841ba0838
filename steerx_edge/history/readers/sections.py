"""The texts of a document: its sections, and requests for them that are made of the headings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import PurePosixPath
from typing import NamedTuple

from steerx_edge.history.item import HistoryItem
from steerx_edge.history.readers.texts import Text
from steerx_edge.history.words import letter_words

# How programs name what has no name yet.
_NAMELESS = re.compile(
    r"(?:untitled|unnamed|unbenannt|ohne titel|sans titre|senza titolo|sin título|document|dokument"
    r"|documento|notes?|new|text|draft|scan|readme|index|img|dsc|photo)"
    r"(?:[\W\d]|copy|kopie|copie|final|new|v\d)*",
    re.IGNORECASE,
)


class Block(NamedTuple):
    """A paragraph, or a heading.

    Attributes:
        text: What it says.
        level: Of a heading, from 1, the outermost; 0 for a paragraph.
        is_item: Whether it is an item of a list, as are those on the lines before and after it.
    """

    text: str
    level: int = 0
    is_item: bool = False


def texts_of(
    blocks: Iterable[Block], where: str, title: str = "", written: datetime | None = None
) -> Iterator[Text]:
    """Yield one text for each section, and the request to write it.

    Args:
        blocks: The document.
        where: Its name.
        title: What the whole document is about, where no heading of level 1 says it.
        written: When it was written.
    """
    headings: dict[int, str] = {}
    section, after_item = "", False
    number = 0
    for block in (*blocks, Block("", 1)):
        if not block.level:
            if block.text.strip():
                gap = "\n" if after_item and block.is_item else "\n\n"
                section += (gap if section else "") + block.text.strip("\n")
                after_item = block.is_item
            continue
        if section.strip():
            number += 1
            heading = headings[max(headings)] if headings else ""
            request = request_for(headings.get(1, title), heading)
            item = HistoryItem(section.strip(), request)
            yield Text(item, f"{where}: section {number}", written)
            section = ""
        headings = {level: name for level, name in headings.items() if level < block.level}
        if block.text.strip():
            headings[block.level] = " ".join(block.text.split())


def request_for(title: str, heading: str = "") -> str:
    """Return the request to write about something; empty if nothing is known about it."""
    about = dict.fromkeys(each.strip().rstrip(".:") for each in (title, heading))
    named = ": ".join(each for each in about if each)
    return f"Write about {named}" if named else ""


def title_in_name(name: str) -> str:
    """Return what the name of a file says about it; empty if it says nothing.

    Dates and numbers at its beginning do not belong to it.
    """
    stem = re.sub(r"^[\d\W_]+", "", PurePosixPath(name).stem.replace("_", " "))
    if " " not in stem:
        stem = stem.replace("-", " ")
    telling = any(len(word) > 2 for word in letter_words(stem)) and not _NAMELESS.fullmatch(stem)
    return stem.strip() if telling else ""
