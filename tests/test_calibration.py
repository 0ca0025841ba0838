"""Calibration: scores against the NumPy reference, and each rule on scores made by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from models import TinyModel
from models.operations import log_softmax
from steerx_edge.analysis import Continuation, Pass, PassResult
from steerx_edge.calibration import (
    _PLAIN_TEXTS,
    PHRASES,
    STRENGTH,
    TILTS,
    Calibrator,
    Setting,
    calibrate,
    repeated_four_grams,
    shared_four_grams,
)
from steerx_edge.carriers import Carrier, Placebo
from steerx_edge.directions import direction_of
from steerx_edge.engine import Engine
from steerx_edge.interventions import Add
from steerx_edge.prompts import messages_for
from steerx_edge.reading import Text
from steerx_edge.tilt import TiltCounts
from tests.phrases_reference import with_phrases
from tests.steered_reference import steered_forward

N_VOCAB, N_EMBD = 448, 64
FIRST_WORD = 259  # above the control tokens and single bytes
FOLDS = ((0, 3), (1, 4), (2,))
PLAIN = (5, 6, 7)  # where the plain texts stand among the scores
UNSTEERED = Setting()


@pytest.fixture(autouse=True)
def _one_occurrence_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Smoothing that makes values easy to work out."""
    monkeypatch.setattr("steerx_edge.tilt.SMOOTHING", 1.0)


def unsteered(engine: Engine, *args: Any) -> Calibrator:
    """A calibrator that has scored what the others are set against."""
    calibrator = Calibrator(engine, *args)
    calibrator.score([()])
    return calibrator


def random_texts(n: int, seed: int = 0) -> list[Text]:
    rng = np.random.default_rng(seed)

    def tokens(least: int, most: int) -> list[int]:
        return rng.integers(FIRST_WORD, N_VOCAB, rng.integers(least, most)).tolist()

    return [Text([1, *tokens(3, 7)], tokens(5, 9)) for _ in range(n)]


def alike_texts(n: int, seed: int = 0) -> list[Text]:
    """Of few words, so that runs of them come again."""
    rng = np.random.default_rng(seed)
    words = FIRST_WORD + np.arange(3)
    return [
        replace(text, response=rng.choice(words, rng.integers(8, 12)).tolist())
        for text in random_texts(n, seed)
    ]


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


def others_of(held_out: int) -> list[int]:
    """The items outside of a fold; all of them for the fold of the plain texts."""
    return [j for j in range(5) if j not in (*FOLDS, PLAIN)[held_out]]


def with_plain(engine: Engine, texts: Sequence[Text]) -> list[Text]:
    """The user's texts, and the plain ones as the answer to an empty request."""
    context = engine.prompt(messages_for(""))
    return [*texts, *(Text(context, engine.tokenize(text)) for text in _PLAIN_TEXTS)]


