"""Records that are authors, as LaMP and LongLaMP publish them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem
from steerx_edge.history.readers.items import items_of, with_text
from steerx_edge.history.readers.records import (
    Record,
    Template,
    field_of,
    object_of,
    objects_of,
    parse_document,
    read_text,
    text_of,
)


@dataclass(frozen=True)
class _Task:
    """Which field of a benchmark's history item the user wrote, and how the task words requests."""

    name: str
    response: str
    prompt: str

    @property
    def fields(self) -> set[str]:
        """The fields an item of this task has."""
        return {self.response} | Template.parse(self.prompt).fields

    @property
    def opening(self) -> str:
        """The first words of the task's requests, enough to tell the tasks apart."""
        return " ".join(self.prompt.split()[:4])


# Where several tasks share their fields and the file holds no queries, the first one counts.
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
    # The benchmark's requests end with the first words of the mail. In a history the whole mail is
    # the user's text, so the request holds none of it.
    _Task(
        "LongLaMP email completion",
        "text",
        "Complete the text of the following email. title: {title}. text:",
    ),
)

# In the order in which they are looked for: ours, then those of the benchmarks as published.
_ID_FIELDS = ("user_id", "reviewerId", "name", "author", "id")


def with_outputs(file: Path, records: list[Record]) -> list[Record]:
    """LaMP's questions with what the authors wrote, which is in a file of its own."""
    outputs = file.with_name(file.name.replace("_questions.json", "_outputs.json"))
    if outputs == file or not outputs.exists():
        return records
    whole = object_of(str(outputs), parse_document(outputs, read_text(outputs)))
    golds = objects_of(Record(str(outputs), whole), "golds", "output")
    output_of = {str(field_of(gold, "id")): text_of(gold, "output") for gold in golds}
    return [
        Record(where, {"output": output_of[name], **fields} if name in output_of else fields)
        for where, fields in records
        for name in [str(fields.get("id"))]
    ]


def has_profiles(records: Sequence[Record]) -> bool:
    """Whether records are authors' rows."""
    return any(isinstance(record.fields.get("profile"), list) for record in records)


def rows_by_user(records: Iterable[Record]) -> dict[str, Record]:
    """The rows by their authors, in order."""
    rows: dict[str, Record] = {}
    for record in records:
        name = _user_id(record)
        if name in rows:
            raise HistoryError(
                f"{record.where} is user {name!r} again. Put all that a user wrote in one row."
            )
        rows[name] = record
    return rows


def _user_id(record: Record) -> str:
    for field in _ID_FIELDS:
        value = record.fields.get(field)
        if isinstance(value, (str, int)) and not isinstance(value, bool) and str(value).strip():
            return str(value)
    raise HistoryError(f"{record.where} names no author. Add a user_id to it.")


def choose_user(file: Path, rows: Mapping[str, Record], user: str | None) -> str:
    """The author that is asked for, or the only one."""
    if user is not None and user in rows:
        return user
    if user is None and len(rows) == 1:
        return next(iter(rows))
    some = ", ".join(repr(name) for name in list(rows)[:3])
    held = f"user {some}" if len(rows) == 1 else f"{len(rows)} users, such as {some}"
    if user is None:
        raise HistoryError(f"{file} holds {held}. Name the one to read, with user or --user.")
    raise HistoryError(f"{file} has no user {user!r}. It holds {held}.")


def profile_items(
    row: Record, rows: Iterable[Record], response: str | None, template: Template | None
) -> list[HistoryItem]:
    """An author's items."""
    profile = objects_of(row, "profile", "profile item")
    if not profile:
        raise HistoryError(f"{row.where} has an empty profile. There is nothing to learn from.")
    if response is None:
        # A file is of one task, so a row without queries is understood from its neighbours.
        inputs = _inputs([row]) or _inputs(rows)
        task = _find_task(row.where, profile[0].fields, inputs)
        if task is not None:
            response = task.response
            template = template or Template.parse(task.prompt)
    return items_of(row.where, profile, response, template)


def _find_task(where: str, fields: Iterable[str], inputs: Sequence[str]) -> _Task | None:
    """The task that items with these fields are of, or None if they speak for themselves."""
    names = set(fields)
    fitting = [task for task in TASKS if task.fields <= names]
    if "response" in names or not fitting:
        return None
    for task in fitting:
        if all(text.startswith(task.opening) for text in inputs):
            return task
    raise HistoryError(
        f"{where}: the items look like {' or '.join(task.name for task in fitting)}, but the "
        "queries are worded otherwise. Name the field with the user's own text (response, "
        "--response) and the wording of the requests (prompt, --prompt)."
    )


def _inputs(rows: Iterable[Record]) -> list[str]:
    """What the held-out queries ask, which tells tasks with the same fields apart."""
    asked: list[object] = []
    for row in rows:
        queries = row.fields.get("queries")
        asked += queries if isinstance(queries, list) else [row.fields]
    inputs = (query.get("input") for query in asked if isinstance(query, Mapping))
    return [text for text in inputs if isinstance(text, str)]


def queries_of(row: Record) -> list[HistoryItem]:
    """An author's held-out items."""
    if "queries" in row.fields:
        records = objects_of(row, "queries", "query")
    else:
        # Without LaMP's file of outputs, its rows hold out nothing.
        records = [row] if {"input", "output"} <= row.fields.keys() else []
    return with_text(
        row.where,
        "queries",
        [
            HistoryItem(response=text_of(record, "output"), request=text_of(record, "input"))
            for record in records
        ],
    )
