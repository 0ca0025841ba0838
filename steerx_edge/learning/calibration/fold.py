"""Texts that are scored together, with what all other texts give."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from steerx_edge.learning.calibration.grid import Setting
from steerx_edge.steering.logit_bias import BIAS_STRENGTHS
from steerx_edge.steering.memory import ActiveMemory, Memory
from steerx_edge.steering.steering import Steering

if TYPE_CHECKING:
    from steerx_edge.learning.candidates import Candidate


class Rows(Protocol):
    """What makes a memory of all texts but some, as `MemoryRows` does."""

    def memory(self, without: Collection[int] = ()) -> Memory:
        """The memory of all texts but those at these places."""


class Memories:
    """Memories of all texts but some. The last one is kept: each holds nearly all keys."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._last: tuple[tuple[int, ...], Memory] | None = None

    def without(self, texts: tuple[int, ...]) -> Memory:
        """The memory of all texts but these."""
        if self._last is None or self._last[0] != texts:
            self._last = None  # before the next one is made
            self._last = texts, self._rows.memory(without=texts)
        return self._last[1]

    def clear(self) -> None:
        """Forget the last memory, as the rows have changed."""
        self._last = None


@dataclass
class Fold:
    """Texts that are scored with what the other folds give."""

    members: list[int]
    candidates: Sequence[Candidate]
    directions: list[NDArray[np.float32]]  # of each candidate
    biases: NDArray[np.float32] | None  # (bias, n_vocab)
    held_out: tuple[int, ...]
    memories: Memories | None

    @property
    def memory(self) -> Memory | None:
        """Of all texts but those that are held out."""
        return None if self.memories is None else self.memories.without(self.held_out)

    def steering(self, setting: Setting) -> Steering:
        """The steering of a setting, without a gate."""
        placed = sorted(setting.strengths, key=lambda each: self.candidates[each[0]].layer)
        vectors = [s * self.candidates[place].norm * self.directions[place] for place, s in placed]
        bias: dict[int, float] = {}
        if self.biases is not None and setting.logit_bias:
            values = self.biases[BIAS_STRENGTHS.index(1.0)]
            bias = {int(v): float(setting.logit_bias * values[v]) for v in np.flatnonzero(values)}
        memory = self.memory if setting.memory else None
        return Steering(
            tuple(self.candidates[place].layer for place, _ in placed),
            np.stack(vectors) if vectors else np.empty((0, 0), np.float32),
            logit_bias=bias,
            memory=None if memory is None else ActiveMemory(memory, setting.memory),
        )
