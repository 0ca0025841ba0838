"""JSON that is too large for the memory, read value by value."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers.source import Source

Path: TypeAlias = "tuple[str | int, ...]"
"""Where a value lies: the keys of objects and the numbers, from 0, in arrays, outermost first."""

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")
_CHUNK = 1 << 20


def json_values(source: Source, is_opened: Callable[[Path], bool]) -> Iterator[tuple[Path, Any]]:
    """Yield the values in a JSON file in their order, each with its place.

    One value is in memory at a time.

    Args:
        source: The file, in UTF-8, UTF-16 or UTF-32.
        is_opened: Whether an object or an array at a place is yielded value by value, rather than
            as a whole; an empty one then yields nothing.

    Raises:
        HistoryError: The file cannot be read, or is damaged from here on; says after how many
            values.
    """
    encoding = json.detect_encoding(source.beginning)
    with source.open() as data, io.TextIOWrapper(data, encoding, "replace") as file:
        reader = _Reader(file)
        n_values = 0
        try:
            for found in reader.values((), is_opened):
                n_values += 1
                yield found
        except (ValueError, RecursionError) as error:
            raise HistoryError(
                f"{source} is damaged after {n_values} records. Export it again."
            ) from error


class _Reader:
    """A place in a JSON text that is read piece by piece.

    Every method raises a `ValueError` or a `RecursionError` if the text is not valid JSON.
    """

    def __init__(self, file: io.TextIOWrapper) -> None:
        self._file = file
        self._buffer = ""
        self._place = 0

    def values(self, path: Path, is_opened: Callable[[Path], bool]) -> Iterator[tuple[Path, Any]]:
        """Yield the value that begins here, or, if it is opened, those in it."""
        opening = self._next()
        if opening not in "{[" or not is_opened(path):
            yield path, self._value()
            return
        closing = "}" if opening == "{" else "]"
        self._place += 1
        number = 0
        while self._next() != closing:
            if number:
                self._skip(",")
            key: str | int = number
            if opening == "{":
                key = self._value()
                self._skip(":")
            yield from self.values((*path, key), is_opened)
            number += 1
        self._place += 1

    def _skip(self, expected: str) -> None:
        if self._next() != expected:
            raise ValueError(f"no {expected}")
        self._place += 1

    def _next(self) -> str:
        """The next character that is no white space; it is not passed."""
        while True:
            space = _SPACE.match(self._buffer, self._place)
            self._place = space.end() if space else self._place
            if self._place < len(self._buffer):
                return self._buffer[self._place]
            if not self._read_more():
                raise ValueError("the file ends too early")

    def _value(self) -> Any:
        """Decode the value that begins here, as a whole."""
        self._next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._buffer, self._place)
            except ValueError:
                if not self._read_more():
                    raise
                continue
            if end == len(self._buffer) and self._read_more():
                continue  # a number may go on
            self._place = end
            return value

    def _read_more(self) -> bool:
        """Read the next piece, at least as much as is waiting; forget what was passed."""
        waiting = self._buffer[self._place :]
        more = self._file.read(max(_CHUNK, len(waiting)))
        self._buffer, self._place = waiting + more, 0
        return bool(more)
