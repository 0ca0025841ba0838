"""Read a person's texts, and the request that each of them answers, from the files they have.

Everything that is wrong with a file is a `HistoryError` that names the place; no message repeats
the person's texts, which are private.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem, User
from steerx_edge.history.opening import OpenedHistory, open_history
from steerx_edge.history.readers import authors
from steerx_edge.history.readers.json_records import Template
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Dropped, Text
from steerx_edge.history.tally import Tally


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


@dataclass(frozen=True)
class Survey:
    """What was found in a history.

    Attributes:
        path: The file or folder.
        format: What it is, as sentences name it.
        why: What shows that; empty for files that are made for this library.
        tally: Counts, dates and samples of what was kept and of what was left out.
        texts: The texts that were kept, oldest first where all have a date.
    """

    path: str
    format: str
    why: str
    tally: Tally
    texts: Sequence[Text]

    @property
    def items(self) -> list[HistoryItem]:
        """The items that were kept."""
        return [text.item for text in self.texts]

    @property
    def dropped(self) -> Counter[str]:
        """How many things were left out, by reason."""
        return self.tally.dropped

    @property
    def samples(self) -> dict[str, list[Dropped]]:
        """A few of them, by reason."""
        return self.tally.samples


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
    tally, texts = Tally(), []
    for each in opened.found:
        tally.add(each)
        if isinstance(each, Text):
            texts.append(each)
    check_found(str(path), opened, tally)
    kept = [texts[place] for place in tally.order()]
    return Survey(str(path), opened.format, opened.why, tally, kept)


def check_found(path: str, opened: OpenedHistory, tally: Tally) -> None:
    """Refuse a history without texts.

    Raises:
        HistoryError: No text was kept; says what was left out.
    """
    if not tally.kept:
        reasons = ", ".join(f"{n} {reason}" for reason, n in tally.dropped.most_common())
        raise HistoryError(
            f"{path} is {opened.format}, but no text of yours was found in it"
            + (f" (left out: {reasons})." if reasons else ".")
        )


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
