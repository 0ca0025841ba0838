"""The parts of an entry that act beside its directions, and the gain that was measured."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steerx_edge.profile.fields import (
    ByValue,
    FieldError,
    check_length,
    check_order,
    floats,
    product,
    set_fields,
)
from steerx_edge.profile.memory_file import check_memory
from steerx_edge.steering.memory import ActiveMemory, Level, Memory


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
        check_order(self, "low", "high")


@dataclass(frozen=True, eq=False)
class LogitBias(ByValue):
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
        set_fields(self, tokens=tokens, values=floats(self, "values"))
        check_length(self, "values", len(tokens), "token")

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
        bias = product(strength, self.strength, self.values)
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
        (scaled,) = product(strength, self.strength, np.ones(1, np.float32))
        if self.memory is None or scaled <= 0:
            return None
        return ActiveMemory(self.memory, float(scaled))


@dataclass(frozen=True, eq=False)
class WithHistory(ByValue):
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
        set_fields(self, strengths=floats(self, "strengths"))
