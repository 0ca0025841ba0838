"""Mails of Apple Mail (.emlx): the length of the mail, the mail, and a property list."""

from __future__ import annotations

import re
from collections.abc import Sequence

from steerx_edge.history.readers.mail_files import (
    Kind,
    beginning_of,
    folder_above,
    holds_mails,
    is_mail,
    read_files,
)
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Found

NAME = "mail of Apple Mail (.emlx)"

_SIZE = re.compile(rb"(\d+)[ \t]*\r?\n")


def _is_one(source: Source) -> bool:
    size = _SIZE.match(source.beginning)
    return bool(size and is_mail(source.beginning[size.end() :]))


def _unwrap(source: Source) -> bytes:
    data = beginning_of(source)
    size = _SIZE.match(data)
    return data[size.end() : size.end() + int(size[1])] if size else data


def _folder_of(path: Sequence[str]) -> str:
    """The mailbox `Sent Messages.mbox`; between it and the mails are folders with numbers."""
    boxes = [name for name in path[:-1] if name.endswith(".mbox")]
    return boxes[-1].removesuffix(".mbox") if boxes else folder_above(path)


_KIND = Kind(_is_one, _unwrap, _folder_of)


def recognize(source: Source) -> str:
    """Return what shows that it is a mail of Apple Mail, or a folder of them."""
    if not source.is_folder:
        return "it begins with a length and the headers of a mail" if _is_one(source) else ""
    return "its files begin with a length and a mail" if holds_mails(source, _KIND) else ""


def read(source: Source, options: Options) -> Found:
    """Yield the texts of the user."""
    yield from read_files(source, options, _KIND)
