"""Calibration: scores against the NumPy reference, and each rule on scores made by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from steered_reference import steered_forward

from models import TinyModel
from models.operations import log_softmax
from steerx_edge.analysis import Continuation, Pass, PassResult
from steerx_edge.calibration import (
    STRENGTHS,
    TILTS,
    Calibrator,
    Carrier,
    Setting,
    Text,
    calibrate,
    repeated_four_grams,
)
from steerx_edge.engine import Engine
from steerx_edge.interventions import Add
from steerx_edge.tilt import TiltCounts

N_VOCAB, N_EMBD = 448, 64
FIRST_WORD = 259  # above the control tokens and single bytes
FOLDS = ((0, 3), (1, 4), (2,))
UNSTEERED = Setting()


@pytest.fixture(autouse=True)
def _one_occurrence_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Smoothing that makes values easy to work out."""
    monkeypatch.setattr("steerx_edge.tilt.SMOOTHING", 1.0)


def random_texts(n: int, seed: int = 0) -> list[Text]:
    rng = np.random.default_rng(seed)

    def tokens(least: int, most: int) -> list[int]:
        return rng.integers(FIRST_WORD, N_VOCAB, rng.integers(least, most)).tolist()

    return [Text([1, *tokens(3, 7)], tokens(5, 9)) for _ in range(n)]


def random_carriers(n: int, seed: int = 1) -> list[Carrier]:
    rng = np.random.default_rng(seed)
    places = (("stylevector", 1), ("context-contrast", 1), ("stylevector", 3))
    return [
        Carrier(
            source,
            layer,
            (rng.normal(size=N_EMBD) + rng.normal(size=(n, N_EMBD))).astype(np.float32),
            norm=6.0 + layer,
        )
        for source, layer in places
    ]


def random_counts(n_folds: int, seed: int = 2) -> TiltCounts:
    rng = np.random.default_rng(seed)
    shape = (n_folds, N_VOCAB)
    return TiltCounts(
        rng.poisson(2, shape).astype(np.float32), rng.gamma(2, 1, shape).astype(np.float32)
    )


def others_of(held_out: int, n: int) -> list[int]:
    """The items outside of a fold."""
    return [j for j in range(n) if j not in FOLDS[held_out]]


