"""Mailboxes (mbox): mails one after another, each after a line that begins with `From `."""

from __future__ import annotations

import re
import shutil
import tempfile
from codecs import BOM_UTF8
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers.mailboxes import LARGEST, Box, read_boxes
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import UNREADABLE, Dropped, Found

NAME = "a mailbox (mbox)"

# A line with a time and a year, or with an address alone (Gmail), or with nothing or a dash (new
# versions of Thunderbird); then a header, or another such line that was kept.
_SEPARATOR = re.compile(
    rb"From (?:(?=[^\r\n]*\d\d?:\d\d)(?=[^\r\n]*\b\d{4}\b)[^\r\n]+|\S+@\S+ *|-? *)\r?\n"
    rb"(?=(?:>From [^\n]*\n)?[!-9;-~]+[ \t]*:)"
)
_ESCAPED = re.compile(rb"^>(?=>*From )", re.MULTILINE)
_BODY = re.compile(rb"\r?\n\r?\n")
_TRIED = 30  # files of a folder
_LINE_FEED = 10
_CHUNK = 1 << 20
_LONGEST = 4096  # of a separator and the name of the header after it
_HEAD = 1 << 14


def recognize(source: Source) -> str:
    """Return what shows that it is a mailbox, or a folder of them.

    Raises:
        HistoryError: It is called one and is none.
    """
    if is_mbox(source):
        return "it begins with a line 'From ' and headers"
    if source.suffix == ".mbox" and not source.is_folder:
        raise HistoryError(
            f"{source} is no mailbox, whatever its name says: it begins with no line 'From ' "
            "and no headers. Export the mailbox again."
        )
    return "its files begin with a line 'From ' and headers" if _holds_some(source) else ""


def is_mbox(source: Source) -> bool:
    """Whether a file begins as a mailbox does."""
    beginning = source.beginning.removeprefix(BOM_UTF8)
    return not source.is_folder and bool(_SEPARATOR.match(beginning))


def read(source: Source, options: Options) -> Found:
    """Yield the texts of the user in a mailbox, or in all below a folder."""
    boxes: list[Box] = []
    for file in source.files() if source.is_folder else [source]:
        if not file.can_be_read:
            yield Dropped(UNREADABLE, str(file))
        elif is_mbox(file):
            # Apple Mail exports a mailbox as a folder `Sent.mbox` with a file `mbox`.
            below = str(file).removeprefix(str(source)).strip("/").removesuffix("mbox").strip("/")
            boxes.append(MboxBox(file, below or source.name))
        elif file.beginning:
            yield Dropped("file without a mail", str(file))
    yield from read_boxes(boxes, options.me, str(source))


def _holds_some(source: Source) -> bool:
    """Whether at least half of the first files below a folder are mailboxes, or empty."""
    if not source.is_folder:
        return False
    tried = [file for file in islice(source.files(), _TRIED) if file.can_be_read and file.beginning]
    return bool(tried) and 2 * sum(map(is_mbox, tried)) >= len(tried)


class MboxBox:
    """A file of mails; a place is the offset of a mail.

    Args:
        source: The file.
        name: Its name, if it is another than the file's.
    """

    def __init__(self, source: Source, name: str = "") -> None:
        self.name = name or source.name
        self._source = source
        self._open: IO[bytes] | None = None

    def places(self) -> Iterator[int]:
        """The offsets of the mails, found piece by piece."""
        file = self._file
        start, data = 0, b""
        searched = 0  # all before it has been
        while True:
            file.seek(start + len(data))
            chunk = file.read(_CHUNK)
            data += chunk
            # A separator at the end may be cut, unless that is the end of the file.
            end = start + len(data) - (_LONGEST if chunk else 0)
            for at in _separators(data, searched - start):
                if start + at < end:
                    yield start + at
            if not chunk:
                return
            # The byte before what is searched next says whether a line begins there.
            searched = max(searched, end)
            kept = max(0, searched - 1 - start)
            start, data = start + kept, data[kept:]

    def head(self, place: int) -> bytes:
        """The beginning of a mail, up to the end of its headers."""
        return self._read(place, _BODY)

    def mail(self, place: int) -> bytes:
        """A mail as it was before it was put into the mailbox.

        A line `>From ` loses one `>`, as mboxrd asks for. In mboxo, which marks only lines that
        begin with `From `, a line that a person wrote as `>From ` loses it too.
        """
        return _ESCAPED.sub(b"", self._read(place))

    def close(self) -> None:
        """Close the file."""
        if self._open:
            self._open.close()
            self._open = None

    def _read(self, place: int, enough: re.Pattern[bytes] | None = None) -> bytes:
        """Read a mail up to the next one, or until it holds enough."""
        size = _HEAD
        while True:
            self._file.seek(place)
            data = self._file.read(size)
            following = next(_separators(data, 1), None)
            if following is not None:
                return data[:following]
            if len(data) < size or size >= LARGEST or (enough and enough.search(data)):
                return data
            size = min(4 * size, LARGEST)

    @property
    def _file(self) -> IO[bytes]:
        if self._open is None:
            self._open = _seekable(self._source)
        return self._open


def _separators(data: bytes, at: int) -> Iterator[int]:
    """Where separators are from an offset on: at the beginnings of lines, and of the data."""
    at = data.find(b"From ", at)
    while at >= 0:
        begins = at == 0 or data[at - 1] == _LINE_FEED or data[:at] == BOM_UTF8
        if begins and _SEPARATOR.match(data, at):
            yield at
        at = data.find(b"From ", at + 1)


def _seekable(source: Source) -> IO[bytes]:
    """Open a file; what lies in an archive is unpacked, because going back in it starts anew."""
    file = source.open()
    if isinstance(source.path, Path):
        return file
    with file:
        unpacked = tempfile.TemporaryFile()  # noqa: SIM115  # without a name, for its owner only
        shutil.copyfileobj(file, unpacked, _CHUNK)
    return unpacked
