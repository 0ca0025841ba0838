"""Profile: what was learned about one person's writing, in one small JSON file (`me.json`).

The file is readable, holds no code, and has one entry for each model it was learned on. Loading
checks everything and names the first thing wrong. The format is described in `docs/profile.md` and,
for other programs, in `profile.schema.json`. A memory lies in a file of its own beside it, which
may be missing: see `MemoryPart`.

How checking works: a field's rule is written once, in its class's `__post_init__`, and so holds
for objects made in Python and in a file alike. The reader only turns JSON into constructor
arguments; `_at` adds the place in the file to an error on its way up.
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from steerx_edge.errors import ProfileError
from steerx_edge.files import about, check_file, replacing, size_of
from steerx_edge.memory_file import check_memory, read_memory, write_gguf
from steerx_edge.steering.gate import Gate
from steerx_edge.steering.memory import LEVELS, ActiveMemory, Level, Memory

__all__ = [
    "SOURCES",
    "Description",
    "Entry",
    "Gain",
    "MemoryPart",
    "ModelId",
    "Profile",
    "Setting",
    "Tilt",
    "WithHistory",
    "Word",
]

FORMAT = "steerx-edge-profile"
SCHEMA = 2
MAX_BYTES = 64 * 2**20

SOURCES = ("context-contrast", "stylevector")
"""What a direction can be made of; see docs/method.md."""

_MAX_INTEGER = 2**53 - 1  # what every JSON reader holds exactly
_MAX_TOKEN = 2**31 - 1
_UNIT_TOLERANCE = 1e-3
_LINE_WIDTH = 140  # a word with its effect and interval fits on one line

# Strings reach terminals and web pages, and a file may come from a stranger: no control
# characters (terminal escapes), no lone surrogates (not UTF-8).
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL_IN_PROSE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

Setting = str | int | float | bool

_T = TypeVar("_T")
_Scalar = TypeVar("_Scalar", bound=np.generic)
_Check = Callable[[object], _T]  # returns the value in its canonical type, or raises _FieldError


# ---------------------------------------------------------------- errors that know their place


class _FieldError(ProfileError):
    """A value that a profile may not hold; `_at` prepends where it is, level by level."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.where = ""

    def __str__(self) -> str:
        return f"{self.where.lstrip('.') or 'the profile'} {self.args[0]}"


@contextmanager
def _at(step: str | int) -> Iterator[None]:
    try:
        yield
    except _FieldError as error:
        error.where = (f"[{step}]" if isinstance(step, int) else f".{step}") + error.where
        raise


def _wrong(value: object, expected: str) -> _FieldError:
    return _FieldError(f"is {_shown(value)}; expected {expected}")


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


def _shown(value: object) -> str:
    """A value in a few words, safe to print whatever it is."""
    value = _plain(value)
    if isinstance(value, Mapping):
        return f"an object with {len(value)} keys"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)} values"
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} of shape {value.shape}"
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:40] + "…")
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    if value is None or isinstance(value, int | float):
        return repr(value)
    return f"a {type(value).__name__}"


# ---------------------------------------------------------------- checks, each written once


def _integer(value: object, least: int = -_MAX_INTEGER) -> int:
    number = _plain(value)
    if isinstance(number, int) and not isinstance(number, bool) and least <= number <= _MAX_INTEGER:
        return int(number)
    raise _wrong(value, f"an integer from {least} to {_MAX_INTEGER}")


def _number(value: object, least: float = -math.inf) -> float:
    number = _plain(value)
    if isinstance(number, int | float) and not isinstance(number, bool):
        with suppress(OverflowError):  # an integer beyond the largest double
            number = float(number)
            if math.isfinite(number) and number >= least:
                return number
    bound = "" if least == -math.inf else f", at least {least:g}"
    raise _wrong(value, f"a finite number{bound}")


def _string(value: object, least: int, most: int, control: re.Pattern[str]) -> str:
    string = _plain(value)
    if not isinstance(string, str) or not least <= len(string) <= most:
        raise _wrong(value, f"a string of {least} to {most} characters")
    if found := control.search(string):
        character = f"U+{ord(found[0]):04X} at position {found.start()}"
        raise _wrong(value, f"no control characters ({character})")
    return string


_natural = partial(_integer, least=0)
_positive = partial(_integer, least=1)
_at_least_zero = partial(_number, least=0.0)


def _gate(value: object) -> Gate:
    gate = _instance_of(Gate)(value)
    with _at("direction"):
        direction = _floats(gate.direction)
    with _at("threshold"):
        return Gate(direction, _number(gate.threshold))


_line = partial(_string, least=1, most=1_000, control=_CONTROL)
_prose = partial(_string, least=1, most=20_000, control=_CONTROL_IN_PROSE)


def _setting(value: object) -> Setting:
    plain = _plain(value)
    if isinstance(plain, bool):
        return plain
    if isinstance(plain, int):
        return _integer(plain)
    if isinstance(plain, float):
        return _number(plain)
    if isinstance(plain, str):
        return _string(plain, least=0, most=20_000, control=_CONTROL_IN_PROSE)
    raise _wrong(value, "a string, a number, true or false")