class TestCarrier:
    """Items 0 and 1 stood in each other's context, and so did 2 and 3; 4 was read alone."""

    DIFFERENCES = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    CONTEXTS: ClassVar = {j: frozenset({j ^ 1}) for j in range(4)}

    @pytest.mark.parametrize(
        ("items", "used"),
        [
            (None, [0, 1, 2, 3, 4]),
            ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
            ([1, 2, 3, 4], [2, 3, 4]),
            ([0, 1, 2], [0, 1]),
            ([1, 4], [4]),
            ([0, 3], []),
            ([], []),
        ],
        ids=str,
    )
    def test_a_direction_is_of_items_that_have_seen_no_others(
        self, items: list[int] | None, used: list[int]
    ) -> None:
        carrier = Carrier("context-contrast", 1, self.DIFFERENCES, 1.0, self.CONTEXTS)
        mean = self.DIFFERENCES[used].astype(np.float64).sum(axis=0)
        expected = mean / np.linalg.norm(mean) if used else mean
        found = carrier.direction(items)
        assert (found.shape, found.dtype) == ((8,), np.float32)
        np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_an_item_may_have_seen_several(self) -> None:
        carrier = Carrier("x", 1, self.DIFFERENCES, 1.0, {0: frozenset({1, 2})})
        alone = Carrier("x", 1, self.DIFFERENCES, 1.0)
        np.testing.assert_array_equal(carrier.direction([0, 1, 3]), alone.direction([1, 3]))
        np.testing.assert_array_equal(carrier.direction([0, 1, 2]), alone.direction([0, 1, 2]))

    @pytest.mark.parametrize("estimate", ["mean", "pca", "logistic"])
    def test_it_is_made_as_it_was_asked_for(self, estimate: Any) -> None:
        carrier = Carrier("x", 1, self.DIFFERENCES, 1.0, estimate=estimate)
        for items in (None, [0, 1, 3]):
            chosen = self.DIFFERENCES if items is None else self.DIFFERENCES[items]
            expected = direction_of(chosen, estimate)
            np.testing.assert_array_equal(carrier.direction(items), expected)

    def test_what_is_generic_is_taken_out(self) -> None:
        generic = np.random.default_rng(1).normal(size=8).astype(np.float32)
        generic /= np.linalg.norm(generic)
        whole = Carrier("x", 1, self.DIFFERENCES, 1.0).direction()
        rest = Carrier("x", 1, self.DIFFERENCES, 1.0, generic=generic).direction()
        assert rest @ generic == pytest.approx(0, abs=1e-6)
        assert np.linalg.norm(rest) == pytest.approx(1, abs=1e-6)
        # What is left is of the plane of the two.
        left = whole - (whole @ rest) * rest - (whole @ generic) * generic
        np.testing.assert_allclose(left, 0, atol=1e-6)

    def test_where_all_is_generic_nothing_is_left(self) -> None:
        whole = Carrier("x", 1, self.DIFFERENCES, 1.0).direction()
        rest = Carrier("x", 1, self.DIFFERENCES, 1.0, generic=whole).direction()
        np.testing.assert_array_equal(rest, np.zeros(8, np.float32))


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
        calibrator = unsteered(tiny_engine, texts, FOLDS, carriers, counts if with_tilt else None)
        calibrator.score([strengths])
        texts = with_plain(tiny_engine, texts)
        for tilt in TILTS if with_tilt else (0.0,):
            expected = np.zeros(8)
            for fold, members in enumerate((*FOLDS, PLAIN)):
                others = others_of(fold)
                rest = [f for f in range(3) if f != fold]
                ratio = (counts.used[rest].sum(0) + 1) / (counts.expected[rest].sum(0) + 1)
                values = np.log(ratio) * np.where(ratio < 1, 0.5, 1)
                values = np.where(np.abs(values) < 0.05, 0, values)
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
            setting = Setting(strengths, tilt)
            np.testing.assert_allclose(calibrator._scores[setting], expected, atol=2e-4)
            gains = expected - calibrator._scores[UNSTEERED]
            np.testing.assert_allclose(calibrator.gains(setting), gains[:5], atol=2e-4)
            assert calibrator.harm(setting) == pytest.approx(-gains[5:].mean(), abs=2e-4)

    def test_unsteered_gains_exactly_nothing(
        self, tiny_engine: Engine, parts: tuple[list[Text], list[Carrier], TiltCounts]
    ) -> None:
        for tilt in (parts[2], None):
            calibrator = unsteered(tiny_engine, parts[0], FOLDS, parts[1], tilt)
            assert calibrator.gains(UNSTEERED).tolist() == [0.0] * 5
            gain = calibrator.gain(UNSTEERED)
            assert (gain.mean, gain.low, gain.high, gain.items) == (0, 0, 0, 5)
            assert calibrator.harm(UNSTEERED) == 0

    @pytest.mark.parametrize("fold", range(3))
    def test_a_folds_own_differences_do_not_enter_its_scores(
        self,
        tiny_engine: Engine,
        parts: tuple[list[Text], list[Carrier], TiltCounts],
        fold: int,
    ) -> None:
        texts, carriers, counts = parts
        own, others = list(FOLDS[fold]), others_of(fold)
        changed = []
        for carrier in carriers:
            differences = carrier.differences.copy()
            differences[own] = -50 * differences[own][::-1] + 3
            changed.append(replace(carrier, differences=differences))
        setting = Setting(((0, 0.3), (2, 0.2)))
        one, other = self.gains_of(setting, tiny_engine, texts, (carriers, changed), counts)
        assert one[own].tobytes() == other[own].tobytes()
        assert (np.abs(one[others] - other[others]) > 1e-3).all()

    @pytest.mark.parametrize("changed", range(5))
    def test_nor_do_those_of_items_that_have_seen_the_fold(
        self,
        tiny_engine: Engine,
        parts: tuple[list[Text], list[Carrier], TiltCounts],
        changed: int,
    ) -> None:
        texts, (carrier, *_), counts = parts
        # As of three folds: the first two are each other's context, and the last one has the first.
        contexts = {0: {1}, 3: {1, 4}, 1: {0, 3}, 4: {3}, 2: {0}}
        known = {j: frozenset(others) for j, others in contexts.items()}
        carrier = replace(carrier, contexts=known)
        differences = carrier.differences.copy()
        differences[changed] = -50 * differences[changed][::-1] + 3
        setting = Setting(((0, 0.3),))
        carriers = ([carrier], [replace(carrier, differences=differences)])
        one, other = self.gains_of(setting, tiny_engine, texts, carriers, counts)
        for fold, members in enumerate(FOLDS):
            others = others_of(fold)
            enters = changed in others and contexts[changed] <= set(others)
            assert ((np.abs(one - other)[list(members)] > 1e-3) == enters).all()
        # All the others of the first fold have seen it.
        np.testing.assert_allclose(one[list(FOLDS[0])], 0, atol=1e-6)

    @pytest.mark.parametrize("fold", range(3))
    def test_a_folds_own_words_do_not_enter_its_scores(
        self,
        tiny_engine: Engine,
        parts: tuple[list[Text], list[Carrier], TiltCounts],
        fold: int,
    ) -> None:
        texts, carriers, counts = parts
        own, others = list(FOLDS[fold]), others_of(fold)
        used = counts.used.copy()
        used[fold] = used[fold][::-1] * 9
        one, other = (
            unsteered(tiny_engine, texts, FOLDS, carriers, each).gains(Setting((), 1.0))
            for each in (counts, TiltCounts(used, counts.expected))
        )
        assert one[own].tobytes() == other[own].tobytes()
        assert (np.abs(one[others] - other[others]) > 1e-3).all()

    @pytest.mark.parametrize("with_tilt", [True, False], ids=["tilt", "no tilt"])
    @pytest.mark.parametrize("phrase_texts", [1, 2, 3])
    @pytest.mark.parametrize("strengths", [(), ((0, 0.2),)], ids=str)
    def test_phrases_are_those_of_the_other_folds(
        self,
        tiny_engine: Engine,
        tiny_f32: TinyModel,
        parts: tuple[list[Text], list[Carrier], TiltCounts],
        strengths: tuple[tuple[int, float], ...],
        phrase_texts: int,
        *,
        with_tilt: bool,
    ) -> None:
        _, carriers, counts = parts
        texts = alike_texts(5)
        calibrator = unsteered(
            tiny_engine, texts, FOLDS, carriers, counts if with_tilt else None, phrase_texts
        )
        calibrator.score([strengths])
        tilts = TILTS if with_tilt else (0.0,)
        weights = [*PHRASES, 0.21]
        calibrator.score([strengths], tilts=tilts, phrases=(0.21,))  # as after the guard
        expected = {(tilt, weight): np.zeros(8) for tilt in tilts for weight in weights}
        texts = with_plain(tiny_engine, texts)
        for fold, members in enumerate((*FOLDS, PLAIN)):
            others = others_of(fold)
            values = counts.values([f for f in range(3) if f != fold])
            known = [texts[i].response for i in others]
            for j in members:
                tokens = [*texts[j].context, *texts[j].response]
                first = len(texts[j].context) - 1
                generated = np.arange(len(tokens)) >= first
                changes = [
                    (
                        Add(
                            (carriers[place].layer,),
                            (strength * carriers[place].norm * carriers[place].direction(others))[
                                None
                            ],
                        ),
                        generated,
                    )
                    for place, strength in strengths
                ]
                logits = steered_forward(tiny_f32, tokens, changes).logits[first:-1]
                for tilt, weight in expected:
                    p = np.exp(log_softmax(logits + tilt * values))
                    expected[tilt, weight][j] = np.mean(
                        [
                            np.log(
                                with_phrases(
                                    p[row], texts[j].response[:row], known, weight, phrase_texts
                                )[token]
                            )
                            for row, token in enumerate(texts[j].response)
                        ]
                    )
        for (tilt, weight), scores in expected.items():
            found = calibrator._scores[Setting(strengths, tilt, weight)]
            np.testing.assert_allclose(found, scores, atol=2e-4, err_msg=f"{tilt} {weight}")
            same = calibrator._scores[Setting(strengths, tilt)]
            assert (weight == 0) == np.array_equal(found[:5], same[:5])

    @pytest.mark.parametrize("fold", range(3))
    def test_a_folds_own_phrases_do_not_enter_its_scores(
        self,
        tiny_engine: Engine,
        parts: tuple[list[Text], list[Carrier], TiltCounts],
        fold: int,
    ) -> None:
        """What another text of the fold says does not count, and what other folds say does."""
        texts = alike_texts(5)
        *own, changed = FOLDS[fold]
        elsewhere = [*texts]
        elsewhere[changed] = replace(texts[changed], response=texts[changed].response[::-1] * 3)
        setting = Setting((), 0.0, 0.1)
        one, other = (
            unsteered(tiny_engine, each, FOLDS, parts[1], None, 1).gains(setting)
            for each in (texts, elsewhere)
        )
        np.testing.assert_allclose(one[own], other[own], atol=1e-5)
        others = others_of(fold)
        assert (np.abs(one[others] - other[others]) > 1e-3).all()

    def test_without_phrases_none_are_tried(
        self, tiny_engine: Engine, parts: tuple[list[Text], list[Carrier], TiltCounts]
    ) -> None:
        calibrator = unsteered(tiny_engine, alike_texts(5), FOLDS, parts[1], None)
        assert {setting.phrases for setting in calibrator._scores} == {0.0}
        found = calibrate(tiny_engine, alike_texts(5), FOLDS, parts[1], None)
        assert found.setting.phrases == 0

    def test_the_order_of_items_in_a_fold_and_of_folds_does_not_matter(
        self, tiny_engine: Engine, parts: tuple[list[Text], list[Carrier], TiltCounts]
    ) -> None:
        texts, carriers, counts = parts
        one = unsteered(tiny_engine, texts, FOLDS, carriers, counts)
        swapped = TiltCounts(counts.used[[2, 0, 1]], counts.expected[[2, 0, 1]])
        other = unsteered(tiny_engine, texts, ((2,), (3, 0), (4, 1)), carriers, swapped)
        for calibrator in (one, other):
            calibrator.score([((1, 0.3),)])
        setting = Setting(((1, 0.3),), 0.5)
        np.testing.assert_allclose(one.gains(setting), other.gains(setting), atol=1e-4)

    def test_a_fold_whose_others_cancel_out_gains_nothing_there(self, tiny_engine: Engine) -> None:
        texts, (carrier, *_) = random_texts(5), random_carriers(5)
        differences = carrier.differences.copy()
        differences[1], differences[4], differences[2] = 1, -1, 0  # the others of fold 0
        carriers = [replace(carrier, differences=differences)]
        calibrator = unsteered(tiny_engine, texts, FOLDS, carriers, None)
        calibrator.score([((0, 0.3),)])
        gains = calibrator.gains(Setting(((0, 0.3),)))
        np.testing.assert_allclose(gains[[0, 3]], 0, atol=1e-6)
        assert (np.abs(gains[[1, 4, 2]]) > 1e-4).all()
        calibrate(tiny_engine, texts, FOLDS, carriers, None)

    def test_a_setting_is_scored_once(self) -> None:
        engine = ScriptedEngine(lambda job: -size_of(job))
        calibrator = engine.calibrator()
        assert engine.n_scored == 4 + 3
        calibrator.score([(), ((0, 0.1),)])
        assert engine.n_scored == 2 * 7
        calibrator.score([((0, 0.1),)])
        assert engine.n_scored == 2 * 7
        calibrator.score([((0, 0.1),)], tilts=(0.0,))
        assert engine.n_scored == 2 * 7

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
            calibrator = unsteered(engine, texts, FOLDS, each, counts)
            calibrator.score([setting.strengths])
            found.append(calibrator.gains(setting))
        return found


