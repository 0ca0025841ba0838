"""Mails with a file for each, in one folder or several: what the readers of such files share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from steerx_edge.history.mail.head import Head
from steerx_edge.history.readers.mailboxes import LARGEST, read_boxes
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import UNREADABLE, Dropped, Found

_TRIED = 30  # files of a folder


class Kind(NamedTuple):
    """A kind of file that holds one mail.

    Attributes:
        is_one: Whether a file is of this kind.
        unwrap: Read the mail in a file; an error costs this mail only.
        folder_of: The name of the mail folder that a file lies in, by its path below the source.
    """

    is_one: Callable[[Source], bool]
    unwrap: Callable[[Source], bytes]
    folder_of: Callable[[Sequence[str]], str]


class FilesBox:
    """A folder of files with one mail each; a place is the number of a file."""

    def __init__(self, name: str, unwrap: Callable[[Source], bytes]) -> None:
        self.name = name
        self.files: list[Source] = []
        self._unwrap = unwrap

    def places(self) -> Iterator[int]:
        """The numbers of the files."""
        return iter(range(len(self.files)))

    def head(self, place: int) -> bytes:
        """The mail in a file; empty if it cannot be read."""
        try:
            return self.mail(place)
        except Exception:  # it is named when the mail is read
            return b""

    def mail(self, place: int) -> bytes:
        """The mail in a file."""
        return self._unwrap(self.files[place])

    def close(self) -> None:
        """No file is kept open."""


def beginning_of(source: Source) -> bytes:
    """The first `LARGEST` bytes of a file."""
    with source.open() as file:
        return file.read(LARGEST)


def is_mail(data: bytes) -> bool:
    """Whether data begins with the headers of a mail, rather than with some lines like them."""
    head = Head(data)
    return bool(
        head.begins_at_once
        and head.sender.address
        and any(name in head for name in ("date", "message-id", "mime-version", "received"))
    )


def folder_above(path: Sequence[str]) -> str:
    """The folder that a file lies in."""
    return "/".join(path[:-1])


def holds_mails(source: Source, kind: Kind) -> bool:
    """Whether at least half of the first files below a folder are of a kind."""
    if not source.is_folder:
        return False
    tried = [kind.is_one(file) for file in islice(source.files(), _TRIED) if file.can_be_read]
    return bool(tried) and 2 * sum(tried) >= len(tried)


def read_files(source: Source, options: Options, kind: Kind) -> Found:
    """Yield the texts of the user in a file, or in all files below a folder."""
    boxes: dict[str, FilesBox] = {}
    for file in source.files() if source.is_folder else [source]:
        if not file.can_be_read:
            yield Dropped(UNREADABLE, str(file))
            continue
        if not kind.is_one(file):
            yield Dropped("file without a mail", str(file))
            continue
        below = str(file).removeprefix(str(source)).strip("/").split("/")
        name = kind.folder_of(below) or source.name or str(source)
        box = boxes.setdefault(name, FilesBox(name, kind.unwrap))
        box.files.append(Source(file.path, str(file)))  # without the beginning that was read
    yield from read_boxes(list(boxes.values()), options.me, str(source))