class TestScores:
    @pytest.fixture
    def parts(self) -> tuple[list[Text], list[Carrier], TiltCounts]:
        return random_texts(5), random_carriers(5), random_counts(3)

    @pytest.mark.parametrize("with_tilt", [True, False], ids=["tilt", "no tilt"])
    @pytest.mark.parametrize(
        "strengths",
        [(), ((0, 0.1),), ((1, 0.4),), ((0, 0.2), (2, 0.1))],
        ids=str,
    )
    def test_they_are_those_of_the_reference_by_the_other_folds(
        self,
        tiny_engine: Engine,
        tiny_f32: TinyModel,
        parts: tuple[list[Text], list[Carrier], TiltCounts],
        strengths: tuple[tuple[int, float], ...],
        *,
        with_tilt: bool,
    ) -> None:
        texts, carriers, counts = parts
        calibrator = Calibrator(tiny_engine, texts, FOLDS, carriers, counts if with_tilt else None)
        calibrator.score([strengths])
        for tilt in TILTS if with_tilt else (0.0,):
            expected = np.zeros(5)
            for fold, members in enumerate(FOLDS):
                others = others_of(fold, 5)
                rest = [f for f in range(3) if f != fold]
                ratio = (counts.used[rest].sum(0) + 1) / (counts.expected[rest].sum(0) + 1)
                values = np.where(np.abs(np.log(ratio)) < 0.05, 0, np.log(ratio))
                for j in members:
                    tokens = [*texts[j].context, *texts[j].response]
                    first = len(texts[j].context) - 1
                    generated = np.arange(len(tokens)) >= first
                    changes = []
                    for place, strength in strengths:
                        mean = carriers[place].differences[others].mean(axis=0, dtype=np.float64)
                        vector = strength * carriers[place].norm * mean / np.linalg.norm(mean)
                        changes.append((Add((carriers[place].layer,), vector[None]), generated))
                    logits = steered_forward(tiny_f32, tokens, changes).logits[first:-1]
                    log_p = log_softmax(logits + tilt * values)
                    expected[j] = log_p[np.arange(len(log_p)), texts[j].response].mean()
            found = calibrator.gains(Setting(strengths, tilt)) + calibrator._scores[UNSTEERED]
            np.testing.assert_allclose(found, expected, atol=2e-4)

    def test_unsteered_gains_exactly_nothing(
        self, tiny_engine: Engine, parts: tuple[list[Text], list[Carrier], TiltCounts]
    ) -> None:
        for tilt in (parts[2], None):
            calibrator = Calibrator(tiny_engine, parts[0], FOLDS, parts[1], tilt)
            assert calibrator.gains(UNSTEERED).tolist() == [0.0] * 5
            gain = calibrator.gain(UNSTEERED)
            assert (gain.mean, gain.low, gain.high, gain.items) == (0, 0, 0, 5)

    @pytest.mark.parametrize("fold", range(3))
    def test_a_folds_own_differences_do_not_enter_its_scores(
        self,
        tiny_engine: Engine,
        parts: tuple[list[Text], list[Carrier], TiltCounts],
        fold: int,
    ) -> None:
        texts, carriers, counts = parts
        own, others = list(FOLDS[fold]), others_of(fold, 5)
        changed = []
        for carrier in carriers:
            differences = carrier.differences.copy()
            differences[own] = -50 * differences[own][::-1] + 3
            changed.append(replace(carrier, differences=differences))
        setting = Setting(((0, 0.3), (2, 0.2)))
        one, other = self.gains_of(setting, tiny_engine, texts, (carriers, changed), counts)
        assert one[own].tobytes() == other[own].tobytes()
        assert (np.abs(one[others] - other[others]) > 1e-3).all()

    @pytest.mark.parametrize("fold", range(3))
    def test_a_folds_own_words_do_not_enter_its_scores(
        self,
        tiny_engine: Engine,
        parts: tuple[list[Text], list[Carrier], TiltCounts],
        fold: int,
    ) -> None:
        texts, carriers, counts = parts
        own, others = list(FOLDS[fold]), others_of(fold, 5)
        used = counts.used.copy()
        used[fold] = used[fold][::-1] * 9
        one, other = (
            Calibrator(tiny_engine, texts, FOLDS, carriers, each).gains(Setting((), 1.0))
            for each in (counts, TiltCounts(used, counts.expected))
        )
        assert one[own].tobytes() == other[own].tobytes()
        assert (np.abs(one[others] - other[others]) > 1e-3).all()

    def test_the_order_of_items_in_a_fold_and_of_folds_does_not_matter(
        self, tiny_engine: Engine, parts: tuple[list[Text], list[Carrier], TiltCounts]
    ) -> None:
        texts, carriers, counts = parts
        one = Calibrator(tiny_engine, texts, FOLDS, carriers, counts)
        swapped = TiltCounts(counts.used[[2, 0, 1]], counts.expected[[2, 0, 1]])
        other = Calibrator(tiny_engine, texts, ((2,), (3, 0), (4, 1)), carriers, swapped)
        for calibrator in (one, other):
            calibrator.score([((1, 0.3),)])
        setting = Setting(((1, 0.3),), 0.5)
        np.testing.assert_allclose(one.gains(setting), other.gains(setting), atol=1e-4)

    def test_a_fold_whose_others_cancel_out_gains_nothing_there(self, tiny_engine: Engine) -> None:
        texts, (carrier, *_) = random_texts(5), random_carriers(5)
        differences = carrier.differences.copy()
        differences[1], differences[4], differences[2] = 1, -1, 0  # the others of fold 0
        carriers = [replace(carrier, differences=differences)]
        calibrator = Calibrator(tiny_engine, texts, FOLDS, carriers, None)
        calibrator.score([((0, 0.3),)])
        gains = calibrator.gains(Setting(((0, 0.3),)))
        np.testing.assert_allclose(gains[[0, 3]], 0, atol=1e-6)
        assert (np.abs(gains[[1, 4, 2]]) > 1e-4).all()
        calibrate(tiny_engine, texts, FOLDS, carriers, None)

    def test_a_setting_is_scored_once(self) -> None:
        engine = ScriptedEngine(lambda job: -size_of(job))
        calibrator = engine.calibrator()
        assert engine.n_scored == 4
        calibrator.score([(), ((0, 0.1),)])
        assert engine.n_scored == 8
        calibrator.score([((0, 0.1),)])
        assert engine.n_scored == 8
        calibrator.score([((0, 0.1),)], tilts=(0.0,))
        assert engine.n_scored == 8

    @staticmethod
    def gains_of(
        setting: Setting,
        engine: Engine,
        texts: list[Text],
        carriers: Sequence[list[Carrier]],
        counts: TiltCounts,
    ) -> list[np.ndarray]:
        found = []
        for each in carriers:
            calibrator = Calibrator(engine, texts, FOLDS, each, counts)
            calibrator.score([setting.strengths])
            found.append(calibrator.gains(setting))
        return found


