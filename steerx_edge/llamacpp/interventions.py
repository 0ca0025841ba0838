"""Changes to the residual stream that llama.cpp's control vector cannot make.

An intervention acts on the output of some blocks, at some rows of one pass. Several are applied in
the order in which they are given. `layer` is always the 0-based block whose output is meant; unlike
the control vector, block 0 can be changed too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from steerx_edge import _native
from steerx_edge.errors import SteerxError
from steerx_edge.llamacpp.control_vector import ControlVector

Positions: TypeAlias = Literal["all", "prompt", "response", "generated"] | int | NDArray[np.bool_]
"""Which token positions of a pass of n tokens, P of them context.

"all"; "prompt", the context; "response", the tokens after it; "generated", the response and the
last token of the context, whose row predicts the first one; a number k, the last k positions; or a
mask (n,) bool.
"""


@dataclass(frozen=True)
class Add:
    """row += vector.

    Args:
        layers: 0-based blocks, strictly increasing.
        vectors: (layer, n_embd) float32, in units of the residual stream.
        positions: which token positions.
    """

    layers: tuple[int, ...]
    vectors: NDArray[np.float32]
    positions: Positions = "generated"

    def native(self) -> _native.Intervention:
        """The compiled object."""
        return _native.make_add(self.layers, _matrix(self.vectors, self.layers))


@dataclass(frozen=True)
class SetComponent:
    """Sets the component along a direction; 0 projects it out (directional ablation).

    Args:
        layers: 0-based blocks, strictly increasing.
        directions: (layer, n_embd) float32, of unit length.
        values: (layer,) in units of the residual stream.
        positions: which token positions.
    """

    layers: tuple[int, ...]
    directions: NDArray[np.float32]
    values: Sequence[float]
    positions: Positions = "generated"

    def native(self) -> _native.Intervention:
        """The compiled object."""
        if len(self.values) != len(self.layers):
            raise SteerxError(f"{len(self.layers)} layers need as many values: {self.values}.")
        directions = _units(self.directions, self.layers)
        return _native.make_set_component(self.layers, directions, list(self.values))


@dataclass(frozen=True)
class Rotate:
    """Turns a row towards a direction and keeps its length.

    Args:
        layers: 0-based blocks, strictly increasing.
        directions: (layer, n_embd) float32, of unit length.
        angle: radians, 0 or more; a row turns no further than the direction itself.
        positions: which token positions.
    """

    layers: tuple[int, ...]
    directions: NDArray[np.float32]
    angle: float
    positions: Positions = "generated"

    def native(self) -> _native.Intervention:
        """The compiled object."""
        if not self.angle >= 0:
            raise SteerxError(
                f"An angle is 0 or more, not {self.angle}: to turn away, negate the direction."
            )
        return _native.make_rotate(self.layers, _units(self.directions, self.layers), self.angle)


@dataclass(frozen=True)
class _Around:
    """An intervention that wraps another and acts at its layers and positions."""

    inner: Intervention

    @property
    def layers(self) -> tuple[int, ...]:
        """Those of `inner`."""
        return self.inner.layers

    @property
    def positions(self) -> Positions:
        """Those of `inner`."""
        return self.inner.positions


@dataclass(frozen=True)
class Gate(_Around):
    """Applies `inner` only to rows that lie in a direction (as CAST, arXiv 2409.05907).

    Args:
        inner: what is applied.
        conditions: (layer, n_embd) float32, of unit length, for the layers of `inner`.
        threshold: the cosine between row and condition must be above it.
    """

    conditions: NDArray[np.float32]
    threshold: float

    def native(self) -> _native.Intervention:
        """The compiled object."""
        inner = self.inner.native()
        conditions = _units(self.conditions, self.layers)
        return _native.make_gate(inner, self.layers, conditions, self.threshold)


@dataclass(frozen=True)
class Clamp(_Around):
    """Applies `inner`, with its change shortened to at most a share of the row's length.

    Args:
        inner: what is applied.
        share: of the length of the row before the change; 0 or more.
    """

    share: float

    def native(self) -> _native.Intervention:
        """The compiled object."""
        if not self.share >= 0:
            raise SteerxError(f"The share of a row's length is 0 or more, not {self.share}.")
        return _native.make_clamp(self.inner.native(), self.share)


Intervention: TypeAlias = Add | SetComponent | Rotate | Gate | Clamp


def selected_positions(positions: Positions, n_context: int, n_tokens: int) -> NDArray[np.bool_]:
    """The positions as a mask: (n_tokens,) bool.

    Raises:
        SteerxError: a mask of another length, a negative number, or an unknown word.
    """
    mask = np.zeros(n_tokens, dtype=np.bool_)
    if isinstance(positions, np.ndarray):
        if positions.shape != (n_tokens,) or positions.dtype != np.bool_:
            raise SteerxError(
                f"A mask of positions has shape {positions.shape} and type {positions.dtype}; "
                f"this request needs ({n_tokens},) bool."
            )
        return positions
    if isinstance(positions, int) and not isinstance(positions, bool):
        if positions < 0:
            raise SteerxError(f"positions is {positions}: a number of positions is 0 or more.")
        mask[max(0, n_tokens - positions) :] = True
        return mask
    begins = {"all": 0, "prompt": 0, "response": n_context, "generated": n_context - 1}
    if not isinstance(positions, str) or positions not in begins:
        raise SteerxError(
            f"Positions are one of {', '.join(begins)}, a number or a mask, not '{positions}'."
        )
    mask[begins[positions] : n_context if positions == "prompt" else None] = True
    return mask


def as_control_vector(interventions: Sequence[Intervention]) -> ControlVector | None:
    """The in-graph control vector that does the same, if there is one.

    It adds only, from block 1 on, and to positions "all" or "generated", the same for all of them.
    """
    positions = {
        each.positions if isinstance(each.positions, str) else "some" for each in interventions
    }
    if positions not in ({"all"}, {"generated"}):
        return None
    total: dict[int, NDArray[np.float32]] = {}
    for each in interventions:
        if not isinstance(each, Add) or 0 in each.layers:
            return None
        for layer, vector in zip(each.layers, _matrix(each.vectors, each.layers), strict=True):
            total[layer] = total[layer] + vector if layer in total else vector
    layers = tuple(sorted(total))
    return ControlVector(layers, np.stack([total[layer] for layer in layers]))


def _matrix(values: NDArray[np.float32], layers: tuple[int, ...]) -> NDArray[np.float32]:
    if not layers or list(layers) != sorted(set(layers)):
        raise SteerxError(f"Layers {list(layers)} cannot be changed: give increasing ones.")
    matrix = np.ascontiguousarray(values, dtype=np.float32)
    if matrix.ndim != 2 or len(matrix) != len(layers) or not np.isfinite(matrix).all():
        raise SteerxError(
            f"Expected finite vectors ({len(layers)}, n_embd) for layers {list(layers)}, "
            f"got shape {matrix.shape}."
        )
    return matrix


def _units(directions: NDArray[np.float32], layers: tuple[int, ...]) -> NDArray[np.float32]:
    matrix = _matrix(directions, layers)
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    if not np.allclose(lengths, 1, atol=1e-3):
        raise SteerxError(f"Directions must be of unit length, got {lengths[:, 0].round(4)}.")
    # What is left of a component that is projected out must not hang on the caller's last digits.
    units: NDArray[np.float32] = matrix / lengths
    return units
