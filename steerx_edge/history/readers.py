"""Reading what a user has written, and what each piece of it answers.

A history is a list of items, each the user's own text and the request that it answers. It is
read from JSON lines, from per-author files as the LaMP and LongLaMP benchmarks have them, or
from plain text. Everything that can be wrong with a file is a :class:`HistoryError` that says
where; no message repeats the user's writing, which is private.
"""

from __future__ import annotations

import json
import logging
import os
import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem, User

logger = logging.getLogger(__name__)


class _Record(NamedTuple):
    """A JSON object and where it stands, in words for a message."""

    where: str
    fields: Mapping[str, object]


@dataclass(frozen=True)
class _Template:
    """A request's wording: literal pieces, each followed by the field that is put after it."""

    pieces: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, template: str) -> _Template:
        """Read ``Write a tasting note for {title}.``; only plain field names are let through."""
        try:
            parts = list(string.Formatter().parse(template))
        except ValueError as error:
            raise HistoryError(
                f"The prompt {template!r} cannot be read as a template ({error}). Write fields "
                "as {name}, and a brace that is meant as a brace twice: {{ or }}."
            ) from error
        for _, field, spec, conversion in parts:
            # Templates may come from elsewhere: attributes, indices and formats stay shut.
            if field is not None and (not field or set(field) & set(".[]") or spec or conversion):
                raise HistoryError(
                    f"The prompt {template!r} may name fields as {{name}} only: no index, "
                    "attribute, conversion or format, and not an empty {}."
                )
        return cls(tuple((literal, field) for literal, field, _, _ in parts))

    @property
    def fields(self) -> set[str]:
        """The names of the fields that the wording needs."""
        return {field for _, field in self.pieces if field is not None}

    def fill(self, record: _Record) -> str:
        """The wording with the record's values in it."""
        return "".join(
            literal + ("" if field is None else _request_value(record, field))
            for literal, field in self.pieces
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
        return {self.response} | _Template.parse(self.prompt).fields

    @property
    def opening(self) -> str:
        """The first words of the task's requests, enough to tell the tasks apart."""
        return " ".join(self.prompt.split()[:4])


# Where several tasks share their fields and the file holds no queries, the first one counts.
_TASKS = (
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
    # The benchmark's requests go on with the mail's first words; in a history all of the mail
    # is the user's text, so that none of it stands in the request.
    _Task(
        "LongLaMP email completion",
        "text",
        "Complete the text of the following email. title: {title}. text:",
    ),
)

# In the order in which they are looked for: ours, then those of the benchmarks as published.
_ID_FIELDS = ("user_id", "reviewerId", "name", "author", "id")
_RESPONSE_FIELDS = ("response", "text")

_JSON_SUFFIXES = {".json", ".jsonl", ".ndjson"}
# Text, but not prose: split on blank lines they would teach markup and headers.
_UNREAD_SUFFIXES = {".csv", ".eml", ".htm", ".html", ".mbox", ".rtf", ".tsv", ".xml"}
_JSON_HELP = 'Each line must be one JSON object, such as {"prompt": "...", "response": "..."}.'


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
    template = None if prompt is None else _Template.parse(prompt)
    text = _read_text(file)
    if not _is_json(file, text):
        _refuse_for_text(file, user=user, response=response, prompt=prompt)
        return _passages(text)
    records = _read_records(file, text)
    if _has_profiles(records):
        rows = _rows_by_user(records)
        chosen = _choose_user(file, rows, user)
        return _profile_items(rows[chosen], rows.values(), response, template)
    if user is not None:
        raise HistoryError(
            f"{file} is not a per-author file, so there is no user {user!r} to pick from it. "
            "Leave the user out, or give a file whose rows have user_id and profile."
        )
    return _items(str(file), records, response, template)


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
    template = None if prompt is None else _Template.parse(prompt)
    text = _read_text(file)
    records = _read_records(file, text) if _is_json(file, text) else []
    if not _has_profiles(records):
        raise HistoryError(
            f"{file} is not a per-author file: its rows must be JSON objects with user_id, "
            "profile and queries. To read one user's history, use read_history."
        )
    rows = _rows_by_user(_with_outputs(file, records))
    return (
        User(
            id=name,
            history=tuple(_profile_items(row, rows.values(), response, template)),
            queries=tuple(_queries(row)),
        )
        for name, row in rows.items()
    )


def has_users(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a per-author file, as :func:`read_users` reads them.

    Raises:
        HistoryError: The file cannot be read.
    """
    file = Path(path)
    text = _read_text(file)
    return _is_json(file, text) and _has_profiles(_read_records(file, text))


def _with_outputs(file: Path, records: list[_Record]) -> list[_Record]:
    """LaMP's questions with what the authors wrote, which is in a file of its own."""
    outputs = file.with_name(file.name.replace("_questions.json", "_outputs.json"))
    if outputs == file or not outputs.exists():
        return records
    whole = _object(str(outputs), _parse_document(outputs, _read_text(outputs)))
    golds = _objects(_Record(str(outputs), whole), "golds", "output")
    output_of = {str(_field(gold, "id")): _text(gold, "output") for gold in golds}
    return [
        _Record(where, {"output": output_of[name], **fields} if name in output_of else fields)
        for where, fields in records
        for name in [str(fields.get("id"))]
    ]


def _read_text(file: Path) -> str:
    if file.suffix.lower() in _UNREAD_SUFFIXES:
        raise HistoryError(
            f"{file} is a {file.suffix} file, which is not read. Turn it into JSON lines with "
            '"prompt" and "response", or into plain text with blank lines between passages.'
        )
    try:
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise HistoryError(f"There is no file {file}. Check the path.") from error
    except IsADirectoryError as error:
        raise HistoryError(
            f"{file} is a directory. Give one file of the user's writing."
        ) from error
    except OSError as error:
        raise HistoryError(f"{file} cannot be read: {error.strerror or error}.") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise HistoryError(
            f"{file} is not UTF-8 text (byte 0x{error.object[error.start]:02x} on line {line}). "
            "Save it as UTF-8 and try again."
        ) from error
    if not text.strip():
        raise HistoryError(f"{file} is empty. Give a file with some of the user's writing.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _is_json(file: Path, text: str) -> bool:
    if file.suffix.lower() in _JSON_SUFFIXES:
        return True
    try:
        return isinstance(json.loads(text.lstrip().partition("\n")[0]), dict)
    except (ValueError, RecursionError):
        return False


def _refuse_for_text(file: Path, **given: str | None) -> None:
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise HistoryError(
            f"{file} is plain text, which has no fields or users to choose from. Leave out "
            f"{' and '.join(names)}, or give a file of JSON objects."
        )


def _passages(text: str) -> list[HistoryItem]:
    return [HistoryItem(passage.strip()) for passage in re.split(r"\n\s*\n", text.strip())]


def _read_records(file: Path, text: str) -> list[_Record]:
    if text.lstrip().startswith("["):
        values = _parse_array(file, text)
    else:
        # Not splitlines(): JSON strings may hold the other line separators of Unicode.
        values = (
            (f"{file}: line {number}", _parse_line(f"{file}: line {number}", line))
            for number, line in enumerate(text.split("\n"), start=1)
            if line.strip()
        )
    return [_Record(where, _object(where, value)) for where, value in values]


def _parse_line(where: str, line: str) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise HistoryError(
            f"{where} is not valid JSON ({error.msg}, column {error.colno}). {_JSON_HELP}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise HistoryError(f"{where} nests too deep, or has too long a number.") from error


def _parse_document(file: Path, text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise HistoryError(
            f"{file}: line {error.lineno} is not valid JSON ({error.msg}, column {error.colno}). "
            "It must be one JSON value from beginning to end."
        ) from error
    except (ValueError, RecursionError) as error:
        raise HistoryError(f"{file} nests too deep, or has too long a number.") from error


def _parse_array(file: Path, text: str) -> Iterable[tuple[str, object]]:
    values = _parse_document(file, text)
    if not isinstance(values, list) or not values:
        raise HistoryError(f"{file} is an empty array. Give some of the user's writing.")
    return ((f"{file}: entry {number}", value) for number, value in enumerate(values, start=1))


def _object(where: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise HistoryError(f"{where} holds {_kind(value)}, not an object. {_JSON_HELP}")
    return value


def _has_profiles(records: Sequence[_Record]) -> bool:
    return any(isinstance(record.fields.get("profile"), list) for record in records)


def _rows_by_user(records: Iterable[_Record]) -> dict[str, _Record]:
    rows: dict[str, _Record] = {}
    for record in records:
        name = _user_id(record)
        if name in rows:
            raise HistoryError(
                f"{record.where} is user {name!r} again. Put all that a user wrote in one row."
            )
        rows[name] = record
    return rows


def _user_id(record: _Record) -> str:
    for field in _ID_FIELDS:
        value = record.fields.get(field)
        if isinstance(value, (str, int)) and not isinstance(value, bool) and str(value).strip():
            return str(value)
    raise HistoryError(f"{record.where} names no author. Add a user_id to it.")


def _choose_user(file: Path, rows: Mapping[str, _Record], user: str | None) -> str:
    if user is not None and user in rows:
        return user
    if user is None and len(rows) == 1:
        return next(iter(rows))
    some = ", ".join(repr(name) for name in list(rows)[:3])
    held = f"user {some}" if len(rows) == 1 else f"{len(rows)} users, such as {some}"
    if user is None:
        raise HistoryError(f"{file} holds {held}. Name the one to read, with user or --user.")
    raise HistoryError(f"{file} has no user {user!r}. It holds {held}.")


def _profile_items(
    row: _Record, rows: Iterable[_Record], response: str | None, template: _Template | None
) -> list[HistoryItem]:
    profile = _objects(row, "profile", "profile item")
    if not profile:
        raise HistoryError(f"{row.where} has an empty profile. There is nothing to learn from.")
    if response is None:
        # A file is of one task, so a row without queries is understood from its neighbours.
        inputs = _inputs([row]) or _inputs(rows)
        task = _find_task(row.where, profile[0].fields, inputs)
        if task is not None:
            response = task.response
            template = template or _Template.parse(task.prompt)
    return _items(row.where, profile, response, template)


def _find_task(where: str, fields: Iterable[str], inputs: Sequence[str]) -> _Task | None:
    """The task that items with these fields are of, or None if they speak for themselves."""
    names = set(fields)
    fitting = [task for task in _TASKS if task.fields <= names]
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


def _inputs(rows: Iterable[_Record]) -> list[str]:
    """What the held-out queries ask, which tells tasks with the same fields apart."""
    asked: list[object] = []
    for row in rows:
        queries = row.fields.get("queries")
        asked += queries if isinstance(queries, list) else [row.fields]
    inputs = (query.get("input") for query in asked if isinstance(query, Mapping))
    return [text for text in inputs if isinstance(text, str)]


def _queries(row: _Record) -> list[HistoryItem]:
    if "queries" in row.fields:
        records = _objects(row, "queries", "query")
    else:
        # Without LaMP's file of outputs, its rows hold out nothing.
        records = [row] if {"input", "output"} <= row.fields.keys() else []
    return _with_text(
        row.where,
        "queries",
        [
            HistoryItem(response=_text(record, "output"), request=_text(record, "input"))
            for record in records
        ],
    )


def _objects(row: _Record, field: str, noun: str) -> list[_Record]:
    values = row.fields.get(field)
    if not isinstance(values, list):
        raise HistoryError(
            f"{row.where}: '{field}' must be a list of objects, not {_kind(values)}."
        )
    places = [f"{row.where}, {noun} {number}" for number in range(1, len(values) + 1)]
    return [
        _Record(where, _object(where, value)) for where, value in zip(places, values, strict=True)
    ]


def _items(
    source: str, records: Sequence[_Record], response: str | None, template: _Template | None
) -> list[HistoryItem]:
    items = [_item(record, response, template) for record in records]
    kept = _with_text(source, "items", items)
    if not kept:
        raise HistoryError(f"{source} holds {len(items)} items, and the text of each is empty.")
    return kept


def _with_text(source: str, noun: str, items: list[HistoryItem]) -> list[HistoryItem]:
    kept = [item for item in items if item.response.strip()]
    if len(kept) < len(items):
        left_out = len(items) - len(kept)
        logger.warning(
            "%s: left out %d of %d %s, whose text is empty.", source, left_out, len(items), noun
        )
    return kept


def _item(record: _Record, response: str | None, template: _Template | None) -> HistoryItem:
    if response is None:
        response = next((name for name in _RESPONSE_FIELDS if name in record.fields), None)
    if response is None:
        raise HistoryError(
            f"{record.where} has neither 'response' nor 'text'{_named(record)}. Name the field "
            "with the user's own text (response, --response)."
        )
    if template is not None:
        request = template.fill(record)
    elif "prompt" in record.fields and response != "prompt":
        request = _text(record, "prompt")
    else:
        request = ""
    return HistoryItem(response=_text(record, response), request=request)


def _text(record: _Record, field: str) -> str:
    """A field's text; null is read as empty."""
    value = _field(record, field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise HistoryError(f"{record.where}: '{field}' holds {_kind(value)}, not text.")
    return _encodable(record, field, value)


def _request_value(record: _Record, field: str) -> str:
    """A field as it stands in a request, where ratings and years are numbers."""
    value = _field(record, field)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return _text(record, field)


def _field(record: _Record, field: str) -> object:
    if field not in record.fields:
        raise HistoryError(f"{record.where} has no field '{field}'{_named(record)}.")
    return record.fields[field]


def _encodable(record: _Record, field: str, text: str) -> str:
    # JSON can escape half of a surrogate pair, which no tokenizer can take.
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise HistoryError(
            f"{record.where}: '{field}' holds half a character (\\u{ord(text[error.start]):04x}). "
            "Write the file anew as UTF-8."
        ) from error
    return text


def _named(record: _Record) -> str:
    names = ", ".join(list(record.fields)[:8])
    return f" (it has {names})" if names else " (it is empty)"


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    kinds = {str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds[type(value)]
