"""Read a person's texts, and the request that each of them answers, from the files they have.

Everything that is wrong with a file is a `HistoryError` that names the place; no message repeats
the person's texts, which are private.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem, User
from steerx_edge.history.readers import (
    OF_PROMPTS,
    Reader,
    all_readers,
    authors,
    items,
    known,
    plain_text,
)
from steerx_edge.history.readers.json_records import Template
from steerx_edge.history.readers.mojibake import with_mended_texts
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import UNREADABLE, Dropped, Found, Text
from steerx_edge.history.selection import selected

logger = logging.getLogger(__name__)

_SAMPLES = 3
_EXCERPT = 200
_PROMPTS = (
    "%s holds what you wrote to an assistant. That is a poor example of your style: give emails, "
    "messages or posts if you can."
)


def read_history(
    path: str | os.PathLike[str],
    *,
    me: str | Sequence[str] = (),
    user: str | None = None,
    response: str | None = None,
    prompt: str | None = None,
) -> list[HistoryItem]:
    """Read one user's history from a file, a folder or a ZIP archive.

    What it is, is decided by its content: see docs/history.md for the formats. Of what a program
    wrote, such as a mailbox, only the user's own words are kept, by the rules of
    `steerx_edge.history.selection`; `survey` says what was left out. Files that are made for this
    library (JSON objects, or text with blank lines between the texts) are read to the letter: an
    object is either an item, with ``response`` (or ``text``) and an optional ``prompt``, or an
    author, with ``user_id`` and ``profile``, a list of items. Items with empty text are skipped,
    and a warning with their number is logged.

    Args:
        path: The file or folder. Text is in UTF-8 or UTF-16.
        me: The user's names and addresses, where the file does not say which texts are theirs.
        user: The author to read, if a per-author file has several.
        response: The field with the user's text, if it has another name. Per-author files need it
            unless they are of a LaMP or LongLaMP task.
        prompt: A template for the request, with field names in braces, such as
            ``Write a tasting note for {title}.``. If only ``response`` is given, the request is
            the item's ``prompt`` field, or empty.

    Returns:
        The items, by date where all have one, else in the order of the file; at least one.

    Raises:
        HistoryError: The file cannot be read, or the options do not apply to it.
    """
    return survey(path, me=me, user=user, response=response, prompt=prompt).items


@dataclass
class Survey:
    """What was found in a history.

    Attributes:
        path: The file or folder.
        format: What it is, as sentences name it.
        why: What shows that.
        texts: The texts that were kept, oldest first where all have a date.
        dropped: How many things were left out, by reason.
        samples: A few of them, by reason.
    """

    path: str
    format: str
    why: str
    texts: list[Text] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[Dropped]] = field(default_factory=dict)

    @property
    def items(self) -> list[HistoryItem]:
        """The items that were kept."""
        return [text.item for text in self.texts]

    def add(self, found: Iterable[Text | Dropped]) -> None:
        """Add what was found; the texts are put in order of their dates."""
        for each in found:
            if isinstance(each, Text):
                self.texts.append(each)
                continue
            self.dropped[each.reason] += 1
            samples = self.samples.setdefault(each.reason, [])
            if len(samples) < _SAMPLES:
                samples.append(each)
        if all(text.written is not None for text in self.texts):
            self.texts.sort(key=lambda text: text.written.timestamp() if text.written else 0)


def survey(
    path: str | os.PathLike[str],
    *,
    me: str | Sequence[str] = (),
    user: str | None = None,
    response: str | None = None,
    prompt: str | None = None,
) -> Survey:
    """Read a history as `read_history` does, and say what was kept and what was not, and why.

    Args:
        path: As in `read_history`, and so are the others.
        me: The user's names and addresses.
        user: The author to read.
        response: The field with the user's text.
        prompt: A template for the request.

    Raises:
        HistoryError: The file cannot be read, or the options do not apply to it, or no text is
            left; says what was dropped.
    """
    opened = open_history(path, me=me, user=user, response=response, prompt=prompt)
    result = Survey(str(path), opened.format, opened.why)
    result.add(opened.found)
    if not result.texts:
        reasons = ", ".join(f"{n} {reason}" for reason, n in result.dropped.most_common())
        raise HistoryError(
            f"{path} is {opened.format}, but no text of yours was found in it"
            + (f" (left out: {reasons})." if reasons else ".")
        )
    return result


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
    if response is None:  # else the field says how a file is read
        for reader in all_readers():
            if why := reader.recognize(source):
                if reader in OF_PROMPTS:
                    logger.warning(_PROMPTS, source)
                return OpenedHistory(reader.NAME, why, selected(reader.read(source, options)))
    if source.is_folder:
        found = selected(_files_in(source, options))
        return OpenedHistory("a folder of files", "it is a folder or an archive", found)
    return _open_prepared(source, options)


def _files_in(folder: Source, options: Options) -> Found:
    """Every file in a folder, each in its own format; folders of a known format as a whole.

    Prompts to assistants are read last, and left out if anything else was found.
    """
    prompts: list[tuple[Reader, Source]] = []
    n_texts = 0
    for reader, source in _sources_in(folder, all_readers()):
        if reader in OF_PROMPTS:
            prompts.append((reader, source))
            continue
        for each in _found_in(reader, source, options):
            n_texts += isinstance(each, Text)
            yield each
    if prompts and not n_texts:
        logger.warning(_PROMPTS, folder)
    for reader, source in prompts:
        for each in _found_in(reader, source, options):
            if n_texts and isinstance(each, Text):
                yield Dropped("prompt to an assistant", each.where, each.item.response[:_EXCERPT])
            else:
                yield each


def _sources_in(
    folder: Source, readers: Sequence[Reader]
) -> Iterator[tuple[Reader | None, Source]]:
    """The files below a folder, and folders of a known format, with their readers."""
    for child in folder.children():
        try:
            reader = next((each for each in readers if each.recognize(child)), None)
        except HistoryError:  # reading it says what is wrong
            reader = None
        if reader is None and child.path.is_dir():
            if not (isinstance(child.path, Path) and child.path.is_symlink()):
                yield from _sources_in(child, readers)
        else:
            yield reader, child


def _found_in(reader: Reader | None, source: Source, options: Options) -> Found:
    try:
        yield from reader.read(source, options) if reader else _open_prepared(source, options).found
    except HistoryError as error:
        yield Dropped(UNREADABLE, str(source), str(error))


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


def read_users(
    path: str | os.PathLike[str],
    *,
    response: str | None = None,
    prompt: str | None = None,
) -> Iterator[User]:
    """Read all authors of a per-author file, with their held-out queries.

    A row is a JSON object with ``user_id``, ``profile`` (the author's items) and ``queries``
    (each with ``input`` and ``output``). A row without ``queries`` may have one ``input`` and
    ``output`` of its own, as in LongLaMP. LaMP publishes what the authors wrote in a second file:
    ``X_outputs.json`` is read with ``X_questions.json`` if it lies beside it.

    Args:
        path: The file: JSON lines, or one array.
        response: As in :func:`read_history`.
        prompt: As in :func:`read_history`.

    Returns:
        The users, in the order of the file. The file is read at once, each user when reached.

    Raises:
        HistoryError: The file cannot be read, or the options do not apply to it. An error in the
            items of one user is raised when that user is reached.
    """
    source = Source(Path(path))
    options = Options(None, response, None if prompt is None else Template.parse(prompt))
    if not authors.can_read(source):
        raise HistoryError(
            f"{source} is not a per-author file: its rows must be JSON objects with user_id, "
            "profile and queries. Use read_history to read the history of one user."
        )
    return authors.read_all(source, options)


def has_users(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is a per-author file, as :func:`read_users` reads it.

    Raises:
        HistoryError: The file cannot be read.
    """
    source = Source(Path(path))
    return not source.is_folder and authors.can_read(source)