def _file_name(value: object) -> str:
    name = _string(value, least=1, most=255, control=_CONTROL)
    if name.startswith(".") or set(name) & set("/\\"):
        raise _wrong(name, "the name of a file in the profile's folder, not beginning with a dot")
    return name


def _sha256(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise _wrong(value, "64 lower-case hexadecimal digits")
    return value


def _fingerprint(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"sha256:[0-9a-f]{64}", value):
        raise _wrong(value, "'sha256:' and 64 lower-case hexadecimal digits")
    return value


def _utc_time(value: object) -> str:
    layout = "%Y-%m-%dT%H:%M:%SZ"
    with suppress(ValueError, TypeError):
        # strptime also takes '2025-1-2T3:4:5Z'; writing it back tells.
        if isinstance(value, str) and datetime.strptime(value, layout).strftime(layout) == value:
            return value
    raise _wrong(value, "a UTC time such as '2025-01-31T09:30:00Z'")


def _one_of(*choices: str) -> _Check[str]:
    def check(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise _wrong(value, " or ".join(map(repr, choices)))
        return value

    return check


def _instance_of(kind: type[_T]) -> _Check[_T]:
    def check(value: object) -> _T:
        if not isinstance(value, kind):
            raise _wrong(value, f"a {kind.__name__}")
        return value

    return check


def _none_or(check_one: _Check[_T]) -> _Check[_T | None]:
    return lambda value: None if value is None else check_one(value)


def _tuple_of(check_one: _Check[_T]) -> _Check[tuple[_T, ...]]:
    def check(value: object) -> tuple[_T, ...]:
        if not isinstance(value, list | tuple):
            raise _wrong(value, "a list")
        checked = []
        for index, one in enumerate(value):
            with _at(index):
                checked.append(check_one(one))
        return tuple(checked)

    return check


def _mapping_of(check_one: _Check[_T]) -> _Check[dict[str, _T]]:
    def check(value: object) -> dict[str, _T]:
        if not isinstance(value, Mapping):
            raise _wrong(value, "an object")
        checked = {}
        for key, one in value.items():
            with _at("(key)"):
                name = _line(key)
            with _at(name):
                checked[name] = check_one(one)
        return checked

    return check


def _array(value: object, kinds: str, what: str) -> NDArray[Any]:
    try:
        given = np.asarray(value)
    except ValueError:  # rows of different lengths
        raise _wrong(value, f"a rectangular array of {what}") from None
    if given.dtype.kind not in kinds:
        raise _wrong(value, f"an array of {what}")
    return given


def _frozen(given: NDArray[Any], dtype: type[_Scalar]) -> NDArray[_Scalar]:
    """A read-only copy, so that nobody else's change reaches a checked profile."""
    array = np.array(given, dtype=dtype, order="C")
    array.setflags(write=False)
    return array


def _floats(value: object) -> NDArray[np.float32]:
    given = _array(value, "fiu", "numbers")
    with np.errstate(all="ignore"):  # what does not fit in float32 becomes inf, refused below
        array = _frozen(given, np.float32)
    if not np.isfinite(array).all():
        raise _FieldError("holds a value that is not a finite float32 number")
    return array


def _token_ids(value: object) -> NDArray[np.int32]:
    given = _array(value, "iu", "integers")
    if given.ndim != 1 or not given.size:
        raise _wrong(given, "a list of token ids, at least one")
    if given.min() < 0 or given.max() > _MAX_TOKEN or (given[1:] <= given[:-1]).any():
        raise _FieldError(f"holds ids that do not strictly increase from 0 to {_MAX_TOKEN}")
    return _frozen(given, np.int32)


def _check_fields(record: object, **checks: _Check[Any]) -> None:
    for name, check in checks.items():
        with _at(name):
            object.__setattr__(record, name, check(getattr(record, name)))


def _check_interval(record: Word | Gain) -> None:
    if record.low > record.high:
        with _at("low"):
            raise _wrong(record.low, f"at most high, {record.high!r}")


# ---------------------------------------------------------------- what a profile is made of


@dataclass(frozen=True)
class ModelId:
    """Which model an entry is for.

    Attributes:
        fingerprint: `sha256:` and 64 hexadecimal digits, of the model file. Decides identity.
        name: the model's name, for people.
        architecture: llama.cpp's name of the architecture, such as `llama`.
        n_layer: number of transformer blocks.
        n_embd: width of the residual stream.
        n_params: number of parameters.
        quantization: llama.cpp's own words, such as `Q4_1`.

    Raises:
        ProfileError: a field holds what a profile may not hold.
    """

    fingerprint: str
    name: str
    architecture: str
    n_layer: int
    n_embd: int
    n_params: int
    quantization: str

    def __post_init__(self) -> None:
        _check_fields(
            self,
            fingerprint=_fingerprint,
            name=_line,
            architecture=_line,
            n_layer=_positive,
            n_embd=_positive,
            n_params=_positive,
            quantization=_line,
        )

    def __str__(self) -> str:
        return f"{self.name} ({self.quantization}, {self.fingerprint[:15]}…)"


@dataclass(frozen=True)
class Word:
    """One anchor word with its causal effect.

    Attributes:
        word: the word as the person writes it.
        effect: summed effect in an item, 0 where the word does not occur; the mean over all
            items, in nats.
        low: lower end of the 95% bootstrap interval of `effect` over items; nats.
        high: upper end of that interval; nats. At least `low`.
        count: occurrences in the history.
        items: items of the history it occurs in. At most `count`.

    Raises:
        ProfileError: a field holds what a profile may not hold.
    """

    word: str
    effect: float
    low: float
    high: float
    count: int
    items: int

    def __post_init__(self) -> None:
        _check_fields(
            self,
            word=_line,
            effect=_number,
            low=_number,
            high=_number,
            count=_positive,
            items=_positive,
        )
        _check_interval(self)
        if self.items > self.count:
            with _at("items"):
                raise _wrong(self.items, f"at most count, {self.count}")


@dataclass(frozen=True)
class Description:
    """How the person writes, in a sentence or a few.

    Attributes:
        text: the description, 1 to 20,000 characters.
        origin: who wrote it: the model, our deterministic sentence, or the person.

    Raises:
        ProfileError: a field holds what a profile may not hold.
    """

    text: str
    origin: Literal["model", "statistics", "user"]

    def __post_init__(self) -> None:
        _check_fields(self, text=_prose, origin=_one_of("model", "statistics", "user"))


@dataclass(frozen=True)
class Gain:
    """What a profile gave on the person's own held-out items, over the unsteered model.

    Attributes:
        mean: gain in log-probability of the person's text, in nats/token.
        low: lower end of its 95% interval; nats/token.
        high: upper end of that interval; nats/token. At least `low`.
        items: items it was measured on.

    Raises:
        ProfileError: a field holds what a profile may not hold.
    """

    mean: float
    low: float
    high: float
    items: int

    def __post_init__(self) -> None:
        _check_fields(self, mean=_number, low=_number, high=_number, items=_positive)
        _check_interval(self)


@dataclass(frozen=True, eq=False)
class Tilt:
    """Which tokens the person uses more, or less, than the model expects.

    Attributes:
        tokens: ids in the model's vocabulary, int32, shape (m,), strictly increasing, at least
            one; read-only.
        values: what is added to their logits at strength 1, in nats, float32, shape (m,);
            read-only.
        strength: what `values` are multiplied by at relative strength 1; at least 0.

    Raises:
        ProfileError: a field holds what a profile may not hold.
    """

    tokens: NDArray[np.int32]  # (m,)
    values: NDArray[np.float32]  # (m,)
    strength: float

    def __post_init__(self) -> None:
        _check_fields(self, strength=_at_least_zero, tokens=_token_ids, values=_floats)
        if self.values.shape != self.tokens.shape:
            with _at("values"):
                raise _wrong(self.values, f"one for each of {len(self.tokens)} tokens")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tilt):
            return NotImplemented
        return _tilt_to_json(self) == _tilt_to_json(other)

    @classmethod
    def of(cls, values: NDArray[np.float32], strength: float) -> Tilt | None:
        """Of a value for each token of the vocabulary, (n_vocab,) nats; None if all are 0."""
        tokens = np.flatnonzero(values)
        return cls(tokens.astype(np.int32), values[tokens], strength) if len(tokens) else None

    def bias(self, strength: float = 1.0) -> NDArray[np.float32]:
        """What is added to the logits of `tokens`: strength * self.strength * values, (m,), nats.

        Raises:
            ProfileError: `strength` is not a finite number, or so large that the result is not.
        """
        with _at("strength"):
            return _scaled(_number(strength) * self.strength, self.values, strength)


_NOT_STORED = {"stored": False}  # of a field that is not in JSON


@dataclass(frozen=True, eq=False)
class MemoryPart:
    """The memory of an entry: how far it is listened to, and the file that holds it.

    `of` makes one from what was learned; `Profile.save` writes its file and names it.

    Attributes:
        strength: of the memory at relative strength 1; at least 0.
        level: which tokens of the texts it holds; see docs/profile.md.
        rows: how many; at least 1.
        file: the file's name, in the folder of the profile; empty until it is saved.
        sha256: of the file, 64 lower-case hexadecimal digits; empty until it is saved.
        memory: what the file holds, or None where it cannot be used.
        problem: why it cannot, in one sentence; empty where it can.

    Raises:
        ProfileError: a field holds what a profile may not hold.
    """

    strength: float
    level: Level
    rows: int
    file: str
    sha256: str
    memory: Memory | None = field(default=None, repr=False, metadata=_NOT_STORED)
    problem: str = field(default="", metadata=_NOT_STORED)

    def __post_init__(self) -> None:
        _check_fields(
            self,
            strength=_at_least_zero,
            level=_one_of(*LEVELS),
            rows=_positive,
            memory=_none_or(_instance_of(Memory)),
        )
        if self.memory is None or self.file or self.sha256:
            _check_fields(self, file=_file_name, sha256=_sha256)
        if self.memory is not None and len(self.memory.tokens) != self.rows:
            with _at("rows"):
                raise _wrong(self.rows, f"{len(self.memory.tokens)}, as many as the memory has")

    @classmethod
    def of(cls, memory: Memory, *, strength: float, level: Level) -> MemoryPart:
        """Return a memory's part, its rows in the order in which they are stored.

        Raises:
            ProfileError: the memory is damaged, or the strength no number of at least 0.
        """
        check_memory(memory)
        return cls(strength, level, len(memory.tokens), "", "", memory.sorted())

    def __eq__(self, other: object) -> bool:
        """By JSON, and what a file not yet saved will hold; where it lies makes no difference."""
        if not isinstance(other, MemoryPart):
            return NotImplemented
        own, others = ((each.strength, each.level, each.rows) for each in (self, other))
        if own != others:
            return False
        if self.memory is None or other.memory is None:
            return self.sha256 == other.sha256
        return self.memory.equals(other.memory)

    def active(self, strength: float = 1.0) -> ActiveMemory | None:
        """The memory as it is mixed in; None where there is none, or it changes nothing.

        Args:
            strength: relative strength; below 0 there is no memory to steer away with.

        Raises:
            ProfileError: `strength` is not a finite number, or so large that the result is not.
        """
        with _at("strength"):
            (scaled,) = _scaled(_number(strength) * self.strength, np.ones(1, np.float32), strength)
        if self.memory is None or scaled <= 0:
            return None
        return ActiveMemory(self.memory, float(scaled))


@dataclass(frozen=True, eq=False)
class WithHistory:
    """Strengths for where texts of the person's stand in the prompt, which say much themselves.

    Attributes:
        strengths: in the place of `Entry.strengths`, float32, shape (layer,), at least 0;
            read-only.
        tilt: in the place of `Tilt.strength`; at least 0.
        memory: in the place of `MemoryPart.strength`; at least 0.
        gain: what they gave on the person's own held-out items, over the same prompt alone. Where
            its interval reaches 0, it is that of the best strengths, and these here are all 0.

    Raises:
        ProfileError: a field holds what a profile may not hold.
    """

    strengths: NDArray[np.float32]  # (layer,)
    tilt: float
    memory: float
    gain: Gain

    def __post_init__(self) -> None:
        _check_fields(
            self,
            strengths=_floats,
            tilt=_at_least_zero,
            memory=_at_least_zero,
            gain=_instance_of(Gain),
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WithHistory):
            return NotImplemented
        return _with_history_to_json(self) == _with_history_to_json(other)


@dataclass(frozen=True, eq=False)
class Entry:
    """What was learned on one model.

    `layer` is always the 0-based block whose output is meant. Block 0 cannot be steered by
    llama.cpp's control vectors, so it is no choice here.

    Attributes:
        model: the model this entry is for.
        description: how the person writes.
        words: anchor words, the most telling first; may be empty.
        layers: blocks whose output is steered; at least one, strictly increasing, each from 1 to
            n_layer - 1.
        directions: unit directions, float32, shape (layer, n_embd); read-only.
        norms: median norm of the residual stream at each of these layers, float32, shape
            (layer,), above 0; read-only.
        sources: what each layer's direction is made of, one of SOURCES each; shape (layer,).
        strengths: what is added at each layer at relative strength 1, as a share of the norm
            there, float32, shape (layer,), at least 0; read-only. All 0, no tilt and no
            memory say that no reliable preference was found.
        tilt: what is added to the logits, or None.
        memory: what is mixed into the predictions then, or None.
        gate: which answers all of this is for, or None for all.
        gain: what the profile gave on the person's own held-out items, or None if it was not
            measured.
        with_history: strengths for where texts of the person's stand in the prompt, or None if
            they were not measured. That of a tilt or a memory that is None becomes 0.
        rows: what is steered: generated tokens and the last prompt row, or all rows.
        counts: how much was learned from: `items`, `tokens`, `anchors`, ...
        settings: how it was learned: `backbone`, `tau`, `min_anchors`, ...
        versions: the programs it was learned with: `steerx_edge`, `llama_cpp_python`.
        created: ISO 8601 time in UTC, to the second, such as `2025-01-31T09:30:00Z`.

    Raises:
        ProfileError: a field holds what a profile may not hold.
    """

    model: ModelId
    description: Description
    words: tuple[Word, ...]
    layers: tuple[int, ...]
    directions: NDArray[np.float32]  # (layer, n_embd)
    norms: NDArray[np.float32]  # (layer,)
    sources: tuple[str, ...]  # (layer,)
    strengths: NDArray[np.float32]  # (layer,)
    tilt: Tilt | None
    memory: MemoryPart | None
    gate: Gate | None
    gain: Gain | None
    with_history: WithHistory | None
    rows: Literal["generated", "all"]
    counts: Mapping[str, int]
    settings: Mapping[str, Setting]
    versions: Mapping[str, str]
    created: str

    def __post_init__(self) -> None:
        _check_fields(
            self,
            model=_instance_of(ModelId),
            created=_utc_time,
            description=_instance_of(Description),
            words=_tuple_of(_instance_of(Word)),
            gain=_none_or(_instance_of(Gain)),
            with_history=_none_or(_instance_of(WithHistory)),
            layers=_tuple_of(_positive),
            sources=_tuple_of(_one_of(*SOURCES)),
            strengths=_floats,
            rows=_one_of("generated", "all"),
            counts=_mapping_of(_natural),
            settings=_mapping_of(_setting),
            versions=_mapping_of(_line),
            tilt=_none_or(_instance_of(Tilt)),
            memory=_none_or(_instance_of(MemoryPart)),
            gate=_none_or(_gate),
            norms=_floats,
            directions=_floats,
        )
        self._check_layers()
        self._check_scales()
        self._check_directions()
        self._check_memory()
        self._check_gate()

    def _check_layers(self) -> None:
        with _at("layers"):
            if not self.layers:
                raise _wrong(self.layers, "at least one layer")
            for index, (below, layer) in enumerate(pairwise((0, *self.layers))):
                if not below < layer < self.model.n_layer:
                    with _at(index):
                        raise _wrong(layer, f"a layer above {below} and below {self.model.n_layer}")

    def _check_scales(self) -> None:
        for name in ("sources", "strengths", "norms"):
            with _at(name):
                if np.shape(getattr(self, name)) != (len(self.layers),):
                    raise _wrong(getattr(self, name), f"one for each of {len(self.layers)} layers")
        with _at("strengths"):
            _check_strengths(self.strengths)
        if self.with_history is not None:
            with _at("with_history"):
                self._check_with_history(self.with_history)
            # Whoever deletes a part by hand need not know of its strength here.
            beside = replace(
                self.with_history,
                tilt=self.with_history.tilt if self.tilt else 0.0,
                memory=self.with_history.memory if self.memory else 0.0,
            )
            object.__setattr__(self, "with_history", beside)
        with _at("norms"):
            for index, norm in enumerate(self.norms.tolist()):
                if norm <= 0:
                    with _at(index):
                        raise _wrong(norm, "a norm above 0")

    def _check_with_history(self, beside: WithHistory) -> None:
        with _at("strengths"):
            if beside.strengths.shape != (len(self.layers),):
                raise _wrong(beside.strengths, f"one for each of {len(self.layers)} layers")
            _check_strengths(beside.strengths)

    def _check_directions(self) -> None:
        with _at("directions"):
            shape = (len(self.layers), self.model.n_embd)
            if self.directions.shape != shape:
                raise _wrong(self.directions, f"shape (layer, n_embd) = {shape}")
            lengths = np.linalg.norm(self.directions.astype(np.float64), axis=1)
            for index, length in enumerate(lengths.tolist()):
                if abs(length - 1) > _UNIT_TOLERANCE:
                    with _at(index):
                        raise _FieldError(f"has length {length:.6g}; expected unit length")

    def _check_memory(self) -> None:
        if self.memory is not None and self.memory.memory is not None:
            n_embd = self.memory.memory.space.mean.size
            if n_embd != self.model.n_embd:
                with _at("memory"):
                    raise _FieldError(f"is of rows {n_embd} wide; expected {self.model.n_embd}")

    def _check_gate(self) -> None:
        if self.gate is not None and self.gate.direction.shape != (self.model.n_embd,):
            with _at("gate"), _at("direction"):
                raise _wrong(self.gate.direction, f"shape (n_embd,) = ({self.model.n_embd},)")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entry):
            return NotImplemented
        return self.memory == other.memory and (
            {**_entry_to_json(self), "memory": None} == {**_entry_to_json(other), "memory": None}
        )

    def beside_history(self) -> Entry:
        """As the entry is to be used where texts of the person's stand in the prompt.

        The entry itself where no strengths were found for that.
        """
        beside = self.with_history
        if beside is None:
            return self
        return replace(
            self,
            strengths=beside.strengths,
            tilt=self.tilt and replace(self.tilt, strength=beside.tilt),
            memory=self.memory and replace(self.memory, strength=beside.memory),
            gate=None,
            with_history=None,
        )

    def vectors(self, strength: float = 1.0) -> NDArray[np.float32]:
        """What is added to the residual stream after each of `layers`.

        Args:
            strength: relative strength; 1 is the strength that was learned, 0 is none, below 0
                steers away from the person's manner.

        Returns:
            strength * strengths[l] * norms[l] * directions[l], float32, shape (layer, n_embd), in
            the units of the residual stream.

        Raises:
            ProfileError: `strength` is not a finite number, or so large that the result is not.
        """
        with _at("strength"):
            scales = _number(strength) * self.strengths.astype(np.float64) * self.norms
            return _scaled(scales[:, np.newaxis], self.directions, strength)

    def tilt_bias(self, strength: float = 1.0) -> dict[int, float]:
        """What is added to the logits, as llama.cpp's logit bias.

        Args:
            strength: relative strength, as of `vectors`.

        Returns:
            strength * tilt.strength * value for each token id of the tilt, in nats; empty where
            nothing is added.

        Raises:
            ProfileError: `strength` is not a finite number, or so large that the result is not.
        """
        if self.tilt is None:
            return {}
        bias = self.tilt.bias(strength)
        return (
            dict(zip(self.tilt.tokens.tolist(), bias.tolist(), strict=True)) if bias.any() else {}
        )


