"""Files and folders that hold a history, and the options to read them with."""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import stat
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

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

_BEGINNING = 1 << 16
_ZIP = b"PK\x03\x04"
# An archive that has one of these is a document: of Microsoft Office, OpenDocument or EPUB.
_OF_DOCUMENTS = {"[Content_Types].xml", "mimetype"}
_OF_SYSTEMS = {"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"}

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BINARY = (
    (b"PK\x03\x04", "a ZIP archive, or a document in one (.xlsx, .pptx, .epub)"),
    (b"%PDF-", "a PDF document"),
    (b"\xd0\xcf\x11\xe0", "an older Microsoft Office file (.doc, .xls)"),
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
_ADVICE = {
    b"PK\x03\x04": "Save a table as CSV, and another document as .docx, .odt or plain text.",
    b"%PDF-": "It holds the lines of pages, not paragraphs: give the document that it was made "
    "from, or convert it to plain text (pdftotext) and correct that.",
}


class Options(NamedTuple):
    """What the user says about a history.

    Attributes:
        user: the author to read, of a per-author file.
        response: the field with the text.
        prompt: the request of each text.
        me: names and addresses of the person.
    """

    user: str | None = None
    response: str | None = None
    prompt: Template | None = None
    me: tuple[str, ...] = ()

    @property
    def given(self) -> list[str]:
        """The names of those that are given, which only some formats have; without `me`."""
        return [name for name in ("user", "response", "prompt") if getattr(self, name) is not None]


class Source:
    """A file, a folder or a ZIP archive of files; read and parsed once, on first use.

    Every property and method raises a `HistoryError` if the file cannot be read.

    Args:
        path: on disk, or in an archive.
        name: as messages name it.
    """

    def __init__(self, path: Path | zipfile.Path, name: str | None = None) -> None:
        self.path = path
        self._name = str(path) if name is None else name

    def __str__(self) -> str:
        return self._name

    @property
    def name(self) -> str:
        """The last part of its path; empty for the root of an archive."""
        return self.path.name

    @property
    def suffix(self) -> str:
        """The ending of its name, in lower case, with the dot."""
        return PurePosixPath(self.name).suffix.lower()

    @cached_property
    def is_folder(self) -> bool:
        """Whether it is a folder, or an archive of files, which reads like one."""
        root = self._root
        # A path that is too long is no folder, but pathlib raises.
        return root.is_dir() if isinstance(root, zipfile.Path) else os.path.isdir(root)  # noqa: PTH112

    def children(self) -> Iterator[Source]:
        """What a folder holds, by name; without what macOS and Windows put there."""
        try:
            inside: list[Path | zipfile.Path] = list(self._root.iterdir())
        except OSError as error:
            raise HistoryError(f"{self} cannot be read: {error.strerror or error}.") from error
        for path in sorted(inside, key=lambda path: path.name):
            if path.name not in _OF_SYSTEMS:
                yield Source(path, f"{self}/{path.name}")

    def child(self, *names: str) -> Source | None:
        """The file or folder at a place below a folder; None if it is not there."""
        if not self.is_folder:
            return None
        path = self._root.joinpath(*names)
        return Source(path, "/".join((str(self), *names))) if path.exists() else None

    def files(self) -> Iterator[Source]:
        """Every file below a folder, in order of its path. Archives in it are files.

        A link to a folder is not followed, so that no circle is.
        """
        for child in self.children():
            if not child.path.is_dir():
                yield child
            elif not (isinstance(child.path, Path) and child.path.is_symlink()):
                yield from child.files()

    def open(self) -> IO[bytes]:
        """Open a file, to be read piece by piece."""
        return _open(self.path, self._name)

    @cached_property
    def beginning(self) -> bytes:
        """The first 64 KiB of a file; nothing of a folder."""
        if self.is_folder:
            return b""
        with self.open() as file:
            return file.read(_BEGINNING)

    @cached_property
    def can_be_read(self) -> bool:
        """Whether a file can be opened: one that cannot must not hide what its folder is."""
        try:
            return isinstance(self.beginning, bytes)
        except HistoryError:
            return False

    @cached_property
    def text(self) -> str:
        """The content of the file, with line feeds as line ends."""
        return _decoded(self._name, self._data)

    def lines(self) -> Iterator[str]:
        """Read the file line by line; each ends with a line feed, but the last one may not."""
        encoding = encoding_of(self.beginning)
        number = 0
        with self.open() as file, io.TextIOWrapper(file, encoding) as text:
            try:
                for number, line in enumerate(text, start=1):
                    if "\0" in line:
                        raise _zero_byte(self._name, number)
                    yield line
            except UnicodeDecodeError as error:
                raise _wrong_encoding(self._name, encoding, error, number) from error

    @cached_property
    def rough_text(self) -> str:
        """The content, to see what it is; what is in another encoding is replaced."""
        with suppress(HistoryError):
            return self.text
        return with_line_feeds(self._data.decode(encoding_of(self._data), "replace"))

    @cached_property
    def is_json(self) -> bool:
        """Whether the file holds JSON, judged by its content; by its suffix if that is broken."""
        text = self.rough_text
        if _JSON.match(text) or self.suffix in _JSON_SUFFIXES:
            return not text.startswith("window.YTD.")
        try:
            return text.lstrip().startswith("[") and bool(json.loads(text))
        except (ValueError, RecursionError):
            return False

    @cached_property
    def _root(self) -> Path | zipfile.Path:
        """The root of an archive that holds files rather than a document; else the path."""
        if isinstance(self.path, zipfile.Path) or not os.path.isfile(self.path):  # noqa: PTH113
            return self.path
        with self.open() as file:
            if file.read(len(_ZIP)) != _ZIP:
                return self.path
        try:
            archive = zipfile.ZipFile(self.path)
        except (OSError, zipfile.BadZipFile) as error:
            raise HistoryError(f"{self} is a damaged ZIP archive ({error}).") from error
        names = set(archive.namelist())
        return self.path if names & _OF_DOCUMENTS else zipfile.Path(archive)

    @cached_property
    def _data(self) -> bytes:
        with self.open() as file:
            beginning = file.read(_BEGINNING)
            _refuse_binary(self._name, beginning)  # before a film is read into memory
            return beginning + file.read()

    @cached_property
    def records(self) -> Sequence[Record]:
        """The JSON objects in the file."""
        return read_records(self._name, self.text)


def _open(path: Path | zipfile.Path, name: str) -> IO[bytes]:
    try:
        if isinstance(path, Path) and stat.S_ISFIFO(path.stat().st_mode):
            raise HistoryError(f"{name} is a pipe, which can be read only once. Save it as a file.")
        return path.open("rb")
    except FileNotFoundError as error:
        raise HistoryError(f"There is no file {name}. Check the path.") from error
    except (RuntimeError, NotImplementedError) as error:  # of an archive: encrypted, or unknown
        raise HistoryError(f"{name} cannot be read: {error}. Unpack the archive first.") from error
    except OSError as error:
        raise HistoryError(f"{name} cannot be read: {error.strerror or error}.") from error


def _refuse_binary(name: str, data: bytes) -> None:
    for beginning, kind in _BINARY:
        if data.startswith(beginning):
            advice = _ADVICE.get(beginning, ADVICE)
            raise HistoryError(f"{name} is {kind}, which is not read. {advice}")


def _decoded(name: str, data: bytes) -> str:
    encoding = encoding_of(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise _wrong_encoding(name, encoding, error) from error
    if "\0" in text:
        raise _zero_byte(name, text.count("\n", 0, text.index("\0")) + 1)
    if not text.strip():
        raise HistoryError(f"{name} is empty. Give a file with your texts.")
    return with_line_feeds(text)


def _wrong_encoding(
    name: str, encoding: str, error: UnicodeDecodeError, n_lines: int = 0
) -> HistoryError:
    """An error of data in which a number of lines precede those that were decoded last."""
    line = n_lines + error.object.count(b"\n", 0, error.start) + 1
    return HistoryError(
        f"{name} is not {encoding.removesuffix('-sig').upper()} text (byte "
        f"0x{error.object[error.start]:02x} on line {line}). Save it as UTF-8 and try again."
    )


def _zero_byte(name: str, line: int) -> HistoryError:
    return HistoryError(
        f"{name} holds a zero byte on line {line}, so it is not a text file. {ADVICE}"
    )


def encoding_of(data: bytes) -> str:
    """UTF-8, or UTF-16 or UTF-32 by its byte order mark, or UTF-16 by its zero bytes."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    # Every other byte of UTF-16 is zero in Latin letters, and in the spaces of other scripts.
    even, odd = data[::2].count(0), data[1::2].count(0)
    if len(data) % 2 == 0 and max(even, odd) > max(1, 10 * min(even, odd)):
        return "utf-16-be" if even > odd else "utf-16-le"
    return "utf-8-sig"
