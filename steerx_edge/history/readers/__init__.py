"""Read a user's texts, and the request that each of them answers.

Each format has a module with two functions: `can_read` looks at the content of a file, and `read`
returns the items of one user. Everything that is wrong with a file is a `HistoryError` that names
the place; no message repeats the user's texts, which are private.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem, User
from steerx_edge.history.readers import authors, items, known, plain_text
from steerx_edge.history.readers.json_records import Template
from steerx_edge.history.readers.mojibake import with_mended_texts
from steerx_edge.history.readers.source import Options, Source


class Reader(Protocol):
    """The module of a format."""

    def can_read(self, source: Source, /) -> bool:
        """Return whether the file is in this format."""

    def read(self, source: Source, options: Options, /) -> list[HistoryItem]:
        """Return the items of one user; at least one."""


READERS: tuple[Reader, ...] = (known, authors, items, plain_text)
"""The formats. A file is read by the first one that can read it."""


def read_history(
    path: str | os.PathLike[str],
    *,
    user: str | None = None,
    response: str | None = None,
    prompt: str | None = None,
) -> list[HistoryItem]:
    """Read one user's history from a file.

    What a file is, is decided by its content. It holds JSON objects, one per line or all in one
    array, or text with blank lines between the texts. Other known formats, such as mailboxes and
    exports of chats, are refused by name. An object is either an item, with ``response`` (or
    ``text``) and an optional ``prompt``, or an author, with ``user_id`` and ``profile``, a list of
    items. Items with empty text are skipped, and a warning with their number is logged.

    Args:
        path: The file, in UTF-8 or UTF-16.
        user: The author to read, if a per-author file has several.
        response: The field with the user's text, if it has another name. Per-author files need it
            unless they are of a LaMP or LongLaMP task.
        prompt: A template for the request, with field names in braces, such as
            ``Write a tasting note for {title}.``. If only ``response`` is given, the request is
            the item's ``prompt`` field, or empty.

    Returns:
        The items, in the order of the file; at least one.

    Raises:
        HistoryError: The file cannot be read, or the options do not apply to it.
    """
    source = Source(Path(path))
    options = Options(user, response, None if prompt is None else Template.parse(prompt))
    named = response is not None and source.is_json  # the field says how a known format is read
    reader = next(
        reader for reader in READERS if reader.can_read(source) and not (named and reader is known)
    )
    return with_mended_texts(str(source.path), reader.read(source, options))


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
            f"{source.path} is not a per-author file: its rows must be JSON objects with user_id, "
            "profile and queries. Use read_history to read the history of one user."
        )
    return authors.read_all(source, options)


def has_users(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is a per-author file, as :func:`read_users` reads it.

    Raises:
        HistoryError: The file cannot be read.
    """
    return authors.can_read(Source(Path(path)))
