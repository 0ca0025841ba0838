"""Read a user's writing, and the request that each text answers.

A history is a list of items, each the user's own text and the request that it answers. It is
read from JSON lines, from per-author files as the LaMP and LongLaMP benchmarks have them, or
from plain text. Everything that can be wrong with a file is a :class:`HistoryError` that says
where; no message repeats the user's writing, which is private.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem, User
from steerx_edge.history.readers.authors import (
    choose_user,
    has_profiles,
    profile_items,
    queries_of,
    rows_by_user,
    with_outputs,
)
from steerx_edge.history.readers.items import items_of
from steerx_edge.history.readers.plain_text import passages_of, refuse_for_text
from steerx_edge.history.readers.records import Template, is_json, read_records, read_text


def read_history(
    path: str | os.PathLike[str],
    *,
    user: str | None = None,
    response: str | None = None,
    prompt: str | None = None,
) -> list[HistoryItem]:
    """Read one user's history from a file.

    Files ending in ``.jsonl``, ``.ndjson`` or ``.json``, and others whose first line is a JSON
    object, hold objects, one a line or all in one array; every other file is text, whose
    passages are parted by blank lines. An object is an item with ``response`` (or ``text``) and
    perhaps ``prompt``, or all of one author's items: ``user_id`` and ``profile``. Items whose
    text is empty are left out, and their number is logged as a warning.

    Args:
        path: The file, in UTF-8.
        user: The author to read, where a per-author file has several.
        response: The field that holds the user's own text, for items unlike the above. It is
            needed for per-author files unless they are of a LaMP or LongLaMP task.
        prompt: The request's wording with field names in braces, such as
            ``Write a tasting note for {title}.``. Without it, where ``response`` is given, a
            request is the item's ``prompt`` field, or empty.

    Returns:
        The items, in the order of the file; at least one.

    Raises:
        HistoryError: The file cannot be read, or not as asked.
    """
    file = Path(path)
    template = None if prompt is None else Template.parse(prompt)
    text = read_text(file)
    if not is_json(file, text):
        refuse_for_text(file, user=user, response=response, prompt=prompt)
        return passages_of(text)
    records = read_records(file, text)
    if has_profiles(records):
        rows = rows_by_user(records)
        chosen = choose_user(file, rows, user)
        return profile_items(rows[chosen], rows.values(), response, template)
    if user is not None:
        raise HistoryError(
            f"{file} is not a per-author file, so there is no user {user!r} to pick from it. "
            "Leave the user out, or give a file whose rows have user_id and profile."
        )
    return items_of(str(file), records, response, template)


def read_users(
    path: str | os.PathLike[str],
    *,
    response: str | None = None,
    prompt: str | None = None,
) -> Iterator[User]:
    """Read every author of a per-author file, with the held-out queries.

    A row is a JSON object with ``user_id``, ``profile`` (the author's items) and ``queries``
    (each with ``input`` and ``output``); a row without ``queries`` may hold one ``input`` and
    ``output`` of its own, as LongLaMP's rows do. LaMP publishes what the authors wrote apart from
    the rest: ``X_outputs.json`` is read with ``X_questions.json`` where it lies beside it.

    Args:
        path: The file: JSON lines, or one array.
        response: As in :func:`read_history`.
        prompt: As in :func:`read_history`.

    Returns:
        The users, in the order of the file. The file is read at once, each user when reached.

    Raises:
        HistoryError: The file cannot be read, or not as asked; a fault in one user's items is
            raised when that user is reached.
    """
    file = Path(path)
    template = None if prompt is None else Template.parse(prompt)
    text = read_text(file)
    records = read_records(file, text) if is_json(file, text) else []
    if not has_profiles(records):
        raise HistoryError(
            f"{file} is not a per-author file: its rows must be JSON objects with user_id, "
            "profile and queries. To read one user's history, use read_history."
        )
    rows = rows_by_user(with_outputs(file, records))
    return (
        User(
            id=name,
            history=tuple(profile_items(row, rows.values(), response, template)),
            queries=tuple(queries_of(row)),
        )
        for name, row in rows.items()
    )


def has_users(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a per-author file, as :func:`read_users` reads them.

    Raises:
        HistoryError: The file cannot be read.
    """
    file = Path(path)
    text = read_text(file)
    return is_json(file, text) and has_profiles(read_records(file, text))
