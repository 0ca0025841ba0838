"""An entry of a profile: what was learned about one user's writing, on one model.

It holds NumPy arrays and knows no file format. What ties fields together is checked here (shapes,
order, finite values); the range of each field is part of the format: see `json_structs.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from steerx_edge.history.words import is_unspaced
from steerx_edge.model_id import ModelId
from steerx_edge.profile.fields import (
    ByValue,
    FieldError,
    check_length,
    floats,
    product,
    set_fields,
)
from steerx_edge.profile.parts import Gain, LogitBias, MemoryPart, WithHistory
from steerx_edge.profile.trials import Trials
from steerx_edge.profile.words import Description, Edit, TextSource, Word
from steerx_edge.steering.barred import Barred
from steerx_edge.steering.gate import Gate
from steerx_edge.steering.steering import Positions, Steering

ContrastMethod = Literal["context-contrast", "stylevector"]
CONTRAST_METHODS: tuple[ContrastMethod, ...] = get_args(ContrastMethod)
"""What a direction can be made of; see docs/method.md."""

DirectionOrigin = ContrastMethod | Literal["imported", "combined"]
"""Where a direction comes from: learned by a method, of a control vector, or a weighted sum."""

Setting = str | int | float | bool

_UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Entry(ByValue):
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
        trials: what calibration measured at other strengths, or None if it is not known.

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
    trials: Trials | None = None

    def __post_init__(self) -> None:
        for name in ("strengths", "norms", "directions"):
            set_fields(self, **{name: floats(self, name)})
        for name in ("words", "layers", "contrast_methods", "edits", "sources"):
            set_fields(self, **{name: tuple(getattr(self, name))})
        for name in ("counts", "settings", "versions"):
            set_fields(self, **{name: dict(getattr(self, name))})
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
            check_length(self, name, len(self.layers), "layer")

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
            set_fields(
                self, gate=replace(self.gate, direction=floats(self.gate, "direction", "gate."))
            )
            check_length(self.gate, "direction", n_embd, "number of a row", "gate.")

    def _check_with_history(self, found: WithHistory) -> None:
        check_length(found, "strengths", len(self.layers), "layer", "with_history.")
        # A part that was deleted by hand leaves its strength here.
        logit_bias = found.logit_bias if self.logit_bias else 0.0
        memory = found.memory if self.memory else 0.0
        set_fields(self, with_history=replace(found, logit_bias=logit_bias, memory=memory))

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
        return product(strength, scales[:, np.newaxis], self.directions)


def now() -> str:
    """The time, as `Entry.created` holds it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
