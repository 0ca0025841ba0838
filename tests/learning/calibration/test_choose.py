"""How a setting is chosen: each rule on scores made by hand, and all of them on planted habits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models import TinyModel
from models.operations import log_softmax
from steerx_edge.learning.ablation import Text
from steerx_edge.learning.calibration.choose import (
    MOST_LOSS,
    Calibration,
    best,
    calibrate,
    finer,
    race,
    recalibrate,
)
from steerx_edge.learning.calibration.grid import (
    MEMORY_STRENGTHS,
    STRENGTH,
    UNSTEERED,
    Setting,
    Strengths,
)
from steerx_edge.learning.calibration.score import HeldOutScores, Scored
from steerx_edge.learning.candidates import Candidate
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.interventions import Add
from steerx_edge.llamacpp.requests import GenerateRequest, ScoreRequest
from steerx_edge.profile import Gain
from steerx_edge.steering.logit_bias import TokenCounts
from tests.support.calibration import (
    FIRST_WORD,
    N_EMBD,
    N_VOCAB,
    NEUTRAL_REQUEST,
    QUARTERS,
    ScriptedEngine,
    ScriptedRows,
    counts_of,
    is_like_own,
    is_neutral,
    random_candidates,
    random_texts,
    rows_of,
    size_of,
    strength_of,
)


class KnownScores:
    """As if these settings had been scored, and no others."""

    layers = (1, 1, 3)

    def __init__(
        self,
        gains: Mapping[Setting, Sequence[float]],
        loss: Callable[[Setting], float] = lambda _: 0.0,
    ) -> None:
        self.by_setting, self.of = {UNSTEERED: [0.0] * 4} | dict(gains), loss

    def complete(self) -> list[Strengths]:
        return list({setting.strengths: None for setting in self.by_setting})

    def settings(self, choice: Strengths) -> list[Setting]:
        return [setting for setting in self.by_setting if setting.strengths == choice]

    def gains(
        self,
        setting: Setting,
        items: Sequence[int] | None = None,  # noqa: ARG002
    ) -> NDArray[np.float64]:
        return np.array(self.by_setting[setting], float)

    def loss(self, setting: Setting) -> float:
        return self.of(setting)


A, B = Setting(((0, 0.1),)), Setting(((0, 0.2),))
NEAR, BEST = [1, 1, 1, 1.0], [1.1, 1, 1.2, 0.9]


class TestBest:
    @pytest.mark.parametrize(
        ("gains", "expected"),
        [
            pytest.param({A: NEAR, B: BEST}, A, id="weaker directions within one error"),
            pytest.param({A: [0.9] * 4, B: BEST}, B, id="the best beyond one error"),
            pytest.param(
                {A: [1, 2, 3, 4], B: [1.5, 2.5, 3.5, 4.6]}, B, id="beyond the error of the pairs"
            ),
            pytest.param(
                {A: [0.1, 0.2, 0.1, 0.1], B: [1, -1, 1, -0.4]}, UNSTEERED, id="none is beyond 0"
            ),
            pytest.param(
                {A: [0.2, 3, -1, 0.9], B: [1, 1.1, 1, 0.9]}, B, id="a large error is no merit"
            ),
            pytest.param(
                {A: BEST, Setting((), 2.0): NEAR}, Setting((), 2.0), id="a logit bias instead"
            ),
            pytest.param(
                {Setting((), 1.0): BEST, Setting((), 0.5): [0.9] * 4, Setting((), 0.5, 0.1): NEAR},
                Setting((), 0.5, 0.1),
                id="the weaker logit bias",
            ),
            pytest.param(
                {Setting((), 0.0, 0.1): BEST, Setting((), 0.0, 0.8): NEAR},
                Setting((), 0.0, 0.1),
                id="the memory that gains most",
            ),
        ],
    )
    def test_the_most_selective_setting_near_the_best_is_chosen(
        self, gains: dict[Setting, list[float]], expected: Setting
    ) -> None:
        for order in (gains, dict(reversed(gains.items()))):
            assert best(KnownScores(order)) == expected

    @pytest.mark.parametrize(("loss", "expected"), [(0.99, B), (1.01, A)])
    def test_a_setting_that_costs_neutral_text_more_than_the_bound_is_not_chosen(
        self, loss: float, expected: Setting
    ) -> None:
        scores = KnownScores(
            {A: NEAR, B: [2.0] * 4}, lambda setting: loss * MOST_LOSS if setting == B else 0.0
        )
        assert best(scores) == expected


@pytest.mark.parametrize(
    ("gains", "n"),
    [
        ({A: [1, 0.5, 1, 0.9]}, 3),  # half, twice, and one on block 3
        ({A: [1, 0.5, 1, 0.9], Setting(((2, 0.1),), 0.5, 0.1): [2.0] * 4}, 4),
        ({A: [1, -1, 1, 0.9]}, 0),
        ({A: [-1.0] * 4}, 0),
    ],
)
def test_finer_choices_are_around_the_best_if_it_is_clearly_ahead(
    gains: dict[Setting, list[float]], n: int
) -> None:
    assert len(finer(KnownScores(gains))) == n


def test_a_race_scores_choices_that_are_clearly_behind_on_half_of_the_texts() -> None:
    gains = {1: -1.0, 2: 0.0, 3: 0.4}  # by block, and of each text a little different

    def layers_of(request: ScoreRequest) -> list[int]:
        adds = [each for each in request.interventions if isinstance(each, Add)]
        return [layer for each in adds for layer in each.layers]

    def score(request: ScoreRequest) -> float:
        gain = sum(gains[layer] for layer in layers_of(request))
        return -3 + gain * (1 + request.context[0] / 4)

    engine = ScriptedEngine(score, row=lambda request: (float(is_like_own(request)), 0.0))
    engine.candidates = [
        Candidate("stylevector", layer, np.ones((4, 1), np.float32), 1.0) for layer in gains
    ]
    scores = engine.unsteered()
    done: list[int] = []
    race(scores, [((place, STRENGTH),) for place in range(3)], done.append)
    by_layer = {
        layer: sorted(each.context[0] for each in engine.scored if layers_of(each) == [layer])
        for layer in gains
    }
    # Of the neutral texts only the one to which the gate is open.
    assert by_layer == {1: [0, 2], 2: [0, 2], 3: [0, 1, 2, 3, NEUTRAL_REQUEST]}
    assert done == sorted(done)
    assert done[-1] == 3 * 2 + 2 + 1


def by_size(gain: Callable[[float], float]) -> Callable[[ScoreRequest], float]:
    """What directions give on the person's texts, by their strength; on neutral text, nothing."""
    return lambda request: -3.0 if is_neutral(request) else -3 + gain(size_of(request))


