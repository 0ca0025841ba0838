"""A text file in a folder, such as a note: one text. A long one is split by the selection."""

from __future__ import annotations

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers import known
from steerx_edge.history.readers.encoding import decoded
from steerx_edge.history.readers.sections import Block, texts_of, title_in_name
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Found


def read(source: Source, options: Options) -> Found:
    """Yield the text; its request is made of the name of the file.

    Raises:
        HistoryError: The file cannot be read, is in a format that is not, or has no fields.
    """
    known.refuse(source)
    if options.response or options.prompt or options.user:
        raise HistoryError(f"{source} is plain text and has no fields or users.")
    yield from texts_of([Block(decoded(source))], str(source), title_in_name(source.name))
