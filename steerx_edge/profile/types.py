"""Profile types: what was learned about one user's writing, on one model.

They hold NumPy arrays and know no file format. What ties fields together is checked here (shapes,
order, finite values); the range of each field is part of the format: see `json_format.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timezone
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steerx_edge.errors import ProfileError
from steerx_edge.history.words import is_unspaced
from steerx_edge.model_id import ModelId
from steerx_edge.profile.memory_file import check_memory
from steerx_edge.steering.barred import Barred
from steerx_edge.steering.gate import Gate
from steerx_edge.steering.memory import ActiveMemory, Level, Memory
from steerx_edge.steering.steering import Positions, Steering

ContrastMethod = Literal["context-contrast", "stylevector"]
CONTRAST_METHODS: tuple[ContrastMethod, ...] = get_args(ContrastMethod)
"""What a direction can be made of; see docs/method.md."""

DirectionOrigin = ContrastMethod | Literal["imported", "combined"]
"""Where a direction comes from: learned by a method, of a control vector, or a weighted sum."""

Action = Literal["drop", "never", "pin"]
"""What a user can decide about a word; see docs/editing.md."""

Setting = str | int | float | bool

_UNIT_TOLERANCE = 1e-3


class FieldError(ProfileError, ValueError):
    """A field that contradicts another one; the message begins with its name.

    It is a ValueError as well, so that msgspec adds the place in the file.
    """


class _ByValue:
    """Equality of frozen dataclasses that hold arrays."""

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        names = [each.name for each in fields(self)]  # type: ignore[arg-type]
        return all(equal(getattr(self, name), getattr(other, name)) for name in names)


@dataclass(frozen=True)
class Word:
    """One anchor word with its causal effect.

    Attributes:
        word: the word as the user writes it.
        effect: summed effect in an item, 0 where the word does not occur; the mean over all
            items, in nats.
        low: lower end of the 95% bootstrap interval of `effect` over items; nats.
        high: upper end of that interval; nats. At least `low`.
        count: occurrences in the history.
        items: items of the history it occurs in. At most `count`.

    Raises:
        ProfileError: `low` is above `high`, or `items` above `count`.
    """

    word: str
    effect: float
    low: float
    high: float
    count: int
    items: int

    def __post_init__(self) -> None:
        _check_order(self, "low", "high")
        _check_order(self, "items", "count")


@dataclass(frozen=True)
class Edit:
    """What the user decided about a word. Nothing that was learned is lost by it.

    Attributes:
        action: "drop": the profile adds nothing for it; "never": and no answer contains it; "pin":
            the memory offers it with full weight, and the logit bias does not make it rarer.
        word: the word; of "never" also a phrase.
        tokens: ids of the tokens that spell it in the model's vocabulary, increasing; may be empty.
        learned: what was taken out of `Entry.words`, one for each spelling.
    """

    action: Action
    word: str
    tokens: tuple[int, ...] = ()
    learned: tuple[Word, ...] = ()


@dataclass(frozen=True)
class TextSource:
    """A history that was learned from.

    Attributes:
        format: what it was, such as "a mailbox (mbox)"; no name of a file.
        texts: how many texts of the user were in it; at least 1.
        first: day of the first text, such as "2024-01-31"; empty where it is not known.
        last: day of the last text.
    """

    format: str
    texts: int
    first: str = ""
    last: str = ""


@dataclass(frozen=True)
class Description:
    """How the user writes, in a sentence or a few.

    Attributes:
        text: the description, 1 to 20,000 characters.
        origin: who wrote it: the model, our deterministic sentence, or the user.
    """

    text: str
    origin: Literal["model", "statistics", "user"]


@dataclass(frozen=True)
class Gain:
    """What a profile gave on the user's own held-out items, over the unsteered model.

    Attributes:
        mean: gain in log-probability of the user's text, in nats/token.
        low: lower end of its 95% interval; nats/token.
        high: upper end of that interval; nats/token. At least `low`.
        items: items it was measured on.

    Raises:
        ProfileError: `low` is above `high`.
    """

    mean: float
    low: float
    high: float
    items: int

    def __post_init__(self) -> None:
        _check_order(self, "low", "high")


@dataclass(frozen=True, eq=False)
class LogitBias(_ByValue):
    """Which tokens the user uses more, or less, than the model expects.

    Attributes:
        tokens: ids in the model's vocabulary, int32, shape (m,), strictly increasing, at least
            one; read-only.
        values: what is added to their logits at strength 1, in nats, float32, shape (m,);
            read-only.
        strength: what `values` are multiplied by at relative strength 1; at least 0.

    Raises:
        ProfileError: the arrays do not fit together, or hold what they may not.
    """

    tokens: NDArray[np.int32]  # (m,)
    values: NDArray[np.float32]  # (m,)
    strength: float

    def __post_init__(self) -> None:
        tokens = np.array(self.tokens, np.int32)
        if not tokens.size or tokens.min() < 0 or (tokens[1:] <= tokens[:-1]).any():
            raise FieldError("tokens holds ids that do not strictly increase from 0 or more")
        tokens.setflags(write=False)
        _set(self, tokens=tokens, values=_floats(self, "values"))
        _check_length(self, "values", len(tokens), "token")

    @classmethod
    def of(cls, values: NDArray[np.float32], strength: float) -> LogitBias | None:
        """Of a value for each token of the vocabulary, (n_vocab,) nats; None if all are 0."""
        tokens = np.flatnonzero(values)
        return cls(tokens.astype(np.int32), values[tokens], strength) if len(tokens) else None

    def edited(self, silenced: ArrayLike, pinned: ArrayLike) -> LogitBias:
        """Without the values of silenced tokens, and the negative ones of pinned tokens."""
        unwanted = np.isin(self.tokens, silenced)
        unwanted |= np.isin(self.tokens, pinned) & (self.values < 0)
        return replace(self, values=np.where(unwanted, np.float32(0), self.values))

    def at(self, strength: float = 1.0) -> dict[int, float]:
        """What is added to the logits, by token id: strength * self.strength * value, in nats.

        Nothing where all of it is 0.

        Raises:
            ProfileError: `strength` is not a finite number, or so large that the result is not.
        """
        bias = _scaled(strength, self.strength, self.values)
        return dict(zip(self.tokens.tolist(), bias.tolist(), strict=True)) if bias.any() else {}


@dataclass(frozen=True, eq=False)
class MemoryPart:
    """The memory of an entry: its strength, and the file that holds it.

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
        ProfileError: the memory has another number of rows.
    """

    strength: float
    level: Level
    rows: int
    file: str
    sha256: str
    memory: Memory | None = field(default=None, repr=False)
    problem: str = ""

    def __post_init__(self) -> None:
        if self.memory is not None and len(self.memory.tokens) != self.rows:
            raise FieldError(
                f"rows is {self.rows}; expected {len(self.memory.tokens)}, as many as the memory "
                "has"
            )

    @classmethod
    def of(cls, memory: Memory, *, strength: float, level: Level) -> MemoryPart:
        """Return a memory's part, its rows in the order in which they are stored.

        Raises:
            ProfileError: the memory is damaged.
        """
        check_memory(memory)
        return cls(strength, level, len(memory.tokens), "", "", memory.sorted())

    def __eq__(self, other: object) -> bool:
        """By what it is, and what its file will hold; where it lies makes no difference."""
        if not isinstance(other, MemoryPart):
            return NotImplemented
        own, others = ((each.strength, each.level, each.rows) for each in (self, other))
        if own != others:
            return False
        if self.memory is None or other.memory is None:
            return self.sha256 == other.sha256
        return self.memory.equals(other.memory)

    def edited(self, silenced: ArrayLike, pinned: ArrayLike) -> MemoryPart:
        """With weight 1 for the rows of pinned tokens, and 0 for those of silenced ones."""
        if self.memory is None:
            return self
        weights = self.memory.weights.copy()
        weights[np.isin(self.memory.tokens, pinned)] = 1
        weights[np.isin(self.memory.tokens, silenced)] = 0
        if np.array_equal(weights, self.memory.weights):
            return self
        return replace(self, memory=replace(self.memory, weights=weights))

    def active(self, strength: float = 1.0) -> ActiveMemory | None:
        """The memory as it is mixed in; None where there is none, or it changes nothing.

        Args:
            strength: relative strength; below 0 there is no memory.

        Raises:
            ProfileError: `strength` is not a finite number, or so large that the result is not.
        """
        (scaled,) = _scaled(strength, self.strength, np.ones(1, np.float32))
        if self.memory is None or scaled <= 0:
            return None
        return ActiveMemory(self.memory, float(scaled))


@dataclass(frozen=True, eq=False)
class WithHistory(_ByValue):
    """Strengths for prompts that hold texts of the user.

    Attributes:
        strengths: in the place of `Entry.strengths`, float32, shape (layer,), at least 0;
            read-only.
        logit_bias: in the place of `LogitBias.strength`; at least 0.
        memory: in the place of `MemoryPart.strength`; at least 0.
        gain: what they gave on the user's own held-out items, over the same prompt alone. Where
            its interval reaches 0, it is that of the best strengths, and these here are all 0.

    Raises:
        ProfileError: `strengths` holds a value that is not finite.
    """

    strengths: NDArray[np.float32]  # (layer,)
    logit_bias: float
    memory: float
    gain: Gain

    def __post_init__(self) -> None:
        _set(self, strengths=_floats(self, "strengths"))


@dataclass(frozen=True, eq=False)
class Entry(_ByValue):
    """What was learned on one model.

    `layer` is always the 0-based block whose output is meant. Block 0 cannot be steered by
    llama.cpp's control vectors.

    Attributes:
        model: the model this entry is for.
        description: how the user writes.
        words: anchor words, the most telling first; may be empty.
        layers: blocks whose output is steered; at least one, strictly increasing, each from 1 to
            n_layer - 1.
        directions: unit directions, float32, shape (layer, n_embd); read-only.
        norms: median norm of the residual stream at each of these layers, float32, shape
            (layer,), above 0; read-only.
        contrast_methods: what each layer's direction is made by, one of CONTRAST_METHODS, or
            `imported` or `combined`; (layer,).
        strengths: what is added at each layer at relative strength 1, as a share of the norm
            there, float32, shape (layer,), at least 0; read-only. All 0, no logit bias and no
            memory say that no reliable preference was found.
        logit_bias: what is added to the logits, or None.
        memory: what is mixed into the predictions then, or None.
        gate: which answers all of this is for, or None for all.
        gain: what the profile gave on the user's own held-out items, or None if it was not
            measured.
        with_history: strengths for prompts that hold texts of the user, or None if
            they were not measured. That of a logit bias or a memory that is None becomes 0.
        positions: which tokens are steered: the generated ones and the last of the prompt, or all.
        counts: how much was learned from: `items`, `tokens`, `anchors`, ...
        settings: how it was learned: `contrast_methods`, `threshold`, `min_anchors`, ...
        versions: the programs it was learned with: `steerx_edge`, `llama_cpp_python`.
        created: ISO 8601 time in UTC, to the second, such as `2025-01-31T09:30:00Z`.
        edits: what the user decided about words, one for each; `profile.editing.with_edits` makes
            an entry with others.
        sources: the histories that were learned from, the latest last; may be empty.

    Raises:
        ProfileError: fields do not fit together.
    """

    model: ModelId
    description: Description
    words: tuple[Word, ...]
    layers: tuple[int, ...]
    directions: NDArray[np.float32]  # (layer, n_embd)
    norms: NDArray[np.float32]  # (layer,)
    contrast_methods: tuple[str, ...]  # (layer,)
    strengths: NDArray[np.float32]  # (layer,)
    logit_bias: LogitBias | None
    memory: MemoryPart | None
    gate: Gate | None
    gain: Gain | None
    with_history: WithHistory | None
    positions: Positions
    counts: Mapping[str, int]
    settings: Mapping[str, Setting]
    versions: Mapping[str, str]
    created: str
    edits: tuple[Edit, ...] = ()
    sources: tuple[TextSource, ...] = ()

    def __post_init__(self) -> None:
        for name in ("strengths", "norms", "directions"):
            _set(self, **{name: _floats(self, name)})
        for name in ("words", "layers", "contrast_methods", "edits", "sources"):
            _set(self, **{name: tuple(getattr(self, name))})
        for name in ("counts", "settings", "versions"):
            _set(self, **{name: dict(getattr(self, name))})
        self._check_layers()
        self._check_directions()
        self._check_widths()
        if self.with_history is not None:
            self._check_with_history(self.with_history)

    def _check_layers(self) -> None:
        if not self.layers:
            raise FieldError("layers is empty; expected at least one layer")
        for index, (below, layer) in enumerate(pairwise((0, *self.layers))):
            if not below < layer < self.model.n_layer:
                raise FieldError(
                    f"layers[{index}] is {layer}; expected a layer above {below} and below "
                    f"{self.model.n_layer}"
                )
        for name in ("contrast_methods", "strengths", "norms"):
            _check_length(self, name, len(self.layers), "layer")

    def _check_directions(self) -> None:
        shape = (len(self.layers), self.model.n_embd)
        if self.directions.shape != shape:
            raise FieldError(
                f"directions has shape {self.directions.shape}; expected (layers, n_embd) = {shape}"
            )
        lengths = np.linalg.norm(self.directions.astype(np.float64), axis=1)
        for index, length in enumerate(lengths.tolist()):
            if abs(length - 1) > _UNIT_TOLERANCE:
                raise FieldError(
                    f"directions[{index}] has length {length:.6g}; expected unit length"
                )

    def _check_widths(self) -> None:
        n_embd = self.model.n_embd
        if self.memory is not None and self.memory.memory is not None:
            width = self.memory.memory.space.mean.size
            if width != n_embd:
                raise FieldError(f"memory has rows of width {width}; expected {n_embd}")
        if self.gate is not None:
            _set(self, gate=replace(self.gate, direction=_floats(self.gate, "direction", "gate.")))
            _check_length(self.gate, "direction", n_embd, "number of a row", "gate.")

    def _check_with_history(self, found: WithHistory) -> None:
        _check_length(found, "strengths", len(self.layers), "layer", "with_history.")
        # A part that was deleted by hand leaves its strength here.
        logit_bias = found.logit_bias if self.logit_bias else 0.0
        memory = found.memory if self.memory else 0.0
        _set(self, with_history=replace(found, logit_bias=logit_bias, memory=memory))

    def steering(self, strength: float = 1.0, *, with_history: bool = False) -> Steering:
        """What the entry does to the model.

        Args:
            strength: relative strength; 1 is the strength that was learned, 0 is none, below 0
                steers away from the user's manner, without the memory.
            with_history: use the strengths for prompts that hold texts of the user, if there are
                any, and no gate.

        Raises:
            ProfileError: `strength` is not a finite number, or so large that the result is not.
        """
        if with_history and self.with_history is not None:
            return self._with_history_strengths(self.with_history).steering(strength)
        logit_bias, memory = self._edited()
        return Steering(
            self.layers,
            self.vectors(strength),
            self.positions,
            {} if logit_bias is None else logit_bias.at(strength),
            None if memory is None else memory.active(strength),
            self.gate,
            self._never() if strength else (),
        )

    def _edited(self) -> tuple[LogitBias | None, MemoryPart | None]:
        """What the edits leave of the logit bias and the memory."""
        if not self.edits:
            return self.logit_bias, self.memory
        pinned = [token for edit in self.edits if edit.action == "pin" for token in edit.tokens]
        silenced = [token for edit in self.edits if edit.action != "pin" for token in edit.tokens]
        return (
            self.logit_bias and self.logit_bias.edited(silenced, pinned),
            self.memory and self.memory.edited(silenced, pinned),
        )

    def _never(self) -> tuple[Barred, ...]:
        words = [edit.word for edit in self.edits if edit.action == "never"]
        return tuple(Barred(word, whole=not is_unspaced(word)) for word in words)

    def _with_history_strengths(self, found: WithHistory) -> Entry:
        return replace(
            self,
            strengths=found.strengths,
            logit_bias=self.logit_bias and replace(self.logit_bias, strength=found.logit_bias),
            memory=self.memory and replace(self.memory, strength=found.memory),
            gate=None,
            with_history=None,
        )

    def vectors(self, strength: float = 1.0) -> NDArray[np.float32]:
        """What is added to the residual stream after each of `layers`.

        Args:
            strength: relative strength, as of `steering`.

        Returns:
            strength * strengths[l] * norms[l] * directions[l], float32, shape (layer, n_embd), in
            the units of the residual stream.

        Raises:
            ProfileError: `strength` is not a finite number, or so large that the result is not.
        """
        scales = self.strengths.astype(np.float64) * self.norms
        return _scaled(strength, scales[:, np.newaxis], self.directions)


def now() -> str:
    """The time, as `Entry.created` holds it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def equal(one: object, other: object) -> bool:
    """Whether two fields of an entry hold the same."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, Gate) and isinstance(other, Gate):
        return one.threshold == other.threshold and equal(one.direction, other.direction)
    return one == other


def _set(record: object, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(record, name, value)


def _floats(record: object, name: str, place: str = "") -> NDArray[np.float32]:
    """A field as float32: a read-only copy of its own."""
    try:
        with np.errstate(over="ignore"):  # what does not fit becomes infinite
            array = np.array(getattr(record, name), np.float32)
    except ValueError:
        raise FieldError(f"{place}{name} has rows of different lengths") from None
    if not np.isfinite(array).all():
        raise FieldError(f"{place}{name} holds a value that is not a finite float32 number")
    array.setflags(write=False)
    return array


def _check_length(record: object, name: str, n: int, what: str, place: str = "") -> None:
    shape = np.shape(getattr(record, name))
    if shape != (n,):
        raise FieldError(f"{place}{name} has shape {shape}; expected ({n},), one for each {what}")


def _check_order(record: object, low: str, high: str) -> None:
    least, most = getattr(record, low), getattr(record, high)
    if least > most:
        raise FieldError(f"{low} is {least!r}; expected at most {high}, {most!r}")


def _scaled(strength: float, scale: ArrayLike, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The product in float32, which must hold it."""
    if isinstance(strength, int | float | np.number):
        with np.errstate(all="ignore"):
            scaled = float(strength) * np.asarray(scale, np.float64) * values
            bounded: NDArray[np.float32] = scaled.astype(np.float32)
        if np.isfinite(bounded).all():
            return bounded
    raise FieldError(
        f"strength is {strength!r}; expected a finite number, not too large for float32"
    )
