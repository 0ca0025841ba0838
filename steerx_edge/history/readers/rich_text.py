"""Rich Text (.rtf), as TextEdit and WordPad write it."""

from __future__ import annotations

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers.extras import needed
from steerx_edge.history.readers.sections import Block, texts_of, title_in_name
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Found

NAME = "a Rich Text document"


def recognize(source: Source) -> str:
    """Return what shows that a file is Rich Text."""
    return r"it begins with '{\rtf'" if source.beginning.startswith(b"{\\rtf") else ""


def read(source: Source, _options: Options) -> Found:
    """Yield the text of the document; its request is made of the name of the file.

    Raises:
        HistoryError: The file is damaged, or the package that reads it is missing.
    """
    striprtf = needed("striprtf.striprtf", extra="documents", to="read Rich Text")
    with source.open() as file:
        content = file.read().decode("cp1252", "replace")
    try:
        text = striprtf.rtf_to_text(content, errors="ignore")
    except (ValueError, LookupError, OverflowError, RecursionError) as error:
        raise HistoryError(f"{source} is a damaged Rich Text document.") from error
    yield from texts_of([Block(text)], str(source), title_in_name(source.name))
