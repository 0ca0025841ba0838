"""Recognize a history, and read it piece by piece."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem
from steerx_edge.history.readers import (
    OF_PROMPTS,
    READERS,
    Reader,
    all_readers,
    authors,
    items,
    known,
    notes,
    plain_text,
    tables,
)
from steerx_edge.history.readers.json_records import Template
from steerx_edge.history.readers.mojibake import with_mended_texts
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import UNREADABLE, Dropped, Found, Text
from steerx_edge.history.selection import Selection

logger = logging.getLogger(__name__)

_EXCERPT = 200
_PROMPTS = (
    "%s holds what you wrote to an assistant. That is a poor example of your style: give emails, "
    "messages or posts if you can."
)


class OpenedHistory(NamedTuple):
    """A history whose format is known, to be read piece by piece.

    Attributes:
        format: What it is, as sentences name it.
        why: What shows that.
        found: The texts, and what is left out, in the order of the file; read on demand.
    """

    format: str
    why: str
    found: Found


def open_history(
    path: str | os.PathLike[str],
    *,
    me: str | Sequence[str] = (),
    user: str | None = None,
    response: str | None = None,
    prompt: str | None = None,
) -> OpenedHistory:
    """Recognize a history, to be read piece by piece: the memory does not grow with its size.

    Args:
        path: As in `read_history`, and so are the others.
        me: The user's names and addresses.
        user: The author to read.
        response: The field with the user's text.
        prompt: A template for the request.

    Raises:
        HistoryError: The file cannot be read, or the options do not apply to it.
    """
    source = Source(Path(path).expanduser())
    template = None if prompt is None else Template.parse(prompt)
    options = Options(user, response, template, (me,) if isinstance(me, str) else tuple(me))
    if not source.is_folder and response is not None and source.is_json:
        return _open_prepared(source, options)  # the field says how it is read
    for reader in all_readers():
        if why := reader.recognize(source):
            _refuse_fields(reader, source, options)
            if reader in OF_PROMPTS:
                logger.warning(_PROMPTS, source)
            found = Selection().selected(reader.read(source, options))
            return OpenedHistory(reader.NAME, why, found)
    if source.is_folder:
        found = _files_in(source, options, Selection())
        return OpenedHistory("a folder of files", "it is no export of a known program", found)
    return _open_prepared(source, options)


def _refuse_fields(reader: Reader, source: Source, options: Options) -> None:
    """Refuse options for fields and users, which only tables have of what our readers read."""
    if options.given and reader in READERS and reader is not tables:
        named = " and ".join(f"{name} (--{name})" for name in options.given)
        raise HistoryError(
            f"{source} is {reader.NAME} and has no fields or users. Leave out {named}."
        )


def _files_in(folder: Source, options: Options, selection: Selection) -> Found:
    """Every file in a folder, each in its own format; folders of a known format as a whole.

    Prompts to assistants are read last, and left out if anything else was found.
    """
    prompts: list[tuple[Reader, Source]] = []
    n_texts = 0
    for reader, source in _sources_in(folder, all_readers()):
        if reader in OF_PROMPTS:
            prompts.append((reader, source))
            continue
        for each in _found_in(reader, source, options, selection):
            n_texts += isinstance(each, Text)
            yield each
    if prompts and not n_texts:
        logger.warning(_PROMPTS, folder)
    for reader, source in prompts:
        for each in _found_in(reader, source, options, selection):
            if n_texts and isinstance(each, Text):
                yield Dropped("prompt to an assistant", each.where, each.item.response[:_EXCERPT])
            else:
                yield each


def _sources_in(
    folder: Source, readers: Sequence[Reader]
) -> Iterator[tuple[Reader | None, Source]]:
    """The files below a folder, and folders of a known format, with their readers.

    A link to a folder is not followed, so that no circle is.
    """
    for child in folder.children():
        is_link = isinstance(child.path, Path) and child.path.is_symlink() and child.path.is_dir()
        if is_link:
            continue
        try:
            reader = next((each for each in readers if each.recognize(child)), None)
            is_folder = child.is_folder and not child.name.startswith(".")
        except HistoryError:  # reading it says what is wrong
            reader, is_folder = None, False
        if reader is None and is_folder:
            yield from _sources_in(child, readers)
        else:
            yield reader, child


def _found_in(
    reader: Reader | None, source: Source, options: Options, selection: Selection
) -> Found:
    if source.name == "..":  # in an archive
        yield Dropped(UNREADABLE, str(source), "its path leads out of the archive")
        return
    if source.name.startswith("."):
        yield Dropped("hidden file", str(source))
        return
    try:
        if reader:
            yield from selection.selected(reader.read(source, options))
        elif source.is_json:
            yield from _open_prepared(source, options).found
        else:
            yield from selection.selected(notes.read(source, options))
    except HistoryError as error:
        why = str(error).removeprefix(f"{source} ").removeprefix(f"{source}: ")
        yield Dropped(UNREADABLE, str(source), why)


def _open_prepared(source: Source, options: Options) -> OpenedHistory:
    """A file that is made for this library: nothing is left out."""
    if options.response is None or not source.is_json:  # else the field says how it is read
        known.refuse(source)
    if authors.can_read(source):
        name, read = "a per-author file", authors.read
    elif source.is_json:
        name, read = "JSON items", items.read
    else:
        name, read = "plain text", plain_text.read
    read_items = with_mended_texts(str(source), read(source, options))
    return OpenedHistory(name, "", _as_texts(str(source), read_items))


def _as_texts(where: str, found: Sequence[HistoryItem]) -> Iterator[Text | Dropped]:
    for number, item in enumerate(found, start=1):
        yield Text(item, f"{where}: text {number}")
