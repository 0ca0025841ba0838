"""Plain text, with blank lines between the texts."""

from __future__ import annotations

import re

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem
from steerx_edge.history.readers.source import Options, Source


def can_read(_source: Source) -> bool:
    """Return True: any file can be read as text."""
    return True


def read(source: Source, options: Options) -> list[HistoryItem]:
    """Return one item per text, without a request.

    Raises:
        HistoryError: the file cannot be read, or the options name a field or a user.
    """
    text = source.text
    given = [name for name, value in options._asdict().items() if value is not None]
    if given:
        raise HistoryError(
            f"{source.path} is plain text and has no fields or users. Leave out "
            f"{' and '.join(given)}, or give a file with JSON objects."
        )
    return [HistoryItem(part.strip()) for part in re.split(r"\n\s*\n", text.strip())]
