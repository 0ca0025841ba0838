"""The format of `me.json`, described once.

By the structs below msgspec checks a file and makes `profile.schema.json` (`make schema`). It turns
them into the types of `types.py`, which have the same names and fields, and these into them; what
those check for themselves it reports with its place as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from types import UnionType
from typing import (
    Annotated,
    Any,
    Final,
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
from numpy.typing import NDArray

from steerx_edge.errors import ProfileError
from steerx_edge.profile import types
from steerx_edge.steering.memory import Level

FORMAT: Final = "steerx-edge-profile"
SCHEMA: Final = 2

_T = TypeVar("_T")

_MAX_INTEGER = 2**53 - 1  # what every JSON reader holds exactly
_MAX_TOKEN = 2**31 - 1
_MAX_FLOAT = 1.7976931348623157e308
_MIN_FLOAT32, _MAX_FLOAT32 = 1e-45, 3.4028235e38  # above 0, as they are written
_LINE_WIDTH = 140  # a word with its effect and interval fits on one line

# Strings reach terminals and web pages, and a file may come from a stranger: no control
# characters (terminal escapes), no lone surrogates (not UTF-8). In Python `$` lets a last line
# feed pass; a length does not.
_CONTROL = r"\x7f-\x9f\ud800-\udfff\x00-\x08\x0b-\x1f"
_PROSE = rf"^(?![\s\S]*[{_CONTROL}])"
_LINE = rf"^(?![\s\S]*[{_CONTROL}\t\n])"
_FILE_NAME = rf"^(?!\.|[\s\S]*[/\\{_CONTROL}\t\n])"
_DAY = "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_TIME = f"^{_DAY}T([01][0-9]|2[0-3])(:[0-5][0-9]){{2}}Z$"


def _string(description: str, pattern: str, least: int, most: int) -> Meta:
    return Meta(description=description, pattern=pattern, min_length=least, max_length=most)


def _integer(least: int, most: int = _MAX_INTEGER) -> Meta:
    return Meta(description=f"an integer from {least} to {most}", ge=least, le=most)


def _number(most: float, least: float | None = None) -> Meta:
    bound = "" if least is None else f", at least {least:g}"
    return Meta(
        description=f"a finite number{bound}", ge=-most if least is None else least, le=most
    )


def _list(description: str) -> Meta:
    return Meta(description=f"a list, not empty: {description}", min_length=1)


# A description says what is expected: in errors, and in the JSON Schema.
Line = Annotated[
    str, _string("a string of 1 to 1000 characters without control characters", _LINE, 1, 1_000)
]
Prose = Annotated[
    str,
    _string(
        "a string of 1 to 20000 characters without control characters but tabs and line feeds",
        *(_PROSE, 1, 20_000),
    ),
]
FileName = Annotated[
    str,
    _string(
        "the name of a file in the profile's folder, 1 to 255 characters, not beginning with a dot",
        *(_FILE_NAME, 1, 255),
    ),
]
Digits = Annotated[str, _string("64 lower-case hexadecimal digits", "^[0-9a-f]{64}$", 64, 64)]
Fingerprint = Annotated[
    str,
    _string("'sha256:' and 64 lower-case hexadecimal digits", "^sha256:[0-9a-f]{64}$", 71, 71),
]
Time = Annotated[str, _string("a UTC time such as '2025-01-31T09:30:00Z'", _TIME, 20, 20)]
Day = Annotated[str, _string("a day such as '2025-01-31'", r"^(\d{4}-\d\d-\d\d)?$", 0, 10)]
Natural = Annotated[int, _integer(0)]
Positive = Annotated[int, _integer(1)]
Token = Annotated[int, _integer(0, _MAX_TOKEN)]
Number = Annotated[float, _number(_MAX_FLOAT)]
NotNegative = Annotated[float, _number(_MAX_FLOAT, 0)]
Float32 = Annotated[float, _number(_MAX_FLOAT32)]
NotNegative32 = Annotated[float, _number(_MAX_FLOAT32, 0)]
Positive32 = Annotated[float, _number(_MAX_FLOAT32, _MIN_FLOAT32)]
Setting = Annotated[
    Annotated[str, Meta(pattern=_PROSE, max_length=20_000)]
    | Annotated[int, _integer(-_MAX_INTEGER)]
    | Number
    | bool,
    Meta(description="a string without control characters, a finite number, true or false"),
]
Strengths = Annotated[tuple[NotNegative32, ...], _list("for each layer, a share of its norm")]


class _Object(msgspec.Struct, forbid_unknown_fields=True):
    """An object of the file, with the fields and in the order of the file."""


class Model(_Object):
    """Which model the entry is for."""

    fingerprint: Fingerprint
    name: Line
    architecture: Line
    n_layer: Positive
    n_embd: Positive
    n_params: Positive
    quantization: Line


class Description(_Object):
    """How the user writes, and who said so."""

    text: Prose
    origin: Literal["model", "statistics", "user"]


class Word(_Object):
    """An anchor word, its causal effect in nats and the effect's 95% interval."""

    word: Line
    effect: Number
    low: Number
    high: Number
    count: Positive
    items: Positive