# ---------------------------------------------------------------- rules, on scores made by hand


PLAIN_REQUEST, PLAIN_TOKEN = 99, 8


def is_plain(job: Pass) -> bool:
    """Whether what is read is a plain text."""
    return job.context[0] == PLAIN_REQUEST


def strength_of(setting: Setting) -> float:
    """Of all carriers together."""
    return sum(strength for _, strength in setting.strengths)


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

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        return [PLAIN_REQUEST, *map(ord, messages[-1]["content"])]

    def tokenize(self, _text: str) -> list[int]:
        return [PLAIN_TOKEN] * 300  # so that what stands at their beginning weighs little

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
    """Of which every three folds have a value of exactly 1 nat, but for rounding; all of 1.12."""

    def calibrator(
        self, tilt: TiltCounts | None = None, phrase_texts: int | None = None
    ) -> Calibrator:
        engine: Any = self
        return unsteered(engine, self.texts, self.folds, self.carriers, tilt, phrase_texts)

    def calibrate(
        self, tilt: TiltCounts | None = None, phrase_texts: int | None = None, **options: Any
    ) -> Any:
        engine: Any = self
        return calibrate(
            engine, self.texts, self.folds, self.carriers, tilt, phrase_texts, **options
        )


A, B = Setting(((0, 0.1),)), Setting(((0, 0.2),))


TILT, PHRASE = Setting((), 0.5), Setting((), 0.0, 0.1)
NEAR, BEST = [1, 1, 1, 1], [1.1, 1, 1.2, 0.9]


