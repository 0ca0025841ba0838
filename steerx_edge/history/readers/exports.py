"""What programs export: JSON of any shape, whose fields may be missing or of another kind."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any

import msgspec

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers.json_stream import json_values
from steerx_edge.history.readers.source import Source

_JSON_TOKEN = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"(\s*:)?|[\[{]|[\]}]', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
_MILLISECONDS = 1e11  # seconds since 1970 that are greater than this are milliseconds


def first_keys(source: Source) -> frozenset[str]:
    """Return the keys of the first object in a JSON file, as far as its first 64 KiB show them.

    They are those of the only object, of the first in an array, or of the first of JSON lines. An
    item that is made for this library, with ``response``, is of no other program: it has none.
    """
    keys = _keys(source.beginning)
    return frozenset() if "response" in keys else keys


@lru_cache(maxsize=1)
def _keys(beginning: bytes) -> frozenset[str]:
    text = decoded_beginning(beginning).lstrip()
    if not re.match(r"(?:\[\s*)?\{", text):
        return frozenset()
    wanted = 1 + text.startswith("[")
    depth = 0
    keys = set()
    for token in _JSON_TOKEN.finditer(text):
        if token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth -= 1
            if depth < wanted:
                break
        elif token[2] is not None and depth == wanted:
            keys.add(token[1])
    return frozenset(keys)


def decoded_beginning(beginning: bytes) -> str:
    """Return the text that bytes begin with, in UTF-8, or in UTF-16 or UTF-32."""
    return beginning.decode(json.detect_encoding(beginning), "ignore")


def json_of(source: Source) -> Any:
    """Parse a JSON file as a whole, in memory.

    Raises:
        HistoryError: It cannot be read, or is not valid JSON.
    """
    with source.open() as file:
        data = file.read()
    # Without a copy of the text in memory, which has four bytes for each character if one of them
    # is an emoji. What msgspec refuses (byte order marks, lone surrogates) the other may take.
    with suppress(msgspec.DecodeError, RecursionError):
        return msgspec.json.decode(data)
    return parsed(source, data)


def json_array(source: Source) -> Iterator[Any]:
    """Yield the values of a JSON array one by one; what is no array is its only value.

    One value is in memory at a time.

    Raises:
        HistoryError: The file cannot be read, or is damaged from here on; says after how many.
    """
    if not decoded_beginning(source.beginning).lstrip().startswith("["):
        yield json_of(source)
        return
    for _, value in json_values(source, lambda path: not path):
        yield value


def parsed(source: Source, data: bytes | str) -> Any:
    """Parse JSON that was read from a file.

    Raises:
        HistoryError: It is not valid JSON; names the file, and where.
    """
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        raise HistoryError(
            f"{source}: line {error.lineno} is not valid JSON ({error.msg}, column {error.colno}). "
            "Export it again."
        ) from error
    except (ValueError, RecursionError) as error:
        raise HistoryError(
            f"{source} is not valid JSON in UTF-8, or is nested too deeply. Export it again."
        ) from error


def json_lines(source: Source) -> Iterator[tuple[str, Any]]:
    """Yield each line of a file, as messages name it, and its value; None where it is damaged.

    The file is read line by line.
    """
    with source.open() as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = None
            yield f"{source}: line {number}", value


@lru_cache(maxsize=1)
def unwrapped(source: Source) -> Source:
    """Return the folder with the content: archives often hold one folder, and that the rest."""
    while source.is_folder:
        children = list(source.children())
        if len(children) != 1 or not children[0].path.is_dir():
            break
        source = children[0]
    return source


def at(value: Any, *path: str) -> Any:
    """Return what lies at a path of keys; None if it is not there."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def text_at(value: Any, *path: str) -> str:
    """Return the text at a path of keys; empty if there is none. A number is text, as an id is.

    Lone surrogates, which no tokenizer accepts, become the replacement character.
    """
    found = at(value, *path)
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    if not isinstance(found, str):
        return ""
    if _SURROGATE.search(found):
        return found.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return found


def list_at(value: Any, *path: str) -> list[Any]:
    """Return the list at a path of keys; empty if there is none."""
    found = at(value, *path)
    return found if isinstance(found, list) else []


def moment(value: object) -> datetime | None:
    """Return a time: seconds or milliseconds since 1970, also as text, or ISO 8601.

    What has no time zone is in UTC. None if it is no time.
    """
    try:
        if isinstance(value, str) and not re.fullmatch(r"\d+(?:\.\d+)?", value):
            iso = re.sub(r"(\.\d{1,6})\d*", lambda found: found[1].ljust(7, "0"), value)
            time = datetime.fromisoformat(iso.replace("Z", "+00:00"))
            return time if time.tzinfo else time.replace(tzinfo=timezone.utc)
        if isinstance(value, (str, int, float)):
            seconds = float(value)
            if seconds > _MILLISECONDS:
                seconds /= 1000
            return datetime.fromtimestamp(seconds, timezone.utc)
    except (ValueError, OverflowError, OSError):
        pass
    return None