# ---------------------------------------------------------------- rules, on scores made by hand


def size_of(job: Pass | Continuation) -> float:
    """How much is added in all: vectors of the scripted carriers have their strength as length."""
    return sum(float(np.linalg.norm(each.vectors)) for each in job.interventions)


class ScriptedEngine:
    """Scores and writes what it is told.

    Args:
        score: the log-probability of each token of a pass.
        write: the tokens of a continuation.
        tilted: what is added to the score at each strength of the tilt.
    """

    def __init__(
        self,
        score: Callable[[Pass], float],
        write: Callable[[Continuation], list[int]] = lambda _job: list(range(40)),
        tilted: Callable[[float], float] = lambda _tilt: 0.0,
    ) -> None:
        self.score, self.tilted = score, tilted
        self.n_scored = self.n_written = 0
        self.analysis = SimpleNamespace(
            generate_many=lambda jobs: [self._written(write, job) for job in jobs]
        )

    def _written(self, write: Callable[[Continuation], list[int]], job: Continuation) -> list[int]:
        self.n_written += 1
        return write(job)

    def run_many(
        self, jobs: Sequence[Pass], done: Callable[[int], None] | None = None
    ) -> list[PassResult]:
        results = []
        for n, job in enumerate(jobs, 1):
            self.n_scored += 1
            row = np.full(len(job.response), self.score(job), np.float32)
            tilted = None
            if job.tilts is not None:
                tilted = np.stack([row + np.float32(self.tilted(each[0])) for each in job.tilts])
            results.append(PassResult(log_prob=row, tilted=tilted))
            if done is not None:
                done(n)
        return results

    # Item j of four is the text after [j]; four folds, and carriers on blocks 1, 1 and 3.
    texts = tuple(Text([j], [7, 7, 7]) for j in range(4))
    folds = ((0,), (1,), (2,), (3,))
    carriers = tuple(
        Carrier(source, layer, np.ones((4, 1), np.float32), 1.0)
        for source, layer in (("stylevector", 1), ("context-contrast", 1), ("stylevector", 3))
    )
    counts = TiltCounts(
        np.ones((4, 1), np.float32), np.full((4, 1), (4 / np.e - 1) / 3, np.float32)
    )
    """Of which every three folds have a value of exactly 1 nat, but for rounding."""

    def calibrator(self, tilt: TiltCounts | None = None) -> Calibrator:
        engine: Any = self
        return Calibrator(engine, self.texts, self.folds, self.carriers, tilt)

    def calibrate(self, tilt: TiltCounts | None = None, **options: Any) -> Any:
        engine: Any = self
        return calibrate(engine, self.texts, self.folds, self.carriers, tilt, **options)


A, B = Setting(((0, 0.1),)), Setting(((0, 0.2),))


