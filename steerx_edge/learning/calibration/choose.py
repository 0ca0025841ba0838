"""Which directions, how strong, and whether it is worth it.

Directions are tried one by one, then the best at other strengths and together with another one.
Of the settings within one standard error of the best, the most selective one is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from steerx_edge.learning.calibration.fluency import fluent, writes_fluently
from steerx_edge.learning.calibration.grid import (
    MEMORY_STRENGTHS,
    STRENGTH,
    UNSTEERED,
    Setting,
    Strengths,
    around,
)
from steerx_edge.learning.calibration.score import HeldOutScores, Scored
from steerx_edge.learning.calibration.trials import renewed, trials
from steerx_edge.learning.calibration.trials import with_history as trials_with_history
from steerx_edge.profile import Gain, Trials
from steerx_edge.steering.gate import Gate

MOST_LOSS = 0.005
"""What neutral text may lose, nats/token."""

_BEHIND = 2.0
"""A choice this many standard errors behind on half of the texts is not scored on the rest."""


@dataclass(frozen=True)
class Calibration:
    """What was chosen, and what it gave.

    Args:
        setting: strengths; 0 where nothing reliable was found.
        gain: of the setting, or, where its interval reaches 0, of the one that was not reliable;
            None where it was not measured.
        with_history: strengths for prompts that hold other texts of the user.
        gain_with_history: what these give over the prompt alone, or None.
        gate: which answers the setting is for; None for all.
        trials: what was measured at other strengths; None where nothing was.
    """

    setting: Setting
    gain: Gain | None
    with_history: Setting = UNSTEERED
    gain_with_history: Gain | None = None
    gate: Gate | None = None
    trials: Trials | None = None


def calibrate(
    scores: HeldOutScores,
    *,
    prompted: Sequence[Scored] = (),
    done: Callable[[int, int], None] = lambda _done, _of: None,
) -> Calibration:
    """Choose strengths by cross-validated gain.

    Args:
        scores: what can be added, and the texts to score.
        prompted: the texts, scored with others in their prompts, to find strengths for that, too.
        done: called with how many of how many passes are done, at most.

    Raises:
        ModelError: llama.cpp fails.
    """
    n_candidates = len(scores.candidates)
    stages = (1, n_candidates, 1 + n_candidates)
    ends = (0, *(int(end) * scores.n_texts for end in np.cumsum(stages)))
    total = ends[-1] + 1

    def report(stage: int) -> Callable[[int], None]:
        return lambda n: done(ends[stage] + n, total)

    scores.score([()], None, report(0))
    race(scores, [((place, STRENGTH),) for place in range(n_candidates)], report(1))
    race(scores, finer(scores), report(2))
    setting = best(scores)
    gain = scores.gain(setting)
    if gain.low > 0:
        setting = fluent(scores, setting)
        gain = scores.gain(setting)
    tried = trials(scores, setting)
    if gain.low <= 0:
        done(total, total)
        return Calibration(UNSTEERED, gain, trials=tried)
    found = Calibration(setting, gain, gate=scores.gate, trials=tried)
    if prompted:
        in_prompts = scores.in_prompts(prompted)
        with_history = best(in_prompts)
        gain = in_prompts.gain(with_history)
        found = replace(
            found,
            with_history=with_history if gain.low > 0 else UNSTEERED,
            gain_with_history=gain,
            trials=trials_with_history(tried, in_prompts, with_history),
        )
    done(total, total)
    return found


def recalibrate(scores: HeldOutScores, calibration: Calibration) -> Calibration:
    """Choose the memory's strength again, now that it has more rows. This takes no passes.

    A higher strength is taken only if it passes the fluency check.
    """
    if scores.rows is None or calibration.gain is None or calibration.gain.low <= 0:
        return calibration
    scores.renew_memory()
    near = [replace(calibration.setting, memory=strength) for strength in MEMORY_STRENGTHS]
    mild = [s for s in near if scores.loss(s) <= MOST_LOSS] or [calibration.setting]
    setting = max(mild, key=lambda each: scores.gains(each).mean())
    rises = setting.memory > calibration.setting.memory
    if rises and not writes_fluently(scores, setting):
        setting = calibration.setting
    return replace(
        calibration,
        setting=setting,
        gain=scores.gain(setting),
        trials=renewed(calibration.trials or Trials(), scores, setting),
    )


class Scores(Protocol):
    """What choosing needs of `HeldOutScores`."""

    @property
    def layers(self) -> Sequence[int]:
        """The block of each candidate direction."""

    def complete(self) -> list[Strengths]:
        """Strengths of directions that were scored on all texts that they need."""

    def settings(self, choice: Strengths) -> list[Setting]:
        """The settings of these strengths of directions."""

    def gains(self, setting: Setting, items: Sequence[int] | None = None) -> NDArray[np.float64]:
        """(text,) over unsteered, nats/token."""

    def loss(self, setting: Setting) -> float:
        """What neutral text loses, nats/token."""


def race(
    scores: HeldOutScores,
    choices: Sequence[Strengths],
    done: Callable[[int], None] | None = None,
) -> None:
    """Score choices on every second text, then those not clearly behind on all texts."""
    half = range(0, scores.n_items, 2)
    scores.score(choices, half, done)
    gains = {c: _best_gains(scores, c, half) for c in (*choices, *scores.complete())}
    leader = max(gains.values(), key=lambda each: each.mean())
    near = [
        choice
        for choice in choices
        if (leader - gains[choice]).mean() <= _BEHIND * _standard_error(leader - gains[choice])
    ]
    n_done = len(choices) * len(half)
    scores.score(near, None, None if done is None else lambda n: done(n_done + n))


def finer(scores: Scores) -> list[Strengths]:
    """Choices around the best one: none where it is not clearly ahead of no direction."""
    gains = {choice: _best_gains(scores, choice) for choice in scores.complete()}
    leader = max(gains, key=lambda choice: gains[choice].mean())
    ahead = gains[leader] - gains[()]
    if ahead.mean() <= _standard_error(ahead):
        return []
    return around(leader, scores.layers)


def best(scores: Scores) -> Setting:
    """Of the settings within one standard error of the best, the most selective one.

    That is the one with the weakest directions, then the weakest logit bias, which act on all that
    is written, then the memory that gains most, which acts only where the user has written
    something similar. The error is that of the difference over texts, and no more than that of the
    best itself: a setting is not better for being unlike the texts. Settings
    that cost neutral text more than MOST_LOSS are excluded.
    """
    gains = {s: scores.gains(s) for choice in scores.complete() for s in scores.settings(choice)}
    mild = [setting for setting in gains if scores.loss(setting) <= MOST_LOSS]
    leader = gains[max(mild, key=lambda setting: gains[setting].mean())]
    error = _standard_error(leader)

    def is_near(setting: Setting) -> bool:
        behind = leader - gains[setting]
        return bool(behind.mean() <= min(_standard_error(behind), error))

    return min(
        filter(is_near, mild),
        key=lambda each: (
            sum(strength for _, strength in each.strengths),
            each.logit_bias,
            -gains[each].mean(),
        ),
    )


def _best_gains(
    scores: Scores, choice: Strengths, items: Sequence[int] | None = None
) -> NDArray[np.float64]:
    """Of the choice, with the strengths of logit bias and memory that suit it best."""
    each = [scores.gains(setting, items) for setting in scores.settings(choice)]
    return max(each, key=lambda gains: float(gains.mean()))


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
