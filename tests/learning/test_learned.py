"""From the ablation results to a calibrated profile, and further texts after that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_cpp import Llama

from steerx_edge.learning.ablation import read_items
from steerx_edge.learning.calibration import Calibration, HeldOutScores, Scored, Setting
from steerx_edge.learning.learn import learn
from steerx_edge.learning.settings import Settings
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.profile import Entry, Gain, Profile, WithHistory
from steerx_edge.steering.gate import Gate
from tests.support.engines import InterruptedEngine
from tests.support.histories import HISTORY, only_entry, without_time

GAIN = Gain(0.5, 0.25, 0.75, len(HISTORY))
LEARNED = "steerx_edge.learning.learned."
Choose = Callable[[Calibration], list[HeldOutScores]]


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Choose:
    """Makes calibration find this, and records the scores that it is given."""

    def make(found: Calibration) -> list[HeldOutScores]:
        given: list[HeldOutScores] = []

        def calibrate(scores: HeldOutScores, **_: Any) -> Calibration:
            given.append(scores)
            return found

        monkeypatch.setattr(LEARNED + "calibrate", calibrate)
        return given

    return make


class TestCalibrated:
    def test_calibration_is_given_all_that_was_read(
        self, tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = Settings(layers=(1, 3), contrast_methods=("stylevector", "context-contrast"))
        calls: list[HeldOutScores] = []
        prompted_texts: list[Scored] = []

        def calibrate(scores: HeldOutScores, *, prompted: Sequence[Scored], done: Any) -> Any:
            calls.append(scores)
            prompted_texts.extend(prompted)
            done(1, 1)
            return Calibration(Setting(), GAIN)

        monkeypatch.setattr(LEARNED + "calibrate", calibrate)
        learn(tiny_engine, HISTORY, settings)
        (scores,) = calls
        ablation = read_items(tiny_engine, HISTORY, (1, 3), settings)
        assert scores.engine is tiny_engine
        assert scores.texts == [result.text for result in ablation.results]
        assert scores.folds == [fold.members for fold in ablation.folds]
        assert [(each.contrast_method, each.layer) for each in scores.candidates] == [
            (method, layer) for method in settings.contrast_methods for layer in (1, 3)
        ]
        assert scores.counts is not None
        np.testing.assert_array_equal(scores.counts.used, ablation.counts.used)
        np.testing.assert_array_equal(scores.counts.expected, ablation.counts.expected)
        for scored, result in zip(prompted_texts, ablation.results, strict=True):
            np.testing.assert_array_equal(scored.biased, result.treatment_biased)
            np.testing.assert_array_equal(scored.final, result.treatment_final)

    def test_a_profile_holds_what_was_chosen(self, tiny_engine: Engine, choose: Choose) -> None:
        more = Gain(0.1, 0.05, 0.15, len(HISTORY))
        gate = Gate(np.ones(64, np.float32), 0.4)
        # The upper block comes first; a profile has them in increasing order.
        setting = Setting(((3, 0.25), (0, 0.5)), 0.75, 0.3)
        with_history = Setting(((3, 0.125),), 0.5, 0.2)
        given = choose(Calibration(setting, GAIN, with_history, more, gate))
        settings = Settings(layers=(1, 3), contrast_methods=("stylevector", "context-contrast"))
        entry = only_entry(learn(tiny_engine, HISTORY, settings))
        (scores,) = given
        assert entry.layers == (1, 3)
        assert entry.contrast_methods == ("stylevector", "context-contrast")
        assert entry.strengths.tolist() == [0.5, 0.25]
        for place, candidate in enumerate((scores.candidates[0], scores.candidates[3])):
            np.testing.assert_array_equal(entry.directions[place], candidate.direction())
            assert entry.norms[place] == np.float32(candidate.norm)
        assert scores.counts is not None
        values = scores.counts.values()
        assert entry.logit_bias is not None
        np.testing.assert_array_equal(entry.logit_bias.tokens, np.flatnonzero(values))
        np.testing.assert_allclose(entry.logit_bias.values, values[values != 0], atol=1e-6)
        assert entry.logit_bias.strength == 0.75
        assert scores.rows is not None
        assert entry.memory is not None
        assert entry.memory.memory is not None
        found = replace(entry.memory.memory, ledger=None)
        assert found.equals(scores.rows.memory().sorted())
        assert (entry.memory.strength, entry.memory.level) == (0.3, "causal")
        assert entry.gate is not None
        assert entry.gate.threshold == gate.threshold
        np.testing.assert_array_equal(entry.gate.direction, gate.direction)
        assert entry.gain == GAIN
        assert entry.with_history == WithHistory(np.array([0, 0.125], np.float32), 0.5, 0.2, more)

    @pytest.mark.parametrize(
        "setting",
        [Setting(), Setting((), 0.5), Setting(((1, 0.5),)), Setting((), 0.0, 0.3)],
        ids=["nothing", "logit bias", "direction", "memory"],
    )
    def test_a_profile_holds_what_was_chosen_and_a_memory_to_add_texts_to(
        self, tiny_engine: Engine, choose: Choose, setting: Setting
    ) -> None:
        choose(Calibration(setting, GAIN))
        entry = only_entry(learn(tiny_engine, HISTORY, Settings(layers=(1, 3))))
        # A profile has one direction at least.
        assert entry.strengths.tolist() == ([0.5] if setting.strengths else [0])
        assert entry.layers == ((3,) if setting.strengths else (1,))
        assert (entry.logit_bias is not None) == (setting.logit_bias > 0)
        assert (entry.memory is not None) == (setting != Setting())
        assert entry.memory is None or entry.memory.strength == setting.memory

    @pytest.mark.parametrize("level", ["shared", "all", "none"])
    def test_a_memory_has_the_level_that_was_set(
        self, tiny_engine: Engine, choose: Choose, level: Any
    ) -> None:
        given = choose(Calibration(Setting((), 0.0, 0.3), GAIN))
        entry = only_entry(learn(tiny_engine, HISTORY, Settings(memory=level)))
        assert entry.settings["memory"] == level
        assert (given[0].rows is None) == (entry.memory is None) == (level == "none")
        if entry.memory is not None:
            assert entry.memory.level == level
            # Each token of the texts, and their ends.
            assert entry.memory.rows == entry.counts["tokens"] + len(HISTORY)

    def test_a_memory_only_for_prompts_with_in_context_texts_is_kept(
        self, tiny_engine: Engine, choose: Choose
    ) -> None:
        choose(Calibration(Setting((), 0.5), GAIN, Setting((), 0.0, 0.2), GAIN))
        entry = only_entry(learn(tiny_engine, HISTORY))
        assert entry.memory is not None
        assert entry.memory.strength == 0
        assert entry.with_history is not None
        assert entry.with_history.memory == 0.2

    @pytest.mark.parametrize(("n_requests", "is_gated"), [(2, False), (3, True)])
    def test_there_is_a_gate_if_most_texts_answer_a_request(
        self, tiny_engine: Engine, choose: Choose, n_requests: int, *, is_gated: bool
    ) -> None:
        given = choose(Calibration(Setting(), GAIN))
        requests = ["Write a text."] * n_requests + [""] * (4 - n_requests)
        learn(tiny_engine, [replace(i, request=r) for i, r in zip(HISTORY, requests, strict=True)])
        assert [scores.gated for scores in given] == [is_gated]


class TestFurtherTexts:
    """The second and the last text are the sample; the other two are read after calibration."""

    SETTINGS = Settings(sample=2, layers=(2,))

    @pytest.fixture(autouse=True)
    def _one_at_a_time(self, monkeypatch: pytest.MonkeyPatch, choose: Choose) -> None:
        monkeypatch.setattr(LEARNED + "CHUNK", 1)
        monkeypatch.setattr(LEARNED + "recalibrate", lambda _, calibration: calibration)
        choose(Calibration(Setting(((0, 0.1),), 0.5, 0.3), GAIN))

    def learned(self, engine: Engine, **options: Any) -> Entry:
        return without_time(learn(engine, HISTORY, self.SETTINGS, **options))

    def test_they_go_into_words_logit_bias_and_memory_but_not_into_directions(
        self, tiny_engine: Engine
    ) -> None:
        usable: list[Profile] = []
        whole = self.learned(tiny_engine, usable_profile=usable.append)
        (before,) = map(without_time, usable)
        alone = without_time(learn(tiny_engine, [HISTORY[1], HISTORY[3]], self.SETTINGS))
        assert before.directions.tobytes() == alone.directions.tobytes()
        assert whole.directions.tobytes() == alone.directions.tobytes()
        assert (before.counts["items"], whole.counts["items"]) == (2, 4)
        assert before.words != whole.words
        assert before.memory is not None
        assert whole.memory is not None
        assert before.memory.rows == before.counts["tokens"] + 2
        assert whole.memory.rows == whole.counts["tokens"] + 4
        # The logit bias is that of all texts, whatever the sample was.
        together = only_entry(learn(tiny_engine, HISTORY, Settings(layers=(2,))))
        assert whole.logit_bias is not None
        assert together.logit_bias is not None
        assert whole.logit_bias.tokens.tolist() == together.logit_bias.tokens.tolist()
        np.testing.assert_allclose(whole.logit_bias.values, together.logit_bias.values, atol=1e-3)

    def test_the_memorys_strength_is_chosen_anew(
        self, tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def recalibrate(scores: Any, before: Calibration) -> Calibration:
            return replace(before, setting=Setting((), 0.0, scores.rows.n_texts / 10))

        monkeypatch.setattr(LEARNED + "recalibrate", recalibrate)
        memory = self.learned(tiny_engine).memory
        assert memory is not None
        assert memory.strength == pytest.approx(0.4)

    def test_none_is_read_after_the_time_limit(self, tiny_engine: Engine) -> None:
        counts = self.learned(tiny_engine, seconds=0).counts
        assert (counts["items"], counts["items_given"]) == (2, 4)

    def test_those_read_before_an_interrupt_are_not_read_again(
        self, tiny_llama: Llama, tmp_path: Path
    ) -> None:
        engine = InterruptedEngine(tiny_llama)
        whole = self.learned(engine)
        n_calls = engine.n_calls
        engine.n_calls, engine.last_call = 0, n_calls - 1  # in the second of two further texts
        with pytest.raises(KeyboardInterrupt):
            self.learned(engine, resume=tmp_path)
        engine.n_calls, engine.last_call = 0, 10**9
        resumed = self.learned(engine, resume=tmp_path)
        # Two folds of the sample, and the first further text, each with and without others; and
        # the model's own replies.
        assert engine.n_calls == n_calls - 2 * 3 - 1
        assert resumed == whole
        assert list(tmp_path.iterdir()) == []

    def test_their_progress_is_reported(self, tiny_engine: Engine) -> None:
        calls: list[tuple[str, int, int]] = []
        self.learned(tiny_engine, progress=lambda *call: calls.append(call))
        further = [call for call in calls if call[0] == "further texts"]
        assert further == [("further texts", 0, 2), ("further texts", 1, 2)]
