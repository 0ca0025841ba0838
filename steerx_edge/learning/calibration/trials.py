"""What calibration measured around a setting: one strength varied, the others as they are.

All of it was scored to choose the setting, or follows from those passes: nothing here takes one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from steerx_edge.learning.calibration.grid import MEMORY_STRENGTHS, Setting
from steerx_edge.learning.calibration.score import HeldOutScores
from steerx_edge.learning.memory_rows import MemoryRows
from steerx_edge.learning.texts import sampled
from steerx_edge.profile import DirectionsTrial, Trial, Trials
from steerx_edge.steering.logit_bias import BIAS_STRENGTHS
from steerx_edge.steering.memory import Memory

_DECIMALS = 4  # of nats/token: finer ones tell nothing, and take room in the profile
_FEWEST_TEXTS = 8


def trials(scores: HeldOutScores, setting: Setting) -> Trials:
    """The curves through a setting, without those for prompts with texts."""
    return Trials(
        memory=_memory(scores, setting),
        logit_bias=_logit_bias(scores, setting),
        directions=_directions(scores, setting),
        texts=_texts(scores, setting),
    )


def with_history(found: Trials, scores: HeldOutScores, setting: Setting) -> Trials:
    """Trials with the curves for prompts that hold texts, through a setting for these."""
    return replace(
        found,
        memory_with_history=_memory(scores, setting),
        logit_bias_with_history=_logit_bias(scores, setting),
    )


def renewed(found: Trials, scores: HeldOutScores, setting: Setting) -> Trials:
    """Trials with the curves of a memory that has more rows; the others stay as they are.

    Args:
        found: as they were.
        scores: with the memory as it is now.
        setting: with the strength of the memory as it is now.
    """
    return replace(
        found,
        memory=_memory(scores, setting),
        logit_bias=_logit_bias(scores, setting),
        texts=_texts(scores, setting) or found.texts,
    )


def _memory(scores: HeldOutScores, setting: Setting) -> tuple[Trial, ...]:
    strengths = MEMORY_STRENGTHS if scores.rows is not None else ()
    return tuple(_trial(scores, replace(setting, memory=at), at) for at in strengths)


def _logit_bias(scores: HeldOutScores, setting: Setting) -> tuple[Trial, ...]:
    strengths = BIAS_STRENGTHS if scores.counts is not None else ()
    return tuple(_trial(scores, replace(setting, logit_bias=at), at) for at in strengths)


def _directions(scores: HeldOutScores, setting: Setting) -> tuple[DirectionsTrial, ...]:
    """Directions that were scored on all texts, in the order in which they were tried."""
    found = []
    for choice in scores.complete():
        tried = replace(setting, strengths=choice)
        placed = sorted((scores.candidates[place].layer, place, s) for place, s in choice)
        found.append(
            DirectionsTrial(
                **_measured(scores, tried),
                layers=tuple(layer for layer, _, _ in placed),
                contrast_methods=tuple(
                    scores.candidates[place].contrast_method for _, place, _ in placed
                ),
                strengths=tuple(strength for _, _, strength in placed),
                loss=_loss(scores, tried),
            )
        )
    return tuple(found)


@dataclass(frozen=True)
class _Some:
    """Rows whose memory holds n texts at most, spread evenly over those that are not left out."""

    rows: MemoryRows
    n: int

    def memory(self, without: Collection[int] = ()) -> Memory:
        others = sorted({*range(self.rows.n_texts)} - {*without})
        kept = {others[place] for place in sampled(len(others), self.n)}
        return self.rows.memory({*range(self.rows.n_texts)} - kept)


def _texts(scores: HeldOutScores, setting: Setting) -> tuple[Trial, ...]:
    """The gain with 8, 16, ... texts in the memory, and with as many as every fold leaves.

    None where the memory is not used, or holds earlier texts, which are not held apart.
    """
    rows = scores.rows
    if not setting.memory or not isinstance(rows, MemoryRows) or rows.continues:
        return ()
    most = rows.n_texts - max(map(len, scores.folds))
    numbers = []
    n = _FEWEST_TEXTS
    while n < most:
        numbers.append(n)
        n *= 2
    if not numbers:
        return ()
    return tuple(_trial(scores.with_rows(_Some(rows, n)), setting, n) for n in (*numbers, most))


def _trial(scores: HeldOutScores, setting: Setting, at: float) -> Trial:
    return Trial(**_measured(scores, setting), at=at, loss=_loss(scores, setting))


def _loss(scores: HeldOutScores, setting: Setting) -> float | None:
    return _rounded(scores.loss(setting)) if scores.spares_neutral else None


def _measured(scores: HeldOutScores, setting: Setting) -> dict[str, Any]:
    """The fields of the gain of a setting, rounded."""
    gain = scores.gain(setting)
    ends = {"mean": gain.mean, "low": gain.low, "high": gain.high}
    return {name: _rounded(value) for name, value in ends.items()} | {"items": gain.items}


def _rounded(nats: float) -> float:
    return round(nats, _DECIMALS) + 0.0  # not -0.0