class Edit(_Object):
    """What the user decided about a word; learned is what it had among the words."""

    action: types.Action
    word: Line
    tokens: tuple[Token, ...]
    learned: tuple[Word, ...] = ()


class Gain(_Object):
    """Gain on the user's own held-out items, in nats/token, and its 95% interval."""

    mean: Number
    low: Number
    high: Number
    items: Positive


class WithHistory(_Object):
    """Strengths for prompts that hold texts of the user, and what they gave over these alone."""

    strengths: Strengths
    logit_bias: NotNegative
    memory: NotNegative
    gain: Gain


class LogitBias(_Object):
    """What is added to the logits of some tokens of the vocabulary: strength x values, nats."""

    strength: NotNegative
    tokens: Annotated[tuple[Token, ...], _list("ids, strictly increasing")]
    values: Annotated[tuple[Float32, ...], _list("one for each token")]


class Memory(_Object):
    """Tokens of the user's texts, in a GGUF file beside the profile; level says which."""

    strength: NotNegative
    level: Level
    rows: Positive
    file: FileName
    sha256: Digits


class Gate(_Object):
    """Which answers are steered: see docs/profile.md."""

    direction: Annotated[tuple[Float32, ...], _list("as wide as the model")]
    threshold: Number


class TextSource(_Object, omit_defaults=True):
    """A history that was learned from."""

    format: Line
    texts: Positive
    first: Day = ""
    last: Day = ""


class Entry(_Object, kw_only=True, omit_defaults=True):
    """What was learned on one model; what only programs read comes last."""

    model: Model
    created: Time
    sources: tuple[TextSource, ...] = ()
    description: Description
    words: tuple[Word, ...]
    edits: tuple[Edit, ...] = ()
    gain: Gain | None
    layers: Annotated[tuple[Positive, ...], _list("0-based blocks, strictly increasing")]
    contrast_methods: Annotated[
        tuple[types.DirectionOrigin, ...], _list("how each direction was found")
    ]
    strengths: Strengths
    with_history: WithHistory | None
    positions: Literal["generated", "all"]
    counts: dict[Line, Natural]
    settings: dict[Line, Setting]
    versions: dict[Line, Line]
    logit_bias: LogitBias | None
    memory: Memory | None
    gate: Gate | None
    norms: Annotated[tuple[Positive32, ...], _list("for each layer, of the residual stream")]
    directions: Annotated[tuple[tuple[Float32, ...], ...], _list("a unit vector for each layer")]


class File(_Object):
    """What was learned about one user's writing, one entry for each model.

    Beyond this schema the reader checks: integers are written without a decimal point; no key is
    there twice; low <= high; a word's items <= count; layers strictly increase and lie below
    n_layer; one contrast method, strength, norm and direction for each layer, and one strength
    with_history; directions are as wide as the model and of unit
    length; a logit bias has one value for each token, and its tokens increase; models are distinct.
    """

    format: Literal["steerx-edge-profile"]
    schema: Literal[2]
    entries: Annotated[tuple[Entry, ...], _list("one entry for each model")]


class _Meaning(msgspec.Struct):
    entries: tuple[types.Entry, ...]


def encode(entries: Sequence[types.Entry]) -> bytes:
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
    file = _converted(document, File, document)
    return (_layout(msgspec.to_builtins(file)) + "\n").encode()


def decode(data: bytes) -> tuple[types.Entry, ...]:
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
            f"made by {age} steerx-edge (schema {_shown(schema)}; this one reads {SCHEMA}): "
            f"{advice}"
        )
    file = _converted(document, File, document)
    return _converted(file, _Meaning, document).entries


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
            raise ProfileError(f"the key {_shown(key)} occurs twice in one object")
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


# ---------------------------------------------------------------- what is wrong, and where


def _converted(value: object, kind: type[_T], document: object) -> _T:
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
    if problem[0].islower():  # of types.py, and begins with a field
        return f"{place}.{problem}".lstrip(".")
    if in_key:
        kind, place = Line, f"{place}.(key)"
        value = next(key for key in value if not _fits(key, kind))
    place = place.lstrip(".") or "the profile"
    if problem.startswith("Object contains unknown"):
        known = _bare(kind).__struct_fields__
        unknown = next(key for key in value if key not in known)
        return f"{place} has an unknown key {_shown(unknown)}; known are {', '.join(known)}"
    if problem.startswith("Object missing"):
        return f"{place} lacks the key '{problem.split('`')[1]}'"
    return f"{place} is {_shown(value)}; expected {_expected(kind)}"


def _expected(kind: Any) -> str:
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


def _shown(value: object) -> str:
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
