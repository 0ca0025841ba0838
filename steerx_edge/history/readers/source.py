"""A file that holds a history, and the options to read it with."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers.json_records import Record, Template, read_records
from steerx_edge.history.words import with_line_feeds

_JSON_SUFFIXES = {".json", ".jsonl", ".ndjson"}
# An object, or an array of them.
_JSON = re.compile(r"""\s*(?:\[\s*)?\{\s*(?:\}|"[^"\n]*"\s*:)""")

ADVICE = (
    'Convert it to JSON lines with "prompt" and "response", or to plain text with blank lines '
    "between the texts."
)

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BINARY = (
    (b"PK\x03\x04", "a ZIP archive, or a document in one (.docx, .odt, .epub)"),
    (b"%PDF-", "a PDF document"),
    (b"\xd0\xcf\x11\xe0", "an older Microsoft Office or Outlook file (.doc, .msg)"),
    (b"!BDN", "an Outlook mailbox (.pst)"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"bplist00", "a binary property list"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!\x1a", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"PAR1", "a Parquet table"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"GGUF", "a GGUF model"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"GIF8", "an image"),
    (b"RIFF", "an image, a sound or a video"),
    (b"ID3\x03", "a sound"),
    (b"ID3\x04", "a sound"),
    (b"OggS", "a sound or a video"),
)


class Options(NamedTuple):
    """What the user says about a file."""

    user: str | None = None
    response: str | None = None
    prompt: Template | None = None


class Source:
    """A file, read and parsed once, on first use.

    Every property raises a `HistoryError` if the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def text(self) -> str:
        """The content of the file, with line feeds as line ends."""
        return _decoded(self.path, self._data)

    @cached_property
    def rough_text(self) -> str:
        """The content, to see what it is; what is in another encoding is replaced."""
        with suppress(HistoryError):
            return self.text
        return with_line_feeds(self._data.decode(_encoding_of(self._data), "replace"))

    @cached_property
    def is_json(self) -> bool:
        """Whether the file holds JSON, judged by its content; by its suffix if that is broken."""
        text = self.rough_text
        if _JSON.match(text) or self.path.suffix.lower() in _JSON_SUFFIXES:
            return not text.startswith("window.YTD.")
        try:
            return text.lstrip().startswith("[") and bool(json.loads(text))
        except (ValueError, RecursionError):
            return False

    @cached_property
    def _data(self) -> bytes:
        return _read_bytes(self.path)

    @cached_property
    def records(self) -> Sequence[Record]:
        """The JSON objects in the file."""
        return read_records(self.path, self.text)


def read_text(path: Path) -> str:
    """Read a text file in UTF-8 or UTF-16, with line feeds as line ends.

    Raises:
        HistoryError: the file is missing, empty, not text, or in another encoding.
    """
    return _decoded(path, _read_bytes(path))


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise HistoryError(f"There is no file {path}. Check the path.") from error
    except IsADirectoryError as error:
        raise HistoryError(f"{path} is a directory. Give one file with your texts.") from error
    except OSError as error:
        raise HistoryError(f"{path} cannot be read: {error.strerror or error}.") from error
    for beginning, name in _BINARY:
        if data.startswith(beginning):
            raise HistoryError(f"{path} is {name}, which is not supported yet. {ADVICE}")
    return data


def _decoded(path: Path, data: bytes) -> str:
    encoding = _encoding_of(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise HistoryError(
            f"{path} is not {encoding.removesuffix('-sig').upper()} text (byte "
            f"0x{error.object[error.start]:02x} on line {line}). Save it as UTF-8 and try again."
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise HistoryError(
            f"{path} holds a zero byte on line {line}, so it is not a text file. {ADVICE}"
        )
    if not text.strip():
        raise HistoryError(f"{path} is empty. Give a file with your texts.")
    return with_line_feeds(text)


def _encoding_of(data: bytes) -> str:
    """UTF-8, or UTF-16 or UTF-32 by its byte order mark, or UTF-16 by its zero bytes."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    # Every other byte of UTF-16 is zero in Latin letters, and in the spaces of other scripts.
    even, odd = data[::2].count(0), data[1::2].count(0)
    if len(data) % 2 == 0 and max(even, odd) > max(1, 10 * min(even, odd)):
        return "utf-16-be" if even > odd else "utf-16-le"
    return "utf-8-sig"