def _check_strengths(strengths: NDArray[np.float32]) -> None:
    for index, strength in enumerate(strengths.tolist()):
        with _at(index):
            _at_least_zero(strength)


def _scaled(scale: Any, values: NDArray[np.float32], strength: float) -> NDArray[np.float32]:
    """The product in float32, which must hold it; the factor named in an error is `strength`."""
    with np.errstate(all="ignore"):
        scaled: NDArray[np.float32] = (scale * values.astype(np.float64)).astype(np.float32)
    if not np.isfinite(scaled).all():
        raise _wrong(strength, "one for which what is added fits in float32")
    return scaled


@dataclass(frozen=True)
class Profile:
    """What was learned about one person's writing: one entry for each model.

    Attributes:
        entries: at least one, for distinct models (by fingerprint).

    Raises:
        ProfileError: no entries, or two for the same model.
    """

    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        _check_fields(self, entries=_tuple_of(_instance_of(Entry)))
        with _at("entries"):
            if not self.entries:
                raise _wrong(self.entries, "at least one entry")
            seen = set()
            for index, entry in enumerate(self.entries):
                if entry.model.fingerprint in seen:
                    with _at(index), _at("model"), _at("fingerprint"):
                        raise _wrong(entry.model.fingerprint, "one entry for each model")
                seen.add(entry.model.fingerprint)

    def entry_for(self, model: ModelId) -> Entry:
        """The entry that was learned on this model.

        Args:
            model: the model that is to be steered.

        Returns:
            The entry with the model's fingerprint.

        Raises:
            ProfileError: no entry is for this model, or one claims to be but has other sizes.
        """
        for entry in self.entries:
            if entry.model.fingerprint == model.fingerprint:
                break
        else:
            known = ", ".join(str(entry.model) for entry in self.entries)
            raise ProfileError(
                f"This profile was made for {known}; this model is {model}. Learn again with "
                "this model and the same file: the new entry is added, the others are kept."
            )
        # A fingerprint can be copied into a file; vectors of the wrong size must not get further.
        theirs = (entry.model.n_layer, entry.model.n_embd)
        ours = (model.n_layer, model.n_embd)
        if theirs != ours:
            raise ProfileError(
                f"This profile's entry for {model} has (n_layer, n_embd) = {theirs}, the model "
                f"itself has {ours}: the profile is damaged. Learn again with this model."
            )
        return entry

    def with_entry(self, entry: Entry) -> Profile:
        """This profile with one entry added, in the place of the one for the same model if any."""
        entries = {each.model.fingerprint: each for each in self.entries}
        entries[entry.model.fingerprint] = entry
        return Profile(tuple(entries.values()))

    @property
    def problems(self) -> list[str]:
        """Why memories cannot be used, a sentence each."""
        parts = [entry.memory for entry in self.entries]
        return [part.problem for part in parts if part is not None and part.problem]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the profile, all of it or nothing, and its memories beside it.

        A reader, or a crash at any moment, finds the old file or the new one. A new file is
        private (mode 0600); an existing one keeps its mode. A symbolic link keeps its place and
        its target is replaced, and the memories lie beside the target: `me.memory.gguf` for
        `me.json`, and `me.memory.<8 digits of the fingerprint>.gguf` for further entries. What the
        old profile named so and the new one does not is removed. The reference to a memory that
        could not be loaded stays as it is.

        Args:
            path: the file to write, by custom `me.json`.

        Raises:
            ProfileError: a file cannot be written; existing ones are then as they were.
        """
        with about(path, "written"):
            target = Path(os.path.realpath(path))
            outdated = _memory_files_of(target)
            names = _memory_names(self.entries, target)
            files = [target.with_name(name) for name in names.values()]
            entries = list(self.entries)
            with replacing(*files, target) as (*memories, temporary):
                for (i, name), memory in zip(names.items(), memories, strict=True):
                    entries[i] = _with_file(entries[i], memory, name)
                temporary.write_bytes(_encode(Profile(tuple(entries))))
            for name in outdated - {entry.memory.file for entry in entries if entry.memory}:
                target.with_name(name).unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Profile:
        """Reads a profile and checks everything in it; safe for files from strangers.

        A memory that is missing, damaged or another one is no error: see `problems`.

        Args:
            path: the file to read; its memories are looked for beside it.

        Returns:
            The profile; saving it gives the files as `save` wrote them, byte for byte.

        Raises:
            ProfileError: the file cannot be read, or is not a profile: names the first thing
                wrong, its place in the file, and what was expected.
        """
        with about(path, "read"):
            check_file(Path(path), MAX_BYTES, _SIZE_RULE)
            profile = _decode(Path(path).read_bytes())
        if not any(entry.memory for entry in profile.entries):
            return profile
        folder = Path(os.path.realpath(path)).parent
        return cls(tuple(_with_memory(entry, folder) for entry in profile.entries))


# ---------------------------------------------------------------- to JSON


def _entry_to_json(entry: Entry) -> dict[str, Any]:
    """In reading order: what a person looks for first, what only programs read last."""
    return {
        "model": asdict(entry.model),
        "created": entry.created,
        "description": asdict(entry.description),
        "words": [asdict(word) for word in entry.words],
        "gain": None if entry.gain is None else asdict(entry.gain),
        "layers": list(entry.layers),
        "sources": list(entry.sources),
        "strengths": _decimals(entry.strengths),
        "with_history": (
            None if entry.with_history is None else _with_history_to_json(entry.with_history)
        ),
        "rows": entry.rows,
        "counts": dict(entry.counts),
        "settings": dict(entry.settings),
        "versions": dict(entry.versions),
        "tilt": None if entry.tilt is None else _tilt_to_json(entry.tilt),
        "memory": None if entry.memory is None else _memory_to_json(entry.memory),
        "gate": None if entry.gate is None else _gate_to_json(entry.gate),
        "norms": _decimals(entry.norms),
        "directions": _array_to_json(entry.directions),
    }


def _with_history_to_json(beside: WithHistory) -> dict[str, Any]:
    return {
        "strengths": _decimals(beside.strengths),
        "tilt": beside.tilt,
        "memory": beside.memory,
        "gain": asdict(beside.gain),
    }


def _tilt_to_json(tilt: Tilt) -> dict[str, Any]:
    return {
        "strength": tilt.strength,
        "tokens": _array_to_json(tilt.tokens),
        "values": _array_to_json(tilt.values),
    }


def _memory_to_json(part: MemoryPart) -> dict[str, Any]:
    return {name: getattr(part, name) for name in _stored_fields(MemoryPart)}


def _gate_to_json(gate: Gate) -> dict[str, Any]:
    return {"direction": _array_to_json(gate.direction), "threshold": gate.threshold}


def _stored_fields(kind: type[Any]) -> tuple[str, ...]:
    return tuple(each.name for each in fields(kind) if each.metadata.get("stored", True))


def _decimals(values: NDArray[np.float32]) -> list[float]:
    """As a person would write them: the shortest that are read back as the same float32."""
    return [float(str(value)) for value in values]


def _array_to_json(array: NDArray[Any]) -> dict[str, Any]:
    data = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return {
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "base64": base64.b64encode(data).decode("ascii"),
    }


def _encode(profile: Profile) -> bytes:
    entries = [_entry_to_json(entry) for entry in profile.entries]
    document = {"format": FORMAT, "schema": SCHEMA, "entries": entries}
    data = (_layout(document) + "\n").encode()
    if len(data) > MAX_BYTES:
        raise ProfileError(f"the profile would take {size_of(len(data))}; {_SIZE_RULE}")
    return data


def _layout(value: object, indent: int = 0) -> str:
    """JSON text that puts on one line what fits, so that a list of words reads as a table."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not isinstance(value, dict | list) or not value or indent + len(line) <= _LINE_WIDTH:
        return line
    pad = " " * (indent + 2)
    if isinstance(value, dict):
        parts = [
            f"{pad}{json.dumps(key, ensure_ascii=False)}: {_layout(one, indent + 2)}"
            for key, one in value.items()
        ]
    else:
        parts = [pad + _layout(one, indent + 2) for one in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return opening + "\n" + ",\n".join(parts) + "\n" + " " * indent + closing


# ---------------------------------------------------------------- from JSON


def _decode(data: bytes) -> Profile:
    try:
        # json takes NaN, Infinity and 1e999; they are refused where they stand, by _number,
        # with their place in the file.
        document = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise ProfileError(f"not UTF-8 text (byte {error.start})") from None
    except RecursionError:
        raise ProfileError("not a profile: nested too deeply") from None
    except ValueError as error:
        raise ProfileError(f"not JSON: {error}") from None
    # Before anything else: a newer layout may differ in all the rest.
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ProfileError(f'not a steerx-edge profile: no "format": "{FORMAT}" at its top')
    with _at("schema"):
        schema = _positive(document.get("schema"))
    if schema > SCHEMA:
        raise ProfileError(
            f"made by a newer steerx-edge (schema {schema}; this one reads up to {SCHEMA}): "
            "upgrade steerx-edge"
        )
    if schema < SCHEMA:
        raise ProfileError(
            f"made by an older steerx-edge (schema {schema}; this one reads {SCHEMA}): learn again"
        )
    _check_keys(document, ("format", "schema", "entries"))
    with _at("entries"):
        entries = _tuple_of(_entry_from_json)(document["entries"])
    return Profile(entries)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, value in pairs:
        if key in members:  # readers differ in which one they take
            raise ProfileError(f"the key {_shown(key)} is there twice in one object")
        members[key] = value
    return members


def _check_keys(value: object, expected: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(value, "an object")
    for key in value:
        if key not in expected:
            raise _FieldError(f"has an unknown key {_shown(key)}; known are {', '.join(expected)}")
    for key in expected:
        if key not in value:
            raise _FieldError(f"lacks the key {key!r}")
    return value


_Record = TypeVar("_Record", ModelId, Word, Description, Gain, Tilt, MemoryPart, WithHistory, Entry)


def _record(kind: type[_Record], **readers: _Check[Any]) -> _Check[_Record]:
    """Reads an object whose keys are the fields of `kind`; readers are for fields not plain."""
    names = _stored_fields(kind)

    def read(value: object) -> _Record:
        members = dict(_check_keys(value, names))
        for name, reader in readers.items():
            with _at(name):
                members[name] = reader(members[name])
        return kind(**members)

    return read


def _array_from_json(dtype: str, *axes: str) -> _Check[NDArray[Any]]:
    """Reads numbers of 4 bytes each, along so many axes."""

    def read(value: object) -> NDArray[Any]:
        members = _check_keys(value, ("dtype", "shape", "base64"))
        with _at("dtype"):
            _one_of(dtype)(members["dtype"])
        with _at("shape"):
            shape = _tuple_of(_positive)(members["shape"])
            if len(shape) != len(axes):
                raise _wrong(shape, f"{len(axes)}, ({', '.join(axes)})")
        with _at("base64"):
            try:
                data = base64.b64decode(_instance_of(str)(members["base64"]), validate=True)
            except ValueError as error:
                raise _FieldError(f"is not base64: {error}") from None
            if len(data) != 4 * math.prod(shape):
                sizes = " x ".join(map(str, shape))
                raise _FieldError(
                    f"holds {len(data)} bytes; expected 4 for each of {sizes} numbers"
                )
        return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(shape)

    return read


def _gate_from_json(value: object) -> Gate:
    members = _check_keys(value, Gate._fields)
    with _at("direction"):
        direction = _array_from_json("float32", "n_embd")(members["direction"])
    return Gate(direction, members["threshold"])


_entry_from_json = _record(
    Entry,
    model=_record(ModelId),
    description=_record(Description),
    words=_tuple_of(_record(Word)),
    gain=_none_or(_record(Gain)),
    with_history=_none_or(_record(WithHistory, strengths=_tuple_of(_number), gain=_record(Gain))),
    strengths=_tuple_of(_number),
    tilt=_none_or(
        _record(
            Tilt,
            tokens=_array_from_json("int32", "token"),
            values=_array_from_json("float32", "token"),
        )
    ),
    memory=_none_or(_record(MemoryPart)),
    gate=_none_or(_gate_from_json),
    norms=_tuple_of(_number),
    directions=_array_from_json("float32", "layer", "n_embd"),
)


# ---------------------------------------------------------------- memories, beside the profile


_SIZE_RULE = f"a profile is at most {MAX_BYTES // 2**20} MiB"


def _memory_names(entries: tuple[Entry, ...], profile: Path) -> dict[int, str]:
    """The names of the files to be written, by the place of the entry."""
    stem = _memory_stem(profile)
    parts = [entry.memory for entry in entries]
    taken = {part.file for part in parts if part is not None and part.memory is None}
    names = {}
    for i, part in enumerate(parts):
        if part is not None and part.memory is not None:
            digits = entries[i].model.fingerprint.removeprefix("sha256:")
            choices = (f"{stem}{which}.gguf" for which in ("", f".{digits[:8]}", f".{digits}"))
            names[i] = next(name for name in choices if name not in taken)
            taken.add(names[i])
    return names


def _memory_stem(profile: Path) -> str:
    return f"{profile.stem.lstrip('.') or 'profile'}.memory"


def is_memory_file(name: str, profile: Path) -> bool:
    """Whether a file's name is one that saving `profile` gives to a memory."""
    stem = re.escape(_memory_stem(profile))
    return bool(re.fullmatch(rf"{stem}(\.[0-9a-f]{{8}}|\.[0-9a-f]{{64}})?\.gguf", name))


def _memory_files_of(profile: Path) -> set[str]:
    """The names of the memory files that the profile at a path has now, where it saved them."""
    with suppress(ProfileError, OSError):
        check_file(profile, MAX_BYTES, _SIZE_RULE)
        entries = _decode(profile.read_bytes()).entries
        names = {entry.memory.file for entry in entries if entry.memory}
        return {name for name in names if is_memory_file(name, profile)}
    return set()


def _with_file(entry: Entry, path: Path, name: str) -> Entry:
    """The entry, its memory written to `path`, which will have that name."""
    part = entry.memory
    if part is None or part.memory is None:
        return entry
    fingerprint = entry.model.fingerprint
    sha256 = write_gguf(path, part.memory, fingerprint=fingerprint, level=part.level)
    return replace(entry, memory=replace(part, file=name, sha256=sha256))


def _with_memory(entry: Entry, folder: Path) -> Entry:
    """The entry as it is read from a file, with its memory from a folder."""
    part = entry.memory
    if part is None:
        return entry
    path = folder / part.file
    try:
        memory = read_memory(path, part.sha256, fingerprint=entry.model.fingerprint)
        return replace(entry, memory=replace(part, memory=memory))
    except ProfileError as error:
        problem = (
            f"The memory is not used ({error}): put the file back beside the profile, or learn "
            "again."
        )
        return replace(entry, memory=replace(part, problem=problem))