def offering(share: float) -> Callable[[ScoreRequest], tuple[float, float]]:
    """Rows by which the gate tells the requests, and with which the memory offers a share."""
    return lambda request: (float(not is_neutral(request)), share)


def repeating(request: GenerateRequest) -> list[int]:
    """Fluent unsteered, not so with directions."""
    return [5] * 40 if size_of(request) else list(range(40))


def calibrated(
    engine: ScriptedEngine, counts: TokenCounts | None = None, rows: Any = None, **options: Any
) -> Calibration:
    return calibrate(engine.held_out(counts, rows), **options)


class TestCalibrate:
    def test_a_reliable_gain_is_taken(self) -> None:
        found = calibrated(ScriptedEngine(by_size(lambda size: size)))
        # The strongest that is tried: twice as much, or another candidate direction with it.
        assert strength_of(found.setting) == pytest.approx(0.2)
        assert found.gain is not None
        assert [found.gain.mean, found.gain.low] == pytest.approx([0.2, 0.2], abs=1e-6)
        assert found.gain.items == 4
        assert found.gate is not None

    def test_the_logit_bias_is_chosen_together_with_the_direction(self) -> None:
        engine = ScriptedEngine(
            by_size(lambda size: -abs(size - 0.1)),
            biased=lambda strength: -abs(strength - 0.5),
            row=offering(0.0),
        )
        found = calibrated(engine, engine.counts, ScriptedRows())
        assert found.setting.logit_bias == 0.5
        assert strength_of(found.setting) == pytest.approx(0.1)
        assert found.gain is not None
        assert found.gain.mean == pytest.approx(0.6, abs=1e-4)

    def test_a_memory_that_helps_is_taken_with_the_gate(self) -> None:
        engine = ScriptedEngine(by_size(lambda size: -size), row=offering(1.0))
        found = calibrated(engine, None, ScriptedRows())
        assert found.setting == Setting((), 0.0, max(MEMORY_STRENGTHS))
        assert found.gate is not None
        assert found.gate.is_open(np.array([[1, 1], [0, 1]], np.float16)).tolist() == [True, False]
        assert found.gain is not None
        mixed = np.log(0.2 * np.exp(-3) + 0.8)  # the memory offers each token for certain
        assert found.gain.mean == pytest.approx(mixed + 3, abs=1e-5)

    def test_without_a_gain_nothing_is_taken_and_nothing_written(self) -> None:
        engine = ScriptedEngine(by_size(lambda size: -size), biased=lambda strength: -strength)
        found = calibrated(engine, engine.counts, ScriptedRows())
        assert replace(found, trials=None) == Calibration(UNSTEERED, Gain(0, 0, 0, 4))
        assert engine.written == []

    def test_a_gain_whose_interval_reaches_0_is_not_taken(self) -> None:
        def score(request: ScoreRequest) -> float:
            sign = 0.0 if is_neutral(request) else (1.0, 1.0, 1.0, -0.5)[request.context[0]]
            return -3 + sign * size_of(request)

        found = calibrated(ScriptedEngine(score))
        assert found.setting == UNSTEERED
        assert found.gain is not None
        assert found.gain.low <= 0 < found.gain.mean < found.gain.high

    def test_a_setting_that_the_fluency_check_weakened_is_measured_anew(self) -> None:
        engine = ScriptedEngine(by_size(lambda size: size), repeating, row=offering(0.25))
        found = calibrated(engine, None, ScriptedRows())
        strength = found.setting.memory
        assert found.setting == Setting((), 0.0, strength)
        assert strength > 0
        assert found.gain is not None
        mixed = np.log((1 - strength) * np.exp(-3) + 0.25 * strength)
        assert found.gain.mean == pytest.approx(mixed + 3, abs=1e-4)

        nothing_left = calibrated(ScriptedEngine(by_size(lambda size: size), repeating))
        assert replace(nothing_left, trials=None) == Calibration(UNSTEERED, Gain(0, 0, 0, 4))

    def test_progress_counts_up_to_its_end(self) -> None:
        calls: list[tuple[int, int]] = []
        engine = ScriptedEngine(by_size(lambda size: size))
        calibrated(engine, done=lambda *call: calls.append(call))
        done = [n for n, _ in calls]
        assert done == sorted(done)
        # Unsteered, three candidate directions, then at most four settings around the best, each
        # on seven texts; and the fluency check.
        assert {of for _, of in calls} == {done[-1]} == {(1 + 3 + 4) * 7 + 1}

    @pytest.mark.parametrize(("offered", "memory"), [(1.0, 0.8), (0.0, 0.0)])
    def test_prompts_with_in_context_texts_have_their_own_strengths(
        self, offered: float, memory: float
    ) -> None:
        engine = ScriptedEngine(by_size(lambda size: size))
        rows = np.array([[-1, offered]] * 4, np.float16)
        prompted = [Scored(np.full((1, 3), -2.0, np.float32), rows) for _ in engine.texts]
        found = calibrated(engine, None, ScriptedRows(), prompted=prompted)
        assert found.with_history == Setting((), 0.0, memory)
        assert found.gain_with_history is not None
        gain = np.log((1 - memory) * np.exp(-2) + memory) + 2
        assert found.gain_with_history.mean == pytest.approx(gain, abs=1e-5)
        alone = calibrated(engine, None, ScriptedRows())
        assert strength_of(alone.setting) == pytest.approx(0.2)
        assert (alone.setting, alone.gain) == (found.setting, found.gain)
        assert (alone.with_history, alone.gain_with_history) == (UNSTEERED, None)