@pytest.mark.parametrize(
    ("table", "best"),
    [
        pytest.param({A: (NEAR, 0.1), B: (BEST, 0.2)}, A, id="within one error"),
        pytest.param({A: (BEST, 0.2), B: (NEAR, 0.1)}, B, id="what is stronger may harm less"),
        pytest.param({A: (NEAR, 0.2), B: (BEST, 0.1)}, B, id="the best may harm the least"),
        pytest.param({A: ([0.9] * 4, 0.1), B: (BEST, 0.2)}, B, id="beyond it"),
        pytest.param({A: (NEAR, 0.1), B: (NEAR, 0.2)}, A, id="equal"),
        pytest.param(
            {A: ([1, 2, 3, 4], 0.1), B: ([1.5, 2.5, 3.5, 4.6], 0.2)},
            B,
            id="beyond that of the pairs",
        ),
        pytest.param(
            {A: ([0.1, 0.2, 0.1, 0.1], 0.1), B: ([1, -1, 1, -0.4], 0.1)},
            UNSTEERED,
            id="not beyond 0",
        ),
        pytest.param(
            {A: ([-1] * 4, 0.1), B: ([-2] * 4, -0.1)}, UNSTEERED, id="what plain texts gain is none"
        ),
        pytest.param({A: ([0] * 4, -0.1)}, A, id="but it may decide"),
        pytest.param(
            {A: ([3, -3, 3, -3.4], 0.1), B: ([1, 1.1, 1, 0.9], 0.2)}, B, id="scatter is no merit"
        ),
        pytest.param({A: ([2, -1, 2, -2], 0.1), B: ([1, 1.1, 1, 0.9], 0.2)}, B, id="nor above 0"),
        pytest.param({B: (BEST, 0.2), TILT: (NEAR, 0.1)}, TILT, id="a tilt that harms less"),
        pytest.param({A: (NEAR, 0.1), TILT: (BEST, 0.2)}, A, id="a tilt that harms more"),
        pytest.param({A: (BEST, 0.2), PHRASE: (NEAR, 0.1)}, PHRASE, id="phrases that harm less"),
        pytest.param({B: (NEAR, 0.1), PHRASE: (BEST, 0.2)}, B, id="phrases that harm more"),
        pytest.param(
            {A: (NEAR, (0.25, 0.0, 0.0)), B: (BEST, (0.05, 0.05, 0.05))},
            B,
            id="the three texts count together",
        ),
    ],
)
def test_of_those_within_one_standard_error_the_one_with_the_least_harm_is_taken(
    table: dict[Setting, tuple[list[float], float | tuple[float, ...]]], best: Setting
) -> None:
    for order in (table, dict(reversed(table.items()))):
        calibrator = ScriptedEngine(lambda _: 0.0).calibrator()
        for setting, (gains, harm) in order.items():
            lost = np.broadcast_to(harm, 3) / 20  # all of them below MOST_HARM
            calibrator._scores[setting] = np.array([*gains, *-lost], float)
            assert calibrator.harm(setting) == pytest.approx(lost.mean())
        assert calibrator.best() == best


@pytest.mark.parametrize(("harm", "best"), [(0.019, B), (0.021, A)])
def test_what_harms_plain_texts_more_than_a_little_is_no_choice(harm: float, best: Setting) -> None:
    calibrator = ScriptedEngine(lambda _: 0.0).calibrator()
    calibrator._scores[A] = np.array([1, 1.01, 0.99, 1, 0, 0, 0])
    calibrator._scores[B] = np.array([2, 2.01, 1.99, 2, -3 * harm, 0, 0])
    assert calibrator.best() == best
    strengths = {round(s, 6) for choice in calibrator.finer() for _, s in choice}
    assert (0.4 in strengths) == (best == B)  # twice that of the best


@pytest.mark.parametrize(
    ("best", "around"),
    [
        (Setting(((0, 0.2),)), [((0, 0.1),), ((0, 0.4),), ((0, 0.2), (2, 0.1))]),
        (Setting(((1, 0.2),), 0.5, 0.1), [((1, 0.1),), ((1, 0.4),), ((1, 0.2), (2, 0.1))]),
        (
            Setting(((2, 0.1),)),
            [((2, 0.05),), ((2, 0.2),), ((0, 0.1), (2, 0.1)), ((1, 0.1), (2, 0.1))],
        ),
        (Setting((), 1.0), []),
        (Setting((), 0.0, 0.1), []),
        (UNSTEERED, []),
    ],
    ids=str,
)
def test_finer_is_weaker_stronger_and_beside_on_other_blocks(
    best: Setting, around: list[tuple[tuple[int, float], ...]]
) -> None:
    calibrator = ScriptedEngine(lambda _: 0.0).calibrator()
    # What the plain texts gain with another setting makes it no better.
    calibrator._scores |= {
        A: np.array([-1.0] * 4 + [9.0] * 3),
        best: np.full(7, float(best != UNSTEERED)),
    }
    found = calibrator.finer()
    assert [[place for place, _ in choice] for choice in found] == [
        [place for place, _ in choice] for choice in around
    ]
    for choice, expected in zip(found, around, strict=True):
        assert [s for _, s in choice] == pytest.approx([s for _, s in expected])


def test_a_scaled_setting_is_weaker_in_all_it_does() -> None:
    setting = Setting(((0, 0.2), (2, 0.1)), 1.0, 0.1)
    assert setting.scaled(0.5) == Setting(((0, 0.1), (2, 0.05)), 0.5, 0.05)
    assert setting.scaled(0) == Setting(((0, 0), (2, 0)))
    assert UNSTEERED.scaled(0.5) == UNSTEERED


