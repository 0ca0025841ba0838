"""JSON objects in a file, and their fields."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from steerx_edge.errors import HistoryError


class Record(NamedTuple):
    """A JSON object, and its place in the file as messages name it."""

    where: str
    fields: Mapping[str, object]


@dataclass(frozen=True)
class Template:
    """A request template: literal pieces, each followed by a field or None."""

    pieces: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, template: str) -> Template:
        """Parse a template such as ``Write a tasting note for {title}.``.

        Raises:
            HistoryError: the template is malformed, or holds more than plain field names.
        """
        try:
            parts = list(string.Formatter().parse(template))
        except ValueError as error:
            raise HistoryError(
                f"The prompt {template!r} is not a valid template ({error}). Write a field as "
                "{name}, and a literal brace as {{ or }}."
            ) from error
        for _, field, spec, conversion in parts:
            # A template may come from somebody else, so it gets no access to attributes or formats.
            if field is not None and (not field or set(field) & set(".[]") or spec or conversion):
                raise HistoryError(
                    f"The prompt {template!r} may hold fields as {{name}} only, without an index, "
                    "attribute, conversion or format, and not an empty {}."
                )
        return cls(tuple((literal, field) for literal, field, _, _ in parts))

    @property
    def fields(self) -> set[str]:
        """The names of the fields in the template."""
        return {field for _, field in self.pieces if field is not None}

    def fill(self, record: Record) -> str:
        """Fill in the values of a record."""
        return "".join(
            literal + ("" if field is None else _request_value(record, field))
            for literal, field in self.pieces
        )


_EXPECTED = 'Expected one JSON object per line, such as {"prompt": "...", "response": "..."}.'


def read_records(file: str, text: str) -> list[Record]:
    """Parse JSON lines, or one JSON array, of objects."""
    if text.lstrip().startswith("["):
        values = parse_json(file, text, expected="Expected one JSON array of objects.")
        if not isinstance(values, list) or not values:
            raise HistoryError(f"{file} is an empty array. Give a file with your texts.")
        places = [f"{file}: entry {number}" for number in range(1, len(values) + 1)]
    else:
        # Not splitlines(): JSON strings may hold the other line separators of Unicode.
        lines = [
            (number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()
        ]
        if whole := _one_object(text):
            return [Record(file, whole)]
        values = [parse_json(file, line, number, expected=_EXPECTED) for number, line in lines]
        places = [f"{file}: line {number}" for number, _ in lines]
    return [
        Record(where, object_of(where, value)) for where, value in zip(places, values, strict=True)
    ]


def _one_object(text: str) -> Mapping[str, object] | None:
    """The only object of a text, if it stands on several lines."""
    if text.lstrip().partition("\n")[0].rstrip().endswith("}"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def parse_json(file: str, text: str, first_line: int = 1, *, expected: str) -> object:
    """Parse a JSON value that begins on a line of a file.

    Args:
        file: its name, for messages.
        text: the value.
        first_line: the line on which it begins.
        expected: what the file should hold, in one sentence.

    Raises:
        HistoryError: the text is not valid JSON.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise HistoryError(
            f"{file}: line {first_line + error.lineno - 1} is not valid JSON ({error.msg}, column "
            f"{error.colno}). {expected}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise HistoryError(
            f"{file}: the JSON value on line {first_line} is nested too deeply or holds too long a "
            f"number. {expected}"
        ) from error


def object_of(where: str, value: object) -> Mapping[str, object]:
    """Return a JSON value that must be an object."""
    if not isinstance(value, dict):
        raise HistoryError(f"{where} holds {_kind(value)}, not an object. {_EXPECTED}")
    return value


def objects_of(row: Record, field: str, noun: str) -> list[Record]:
    """The objects in a list that is the value of a field."""
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
    """The text in a field; empty for null."""
    value = field_of(record, field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise HistoryError(f"{record.where}: '{field}' holds {_kind(value)}, not text.")
    return _encodable(record, field, value)


def _request_value(record: Record, field: str) -> str:
    """A field as text for a request; numbers, such as ratings and years, are allowed."""
    value = field_of(record, field)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return text_of(record, field)


def field_of(record: Record, field: str) -> object:
    """The value of a field.

    Raises:
        HistoryError: the record does not have the field.
    """
    if field not in record.fields:
        raise HistoryError(f"{record.where} has no field '{field}'{names_of(record)}.")
    return record.fields[field]


def _encodable(record: Record, field: str, text: str) -> str:
    # JSON can escape a lone surrogate, which no tokenizer accepts.
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise HistoryError(
            f"{record.where}: '{field}' holds a lone surrogate, "
            f"\\u{ord(text[error.start]):04x}, which is not a character. Correct the file."
        ) from error
    return text


def names_of(record: Record) -> str:
    """The first fields of a record, as messages name them."""
    names = ", ".join(list(record.fields)[:8])
    return f" (it has {names})" if names else " (it is empty)"


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    kinds = {str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds[type(value)]
