"""The encoding of text that may be in an older one than UTF-8."""

from __future__ import annotations

import codecs
import logging

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers.extras import needed
from steerx_edge.history.readers.source import Source, encoding_of
from steerx_edge.history.words import with_line_feeds

logger = logging.getLogger(__name__)

_PIECE = 1 << 20
# Of Windows, Unix and the Macintosh, by script. In short texts, others are taken for these.
_LIKELY = [
    *("cp1252", "cp1250", "cp1251", "koi8_r", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257"),
    *("mac_roman", "cp850", "shift_jis", "euc_jp", "iso2022_jp", "gb18030", "big5", "cp949"),
]


def detected_encoding(source: Source) -> str:
    """Return the encoding of a text file: Unicode, else the most probable one, which is logged.

    Raises:
        HistoryError: The file cannot be read or is no text, or the package that detects older
            encodings is missing.
    """
    encoding = encoding_of(source.beginning)
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        with source.open() as file:
            while piece := file.read(_PIECE):
                decoder.decode(piece)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return _older_encoding(source)
    return encoding


def decoded(source: Source) -> str:
    """Return the text of a file in any encoding, with line feeds as line ends.

    Raises:
        HistoryError: As in `detected_encoding`; or there is no text in it.
    """
    try:
        return source.text
    except HistoryError as error:
        if not isinstance(error.__cause__, UnicodeDecodeError):
            raise
    with source.open() as file:
        return with_line_feeds(file.read().decode(_older_encoding(source), "replace"))


def _older_encoding(source: Source) -> str:
    normalizer = needed("charset_normalizer", extra="documents", to=f"read {source}, not in UTF-8")
    with source.open() as file:
        best = normalizer.from_bytes(file.read(_PIECE), cp_isolation=_LIKELY).best()
    if best is None:
        raise HistoryError(f"{source} is in an unknown encoding. Save it as UTF-8 and try again.")
    same = next(name for name in (*_LIKELY, best.encoding) if name in best.could_be_from_charset)
    logger.warning("%s is not in UTF-8; read as %s.", source, same)
    return str(same)