class TestRecalibrate:
    """The more rows, the larger the share of each token that the memory offers."""

    @staticmethod
    def more_rows(sign: int = 1) -> tuple[ScriptedEngine, HeldOutScores, Calibration]:
        engine, rows = ScriptedEngine(by_size(lambda size: sign * size)), ScriptedRows()
        scores = engine.held_out(None, rows)
        before = calibrate(scores)
        assert before.setting.memory == 0
        rows.more = 1.0
        engine.scored.clear()
        return engine, scores, before

    def test_more_rows_change_the_memory_alone_and_no_text_is_scored_again(self) -> None:
        engine, scores, before = self.more_rows()
        after = recalibrate(scores, before)
        own = [request for request in engine.scored if list(request.response) == [7, 7, 7]]
        assert own == []
        assert after.setting == replace(before.setting, memory=max(MEMORY_STRENGTHS))
        assert after.gain == scores.gain(after.setting)
        assert before.gain is not None
        assert after.gain is not None
        assert after.gain.low > before.gain.high

    def test_a_memory_that_fails_the_fluency_check_is_not_raised(self) -> None:
        engine, scores, before = self.more_rows()
        engine.write = lambda request: [5] * 40 if request.memory else list(range(40))
        assert recalibrate(scores, before).setting == before.setting

    def test_where_nothing_was_reliable_nothing_changes(self) -> None:
        _, scores, before = self.more_rows(-1)
        assert recalibrate(scores, before) is before

    def test_a_memory_that_costs_neutral_text_more_than_the_bound_is_not_raised(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, scores, before = self.more_rows()
        monkeypatch.setattr(scores, "loss", lambda setting: setting.memory)
        assert recalibrate(scores, before).setting == before.setting


class TestPlantedHabits:
    """What a person of known habits would write is found, and nothing where there is none."""

    def calibrated(
        self, engine: Engine, texts: Sequence[Text], *parts: Any, guarded: bool = False
    ) -> Calibration:
        scores = HeldOutScores(engine, texts, QUARTERS, *parts)
        return calibrate(replace(scores, gated=guarded, spares_neutral=guarded))

    def test_a_phrase(self, tiny_engine: Engine) -> None:
        phrase = np.random.default_rng(0).integers(FIRST_WORD, N_VOCAB, 6).tolist()
        texts = [
            replace(text, response=[*text.response[:at], *phrase, *text.response[at:]])
            for at, text in enumerate(random_texts(8))
        ]
        rows = rows_of(tiny_engine, texts)
        found = self.calibrated(tiny_engine, texts, random_candidates(8), None, rows)
        assert found.setting.memory > 0
        assert found.gain is not None
        assert found.gain.low > 0.1

    def test_a_direction_among_others(self, tiny_engine: Engine, tiny_f32: TinyModel) -> None:
        """The texts are sampled from the steered model."""
        planted, other, _ = random_candidates(8)
        planted = replace(planted, layer=3, norm=60.0)
        rng = np.random.default_rng(0)
        texts = []
        for text in random_texts(8):
            tokens = list(text.context)
            for _ in range(24):
                steering = np.zeros((len(tokens), N_EMBD))
                steering[len(text.context) - 1 :] = 0.2 * planted.norm * planted.direction()
                p = np.exp(log_softmax(tiny_f32.forward(tokens, {3: steering}).logits[-1]))
                tokens.append(int(rng.choice(N_VOCAB, p=p / p.sum())))
            texts.append(Text(text.context, tokens[len(text.context) :]))
        found = self.calibrated(tiny_engine, texts, [other, planted], None)
        assert 1 in [place for place, _ in found.setting.strengths]
        assert found.gain is not None
        assert found.gain.low > 0

    def test_mostly_nothing_for_texts_by_the_model_itself(self, tiny_engine: Engine) -> None:
        n_people, n_found = 8, 0
        for seed in range(n_people):
            contexts = [text.context for text in random_texts(8, seed)]
            written = tiny_engine.analysis.generate_many(
                [
                    GenerateRequest(context, 12, temperature=1.0, seed=100 * seed + j)
                    for j, context in enumerate(contexts)
                ]
            )
            texts = [
                Text(context, tokens or [FIRST_WORD])
                for context, tokens in zip(contexts, written, strict=True)
            ]
            parts = counts_of(tiny_engine, texts, QUARTERS), rows_of(tiny_engine, texts)
            candidates = random_candidates(8, seed)
            found = self.calibrated(tiny_engine, texts, candidates, *parts, guarded=True)
            n_found += found.setting != UNSTEERED
        assert n_found <= n_people // 4
