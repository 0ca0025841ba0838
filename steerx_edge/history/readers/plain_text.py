"""Plain text."""

from __future__ import annotations

import re
from pathlib import Path

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem


def refuse_for_text(file: Path, **given: str | None) -> None:
    """Refuse what chooses from records where there are none."""
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise HistoryError(
            f"{file} is plain text, which has no fields or users to choose from. Leave out "
            f"{' and '.join(names)}, or give a file of JSON objects."
        )


def passages_of(text: str) -> list[HistoryItem]:
    """Passages that are parted by blank lines, an item each."""
    return [HistoryItem(passage.strip()) for passage in re.split(r"\n\s*\n", text.strip())]
