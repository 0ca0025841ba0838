"""What a reader finds, before the rules that are the same for all formats."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from steerx_edge.history.item import HistoryItem
from steerx_edge.history.readers import READERS
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Dropped, Found, Text


class ReadHistory(NamedTuple):
    """A history as its reader finds it."""

    format: str
    found: Found

    def sorted(self) -> tuple[list[HistoryItem], Counter[str]]:
        """The items, and how many things were dropped for each reason."""
        found = list(self.found)
        return (
            [each.item for each in found if isinstance(each, Text)],
            Counter(each.reason for each in found if isinstance(each, Dropped)),
        )


def as_its_reader_finds(path: Path, me: str = "") -> ReadHistory:
    """Read a history by the reader of its format alone."""
    source = Source(path)
    reader = next(reader for reader in READERS if reader.recognize(source))
    return ReadHistory(reader.NAME, reader.read(source, Options(me=(me,) if me else ())))
