"""A file that holds a history, and the options to read it with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers.json_records import Record, Template, read_records

_JSON_SUFFIXES = {".json", ".jsonl", ".ndjson"}

# Text formats that would teach markup and headers if they were split on blank lines.
_UNSUPPORTED_SUFFIXES = {".csv", ".eml", ".htm", ".html", ".mbox", ".rtf", ".tsv", ".xml"}


class Options(NamedTuple):
    """What the user says about a file."""

    user: str | None = None
    response: str | None = None
    prompt: Template | None = None


class Source:
    """A file, read and parsed once, on first use.

    Every property raises a `HistoryError` if the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def text(self) -> str:
        """The content of the file, with line feeds as line ends."""
        return read_text(self.path)

    @cached_property
    def is_json(self) -> bool:
        """Whether the file holds JSON, judged by its suffix, then by its first line."""
        if self.path.suffix.lower() in _JSON_SUFFIXES:
            return True
        try:
            return isinstance(json.loads(self.text.lstrip().partition("\n")[0]), dict)
        except (ValueError, RecursionError):
            return False

    @cached_property
    def records(self) -> Sequence[Record]:
        """The JSON objects in the file."""
        return read_records(self.path, self.text)


def read_text(path: Path) -> str:
    """Read a UTF-8 text file, with line feeds as line ends.

    Raises:
        HistoryError: the file is missing, empty, not UTF-8, or of an unsupported kind.
    """
    if path.suffix.lower() in _UNSUPPORTED_SUFFIXES:
        raise HistoryError(
            f"{path}: {path.suffix} files are not supported. Convert it to JSON lines with "
            '"prompt" and "response", or to plain text with blank lines between the texts.'
        )
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise HistoryError(f"There is no file {path}. Check the path.") from error
    except IsADirectoryError as error:
        raise HistoryError(f"{path} is a directory. Give one file with your texts.") from error
    except OSError as error:
        raise HistoryError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise HistoryError(
            f"{path} is not UTF-8 text (byte 0x{error.object[error.start]:02x} on line {line}). "
            "Save it as UTF-8 and try again."
        ) from error
    if not text.strip():
        raise HistoryError(f"{path} is empty. Give a file with your texts.")
    return text.replace("\r\n", "\n").replace("\r", "\n")
