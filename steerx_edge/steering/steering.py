"""Steering: one value for what is done to a model.

A setting that calibration tries, an entry of a profile at some strength, an arm of an evaluation
and what `steer` applies are all this value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from steerx_edge.steering.barred import Barred
    from steerx_edge.steering.gate import Gate
    from steerx_edge.steering.memory import ActiveMemory

Positions = Literal["generated", "all"]
"""Which tokens are steered: the generated ones and the last of the prompt, or all."""


@dataclass(frozen=True, eq=False)
class Steering:
    """Directions, a logit bias and a memory, applied in this order. `Steering()` changes nothing.

    Attributes:
        layers: 0-based blocks after which a vector is added, strictly increasing.
        vectors: (layer, n_embd) float32, in units of the residual stream.
        positions: the tokens that vectors are added to.
        logit_bias: what is added to the logits of tokens, by their ids, in nats.
        memory: what is mixed into the predictions after that, or None.
        gate: which answers are steered, or None for all of them.
        never: words that no answer contains, steered or not.
    """

    layers: tuple[int, ...] = ()
    vectors: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    positions: Positions = "generated"
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    memory: ActiveMemory | None = None
    gate: Gate | None = None
    never: tuple[Barred, ...] = ()

    @property
    def adds(self) -> bool:
        """Whether anything is added to the residual stream."""
        return bool(self.vectors.any())

    def __bool__(self) -> bool:
        """Whether anything is changed."""
        changes = self.adds or any(self.logit_bias.values()) or self.memory is not None
        return changes or bool(self.never)