class TestGuard:
    """The user's texts take 3 nats a token, the model's own 1: up to 3 is fluent."""

    @staticmethod
    def score(job: Pass) -> float:
        """A text says with its first token how surprising it is, in hundredths."""
        return -3.0 if list(job.response) == [7, 7, 7] else -job.response[0] / 100

    @staticmethod
    def surprising(job: Continuation) -> list[int]:
        added = size_of(job) + abs(job.logit_bias.get(0, 0.0))
        if job.phrases is not None:
            added += job.phrases.added([])[7]
        return [100 + round(100 * added), *range(900, 930)]

    @staticmethod
    def know(
        calibrator: Calibrator,
        gain: Callable[[Setting], float] = strength_of,
        harm: Callable[[Setting], float] = lambda _: 0.0,
    ) -> None:
        """As if all settings had been scored."""
        calibrator.gains = lambda setting: np.full(4, gain(setting))  # type: ignore[method-assign]
        calibrator.harm = harm  # type: ignore[method-assign]

    @pytest.mark.parametrize(
        ("strength", "share"),
        [
            (0.4, 1),
            (1.99, 1),
            (2.01, 0.7),
            (2.85, 0.7),
            (2.87, 0.5),
            (3.99, 0.5),
            (4.01, 0.35),
            (7.9, 0.25),
            (15.9, 0.125),
            (16.1, 0),
        ],
    )
    def test_what_is_too_surprising_is_weakened_or_given_up(
        self, strength: float, share: float
    ) -> None:
        calibrator = ScriptedEngine(self.score, self.surprising).calibrator()
        self.know(calibrator)
        given = Setting(((0, strength),))
        assert calibrator.guarded(given) == (given.scaled(share) if share else UNSTEERED)

    def guarded(
        self,
        is_fluent: Callable[[float, float, float], bool],
        gain: Callable[[float, float, float], float],
        harm: Callable[[float, float, float], float] = lambda _d, _t, _p: 0.0,
    ) -> tuple[float, float, float]:
        """What is left of a direction, a tilt and phrases, each of strength 1."""

        def write(job: Continuation) -> list[int]:
            d = size_of(job)
            t = job.logit_bias.get(0, 0.0) / all_of_it
            p = 0.0 if job.phrases is None else job.phrases.added([])[7] / 4
            return list(range(40)) if is_fluent(*np.round((d, t, p), 5)) else [5] * 40

        engine = ScriptedEngine(self.score, write)
        all_of_it = float(engine.counts.values()[0])
        calibrator = engine.calibrator(engine.counts, 2)
        self.know(
            calibrator,
            lambda each: gain(strength_of(each), each.tilt, each.phrases),
            lambda each: harm(strength_of(each), each.tilt, each.phrases),
        )
        calibrator.score([((0, 1.0),), ()], tilts=(0.0, 1.0), phrases=(0.0, 1.0))
        found = calibrator.guarded(Setting(((0, 1.0),), 1.0, 1.0))
        assert found in calibrator._scores
        return strength_of(found), found.tilt, found.phrases

    @pytest.mark.parametrize(
        ("is_fluent", "found"),
        [
            (lambda d, t, p: d + t + p <= 3, (1, 1, 1)),
            (lambda d, _t, _p: d < 0.6, (0.5, 1, 1)),
            (lambda _d, t, _p: t < 0.6, (1, 0.5, 1)),
            (lambda _d, t, _p: t < 0.3, (1, 0.25, 1)),
            (lambda _d, _t, p: p < 0.15, (1, 1, 0.125)),
            (lambda _d, _t, p: p == 0, (1, 1, 0)),
            (lambda _d, t, p: t + p < 1.2, (1, 1, 0.125)),
            (lambda d, t, p: d + t + p < 1.1, (1, 0, 0)),
            (lambda d, t, p: d + t + p < 1, (0.25, 0.25, 0.25)),
            (lambda d, t, p: d + t + p == 0, (0, 0, 0)),
        ],
    )
    def test_what_is_fluent_is_kept_and_the_rest_weakened(
        self,
        is_fluent: Callable[[float, float, float], bool],
        found: tuple[float, float, float],
    ) -> None:
        assert self.guarded(is_fluent, lambda d, t, p: 0.3 * d + 0.2 * t + 0.1 * p) == found

    def test_all_of_it_is_weakened_where_that_gains_more(self) -> None:
        """The first third of each brings more than half."""

        def gain(d: float, t: float, p: float) -> float:
            return 0.3 * d**0.5 + 0.2 * t**0.5 + 0.1 * p**0.5

        found = self.guarded(lambda d, t, p: d + t + p < 1.1, gain)
        assert found == (0.35, 0.35, 0.35)
        assert gain(*found) > gain(1, 0, 0)

    def test_a_part_that_loses_is_weakened_with_the_rest(self) -> None:
        """Tilt and phrases are fluent without the direction, and gain nothing by themselves."""
        found = self.guarded(lambda d, _t, _p: d < 1, lambda d, t, p: 0.4 * d - 0.1 * (t + p))
        assert found == (0.7, 0.7, 0.7)

    def test_what_harms_plain_texts_is_not_left(self) -> None:
        """The phrases must go, and without them the rest would cost plain texts too much."""
        found = self.guarded(
            lambda _d, _t, p: p < 0.2,
            lambda d, t, p: 0.3 * d + 0.2 * t + 0.1 * p,
            lambda d, t, p: 0.021 if d + t > 1 and p < 0.5 else 0.02,
        )
        assert found == (1, 0, 0)

    @pytest.mark.parametrize(("added", "share"), [(0, 1), (1, 0.7)])
    def test_where_the_user_is_less_surprising_the_model_itself_is_the_bound(
        self, added: int, share: float
    ) -> None:
        def score(job: Pass) -> float:
            return max(self.score(job), -2.0) if list(job.response) != [7, 7, 7] else -0.5

        def write(job: Continuation) -> list[int]:
            return [100 + added * (size_of(job) > 0.09), *range(900, 930)]

        calibrator = ScriptedEngine(score, write).calibrator()
        self.know(calibrator)
        assert calibrator.guarded(A) == A.scaled(share)

    def test_the_tilt_of_all_texts_is_at_work(self) -> None:
        engine = ScriptedEngine(self.score, self.surprising)
        calibrator = engine.calibrator(engine.counts)
        self.know(calibrator, lambda each: strength_of(each) + each.tilt / 2)
        # 0.85 and 1.12 are less than 2, and 0.9 and 1.12 are more.
        given = Setting(((0, 0.85),), 1.0)
        assert calibrator.guarded(given) == given
        given = Setting(((0, 0.9),), 1.0)
        assert calibrator.guarded(given) == replace(given, tilt=0.7)
        untilted = replace(given, tilt=0.0)
        assert calibrator.guarded(untilted) == untilted
        assert engine.calibrator().guarded(given) == given  # there is no tilt

    @pytest.mark.parametrize(
        ("given", "share"),
        [
            (Setting((), 0.0, 0.49), 1),  # times four occurrences
            (Setting((), 0.0, 0.51), 0.7),
            (Setting(((0, 1.0),), 0.0, 0.24), 1),
            (Setting(((0, 1.0),), 0.0, 0.26), 0.7),
        ],
    )
    def test_the_phrases_of_all_texts_are_at_work(self, given: Setting, share: float) -> None:
        engine = ScriptedEngine(self.score, self.surprising)
        calibrator = engine.calibrator(phrase_texts=2)
        self.know(calibrator, lambda each: strength_of(each) + each.phrases)
        assert calibrator.guarded(given) == replace(given, phrases=share * given.phrases)
        assert calibrator.guarded(replace(given, phrases=0.0)).phrases == 0
        assert engine.calibrator().guarded(given) == given  # there are no phrases

    def test_the_directions_are_those_of_all_texts(self) -> None:
        """Which are the opposite of those without the last text."""
        given: list[float] = []

        def write(job: Continuation) -> list[int]:
            given.extend(float(each.vectors.sum()) for each in job.interventions)
            return [100, *range(900, 930)]

        engine = ScriptedEngine(self.score, write)
        differences = np.array([[1], [1], [1], [-9]], np.float32)
        engine.carriers = tuple(replace(each, differences=differences) for each in engine.carriers)
        engine.calibrator().guarded(Setting(((0, 0.5),)))
        assert given == [-0.5] * (4 + 3)

    @pytest.mark.parametrize("n_texts", [2, 3, 4, 6])
    def test_no_more_than_four_requests_of_the_users_are_answered(self, n_texts: int) -> None:
        asked: list[int] = []

        def write(job: Continuation) -> list[int]:
            asked.append(job.context[0])
            return [100, *range(900, 930)]

        engine = ScriptedEngine(self.score, write)
        engine.texts = tuple(Text([j], [7, 7, 7]) for j in range(n_texts))
        engine.folds = tuple((j,) for j in range(n_texts))
        engine.carriers = tuple(
            replace(each, differences=np.ones((n_texts, 1), np.float32)) for each in engine.carriers
        )
        engine.calibrator().guarded(A)
        # And three of nobody's.
        assert sorted(asked) == sorted([*range(min(n_texts, 4)), *[PLAIN_REQUEST] * 3] * 2)

    @pytest.mark.parametrize("n_repeated", [0, 2, 3, 4, 10])
    def test_what_repeats_is_weakened(self, n_repeated: int) -> None:
        def write(job: Continuation) -> list[int]:
            # 30 4-grams, of which all but the first of the same token repeat.
            n = n_repeated if size_of(job) > 0.3 else 0
            same = [5] * (n + 4 if n else 0)
            return [100, *range(900, 932 - len(same)), *same]

        written = write(Continuation([0], interventions=()))
        assert len(written) == 33
        given = Setting(((0, 0.4),))
        calibrator = ScriptedEngine(self.score, write).calibrator()
        self.know(calibrator)
        assert calibrator.guarded(given) == given.scaled(1 if n_repeated <= 3 else 0.7)

    @pytest.mark.parametrize("n_alike", [0, 7, 8, 33])
    @pytest.mark.parametrize("of_the_user", [False, True])
    def test_what_answers_nobodys_requests_alike_is_weakened(
        self, n_alike: int, *, of_the_user: bool
    ) -> None:
        """The replies to the user's own requests may be alike."""
        given = Setting(((0, 0.4),))

        def write(job: Continuation) -> list[int]:
            first = 100 * sum(job.context)
            is_alike = size_of(job) > 0.3 and (job.context[0] != PLAIN_REQUEST) == of_the_user
            n = n_alike if is_alike else 0
            # 30 4-grams a reply, of which n - 3 stand in each of the others.
            return [100, *range(1, n), *range(first, first + 33 - max(n, 1))]

        calibrator = ScriptedEngine(self.score, write).calibrator()
        self.know(calibrator)
        may_stay = of_the_user or n_alike < 8
        assert calibrator.guarded(given) == given.scaled(1 if may_stay else 0.7)

    def test_as_alike_as_unsteered_they_may_be(self) -> None:
        engine = ScriptedEngine(self.score, lambda _: [100, *range(30)])
        given = Setting(((0, 0.4),))
        assert engine.calibrator().guarded(given) == given

    def test_what_answers_nobodys_requests_may_repeat_itself(self) -> None:
        def write(job: Continuation) -> list[int]:
            repeats = size_of(job) > 0.3 and job.context[0] == PLAIN_REQUEST
            return [100, *([5 + sum(job.context)] * 32 if repeats else range(900, 932))]

        given = Setting(((0, 0.4),))
        assert ScriptedEngine(self.score, write).calibrator().guarded(given) == given

    def test_as_much_as_unsteered_may_be_repeated(self) -> None:
        engine = ScriptedEngine(self.score, lambda _: [100] + [5] * 30)
        given = Setting(((0, 0.4),))
        assert engine.calibrator().guarded(given) == given

    def test_a_real_model_may_be_steered_mildly_and_not_ruined(self, tiny_engine: Engine) -> None:
        calibrator = unsteered(tiny_engine, random_texts(5), FOLDS, random_carriers(5), None)
        mild, ruinous = Setting(((0, 0.01),)), Setting(((0, 8.0), (2, 8.0)))
        assert calibrator.guarded(mild) == mild
        assert strength_of(calibrator.guarded(ruinous)) < strength_of(ruinous)

    def test_a_model_that_says_nothing_is_fluent(self) -> None:
        engine = ScriptedEngine(self.score, lambda _: [])
        assert engine.calibrator().guarded(A) == A


