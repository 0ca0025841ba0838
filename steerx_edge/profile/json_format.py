"""Entries as JSON, and JSON as entries: `me.json`, which `json_structs.py` describes.

What the entries check for themselves is reported with its place as well.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from steerx_edge.errors import ProfileError
from steerx_edge.profile.entry import Entry
from steerx_edge.profile.json_errors import converted, shown
from steerx_edge.profile.json_structs import FORMAT, SCHEMA, File

_LINE_WIDTH = 140  # a word with its effect and interval fits on one line


class _Meaning(msgspec.Struct):
    entries: tuple[Entry, ...]


def encode(entries: Sequence[Entry]) -> bytes:
    """Return the entries of a profile as JSON.

    Raises:
        ProfileError: the file could not be read back; names the place and what was expected.
    """
    stored = [
        replace(each, memory=each.memory and replace(each.memory, memory=None)) for each in entries
    ]
    document = {
        "format": FORMAT,
        "schema": SCHEMA,
        "entries": msgspec.to_builtins(stored, enc_hook=_plain),
    }
    for entry in document["entries"]:
        for name in ("memory", "problem") if entry["memory"] else ():
            del entry["memory"][name]
    file = converted(document, File, document)
    return (_layout(msgspec.to_builtins(file)) + "\n").encode()


def decode(data: bytes) -> tuple[Entry, ...]:
    """Return the entries of a profile from JSON.

    Raises:
        ProfileError: it is not a profile; names the first thing wrong, its place, and what was
            expected.
    """
    try:
        # json takes NaN, Infinity and 1e999; they are refused in their place.
        document = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_members)
    except UnicodeDecodeError as error:
        raise ProfileError(f"not UTF-8 text (byte {error.start})") from None
    except RecursionError:
        raise ProfileError("not a profile: nested too deeply") from None
    except ValueError as error:
        raise ProfileError(f"not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ProfileError(f'not a steerx-edge profile: no "format": "{FORMAT}" at its top')
    # Before anything else: another layout may differ in all the rest.
    schema = document.get("schema")
    if type(schema) is int and schema > 0 and schema != SCHEMA:
        age, advice = (
            ("a newer", "upgrade steerx-edge") if schema > SCHEMA else ("an older", "learn again")
        )
        raise ProfileError(
            f"made by {age} steerx-edge (schema {shown(schema)}; this one reads {SCHEMA}): {advice}"
        )
    file = converted(document, File, document)
    return converted(file, _Meaning, document).entries


def json_schema() -> str:
    """Return the JSON Schema of the format: `profile.schema.json`."""
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:steerx-edge:profile:{SCHEMA}",
        **msgspec.json.schema(File),
    }
    return json.dumps(document, indent=2) + "\n"


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, value in pairs:
        if key in members:  # readers differ in which one they take
            raise ProfileError(f"the key {shown(key)} occurs twice in one object")
        members[key] = value
    return members


def _plain(value: NDArray[Any] | np.generic) -> object:
    """Floats as a user would write them: the shortest that are read back as the same float32."""
    return (value.astype(str).astype(float) if value.dtype == np.float32 else value).tolist()


def _layout(value: object, indent: int = 0) -> str:
    """JSON text that puts on one line what fits, so that a list of words reads as a table."""
    line = json.dumps(value, ensure_ascii=False)
    if indent + len(line) <= _LINE_WIDTH or not isinstance(value, dict | list | tuple):
        return line
    members = value.items() if isinstance(value, dict) else [(None, one) for one in value]
    if not any(isinstance(one, dict | list | tuple) or key for key, one in members):
        return line  # numbers
    parts = [
        " " * (indent + 2)
        + (f"{json.dumps(key, ensure_ascii=False)}: " if key else "")
        + _layout(one, indent + 2)
        for key, one in members
    ]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return opening + "\n" + ",\n".join(parts) + "\n" + " " * indent + closing
