"""Tables with named columns: values between commas, semicolons or tabs (CSV, TSV)."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import NamedTuple

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem
from steerx_edge.history.readers.encoding import detected_encoding
from steerx_edge.history.readers.json_records import Record
from steerx_edge.history.readers.sections import request_for
from steerx_edge.history.readers.source import Options, Source, encoding_of
from steerx_edge.history.readers.texts import Dropped, Found, Text

NAME = "a table (CSV)"

_LARGEST_CELL = 1 << 24  # characters
_LONG = 1 << 14  # characters: less than what is read of a long file to see what it is
_DELIMITERS = ",;|\t"
_SUFFIXES = {".csv": _DELIMITERS, ".tsv": "\t", ".tab": "\t"}
_JSON = (b"{", b"[")
_SEPARATOR = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)  # Excel's own first line
_TEXT = ("response", "text", "body", "content", "contents", "message", "comment", "review", "post")
_REQUEST = ("prompt", "request", "question", "instruction", "input")
_TITLE = ("title", "subject", "headline", "topic")
_DATE = ("date", "timestamp", "datetime", "time", "created", "created_at", "written")
_AUTHOR = ("author", "from", "sender", "user", "username")


class _Layout(NamedTuple):
    """How a table is written.

    Attributes:
        delimiter: What stands between the columns.
        columns: Their names.
        skipped: Lines before these.
    """

    delimiter: str
    columns: tuple[str, ...]
    skipped: int

    def first_of(self, names: Sequence[str]) -> str | None:
        """The first of some names that a column has, in any case; as the table writes it."""
        own = {column.strip().lower().replace(" ", "_"): column for column in self.columns}
        return next((own[name] for name in names if name in own), None)


def recognize(source: Source) -> str:
    """Return what shows that a file is a table; its columns."""
    layout = _layout_of(source)
    if layout is None:
        return f"its name ends in {source.suffix}" if _may_be_named(source) else ""
    text = layout.first_of(_TEXT)
    return f"its first line names the columns {', '.join(layout.columns)}" + (
        f"; '{text}' holds the texts" if text else ""
    )


def read(source: Source, options: Options) -> Found:
    """Yield the texts of a column, row by row.

    Raises:
        HistoryError: The file cannot be read, it is not clear which column holds the texts, or
            several people wrote them and none is given; says which there are.
    """
    layout = _layout_of(source)
    if layout is None:
        raise HistoryError(
            f"{source} does not begin with the names of its columns, and rows of values. Add a "
            "first line, such as prompt,response."
        )
    columns = ", ".join(layout.columns)
    response = options.response or layout.first_of(_TEXT)
    if options.user is not None:
        raise HistoryError(f"{source} is a table, which has no users. Leave out the user.")
    if response is None or response not in layout.columns:
        said = (
            f"has no column '{response}'" if response else "does not say which column is the text"
        )
        raise HistoryError(
            f"{source} {said}. Name the one with your texts (response, --response): {columns}."
        )
    author = None if options.response and not options.me else layout.first_of(_AUTHOR)
    mine = _mine(source, layout, author, options.me) if author else None
    request = layout.first_of((*_REQUEST, *_TITLE))
    date = layout.first_of(_DATE)
    for where, row in _rows(source, layout):
        if row is None:
            yield Dropped("row with too few or too many columns", where)
        elif mine is not None and row[author or ""].strip().lower() not in mine:
            yield Dropped("by somebody else", where, row[response])
        elif not row[response].strip():
            yield Dropped("empty", where)
        else:
            if options.prompt is not None:
                asked = options.prompt.fill(Record(where, row))
            elif request is None or request == response:
                asked = ""
            else:
                is_title = request == layout.first_of(_TITLE)
                asked = request_for(row[request]) if is_title else row[request]
            written = _date_of(row[date]) if date else None
            yield Text(HistoryItem(row[response], asked), where, written)


def _mine(source: Source, layout: _Layout, author: str, me: Sequence[str]) -> set[str] | None:
    """The names of the person, as the column of authors has them; None if all rows are theirs."""
    rows = (row for _, row in _rows(source, layout) if row)
    names = Counter(row[author].strip() for row in rows if row[author].strip())
    given = {name.strip().lower() for name in me}
    if len(names) > 1 and not given & {name.lower() for name in names}:
        most = ", ".join(f"'{name}' ({n})" for name, n in names.most_common(5))
        raise HistoryError(
            f"{source}: the column '{author}' names {len(names)} people, such as {most}. Say which "
            "of them you are (me, --me); if all rows are yours, name the column with your texts "
            "(response, --response)."
        )
    return given if len(names) > 1 else None


def _rows(source: Source, layout: _Layout) -> Iterator[tuple[str, dict[str, str] | None]]:
    """The place of each row, and its values by column; None if their number is wrong."""
    csv.field_size_limit(max(csv.field_size_limit(), _LARGEST_CELL))
    with _opened(source) as lines:
        reader = csv.reader(lines, delimiter=layout.delimiter)
        try:
            for number, cells in enumerate(reader):
                where = f"{source}: line {reader.line_num}"
                if number <= layout.skipped or not any(cells):
                    continue
                fits = len(cells) == len(layout.columns)
                yield where, dict(zip(layout.columns, cells, strict=True)) if fits else None
        except csv.Error as error:
            raise HistoryError(f"{source}: line {reader.line_num} is damaged ({error}).") from error


@contextmanager
def _opened(source: Source) -> Iterator[io.TextIOWrapper]:
    with (
        source.open() as file,
        io.TextIOWrapper(
            file, encoding=detected_encoding(source), errors="replace", newline=""
        ) as lines,
    ):
        yield lines


def _layout_of(source: Source) -> _Layout | None:
    """How a table is written, by its first lines; None if it is none."""
    if source.is_folder or not source.beginning or source.beginning.startswith(_JSON):
        return None
    text = source.beginning.decode(encoding_of(source.beginning), "replace")
    if "\0" in text:
        return None
    if found := _SEPARATOR.match(text):
        rows = _complete_rows(text[found.end() :], found[1])
        return _Layout(found[1], tuple(rows[0]), 1) if rows else None
    is_named = source.suffix in _SUFFIXES
    tables = [
        (delimiter, rows)
        for delimiter in _SUFFIXES.get(source.suffix, _DELIMITERS)
        if _is_table(rows := _complete_rows(text, delimiter), delimiter, is_named=is_named)
    ]
    delimiter, rows = max(tables, key=lambda table: len(table[1][0]), default=("", []))
    return _Layout(delimiter, tuple(rows[0]), 0) if rows else None


def _may_be_named(source: Source) -> bool:
    """Whether a file is called a table, and may be one."""
    return source.suffix in _SUFFIXES and not source.beginning.startswith((*_JSON, b"\0"))


def _complete_rows(text: str, delimiter: str) -> list[list[str]]:
    """The first rows that are not cut off."""
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text), delimiter=delimiter):
            rows.append(row)
            if len(rows) > 5:
                break
    except csv.Error:
        return []
    is_cut = 1 < len(rows) <= 5 and len(text) >= _LONG
    return [row for row in (rows[:-1] if is_cut else rows[:5]) if row]


def _is_table(rows: Sequence[Sequence[str]], delimiter: str, *, is_named: bool) -> bool:
    """Whether the first row names columns, and the others have as many.

    A file that is called a table may have one column, and some broken rows. Another one has four
    rows and three columns, or two with tabs.
    """
    if len(rows) < (2 if is_named else 4) or not _are_names(rows[0]):
        return False
    n = len(rows[0])
    if is_named:
        return 2 * sum(len(row) == n for row in rows[1:]) >= len(rows) - 1
    spaced = any(cell.startswith(" ") for row in rows for cell in row)  # as in prose
    fits = n >= (2 if delimiter == "\t" else 3) and all(len(row) == n for row in rows)
    return fits and not (spaced and delimiter in ",;")


def _are_names(cells: Sequence[str]) -> bool:
    short = (0 < len(cell.strip()) <= 40 and not re.search(r"[.!?]\s*$", cell) for cell in cells)
    return all(short) and len(set(cells)) == len(cells)


def _date_of(text: str) -> datetime | None:
    try:
        date = datetime.fromisoformat(text.strip().replace("Z", "+00:00").replace(" UTC", "+00:00"))
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=timezone.utc)