class TestCalibrate:
    def test_a_gain_that_holds_is_carried(self) -> None:
        engine = ScriptedEngine(lambda job: -3 + size_of(job))
        found = engine.calibrate()
        # The strongest that was tried: twice as much, or another carrier beside it.
        assert strength_of(found.setting) == pytest.approx(0.2)
        assert found.gain.mean == pytest.approx(0.2, abs=1e-6)
        assert found.gain.low == pytest.approx(0.2, abs=1e-6)
        assert found.gain.items == 4

    def test_of_gains_alike_the_one_that_spares_plain_texts_is_carried(self) -> None:
        def score(job: Pass) -> float:
            layers = [layer for each in job.interventions for layer in each.layers]
            if not layers:
                return -3.0
            return -3.0 - (0.001 if layers == [3] else 0.005) if is_plain(job) else -2.0

        found = ScriptedEngine(score).calibrate()
        assert [place for place, _ in found.setting.strengths] == [2]
        assert found.gain.mean == pytest.approx(1, abs=1e-6)
        assert found.gain.items == 4

    def test_the_strength_is_in_units_of_the_residual_norm(self) -> None:
        lengths = set()

        def score(job: Pass) -> float:
            lengths.add(round(size_of(job), 4))
            return 0.0

        engine = ScriptedEngine(score)
        engine.carriers = tuple(replace(each, norm=7.0) for each in engine.carriers)
        engine.calibrate()
        assert lengths == {0, round(7 * STRENGTH, 4)}

    def test_the_tilt_is_chosen_with_the_direction(self) -> None:
        """Half of it is best, and with it the direction as it was tried first."""
        engine = ScriptedEngine(
            lambda job: -3 - abs(size_of(job) - 0.1), tilted=lambda tilt: -abs(tilt - 0.5)
        )
        found = engine.calibrate(engine.counts)
        assert found.setting.tilt == 0.5
        assert strength_of(found.setting) == pytest.approx(0.1)
        assert found.gain.mean == pytest.approx(0.6, abs=1e-4)

    def test_phrases_that_help_are_carried(self) -> None:
        """All texts are one, and every strength of its phrases helps more than the one before."""
        engine = ScriptedEngine(lambda job: -3 - size_of(job))
        found = engine.calibrate(None, 2)
        assert found.setting == Setting((), 0.0, max(PHRASES))
        assert found.gain.mean == pytest.approx(self.gain_of_phrases(max(PHRASES)), abs=1e-5)
        assert found.gain.low > 0.5
        assert engine.calibrate(None, 4).setting == UNSTEERED  # three others are too few
        assert engine.calibrate(None, None).setting == UNSTEERED

    @staticmethod
    def gain_of_phrases(weight: float) -> float:
        """Of the text 7, 7, 7 that stands in three others, by hand: all runs go on alike."""
        p = np.exp(-3.0)
        at_first = (p + 3 * weight) / (1 + 3 * weight)
        after = (p + 6 * weight) / (1 + 6 * weight)
        second = (after + 3 * weight) / (1 + 3 * weight)  # after the beginning and 7
        # No pair of tokens is offered again, so the third 7 is as without.
        return float(np.mean(np.log([at_first, second, p])) + 3)

    def test_weakened_phrases_are_measured_at_their_own_strength(self) -> None:
        given: list[float] = []

        def write(job: Continuation) -> list[int]:
            weight = 0.0 if job.phrases is None else job.phrases.added([])[7]
            given.append(weight)
            return [5] * 40 if weight > 3 else list(range(40))

        engine = ScriptedEngine(lambda job: -3 - size_of(job), write)
        found = engine.calibrate(None, 2)
        # The guard is given the phrases of all four texts.
        assert sorted({round(weight, 6) for weight in given}) == [0.0, 2.8, 4.0]
        assert found.setting == Setting((), 0.0, 0.7)
        assert found.gain.mean == pytest.approx(self.gain_of_phrases(0.7), abs=1e-5)

    @pytest.mark.parametrize("tilt", [None, ScriptedEngine.counts], ids=["no tilt", "tilt"])
    def test_no_gain_is_no_preference(self, tilt: TiltCounts | None) -> None:
        engine = ScriptedEngine(lambda job: -3 - size_of(job), tilted=lambda tilt: -tilt)
        found = engine.calibrate(tilt)
        assert found.setting == UNSTEERED
        assert (found.gain.mean, found.gain.low, found.gain.high) == (0, 0, 0)
        assert engine.n_written == 0  # nothing to be guarded

    def test_a_gain_whose_interval_reaches_0_is_no_preference(self) -> None:
        def score(job: Pass) -> float:
            sign = 0.0 if is_plain(job) else (1.0, 1.0, 1.0, -0.5)[job.context[0]]
            return -3 + sign * size_of(job)

        engine = ScriptedEngine(score)
        found = engine.calibrate()
        assert found.setting == UNSTEERED
        assert found.gain.low <= 0 < found.gain.mean < found.gain.high
        assert engine.n_written == 0

    def test_what_the_guard_weakens_is_measured_again(self) -> None:
        def write(job: Continuation) -> list[int]:
            return [5] * 40 if size_of(job) > 0.15 else list(range(40))

        engine = ScriptedEngine(lambda job: -3 + size_of(job), write)
        found = engine.calibrate()
        assert strength_of(found.setting) == pytest.approx(0.7 * 0.2)
        assert found.gain.mean == pytest.approx(0.7 * 0.2, abs=1e-6)

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
        assert found.setting == Setting((), 0.7)
        assert found.gain.mean == pytest.approx(0.7, abs=1e-4)

    @pytest.mark.parametrize("sign", [1, -1], ids=["gain", "harm"])
    def test_progress_counts_up_to_its_end(self, sign: int) -> None:
        calls: list[tuple[int, int]] = []
        engine = ScriptedEngine(lambda job: -3 + sign * size_of(job))
        engine.calibrate(done=lambda *call: calls.append(call))
        (of,) = {of for _, of in calls}
        done = [n for n, _ in calls]
        assert done == sorted(done)
        # Unsteered, three carriers, then four settings around the best at most, on seven texts;
        # and the guard.
        assert done[-1] == of == (1 + 3 + 4) * 7 + 1

    def test_with_texts_in_the_prompt_strengths_of_their_own_are_found(self) -> None:
        """Where the prompt says the same, half is best; more takes away from it."""

        def score(job: Pass) -> float:
            is_prompted = job.context[0] >= 100
            return -2 - abs(size_of(job) - 0.1) if is_prompted else -3 + size_of(job)

        engine = ScriptedEngine(score)
        prompted = [Text([100 + j], text.response) for j, text in enumerate(engine.texts)]
        found = engine.calibrate(prompted=prompted)
        assert strength_of(found.setting) == pytest.approx(0.2)
        assert found.gain.mean == pytest.approx(0.2, abs=1e-6)
        halved = [(place, 0.5 * strength) for place, strength in found.setting.strengths]
        assert found.with_history.strengths == tuple(halved)
        assert found.gain_with_history.mean == pytest.approx(0.1, abs=1e-6)
        alone = engine.calibrate()
        assert (alone.setting, alone.gain) == (found.setting, found.gain)
        assert (alone.with_history, alone.gain_with_history) == (UNSTEERED, None)

    def test_where_it_takes_away_from_the_prompt_nothing_is_added_there(self) -> None:
        def score(job: Pass) -> float:
            return -2 - size_of(job) if job.context[0] >= 100 else -3 + size_of(job)

        engine = ScriptedEngine(score)
        prompted = [Text([100 + j], text.response) for j, text in enumerate(engine.texts)]
        found = engine.calibrate(prompted=prompted)
        assert strength_of(found.setting) == pytest.approx(0.2)
        assert found.with_history == UNSTEERED
        assert found.gain_with_history.low == 0

    def test_where_it_may_add_nothing_to_the_prompt_nothing_is_added_there(self) -> None:
        def score(job: Pass) -> float:
            if is_plain(job) or job.context[0] < 100:
                return -3 + size_of(job)
            return -2 + (1.0, 1.0, 1.0, -0.5)[job.context[0] - 100] * size_of(job)

        engine = ScriptedEngine(score)
        prompted = [Text([100 + j], text.response) for j, text in enumerate(engine.texts)]
        found = engine.calibrate(prompted=prompted)
        assert strength_of(found.setting) == pytest.approx(0.2)
        assert found.gain_with_history.low <= 0 < found.gain_with_history.mean
        assert found.with_history == UNSTEERED

    def test_without_a_preference_there_is_nothing_to_tell_apart(self) -> None:
        engine = ScriptedEngine(lambda job: -3 - size_of(job))
        placebo = Placebo([], engine.counts, [])
        found = engine.calibrate(prompted=engine.texts, placebo=lambda _: placebo)
        assert found.setting == UNSTEERED
        assert (found.personal, found.with_history, found.gain_with_history) == (
            None,
            UNSTEERED,
            None,
        )

    @pytest.mark.parametrize("theirs", [0.0, 0.5, 1.0, 2.0])
    def test_what_other_authors_give_as_well_is_not_personal(self, theirs: float) -> None:
        """Their directions give some share of what the user's give, or nothing where that harms."""
        vectors = []

        def score(job: Pass) -> float:
            size = sum(float(each.vectors.sum()) for each in job.interventions)
            vectors.append(size)
            return -3 + (size if size > 0 else -theirs * size)

        engine = ScriptedEngine(score)
        others = [replace(each, differences=-each.differences) for each in engine.carriers]
        asked: list[Sequence[Carrier]] = []

        def placebo(used: Sequence[Carrier]) -> Placebo:
            asked.append(used)
            return Placebo(others, engine.counts, [])

        found = engine.calibrate(placebo=placebo)
        assert asked == [[engine.carriers[place] for place, _ in found.setting.strengths]]
        assert found.gain.mean == pytest.approx(0.2, abs=1e-6)
        assert found.personal.mean == pytest.approx(0.2 * (1 - theirs), abs=1e-6)
        assert found.personal.items == 4
        assert -0.2 in [round(size, 6) for size in vectors]  # at the strength of the user's own

    @pytest.mark.parametrize("gives", [0.3, -0.3])
    def test_their_tilt_is_given_the_strength_that_suits_the_user(self, gives: float) -> None:
        engine = ScriptedEngine(
            lambda job: -3 + size_of(job),
            tilted=lambda tilt: gives * tilt if tilt < 1.2 else 0.0,
        )
        found = engine.calibrate(engine.counts, placebo=lambda _: Placebo([], engine.counts, []))
        # All four folds of theirs have a value of 1.12: with half of the strength, 0.56.
        value = float(engine.counts.values()[0])
        best = gives * value if gives > 0 else 0.0
        assert value == pytest.approx(1.12, abs=0.01)
        assert found.gain.mean - found.personal.mean == pytest.approx(best, abs=1e-5)

    def test_their_phrases_count_too(self) -> None:
        engine = ScriptedEngine(lambda job: -3 - size_of(job))
        same = [text.response for text in engine.texts]
        found = engine.calibrate(None, 2, placebo=lambda _: Placebo([], engine.counts, same))
        # Theirs are of all four texts where the user's are of three.
        assert -0.2 < found.personal.mean < 0
        strange = [[token + 1000 for token in text] for text in same]
        found = engine.calibrate(None, 2, placebo=lambda _: Placebo([], engine.counts, strange))
        assert found.personal == found.gain

    def test_against_oneself_nothing_is_personal(self, tiny_engine: Engine) -> None:
        rng = np.random.default_rng(0)
        words = rng.integers(FIRST_WORD, N_VOCAB, 5)
        texts = [replace(t, response=rng.choice(words, 12).tolist()) for t in random_texts(8)]
        counts, carriers = counts_of(tiny_engine, texts, QUARTERS), random_carriers(8)
        themselves = Placebo(carriers, counts, [text.response for text in texts])
        found = calibrate(
            tiny_engine, texts, QUARTERS, carriers, counts, 2, placebo=lambda _: themselves
        )
        assert found.gain is not None
        assert found.personal is not None
        assert found.gain.low > 0
        assert found.personal.mean <= 0  # they are not held out

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


