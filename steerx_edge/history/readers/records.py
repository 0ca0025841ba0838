"""JSON objects of a file, with where they stand."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from steerx_edge.errors import HistoryError


class Record(NamedTuple):
    """A JSON object and where it stands, in words for a message."""

    where: str
    fields: Mapping[str, object]


@dataclass(frozen=True)
class Template:
    """A request's wording: literal pieces, each followed by the field that is put after it."""

    pieces: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, template: str) -> Template:
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

    def fill(self, record: Record) -> str:
        """The wording with the record's values in it."""
        return "".join(
            literal + ("" if field is None else _request_value(record, field))
            for literal, field in self.pieces
        )


_JSON_SUFFIXES = {".json", ".jsonl", ".ndjson"}

# Text, but not prose: split on blank lines they would teach markup and headers.
_UNREAD_SUFFIXES = {".csv", ".eml", ".htm", ".html", ".mbox", ".rtf", ".tsv", ".xml"}

_JSON_HELP = 'Each line must be one JSON object, such as {"prompt": "...", "response": "..."}.'


def read_text(file: Path) -> str:
    """The text of a file, with line feeds alone."""
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


def is_json(file: Path, text: str) -> bool:
    """Whether a file holds JSON: by its name, else by its first line."""
    if file.suffix.lower() in _JSON_SUFFIXES:
        return True
    try:
        return isinstance(json.loads(text.lstrip().partition("\n")[0]), dict)
    except (ValueError, RecursionError):
        return False


def read_records(file: Path, text: str) -> list[Record]:
    """The JSON objects of a file: one a line, or all in one array."""
    if text.lstrip().startswith("["):
        values = _parse_array(file, text)
    else:
        # Not splitlines(): JSON strings may hold the other line separators of Unicode.
        values = (
            (f"{file}: line {number}", _parse_line(f"{file}: line {number}", line))
            for number, line in enumerate(text.split("\n"), start=1)
            if line.strip()
        )
    return [Record(where, object_of(where, value)) for where, value in values]


def _parse_line(where: str, line: str) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise HistoryError(
            f"{where} is not valid JSON ({error.msg}, column {error.colno}). {_JSON_HELP}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise HistoryError(f"{where} nests too deep, or has too long a number.") from error


def parse_document(file: Path, text: str) -> object:
    """One JSON value that is the whole of a file."""
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
    values = parse_document(file, text)
    if not isinstance(values, list) or not values:
        raise HistoryError(f"{file} is an empty array. Give some of the user's writing.")
    return ((f"{file}: entry {number}", value) for number, value in enumerate(values, start=1))


def object_of(where: str, value: object) -> Mapping[str, object]:
    """A JSON value that must be an object."""
    if not isinstance(value, dict):
        raise HistoryError(f"{where} holds {_kind(value)}, not an object. {_JSON_HELP}")
    return value


def objects_of(row: Record, field: str, noun: str) -> list[Record]:
    """The objects in a list that a field holds."""
    values = row.fields.get(field)
    if not isinstance(values, list):
        raise HistoryError(
            f"{row.where}: '{field}' must be a list of objects, not {_kind(values)}."
        )
    places = [f"{row.where}, {noun} {number}" for number in range(1, len(values) + 1)]
    return [
        Record(where, object_of(where, value)) for where, value in zip(places, values, strict=True)
    ]


def text_of(record: Record, field: str) -> str:
    """A field's text; null is read as empty."""
    value = field_of(record, field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise HistoryError(f"{record.where}: '{field}' holds {_kind(value)}, not text.")
    return _encodable(record, field, value)


def _request_value(record: Record, field: str) -> str:
    """A field as it stands in a request, where ratings and years are numbers."""
    value = field_of(record, field)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return text_of(record, field)


def field_of(record: Record, field: str) -> object:
    """A field's value, which must be there."""
    if field not in record.fields:
        raise HistoryError(f"{record.where} has no field '{field}'{names_of(record)}.")
    return record.fields[field]


def _encodable(record: Record, field: str, text: str) -> str:
    # JSON can escape half of a surrogate pair, which no tokenizer can take.
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise HistoryError(
            f"{record.where}: '{field}' holds half a character (\\u{ord(text[error.start]):04x}). "
            "Write the file anew as UTF-8."
        ) from error
    return text


def names_of(record: Record) -> str:
    """The first fields that a record has, in words for a message."""
    names = ", ".join(list(record.fields)[:8])
    return f" (it has {names})" if names else " (it is empty)"


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    kinds = {str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds[type(value)]