@pytest.mark.parametrize(
    ("table", "best"),
    [
        pytest.param({A: [1, 1, 1, 1], B: [1.1, 1, 1.2, 0.9]}, A, id="within one error"),
        pytest.param({A: [0.9, 0.9, 0.9, 0.9], B: [1.1, 1, 1.2, 0.9]}, B, id="beyond it"),
        pytest.param({A: [1, 1, 1, 1], B: [1, 1, 1, 1]}, A, id="equal"),
        pytest.param({A: [1, 2, 3, 4], B: [1.5, 2.5, 3.5, 4.6]}, B, id="beyond that of the pairs"),
        pytest.param({A: [0.1, 0.2, 0.1, 0.1], B: [1, -1, 1, -0.4]}, UNSTEERED, id="not beyond 0"),
        pytest.param({A: [-1, -1, -1, -1], B: [-2, -2, -2, -2]}, UNSTEERED, id="harm"),
        pytest.param({A: [3, -3, 3, -3.4], B: [1, 1.1, 1, 0.9]}, B, id="scatter is no merit"),
        pytest.param({A: [2, -1, 2, -2], B: [1, 1.1, 1, 0.9]}, B, id="nor above 0"),
        pytest.param(
            {B: [1, 1.1, 1, 1.2], Setting((), 0.5): [1, 1.1, 1, 1.1]},
            Setting((), 0.5),
            id="half a tilt is weaker than a fifth of the norm",
        ),
        pytest.param(
            {A: [1, 1.1, 1, 1.1], Setting((), 1.0): [1, 1.1, 1, 1.2]},
            A,
            id="a whole tilt is stronger than a tenth",
        ),
        pytest.param(
            {Setting(((0, 0.1), (2, 0.1)), 0.5): [1, 1.1, 1, 1.2], B: [1, 1.1, 1, 1.1]},
            B,
            id="what is added counts together",
        ),
    ],
)
def test_the_weakest_within_one_standard_error_is_taken(
    table: dict[Setting, list[float]], best: Setting
) -> None:
    for order in (table, dict(reversed(table.items()))):
        calibrator = ScriptedEngine(lambda _: 0.0).calibrator()
        calibrator._scores |= {setting: np.array(gains) for setting, gains in order.items()}
        assert calibrator.best() == best


@pytest.mark.parametrize(
    ("best", "around"),
    [
        (Setting(((0, 0.2),)), [((0, 0.1),), ((0, 0.3),), ((0, 0.2), (2, 0.1))]),
        (Setting(((1, 0.2),), 0.5), [((1, 0.1),), ((1, 0.3),), ((1, 0.2), (2, 0.1))]),
        (
            Setting(((2, 0.1),)),
            [((2, 0.05),), ((2, 0.15),), ((0, 0.1), (2, 0.1)), ((1, 0.1), (2, 0.1))],
        ),
        (Setting((), 1.0), []),
        (UNSTEERED, []),
    ],
    ids=str,
)
def test_finer_is_weaker_stronger_and_beside_on_other_blocks(
    best: Setting, around: list[tuple[tuple[int, float], ...]]
) -> None:
    calibrator = ScriptedEngine(lambda _: 0.0).calibrator()
    calibrator._scores |= {A: np.full(4, -1.0), best: np.full(4, float(best != UNSTEERED))}
    found = calibrator.finer()
    assert [[place for place, _ in choice] for choice in found] == [
        [place for place, _ in choice] for choice in around
    ]
    for choice, expected in zip(found, around, strict=True):
        assert [s for _, s in choice] == pytest.approx([s for _, s in expected])


def test_a_scaled_setting_is_weaker_in_all_it_does() -> None:
    setting = Setting(((0, 0.2), (2, 0.1)), 1.0)
    assert setting.weight == pytest.approx(0.5)
    scaled = setting.scaled(0.5)
    assert scaled == Setting(((0, 0.1), (2, 0.05)), 0.5)
    assert scaled.weight == pytest.approx(0.25)
    assert UNSTEERED.weight == 0


