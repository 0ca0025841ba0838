"""Maildir: a folder for each mail folder, with a file for each mail in `cur` and `new`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from steerx_edge.history.readers.mail_files import FilesBox, beginning_of
from steerx_edge.history.readers.mailboxes import Box, read_boxes
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Found

NAME = "mail folders (Maildir)"

_MAILS = ("cur", "new")
_OWN = {*_MAILS, "tmp"}
_DEEPEST = 4
_DRAFT = re.compile(r"[:;!]2,[A-Za-z]*D[A-Za-z]*$")  # the flag in a file's name


def recognize(source: Source) -> str:
    """Return what shows that it is a Maildir, or a folder with some."""
    if next(_maildirs(source), None) is None:
        return ""
    return "it holds folders 'cur' and 'new', or 'tmp'"


def read(source: Source, options: Options) -> Found:
    """Yield the texts of the user in all of its folders."""
    boxes: list[Box] = []
    for folder, name in _maildirs(source):
        mails, drafts = FilesBox(name, beginning_of), FilesBox(f"{name}/Drafts", beginning_of)
        for kind in _MAILS:
            if inside := folder.child(kind):
                for file in inside.children():
                    (drafts if _DRAFT.search(file.name) else mails).files.append(file)
        boxes += [mails, drafts]
    yield from read_boxes(boxes, options.me, str(source))


def _maildirs(source: Source, name: str = "", depth: int = 0) -> Iterator[tuple[Source, str]]:
    """Those in a folder, with their names; in Maildir++ they lie side by side as `.Sent`."""
    if not source.is_folder:
        return
    folders = {child.name: child for child in source.children() if child.path.is_dir()}
    if "cur" in folders and len(folders.keys() & _OWN) > 1:
        yield source, name or source.name
    if depth < _DEEPEST:
        for each, folder in folders.items():
            if each not in _OWN:
                below = f"{name}/{each}" if name else each
                yield from _maildirs(folder, below.lstrip("."), depth + 1)
