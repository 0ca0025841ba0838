"""What is kept of calibration: the gains it scored, along lines through a setting."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from steerx_edge.learning.calibration.choose import calibrate, recalibrate
from steerx_edge.learning.calibration.grid import MEMORY_STRENGTHS, STRENGTH, Setting
from steerx_edge.learning.calibration.score import HeldOutScores, Scored
from steerx_edge.learning.calibration.trials import renewed, trials, with_history
from steerx_edge.learning.memory_rows import MemoryRows
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.profile import DirectionsTrial, Gain, Trial, Trials
from steerx_edge.steering.logit_bias import BIAS_STRENGTHS
from steerx_edge.steering.memory import Memory
from tests.support.calibration import (
    ScriptedEngine,
    ScriptedRows,
    is_neutral,
    random_counts,
    random_texts,
    rows_of,
    size_of,
    unsteered_scores,
)

SETTING = Setting(((2, STRENGTH),), 0.5, 0.3)
FOURS = tuple(range(at, at + 4) for at in range(0, 16, 4))


def scripted() -> tuple[ScriptedEngine, HeldOutScores]:
    """Directions, logit bias and memory help a little, and cost neutral text a little."""
    engine = ScriptedEngine(
        lambda request: -3 + size_of(request) * (-0.1 if is_neutral(request) else 1),
        biased=lambda strength: strength / 7,
        row=lambda request: (float(not is_neutral(request)), 0.25),
    )
    scores = engine.unsteered(engine.counts, ScriptedRows(), gated=False)
    scores.score([SETTING.strengths])
    return engine, scores


def near(found: Gain, expected: Gain) -> bool:
    ends = ("mean", "low", "high")
    return found.items == expected.items and all(
        getattr(found, end) == pytest.approx(getattr(expected, end), abs=5e-5) for end in ends
    )


def test_curves_are_the_gains_of_the_setting_with_one_strength_changed() -> None:
    engine, scores = scripted()
    engine.scored.clear()
    found = trials(scores, SETTING)
    assert engine.scored == []  # no passes
    assert [trial.at for trial in found.memory] == list(MEMORY_STRENGTHS)
    assert [trial.at for trial in found.logit_bias] == list(BIAS_STRENGTHS)
    for part, curve in (("memory", found.memory), ("logit_bias", found.logit_bias)):
        for trial in curve:
            tried = replace(SETTING, **{part: trial.at})  # type: ignore[arg-type]
            assert near(trial, scores.gain(tried))
            assert trial.loss == pytest.approx(scores.loss(tried), abs=5e-5)


def test_directions_are_those_that_were_scored_on_all_texts() -> None:
    _, scores = scripted()
    scores.score([((0, 0.2),)], [0, 2])
    found = trials(scores, SETTING).directions
    assert [each.layers for each in found] == [(), (3,)]
    assert found[1] == DirectionsTrial(
        *(found[1].mean, found[1].low, found[1].high, 4),
        *((3,), ("stylevector",), (STRENGTH,), found[1].loss),
    )
    for strengths, trial in zip(((), SETTING.strengths), found, strict=True):
        tried = replace(SETTING, strengths=strengths)
        assert near(trial, scores.gain(tried))
        assert trial.loss == pytest.approx(scores.loss(tried), abs=5e-5)


def test_without_a_part_there_is_no_curve_of_it() -> None:
    found = trials(ScriptedEngine(lambda _: -3.0).unsteered(), Setting())
    assert (found.memory, found.logit_bias, found.texts) == ((), (), ())
    assert [each.mean for each in found.directions] == [0]


class TestTexts:
    """Sixteen texts in folds of four: twelve are left for each."""

    def scores(self, engine: Engine) -> HeldOutScores:
        texts = random_texts(16)
        rows = rows_of(engine, texts)
        return unsteered_scores(engine, texts, FOURS, [], random_counts(4), rows, gated=False)

    def test_the_last_point_is_the_gain_with_all_texts(self, tiny_engine: Engine) -> None:
        scores = self.scores(tiny_engine)
        setting = Setting((), 0.5, 0.45)
        few, all_others = trials(scores, setting).texts
        assert (few.at, all_others.at) == (8, 12)
        assert near(all_others, scores.gain(setting))
        assert few.mean != all_others.mean

    def test_no_memory_holds_more_texts_or_one_that_it_is_scored_on(
        self, tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scores = self.scores(tiny_engine)
        left_out: list[set[int]] = []
        memory = MemoryRows.memory

        def recorded(rows: MemoryRows, without: Collection[int] = ()) -> Memory:
            left_out.append(set(without))
            return memory(rows, without)

        monkeypatch.setattr(MemoryRows, "memory", recorded)
        trials(scores, Setting((), 0.5, 0.45))
        few = [each for each in left_out if len(each) == 8]
        for fold in FOURS:
            assert sum(each > set(fold) for each in few) == 1
        # The neutral texts are scored with texts of all folds.
        assert len(few) == len(FOURS) + 1

    def test_a_memory_that_is_not_used_or_continues_another_has_no_curve(
        self, tiny_engine: Engine
    ) -> None:
        scores = self.scores(tiny_engine)
        assert trials(scores, Setting((), 0.5)).texts == ()
        rows: Any = scores.rows
        rows._before = rows.memory([0])  # noqa: SLF001
        assert trials(scores, Setting((), 0.5, 0.45)).texts == ()


def test_texts_in_the_prompt_have_curves_of_their_own() -> None:
    engine, scores = scripted()
    ones = Scored(*(scores._scored[()][0]))  # noqa: SLF001
    prompted = scores.in_prompts([ones] * len(engine.texts))
    found = with_history(Trials(), prompted, Setting((), 0.25, 0.1))
    assert (found.memory, found.directions) == ((), ())
    assert {trial.loss for trial in found.memory_with_history} == {None}
    assert near(found.memory_with_history[1], prompted.gain(Setting((), 0.25, 0.1)))
    assert near(found.logit_bias_with_history[1], prompted.gain(Setting((), 0.25, 0.1)))


def test_more_rows_renew_the_curves_of_the_memory_and_leave_the_others() -> None:
    _, scores = scripted()
    before = replace(trials(scores, SETTING), texts=(Trial(0, 0, 0, 4, at=8),))
    rows: Any = scores.rows
    rows.more = 0.5
    scores.renew_memory()
    after = renewed(before, scores, SETTING)
    assert (after.directions, after.texts) == (before.directions, before.texts)
    assert after.memory[0] == before.memory[0]  # none of it
    assert after.memory[1].low > before.memory[1].high
    assert near(after.memory[3], scores.gain(SETTING))


@pytest.mark.parametrize("sign", [1, -1])
def test_calibration_keeps_the_curves_through_what_it_found(sign: int) -> None:
    """Or, where nothing helps, through the best setting."""
    engine = ScriptedEngine(
        lambda request: -3.0 if is_neutral(request) else -3 + sign * size_of(request),
        biased=lambda strength: sign * strength,
    )
    rows = ScriptedRows()
    scores = engine.held_out(engine.counts, rows)
    log_probs = np.full((len(BIAS_STRENGTHS), 3), -2, np.float32)
    prompted = [Scored(log_probs, np.zeros((4, 2), np.float16))] * 4
    found = calibrate(scores, prompted=prompted)
    assert found.trials is not None
    assert found.gain is not None
    place = MEMORY_STRENGTHS.index(found.setting.memory)
    assert near(found.trials.memory[place], found.gain)
    assert bool(found.trials.memory_with_history) == (sign > 0)
    if sign > 0:
        rows.more = 1.0
        again = recalibrate(scores, found)
        assert again.trials is not None
        assert again.gain is not None
        place = MEMORY_STRENGTHS.index(again.setting.memory)
        assert near(again.trials.memory[place], again.gain)
        assert again.trials.memory_with_history == found.trials.memory_with_history