class TestGuard:
    """The user's texts take 3 nats a token, the model's own 1: up to 2 is fluent."""

    @staticmethod
    def score(job: Pass) -> float:
        """A text says with its first token how surprising it is, in hundredths."""
        return -3.0 if list(job.response) == [7, 7, 7] else -job.response[0] / 100

    @staticmethod
    def surprising(job: Continuation) -> list[int]:
        added = size_of(job) + abs(job.logit_bias.get(0, 0.0))
        return [100 + round(100 * added), *range(900, 930)]

    @pytest.mark.parametrize(
        ("strength", "n_weakened"), [(0.2, 0), (0.99, 0), (1.01, 1), (1.4, 1), (1.9, 2), (2.8, 3)]
    )
    def test_what_is_too_surprising_is_weakened(self, strength: float, n_weakened: int) -> None:
        engine = ScriptedEngine(self.score, self.surprising)
        given = Setting(((0, strength),))
        expected = given
        for _ in range(n_weakened):
            expected = expected.scaled(0.7)
        assert engine.calibrator().guarded(given, None) == expected

    def test_what_stays_too_surprising_is_given_up(self) -> None:
        engine = ScriptedEngine(self.score, self.surprising)
        assert engine.calibrator().guarded(Setting(((0, 5.0),)), None) == UNSTEERED

    def test_the_tilt_is_at_work_and_weakened_too(self) -> None:
        engine = ScriptedEngine(self.score, self.surprising)
        calibrator = engine.calibrator(engine.counts)
        given = Setting(((0, 0.5),), 1.0)
        bias = np.array([0.4, 0], np.float32)
        assert calibrator.guarded(given, bias) == given
        assert calibrator.guarded(given, 2 * bias) == given.scaled(0.7)
        assert calibrator.guarded(replace(given, tilt=0.0), 100 * bias).weight == 0.5

    @pytest.mark.parametrize("n_repeated", [0, 2, 3, 4, 10])
    def test_what_repeats_is_weakened(self, n_repeated: int) -> None:
        def write(job: Continuation) -> list[int]:
            # 30 4-grams, of which all but the first of the same token repeat.
            n = n_repeated if size_of(job) > 0.3 else 0
            same = [5] * (n + 4 if n else 0)
            return [100, *range(900, 932 - len(same)), *same]

        written = write(Continuation([0], interventions=()))
        assert len(written) == 33
        engine = ScriptedEngine(self.score, write)
        given = Setting(((0, 0.4),))
        found = engine.calibrator().guarded(given, None)
        assert found == (given if n_repeated <= 3 else given.scaled(0.7))

    def test_as_much_as_unsteered_may_be_repeated(self) -> None:
        engine = ScriptedEngine(self.score, lambda _: [100] + [5] * 30)
        given = Setting(((0, 0.4),))
        assert engine.calibrator().guarded(given, None) == given

    def test_a_real_model_may_be_steered_mildly_and_not_ruined(self, tiny_engine: Engine) -> None:
        calibrator = Calibrator(tiny_engine, random_texts(5), FOLDS, random_carriers(5), None)
        mild, ruinous = Setting(((0, 0.01),)), Setting(((0, 8.0), (2, 8.0)))
        assert calibrator.guarded(mild, None) == mild
        assert calibrator.guarded(ruinous, None).weight < ruinous.weight

    def test_a_model_that_says_nothing_is_fluent(self) -> None:
        engine = ScriptedEngine(self.score, lambda _: [])
        assert engine.calibrator().guarded(A, None) == A


