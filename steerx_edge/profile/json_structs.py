"""The objects of `me.json`, described once, with what each of their fields may hold.

By these structs msgspec checks a file and makes `profile.schema.json` (`make schema`). They have
the names and fields of the types that an entry is made of.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from steerx_edge.profile.entry import DirectionOrigin
from steerx_edge.profile.words import Action
from steerx_edge.steering.memory import Level

FORMAT: Final = "steerx-edge-profile"
SCHEMA: Final = 2

_MAX_INTEGER = 2**53 - 1  # what every JSON reader holds exactly
_MAX_TOKEN = 2**31 - 1
_MAX_FLOAT = 1.7976931348623157e308
_MIN_FLOAT32, _MAX_FLOAT32 = 1e-45, 3.4028235e38  # above 0, as they are written

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

    action: Action
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


class Trial(_Object, omit_defaults=True):
    """The gain at one strength or number of texts, and what neutral text lost, nats/token."""

    at: NotNegative32
    mean: Float32
    low: Float32
    high: Float32
    items: Positive
    loss: Float32 | None = None


class DirectionsTrial(_Object, omit_defaults=True):
    """The gain of some directions, and what neutral text lost, nats/token."""

    layers: tuple[Positive, ...]
    contrast_methods: tuple[DirectionOrigin, ...]
    strengths: tuple[NotNegative32, ...]
    mean: Float32
    low: Float32
    high: Float32
    items: Positive
    loss: Float32 | None = None


class Trials(_Object, omit_defaults=True):
    """What calibration measured on held-out texts: one strength varied, the others as chosen."""

    memory: tuple[Trial, ...] = ()
    logit_bias: tuple[Trial, ...] = ()
    directions: tuple[DirectionsTrial, ...] = ()
    memory_with_history: tuple[Trial, ...] = ()
    logit_bias_with_history: tuple[Trial, ...] = ()
    texts: tuple[Trial, ...] = ()


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
    contrast_methods: Annotated[tuple[DirectionOrigin, ...], _list("how each direction was found")]
    strengths: Strengths
    with_history: WithHistory | None
    trials: Trials | None = None
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
    with_history; directions are as wide as the model and of unit length; what was tried increases
    in each curve; a logit bias has one value for each token, and its tokens increase; models are
    distinct.
    """

    format: Literal["steerx-edge-profile"]
    schema: Literal[2]
    entries: Annotated[tuple[Entry, ...], _list("one entry for each model")]