def test_a_planted_phrase_is_found(tiny_engine: Engine) -> None:
    """It stands in every text, each time in another place."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        phrase = rng.integers(FIRST_WORD, N_VOCAB, 6).tolist()
        texts = [
            replace(text, response=[*text.response[:at], *phrase, *text.response[at:]])
            for at, text in enumerate(random_texts(8, seed))
        ]
        carriers = random_carriers(8, seed)
        found = calibrate(tiny_engine, texts, QUARTERS, carriers, None, 2)
        assert found.setting.phrases > 0
        assert found.gain is not None
        assert found.gain.low > 0.1
        assert found.gain.items == 8
        without = calibrate(tiny_engine, texts, QUARTERS, carriers, None)
        assert without.setting.phrases == 0
        assert without.gain is not None
        assert without.gain.mean < found.gain.mean - 0.1


def test_a_planted_direction_is_found(
    tiny_engine: Engine, tiny_f32: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The person is the model itself, steered: its carrier is found among others."""
    # A random model knows no plain texts, and any direction makes them another thing.
    monkeypatch.setattr("steerx_edge.calibration.MOST_HARM", np.inf)
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
        found = calibrate(tiny_engine, texts, QUARTERS, random_carriers(8, seed), counts, 2)
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


@pytest.mark.parametrize(
    ("texts", "share"),
    [
        ([], 0),
        ([[], [1, 2, 3]], 0),
        ([[1, 2, 3, 4]], 0),
        ([[1] * 20], 0),  # repeats, and shares nothing
        ([[1, 2, 3, 4], [5, 6, 7, 8]], 0),
        ([[1, 2, 3, 4], [1, 2, 3, 4]], 1 / 2),
        ([[1, 2, 3, 4, 5], [0, 1, 2, 3, 4], [1, 2, 3, 4, 5, 6]], 3 / 7),
        ([[1] * 9, [1] * 5], 1 / 2),
    ],
)
def test_shared_four_grams(texts: list[list[int]], share: float) -> None:
    assert shared_four_grams(texts) == pytest.approx(share)