class TestCalibrate:
    def test_a_gain_that_holds_is_carried(self) -> None:
        engine = ScriptedEngine(lambda job: -3 + size_of(job))
        found = engine.calibrate()
        # The strongest that was tried: half as much again, or another carrier beside it.
        assert found.setting.weight == pytest.approx(0.3)
        assert found.gain.mean == pytest.approx(0.3, abs=1e-6)
        assert found.gain.low == pytest.approx(0.3, abs=1e-6)
        assert found.gain.items == 4

    def test_the_strength_is_in_units_of_the_residual_norm(self) -> None:
        lengths = set()

        def score(job: Pass) -> float:
            lengths.add(round(size_of(job), 4))
            return 0.0

        engine = ScriptedEngine(score)
        engine.carriers = tuple(replace(each, norm=7.0) for each in engine.carriers)
        engine.calibrate()
        assert lengths == {0, *(round(7 * strength, 4) for strength in STRENGTHS)}

    def test_the_tilt_is_chosen_with_the_direction(self) -> None:
        """Half of it is best, and with it the weaker direction."""
        engine = ScriptedEngine(
            lambda job: -3 - abs(size_of(job) - 0.1), tilted=lambda tilt: -abs(tilt - 0.5)
        )
        found = engine.calibrate(engine.counts)
        assert found.setting.tilt == 0.5
        assert found.setting.weight == pytest.approx(0.2)
        assert found.gain.mean == pytest.approx(0.6, abs=1e-4)

    @pytest.mark.parametrize("tilt", [None, ScriptedEngine.counts], ids=["no tilt", "tilt"])
    def test_no_gain_is_no_preference(self, tilt: TiltCounts | None) -> None:
        engine = ScriptedEngine(lambda job: -3 - size_of(job), tilted=lambda tilt: -tilt)
        found = engine.calibrate(tilt)
        assert found.setting == UNSTEERED
        assert (found.gain.mean, found.gain.low, found.gain.high) == (0, 0, 0)
        assert engine.n_written == 0  # nothing to be guarded

    def test_a_gain_whose_interval_reaches_0_is_no_preference(self) -> None:
        def score(job: Pass) -> float:
            sign = (1.0, 1.0, 1.0, -0.5)[job.context[0]]
            return -3 + sign * size_of(job)

        engine = ScriptedEngine(score)
        found = engine.calibrate()
        assert found.setting == UNSTEERED
        assert found.gain.low <= 0 < found.gain.mean < found.gain.high
        assert engine.n_written == 0

    def test_what_the_guard_weakens_is_measured_again(self) -> None:
        def write(job: Continuation) -> list[int]:
            return [5] * 40 if size_of(job) > 0.25 else list(range(40))

        engine = ScriptedEngine(lambda job: -3 + size_of(job), write)
        found = engine.calibrate()
        assert found.setting.weight == pytest.approx(0.3 * 0.7)
        assert found.gain.mean == pytest.approx(0.3 * 0.7, abs=1e-6)

    def test_what_the_guard_gives_up_is_not_carried(self) -> None:
        def write(job: Continuation) -> list[int]:
            return [5] * 40 if size_of(job) else list(range(40))

        engine = ScriptedEngine(lambda job: -3 + size_of(job), write)
        found = engine.calibrate()
        assert found.setting == UNSTEERED
        assert (found.gain.mean, found.gain.low, found.gain.high) == (0, 0, 0)

    def test_a_weakened_tilt_is_measured_at_its_own_strength(self) -> None:
        def write(job: Continuation) -> list[int]:
            return [5] * 40 if job.logit_bias.get(0, 0.0) > 0.8 else list(range(40))

        engine = ScriptedEngine(lambda job: -3 - size_of(job), write, tilted=lambda tilt: tilt)
        # All four folds together have a value a little above 1.
        found = engine.calibrate(engine.counts)
        assert found.setting == Setting((), pytest.approx(1.5 * 0.7**3))
        assert found.gain.mean == pytest.approx(1.5 * 0.7**3, abs=1e-4)

    @pytest.mark.parametrize("sign", [1, -1], ids=["gain", "harm"])
    def test_progress_counts_up_to_its_end(self, sign: int) -> None:
        calls: list[tuple[int, int]] = []
        engine = ScriptedEngine(lambda job: -3 + sign * size_of(job))
        engine.calibrate(done=lambda *call: calls.append(call))
        (of,) = {of for _, of in calls}
        done = [n for n, _ in calls]
        assert done == sorted(done)
        assert done[-1] == of

    def test_two_texts_are_enough(self, tiny_engine: Engine) -> None:
        found = calibrate(
            tiny_engine, random_texts(2), [[0], [1]], random_carriers(2), random_counts(2)
        )
        assert found.gain is not None
        assert found.gain.items == 2
        assert (found.gain.low > 0) == (found.setting != UNSTEERED)


