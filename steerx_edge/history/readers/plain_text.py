"""Plain text, with blank lines between the texts."""

from __future__ import annotations

import logging
import re

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem
from steerx_edge.history.readers.source import Options, Source

logger = logging.getLogger(__name__)

# Formats that their content tells: what is called so, and is none, is damaged or of another kind.
_OTHERS = {
    ".rtf": "a Rich Text document",
    ".xml": "XML",
    ".htm": "a web page",
    ".html": "a web page",
}


# Fields between two lines of dashes (YAML), or of plus signs (TOML).
FRONT_MATTER = re.compile(
    r"\s*(?:---[ ]*\n(?=\w[\w.-]*[ ]*:)(?:\w[\w.-]*[ ]*:(?:[ ].*)?\n|[ \t-].*\n|\#.*\n|\n)+?---"
    r"|\+\+\+[ ]*\n(?:.*\n)+?\+\+\+)[ ]*(?:\n|$)"
)


def can_read(_source: Source) -> bool:
    """Return True: any file can be read as text."""
    return True


def read(source: Source, options: Options) -> list[HistoryItem]:
    """Return one item per text, without a request.

    Raises:
        HistoryError: the file cannot be read, or the options name a field or a user.
    """
    if kind := _OTHERS.get(source.suffix):
        raise HistoryError(
            f"{source} is called {kind}, but does not begin like one. Save it again, or call it "
            ".txt if it is plain text."
        )
    text = source.text
    if given := options.given:
        raise HistoryError(
            f"{source} is plain text and has no fields or users. Leave out "
            f"{' and '.join(given)}, or give a file with JSON objects."
        )
    if front := FRONT_MATTER.match(text):
        lines = front.group().rstrip("\n").count("\n") + 1
        logger.warning("%s: skipped the front matter, %d lines.", source, lines)
        text = text[front.end() :]
        if not text.strip():
            raise HistoryError(f"{source} holds front matter alone, and no text.")
    return [HistoryItem(part.strip()) for part in re.split(r"\n\s*\n", text.strip())]
