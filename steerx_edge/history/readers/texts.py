"""What a reader finds in a person's files: their texts, and what is left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from steerx_edge.history.item import HistoryItem

UNREADABLE = "file that could not be read"
DAMAGED = "damaged record"


@dataclass(frozen=True)
class Text:
    """One text by the person.

    Attributes:
        item: The text, and the request that it answers.
        where: Its place in the history, as messages name it: ``Sent: message 12``.
        written: When it was written, with a time zone; None if the file does not say.
        language: The ISO 639 code of its language; empty if it is not clear, or does not matter. A
            reader leaves it empty.
    """

    item: HistoryItem
    where: str
    written: datetime | None = None
    language: str = ""


@dataclass(frozen=True)
class Dropped:
    """Something that is not learned from.

    Attributes:
        reason: Why, in a few words that are the same for all of its kind: ``automatic reply``.
            They name no text.
        where: As in `Text`.
        excerpt: The beginning of it, for the person to see. It is never logged.
    """

    reason: str
    where: str
    excerpt: str = ""


Found: TypeAlias = Iterator[Text | Dropped]