# ---------------------------------------------------------------- people


def counts_of(engine: Engine, texts: Sequence[Text], folds: Sequence[Sequence[int]]) -> TiltCounts:
    jobs = [Pass(text.context, text.response, expected=True) for text in texts]
    expected = [result.expected for result in engine.run_many(jobs)]
    used = [np.bincount(text.response, minlength=N_VOCAB) for text in texts]
    return TiltCounts(
        *(
            np.stack([np.sum([of[j] for j in fold], axis=0) for fold in folds]).astype(np.float32)
            for of in (used, expected)
        )
    )


QUARTERS = [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_a_planted_preference_for_some_words_is_found(tiny_engine: Engine) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        words = rng.integers(FIRST_WORD, N_VOCAB, 5)
        texts = [replace(t, response=rng.choice(words, 12).tolist()) for t in random_texts(8, seed)]
        counts = counts_of(tiny_engine, texts, QUARTERS)
        found = calibrate(tiny_engine, texts, QUARTERS, random_carriers(8, seed), counts)
        assert found.gain is not None
        assert found.setting.tilt > 0
        assert found.gain.low > 0.1


def test_a_planted_direction_is_found(tiny_engine: Engine, tiny_f32: TinyModel) -> None:
    """The person is the model itself, steered: its carrier is found among others."""
    planted, other, _ = random_carriers(8)
    planted = replace(planted, layer=3, norm=60.0)
    direction = planted.direction()
    rng = np.random.default_rng(0)
    texts = []
    for text in random_texts(8):
        tokens = list(text.context)
        for _ in range(24):
            steering = np.zeros((len(tokens), N_EMBD))
            steering[len(text.context) - 1 :] = 0.2 * planted.norm * direction
            p = np.exp(log_softmax(tiny_f32.forward(tokens, {3: steering}).logits[-1]))
            tokens.append(int(rng.choice(N_VOCAB, p=p / p.sum())))
        texts.append(Text(text.context, tokens[len(text.context) :]))
    found = calibrate(tiny_engine, texts, QUARTERS, [other, planted], None)
    assert found.gain is not None
    assert found.gain.low > 0
    assert 1 in [place for place, _ in found.setting.strengths]


def test_of_a_person_who_writes_as_the_model_does_mostly_nothing_is_found(
    tiny_engine: Engine,
) -> None:
    n_people, n_found = 12, 0
    for seed in range(n_people):
        contexts = [text.context for text in random_texts(8, seed)]
        written = tiny_engine.analysis.generate_many(
            [
                Continuation(context, 12, temperature=1.0, seed=100 * seed + j)
                for j, context in enumerate(contexts)
            ]
        )
        texts = [
            Text(context, tokens or [FIRST_WORD])
            for context, tokens in zip(contexts, written, strict=True)
        ]
        counts = counts_of(tiny_engine, texts, QUARTERS)
        found = calibrate(tiny_engine, texts, QUARTERS, random_carriers(8, seed), counts)
        n_found += found.setting != UNSTEERED
    assert n_found <= n_people // 4


@pytest.mark.parametrize(
    ("tokens", "share"),
    [
        ([], 0),
        ([1, 2, 3], 0),
        ([1, 2, 3, 4], 0),
        ([1, 1, 1, 1, 1], 1 / 2),
        ([1] * 13, 9 / 10),
        ([1, 2, 3, 4, 1, 2, 3, 4], 1 / 5),
        ([1, 2, 3, 1, 2, 3, 1], 1 / 4),
        (list(range(20)), 0),
    ],
)
def test_repeated_four_grams(tokens: list[int], share: float) -> None:
    assert repeated_four_grams(tokens) == pytest.approx(share)
