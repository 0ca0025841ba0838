"""The settings that calibration tries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from steerx_edge.steering.logit_bias import BIAS_STRENGTHS

STRENGTH = 0.1
"""The share of the residual norm that every direction is tried with first."""

MEMORY_STRENGTHS = (0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8)

Strengths = tuple[tuple[int, float], ...]
"""Candidate directions, by their place, and the strength of each."""


@dataclass(frozen=True)
class Setting:
    """Strengths of some candidate directions, of the logit bias, and of the memory."""

    strengths: Strengths = ()
    logit_bias: float = 0.0
    memory: float = 0.0


UNSTEERED = Setting()


def settings_of(
    strengths: Strengths, *, with_logit_bias: bool, with_memory: bool
) -> Iterator[Setting]:
    """Directions at these strengths, with each strength of the logit bias and of the memory."""
    biases = BIAS_STRENGTHS if with_logit_bias else (0.0,)
    memories = MEMORY_STRENGTHS if with_memory else (0.0,)
    for logit_bias, memory in product(biases, memories):
        yield Setting(strengths, logit_bias, memory)


def around(strengths: Strengths, layers: Sequence[int]) -> list[Strengths]:
    """Half and twice the strengths, and one more direction on another block.

    Args:
        strengths: what is varied.
        layers: the block of each candidate direction.
    """
    taken = {layers[place] for place, _ in strengths}
    scaled = [tuple((place, factor * s) for place, s in strengths) for factor in (0.5, 2.0)]
    extended = [
        tuple(sorted((*strengths, (place, STRENGTH))))
        for place, layer in enumerate(layers)
        if layer not in taken
    ]
    return [*scaled, *extended]


def weaker(setting: Setting) -> Setting:
    """The next weaker setting: the least selective part goes first, and the memory by halves."""
    if setting.strengths:
        return replace(setting, strengths=())
    if setting.logit_bias:
        return replace(setting, logit_bias=0.0)
    return replace(setting, memory=max(m for m in MEMORY_STRENGTHS if m <= setting.memory / 2))
