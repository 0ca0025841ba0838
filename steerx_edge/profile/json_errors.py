"""What is wrong in a profile's JSON, and where: msgspec's messages as sentences."""

from __future__ import annotations

import json
import re
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
import numpy as np
from msgspec import Meta

from steerx_edge.errors import ProfileError
from steerx_edge.profile.json_structs import File, Line

_T = TypeVar("_T")


def converted(value: object, kind: type[_T], document: object) -> _T:
    """Convert a document, or what was made of one.

    Args:
        value: `document`, or a struct that was made of it.
        kind: what it becomes.
        document: the JSON of the file, from which errors take what they show.

    Raises:
        ProfileError: names the first thing wrong, its place, and what was expected.
    """
    try:
        # In a list, so that every error has a place.
        (converted,) = msgspec.convert(
            [value],
            list[kind],  # type: ignore[valid-type]
            from_attributes=True,
            dec_hook=lambda _, numbers: np.array(numbers, object),
        )
    except msgspec.ValidationError as error:
        raise ProfileError(_reworded(str(error), document)) from None
    except UnicodeEncodeError:
        raise ProfileError("not text: it holds a lone surrogate") from None
    return converted


def _reworded(message: str, document: Any) -> str:
    """What msgspec says, as a sentence with the place, the value and what was expected."""
    problem, in_key, path = re.findall(r"(?s)^(.*) - at (`key` in )?`\$\[0\](.*)`$", message)[0]
    kind: Any = File
    value, place = document, ""
    for name, index in re.findall(r"\.(\w+)|\[([0-9]+|\.\.\.)\]", path):
        kind = _type_of_member(kind, name)
        step: Any = int(index) if index.isdigit() else name
        if index == "...":
            step = next(key for key, member in value.items() if not _fits(member, kind))
        place += f"[{step}]" if index.isdigit() else f".{step}"
        value = value[step]
    if problem[0].islower():  # of an entry, and begins with a field
        return f"{place}.{problem}".lstrip(".")
    if in_key:
        kind, place = Line, f"{place}.(key)"
        value = next(key for key in value if not _fits(key, kind))
    place = place.lstrip(".") or "the profile"
    if problem.startswith("Object contains unknown"):
        known = _bare(kind).__struct_fields__
        unknown = next(key for key in value if key not in known)
        return f"{place} has an unknown key {shown(unknown)}; known are {', '.join(known)}"
    if problem.startswith("Object missing"):
        return f"{place} lacks the key '{problem.split('`')[1]}'"
    return f"{place} is {shown(value)}; expected {_expected(kind)}"


def _expected(kind: Any) -> str:
    if get_origin(kind) in (Union, UnionType):  # with None
        return _expected(get_args(kind)[0])
    for each in get_args(kind):
        if isinstance(each, Meta) and each.description:
            return each.description
    kind = _bare(kind)
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    return "a list" if get_origin(kind) is tuple else "an object"


def _bare(kind: Any) -> Any:
    """A type without its constraints, and without None."""
    while get_origin(kind) in (Annotated, Union, UnionType):
        kind = get_args(kind)[0]
    return kind


def _type_of_member(kind: Any, name: str) -> Any:
    """The name of a field; empty for members of a list or of an object with any keys."""
    kind = _bare(kind)
    if name:
        return get_type_hints(kind, include_extras=True)[name]
    return get_args(kind)[1 if get_origin(kind) is dict else 0]


def _fits(value: object, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except (msgspec.ValidationError, UnicodeEncodeError):
        return False
    return True


def shown(value: object) -> str:
    """A value in a few words, always safe to print."""
    if isinstance(value, dict):
        return f"an object with {len(value)} keys"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)} values"
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:40] + "…")
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    return repr(value) if isinstance(value, float) else json.dumps(value)
