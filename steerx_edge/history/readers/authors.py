"""Per-author files, as LaMP and LongLaMP publish them: one row for each author."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem, User
from steerx_edge.history.readers.items import items_of, with_text
from steerx_edge.history.readers.json_records import (
    Record,
    Template,
    field_of,
    object_of,
    objects_of,
    parse_json,
    text_of,
)
from steerx_edge.history.readers.mojibake import with_mended_texts
from steerx_edge.history.readers.source import Options, Source


@dataclass(frozen=True)
class _Task:
    """A benchmark task: the field with the user's text, and the template of its requests."""

    name: str
    response: str
    prompt: str

    @property
    def fields(self) -> set[str]:
        """The fields of an item of this task."""
        return {self.response} | Template.parse(self.prompt).fields

    @property
    def opening(self) -> str:
        """The first words of the task's requests, which differ between tasks."""
        return " ".join(self.prompt.split()[:4])


# If several tasks have the same fields and the file has no queries, the first task is taken.
TASKS = (
    _Task(
        "LongLaMP product review",
        "reviewText",
        "Generate the review text written by a reviewer who has a given an overall rating of "
        '"{overall}" for a product with description "{description}". '
        'The summary of the review text is "{summary}".',
    ),
    _Task("LongLaMP topic writing", "content", "Generate the content for a reddit post {summary}"),
    _Task(
        "LongLaMP abstract generation", "abstract", 'Generate an abstract for the title "{title}"'
    ),
    _Task(
        "LaMP-5 scholarly title",
        "title",
        "Generate a title for the following abstract of a paper: {abstract}",
    ),
    _Task("LaMP-4 news headline", "title", "Generate a headline for the following article: {text}"),
    _Task("LaMP-6 email subject", "title", "Generate a subject for the following email: {text}"),
    # The benchmark's requests end with the first words of the email. In a history the whole
    # email is the user's text, so the request ends before it.
    _Task(
        "LongLaMP email completion",
        "text",
        "Complete the text of the following email. title: {title}. text:",
    ),
)

# In order of precedence: ours, then those of the published benchmarks.
_ID_FIELDS = ("user_id", "reviewerId", "name", "author", "id")


def can_read(source: Source) -> bool:
    """Return whether the file has rows with a `profile`."""
    return source.is_json and any(
        isinstance(record.fields.get("profile"), list) for record in source.records
    )


def read(source: Source, options: Options) -> list[HistoryItem]:
    """Return the items of one author.

    Raises:
        HistoryError: the file cannot be read, or does not hold the author.
    """
    rows = _rows_by_user(source.records)
    row = rows[_choose_user(str(source), rows, options.user)]
    return _profile_items(row, rows.values(), options)


def read_all(source: Source, options: Options) -> Iterator[User]:
    """Return all authors, with their held-out queries. Each is read when it is reached.

    Raises:
        HistoryError: the file cannot be read, or an author in it.
    """
    rows = _rows_by_user(_with_outputs(source))
    return (
        User(
            id=name,
            history=tuple(
                with_mended_texts(row.where, _profile_items(row, rows.values(), options))
            ),
            queries=tuple(with_mended_texts(row.where, _queries_of(row))),
        )
        for name, row in rows.items()
    )


def _with_outputs(source: Source) -> Sequence[Record]:
    """Add what the authors wrote, which LaMP publishes in a file beside its questions."""
    records, path = source.records, source.path
    name = path.name.replace("_questions.json", "_outputs.json")
    if not isinstance(path, Path) or name == path.name or not path.with_name(name).exists():
        return records
    outputs = Source(path.with_name(name))
    whole = object_of(
        str(outputs), parse_json(str(outputs), outputs.text, expected="Expected one JSON object.")
    )
    golds = objects_of(Record(str(outputs), whole), "golds", "output")
    output_of = {str(field_of(gold, "id")): text_of(gold, "output") for gold in golds}
    return [
        Record(where, {"output": output_of[name], **fields} if name in output_of else fields)
        for where, fields in records
        for name in [str(fields.get("id"))]
    ]


def _rows_by_user(records: Iterable[Record]) -> dict[str, Record]:
    """The rows by author, in the order of the file."""
    rows: dict[str, Record] = {}
    for record in records:
        name = _user_id(record)
        if name in rows:
            raise HistoryError(
                f"{record.where} repeats user {name!r}. Put all texts of a user in one row."
            )
        rows[name] = record
    return rows


def _user_id(record: Record) -> str:
    for field in _ID_FIELDS:
        value = record.fields.get(field)
        if isinstance(value, (str, int)) and not isinstance(value, bool) and str(value).strip():
            return str(value)
    raise HistoryError(f"{record.where} names no author. Add a user_id.")


def _choose_user(file: str, rows: Mapping[str, Record], user: str | None) -> str:
    """Return the id of the given author, or of the only one."""
    if user is not None and user in rows:
        return user
    if user is None and len(rows) == 1:
        return next(iter(rows))
    some = ", ".join(repr(name) for name in list(rows)[:3])
    held = f"user {some}" if len(rows) == 1 else f"{len(rows)} users, such as {some}"
    if user is None:
        raise HistoryError(f"{file} holds {held}. Choose one with user or --user.")
    raise HistoryError(f"{file} has no user {user!r}. It holds {held}.")


def _profile_items(row: Record, rows: Iterable[Record], options: Options) -> list[HistoryItem]:
    """The items of an author."""
    response, template = options.response, options.prompt
    profile = objects_of(row, "profile", "profile item")
    if not profile:
        raise HistoryError(f"{row.where} has an empty profile. Add the author's texts.")
    if response is None:
        # All rows of a file are of one task, so the other rows' queries tell the task as well.
        inputs = _inputs([row]) or _inputs(rows)
        task = _find_task(row.where, profile[0].fields, inputs)
        if task is not None:
            response = task.response
            template = template or Template.parse(task.prompt)
    return items_of(row.where, profile, response, template)


def _find_task(where: str, fields: Iterable[str], inputs: Sequence[str]) -> _Task | None:
    """Return the task of items with these fields; None if they need no task to be read."""
    names = set(fields)
    fitting = [task for task in TASKS if task.fields <= names]
    if "response" in names or not fitting:
        return None
    for task in fitting:
        if all(text.startswith(task.opening) for text in inputs):
            return task
    raise HistoryError(
        f"{where}: the items look like {' or '.join(task.name for task in fitting)}, but the "
        "queries do not. Name the field with the author's text (response, --response) and give a "
        "template for the requests (prompt, --prompt)."
    )


def _inputs(rows: Iterable[Record]) -> list[str]:
    """The inputs of the held-out queries, which tell tasks with the same fields apart."""
    asked: list[object] = []
    for row in rows:
        queries = row.fields.get("queries")
        asked += queries if isinstance(queries, list) else [row.fields]
    inputs = (query.get("input") for query in asked if isinstance(query, Mapping))
    return [text for text in inputs if isinstance(text, str)]


def _queries_of(row: Record) -> list[HistoryItem]:
    """The held-out items of an author."""
    if "queries" in row.fields:
        records = objects_of(row, "queries", "query")
    else:
        # LaMP's rows have no output if the file of outputs is missing.
        records = [row] if {"input", "output"} <= row.fields.keys() else []
    return with_text(
        row.where,
        "queries",
        [
            HistoryItem(response=text_of(record, "output"), request=text_of(record, "input"))
            for record in records
        ],
    )
