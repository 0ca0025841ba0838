"""Calibration: scores against the NumPy reference, and each rule on scores made by hand."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from models import TinyModel
from models.operations import log_softmax
from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.ablation import Text
from steerx_edge.learning.calibration import (
    UNSTEERED,
    Calibration,
    HeldOutScores,
    Scored,
    Setting,
    calibrate,
    recalibrate,
)
from steerx_edge.learning.calibration.choose import MOST_LOSS, best, finer, race
from steerx_edge.learning.calibration.fluency import (
    fluent,
    repeated_four_grams,
    shared_four_grams,
)
from steerx_edge.learning.calibration.grid import MEMORY_STRENGTHS, STRENGTH, Strengths
from steerx_edge.learning.candidates import Candidate
from steerx_edge.learning.directions import direction_of
from steerx_edge.learning.effects import Effects
from steerx_edge.learning.memory_rows import MemoryRows
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.interventions import Add
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import GenerateRequest, ScoreRequest, ScoreResult, asked_for
from steerx_edge.profile import Gain
from steerx_edge.steering.gate import Gate
from steerx_edge.steering.logit_bias import BIAS_STRENGTHS, TokenCounts
from steerx_edge.steering.memory import ActiveMemory, KeySpace, Memory, TextOffers
from tests.support.steered_reference import steered_forward

N_VOCAB, N_EMBD = 448, 64
FIRST_WORD = 259  # above the control tokens and single bytes
FOLDS = ((0, 3), (1, 4), (2,))
NEUTRAL = (5, 6, 7)  # where the neutral texts stand among all
NEUTRAL_ITEMS = [
    HistoryItem("It rained all day.", "Was it dry?"),
    HistoryItem("Nothing is ever late here.", "Is it late?"),
    HistoryItem("A table has four legs.", "How many?"),
]
CHOOSE = "steerx_edge.learning.calibration.choose."


@pytest.fixture(autouse=True)
def _one_occurrence_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Smoothing that makes values easy to work out."""
    monkeypatch.setattr("steerx_edge.steering.logit_bias.SMOOTHING", 1.0)


@pytest.fixture(autouse=True)
def _few_neutral_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "steerx_edge.learning.calibration.score.neutral_items", lambda _: NEUTRAL_ITEMS
    )


def unsteered(engine: Engine, *args: Any, **options: Any) -> HeldOutScores:
    """A scores that has scored what the others are set against."""
    scores = HeldOutScores(engine, *args, **options)
    scores.score([()])
    return scores


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


def random_candidates(n: int, seed: int = 1) -> list[Candidate]:
    rng = np.random.default_rng(seed)
    places = (("stylevector", 1), ("context-contrast", 1), ("stylevector", 3))
    return [
        Candidate(
            source,
            layer,
            (rng.normal(size=N_EMBD) + rng.normal(size=(n, N_EMBD))).astype(np.float32),
            norm=6.0 + layer,
        )
        for source, layer in places
    ]


def random_counts(n_folds: int, seed: int = 2) -> TokenCounts:
    rng = np.random.default_rng(seed)
    shape = (n_folds, N_VOCAB)
    return TokenCounts(
        rng.poisson(2, shape).astype(np.float32), rng.gamma(2, 1, shape).astype(np.float32)
    )


def others_of(held_out: int) -> list[int]:
    """The items outside of a fold; all of them for the fold of the neutral texts."""
    return [j for j in range(5) if j not in (*FOLDS, NEUTRAL)[held_out]]


def with_neutral(engine: Engine, texts: Sequence[Text]) -> list[Text]:
    neutral = [
        Text(engine.prompt(messages_for(item.request)), engine.tokenize(item.response))
        for item in NEUTRAL_ITEMS
    ]
    return [*texts, *neutral]


def rows_of(engine: Engine, texts: Sequence[Text], seed: int = 3) -> MemoryRows:
    """What a memory holds of texts, with random effects."""
    space = KeySpace.fit(np.concatenate(finals_of(engine, texts)))
    rows = MemoryRows(space, "causal", engine.end_of_turn)
    add_rows(engine, rows, texts, seed)
    return rows


def add_rows(engine: Engine, rows: MemoryRows, texts: Sequence[Text], seed: int = 3) -> None:
    rng = np.random.default_rng(seed)
    for text, final in zip(texts, finals_of(engine, texts), strict=True):
        nats = rng.normal(size=len(text.response)).astype(np.float32)
        effects = Effects(text.response, engine.pieces(text.response), nats)
        rows.add(effects, "", rows.keys(final))


def finals_of(engine: Engine, texts: Sequence[Text]) -> list[np.ndarray]:
    requests = [ScoreRequest(text.context, text.response, final=True) for text in texts]
    return [asked_for(result.final) for result in engine.run_many(requests)]


class TestCandidate:
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
        candidate = Candidate("context-contrast", 1, self.DIFFERENCES, 1.0, self.CONTEXTS)
        mean = self.DIFFERENCES[used].astype(np.float64).sum(axis=0)
        expected = mean / np.linalg.norm(mean) if used else mean
        found = candidate.direction(items)
        assert (found.shape, found.dtype) == ((8,), np.float32)
        np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_an_item_may_have_seen_several(self) -> None:
        candidate = Candidate("x", 1, self.DIFFERENCES, 1.0, {0: frozenset({1, 2})})
        alone = Candidate("x", 1, self.DIFFERENCES, 1.0)
        np.testing.assert_array_equal(candidate.direction([0, 1, 3]), alone.direction([1, 3]))
        np.testing.assert_array_equal(candidate.direction([0, 1, 2]), alone.direction([0, 1, 2]))

    @pytest.mark.parametrize("estimate", ["mean", "pca", "logistic"])
    def test_it_is_made_as_it_was_asked_for(self, estimate: Any) -> None:
        candidate = Candidate("x", 1, self.DIFFERENCES, 1.0, estimate=estimate)
        for items in (None, [0, 1, 3]):
            chosen = self.DIFFERENCES if items is None else self.DIFFERENCES[items]
            expected = direction_of(chosen, estimate)
            np.testing.assert_array_equal(candidate.direction(items), expected)


def unsteered_reference(model: TinyModel, texts: Sequence[Text]) -> np.ndarray:
    """(text,) mean log-probability."""
    return np.array(
        [
            model.log_probabilities([*text.context, *text.response])[len(text.context) - 1 :].mean()
            for text in texts
        ]
    )


class TestScores:
    @pytest.fixture
    def parts(self) -> tuple[list[Text], list[Candidate], TokenCounts]:
        return random_texts(5), random_candidates(5), random_counts(3)

    @pytest.mark.parametrize("with_logit_bias", [True, False], ids=["logit_bias", "no logit bias"])
    @pytest.mark.parametrize(
        "strengths",
        [(), ((0, 0.1),), ((1, 0.4),), ((0, 0.2), (2, 0.1))],
        ids=str,
    )
    def test_they_are_those_of_the_reference_by_the_other_folds(
        self,
        tiny_engine: Engine,
        tiny_f32: TinyModel,
        parts: tuple[list[Text], list[Candidate], TokenCounts],
        strengths: tuple[tuple[int, float], ...],
        *,
        with_logit_bias: bool,
    ) -> None:
        texts, candidates, counts = parts
        logit_bias_counts = counts if with_logit_bias else None
        scores = unsteered(tiny_engine, texts, FOLDS, candidates, logit_bias_counts, gated=False)
        scores.score([strengths])
        texts = with_neutral(tiny_engine, texts)
        for logit_bias in BIAS_STRENGTHS if with_logit_bias else (0.0,):
            expected = np.zeros(8)
            for fold, members in enumerate((*FOLDS, NEUTRAL)):
                others = others_of(fold)
                rest = [f for f in range(3) if f != fold]
                ratio = (counts.used[rest].sum(0) + 1) / (counts.expected[rest].sum(0) + 1)
                values = np.log(ratio)
                values = np.where(np.abs(values) < 0.1, 0, values)
                for j in members:
                    tokens = [*texts[j].context, *texts[j].response]
                    first = len(texts[j].context) - 1
                    generated = np.arange(len(tokens)) >= first
                    changes = []
                    for place, strength in strengths:
                        mean = candidates[place].differences[others].mean(axis=0, dtype=np.float64)
                        vector = strength * candidates[place].norm * mean / np.linalg.norm(mean)
                        changes.append((Add((candidates[place].layer,), vector[None]), generated))
                    logits = steered_forward(tiny_f32, tokens, changes).logits[first:-1]
                    log_p = log_softmax(logits + logit_bias * values)
                    expected[j] = log_p[np.arange(len(log_p)), texts[j].response].mean()
            if not logit_bias:
                unchanged = unsteered_reference(tiny_f32, texts)
            gains = expected - unchanged
            setting = Setting(strengths, logit_bias)
            np.testing.assert_allclose(scores.gains(setting, range(8)), gains, atol=3e-4)

    def test_unsteered_gains_exactly_nothing(
        self, tiny_engine: Engine, parts: tuple[list[Text], list[Candidate], TokenCounts]
    ) -> None:
        for logit_bias in (parts[2], None):
            scores = unsteered(tiny_engine, parts[0], FOLDS, parts[1], logit_bias)
            assert scores.gains(UNSTEERED).tolist() == [0.0] * 5
            gain = scores.gain(UNSTEERED)
            assert (gain.mean, gain.low, gain.high, gain.items) == (0, 0, 0, 5)
            assert scores.loss(UNSTEERED) == 0

    @pytest.mark.parametrize("fold", range(3))
    def test_a_folds_own_differences_do_not_enter_its_scores(
        self,
        tiny_engine: Engine,
        parts: tuple[list[Text], list[Candidate], TokenCounts],
        fold: int,
    ) -> None:
        texts, candidates, counts = parts
        own, others = list(FOLDS[fold]), others_of(fold)
        changed = []
        for candidate in candidates:
            differences = candidate.differences.copy()
            differences[own] = -50 * differences[own][::-1] + 3
            changed.append(replace(candidate, differences=differences))
        setting = Setting(((0, 0.3), (2, 0.2)))
        one, other = self.gains_of(setting, tiny_engine, texts, (candidates, changed), counts)
        assert one[own].tobytes() == other[own].tobytes()
        assert (np.abs(one[others] - other[others]) > 1e-3).all()

    @pytest.mark.parametrize("changed", range(5))
    def test_nor_do_those_of_items_that_have_seen_the_fold(
        self,
        tiny_engine: Engine,
        parts: tuple[list[Text], list[Candidate], TokenCounts],
        changed: int,
    ) -> None:
        texts, (candidate, *_), counts = parts
        # As of three folds: the first two are each other's context, and the last one has the first.
        contexts = {0: {1}, 3: {1, 4}, 1: {0, 3}, 4: {3}, 2: {0}}
        known = {j: frozenset(others) for j, others in contexts.items()}
        candidate = replace(candidate, contexts=known)
        differences = candidate.differences.copy()
        differences[changed] = -50 * differences[changed][::-1] + 3
        setting = Setting(((0, 0.3),))
        candidates = ([candidate], [replace(candidate, differences=differences)])
        one, other = self.gains_of(setting, tiny_engine, texts, candidates, counts)
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
        parts: tuple[list[Text], list[Candidate], TokenCounts],
        fold: int,
    ) -> None:
        texts, candidates, counts = parts
        own, others = list(FOLDS[fold]), others_of(fold)
        used = counts.used.copy()
        used[fold] = used[fold][::-1] * 9
        one, other = (
            unsteered(tiny_engine, texts, FOLDS, candidates, each, gated=False).gains(
                Setting((), 1.0)
            )
            for each in (counts, TokenCounts(used, counts.expected))
        )
        assert one[own].tobytes() == other[own].tobytes()
        assert (np.abs(one[others] - other[others]) > 1e-3).all()

    @pytest.mark.parametrize(
        "setting",
        [Setting((), 0.0, 0.3), Setting((), 0.5, 0.8), Setting(((0, 0.2), (2, 0.1)), 1.0, 0.45)],
        ids=str,
    )
    def test_the_memory_scored_without_a_pass_is_what_a_pass_gives(
        self,
        tiny_engine: Engine,
        parts: tuple[list[Text], list[Candidate], TokenCounts],
        monkeypatch: pytest.MonkeyPatch,
        setting: Setting,
    ) -> None:
        """With the rows of the other folds alone; but for the half precision of what is kept."""
        monkeypatch.setattr(
            "steerx_edge.learning.calibration.score._scored",
            lambda result: Scored(asked_for(result.biased), asked_for(result.final)),
        )
        texts, (_, candidates, counts) = alike_texts(5), parts
        rows = rows_of(tiny_engine, texts)
        scores = unsteered(tiny_engine, texts, FOLDS, candidates, counts, rows, gated=False)
        scores.score([setting.strengths])
        found = scores.gains(setting, range(8))
        for fold, members in enumerate((*FOLDS, NEUTRAL)):
            values = counts.values([f for f in range(3) if f != fold])
            memory = rows.memory(without=[j for j in members if j < 5])
            changes = tuple(
                Add(
                    (candidates[place].layer,),
                    strength
                    * candidates[place].norm
                    * candidates[place].direction(others_of(fold))[None],
                )
                for place, strength in setting.strengths
            )
            for j in members:
                text = with_neutral(tiny_engine, texts)[j]
                one, other = tiny_engine.run_many(
                    [
                        ScoreRequest(
                            text.context,
                            text.response,
                            interventions=changes,
                            logit_bias=dict(enumerate((setting.logit_bias * values).tolist())),
                            memory=ActiveMemory(memory, setting.memory),
                        ),
                        ScoreRequest(text.context, text.response),
                    ]
                )
                gain = one.scored.mean() - other.scored.mean()
                assert found[j] == pytest.approx(gain, abs=1e-4)
        without = scores.gains(replace(setting, memory=0.0), range(5))
        assert (np.abs(found[:5] - without) > 1e-3).all()

    def test_further_texts_are_in_the_memory_of_every_fold(
        self, tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The neutral texts' too, though their places are those of the further texts' rows."""
        texts = alike_texts(9)
        rows = rows_of(tiny_engine, texts[:5])
        scores = unsteered(tiny_engine, texts[:5], FOLDS, [], None, rows, gated=False)
        setting = Setting(memory=0.3)
        scores.gains(setting, range(8))
        add_rows(tiny_engine, rows, texts[5:])
        scores.renew_memory()
        sizes: dict[tuple[int, ...], int] = {}
        memory_of = rows.memory

        def recorded(without: Collection[int]) -> Memory:
            memory = memory_of(without)
            sizes[tuple(without)] = len(memory.tokens)
            return memory

        monkeypatch.setattr(rows, "memory", recorded)
        scores.gains(setting, range(8))
        lengths = [len(text.response) + 1 for text in texts]
        assert sizes == {
            members: sum(n for j, n in enumerate(lengths) if j not in members)
            for members in (*FOLDS, ())
        }

    def test_the_order_of_items_in_a_fold_and_of_folds_does_not_matter(
        self, tiny_engine: Engine, parts: tuple[list[Text], list[Candidate], TokenCounts]
    ) -> None:
        texts, candidates, counts = parts
        one = unsteered(tiny_engine, texts, FOLDS, candidates, counts, gated=False)
        swapped = TokenCounts(counts.used[[2, 0, 1]], counts.expected[[2, 0, 1]])
        folds = ((2,), (3, 0), (4, 1))
        other = unsteered(tiny_engine, texts, folds, candidates, swapped, gated=False)
        for scores in (one, other):
            scores.score([((1, 0.3),)])
        setting = Setting(((1, 0.3),), 0.5)
        np.testing.assert_allclose(one.gains(setting), other.gains(setting), atol=1e-4)

    def test_a_fold_whose_others_cancel_out_gains_nothing_there(self, tiny_engine: Engine) -> None:
        texts, (candidate, *_) = random_texts(5), random_candidates(5)
        differences = candidate.differences.copy()
        differences[1], differences[4], differences[2] = 1, -1, 0  # the others of fold 0
        candidates = [replace(candidate, differences=differences)]
        scores = unsteered(tiny_engine, texts, FOLDS, candidates, None, gated=False)
        scores.score([((0, 0.3),)])
        gains = scores.gains(Setting(((0, 0.3),)))
        np.testing.assert_allclose(gains[[0, 3]], 0, atol=1e-6)
        assert (np.abs(gains[[1, 4, 2]]) > 1e-4).all()
        calibrate(scores)

    def test_a_setting_is_scored_once(self) -> None:
        engine = ScriptedEngine(lambda job: -size_of(job))
        scores = engine.scores(gated=False)
        assert engine.n_scored == 4 + 3
        scores.score([(), ((0, 0.1),)])
        assert engine.n_scored == 2 * 7
        scores.score([((0, 0.1),)])
        assert engine.n_scored == 2 * 7

    @staticmethod
    def gains_of(
        setting: Setting,
        engine: Engine,
        texts: list[Text],
        candidates: Sequence[list[Candidate]],
        counts: TokenCounts,
    ) -> list[np.ndarray]:
        found = []
        for each in candidates:
            scores = unsteered(engine, texts, FOLDS, each, counts, gated=False)
            scores.score([setting.strengths])
            found.append(scores.gains(setting))
        return found


# ---------------------------------------------------------------- rules, on scores made by hand


NEUTRAL_REQUEST, NEUTRAL_TOKEN = 99, 8


LIKE_OWN = NEUTRAL_ITEMS[-1].request
"""Where a test says so, the model's rows do not tell this neutral request from the person's."""


def is_neutral(job: ScoreRequest | GenerateRequest) -> bool:
    return job.context[0] == NEUTRAL_REQUEST


def is_like_own(job: ScoreRequest | GenerateRequest) -> bool:
    return not is_neutral(job) or list(job.context[1:]) == [*map(ord, LIKE_OWN)]


def strength_of(setting: Setting) -> float:
    """Of all candidate directions together."""
    return sum(strength for _, strength in setting.strengths)


def size_of(job: ScoreRequest | GenerateRequest) -> float:
    """How much is added in all: the scripted candidates' vectors are as long as they are strong."""
    return sum(float(np.linalg.norm(each.vectors)) for each in job.interventions)


class ScriptedMemory:
    """Of rows that say what share of each token is offered."""

    def __init__(self, more: float) -> None:
        self.more = more

    def offers(self, rows: np.ndarray) -> Any:
        ones = np.ones(len(rows), np.float32)
        own = np.minimum(rows[:, 1].astype(np.float32) + np.float32(self.more), 1)
        return SimpleNamespace(of_text=lambda _: TextOffers(own, ones, ones))


class ScriptedRows:
    """Of which a memory without any is as good as one without some, until more are added."""

    more = 0.0

    def memory(self, without: Collection[int]) -> Any:  # noqa: ARG002
        return ScriptedMemory(self.more)


class ScriptedEngine:
    """Scores and writes what it is told.

    Args:
        score: the log-probability of each token of a pass.
        write: the tokens of a continuation.
        biased: what is added to the score at each strength of the logit bias.
        row: of a pass: 1 where its request is like the person's, or 0; what a memory offers; ...
    """

    def __init__(
        self,
        score: Callable[[ScoreRequest], float],
        write: Callable[[GenerateRequest], list[int]] = lambda _job: list(range(40)),
        biased: Callable[[float], float] = lambda _logit_bias: 0.0,
        row: Callable[[ScoreRequest], tuple[float, ...]] = lambda job: (
            float(not is_neutral(job)),
            0.0,
        ),
    ) -> None:
        self.score, self.biased, self.row = score, biased, row
        self.scored: list[ScoreRequest] = []
        self.n_written = 0
        self.analysis = SimpleNamespace(
            generate_many=lambda jobs: [self._written(write, job) for job in jobs]
        )

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        return [NEUTRAL_REQUEST, *map(ord, messages[-1]["content"])]

    def tokenize(self, _text: str) -> list[int]:
        return [NEUTRAL_TOKEN] * 3

    def _written(
        self, write: Callable[[GenerateRequest], list[int]], job: GenerateRequest
    ) -> list[int]:
        self.n_written += 1
        return write(job)

    @property
    def n_scored(self) -> int:
        return len(self.scored)

    def run_many(
        self, jobs: Sequence[ScoreRequest], done: Callable[[int], None] | None = None
    ) -> list[ScoreResult]:
        results = []
        for n, job in enumerate(jobs, 1):
            self.scored.append(job)
            row = np.full(len(job.response), self.score(job), np.float32)
            biased = None
            if job.biases is not None:
                biased = np.stack([row + np.float32(self.biased(each[0])) for each in job.biases])
            final = np.tile(np.float32(self.row(job)), (len(row) + 1, 1))
            results.append(ScoreResult(log_prob=row, biased=biased, final=final))
            if done is not None:
                done(n)
        return results

    # Item j of four is the text after [j]; four folds, and candidate directions on blocks 1, 1 and
    # 3.
    texts = tuple(Text([j], [7, 7, 7]) for j in range(4))
    folds = ((0,), (1,), (2,), (3,))
    candidates = tuple(
        Candidate(source, layer, np.ones((4, 1), np.float32), 1.0)
        for source, layer in (("stylevector", 1), ("context-contrast", 1), ("stylevector", 3))
    )
    counts = TokenCounts(
        np.ones((4, 1), np.float32), np.full((4, 1), (4 / np.e - 1) / 3, np.float32)
    )
    """Of which every three folds have a value of exactly 1 nat, but for rounding; all of 1.12."""

    def scores(
        self,
        logit_bias: TokenCounts | None = None,
        rows: ScriptedRows | None = None,
        *,
        gated: bool = True,
    ) -> HeldOutScores:
        engine: Any = self
        return unsteered(
            engine, self.texts, self.folds, self.candidates, logit_bias, rows, gated=gated
        )

    def calibrate(
        self,
        logit_bias: TokenCounts | None = None,
        rows: ScriptedRows | None = None,
        **options: Any,
    ) -> Calibration:
        engine: Any = self
        scores = HeldOutScores(engine, self.texts, self.folds, self.candidates, logit_bias, rows)  # type: ignore[arg-type]
        return calibrate(scores, **options)


class KnownScores:
    """As if these settings had been scored, and no others."""

    layers = (1, 1, 3)

    def __init__(
        self,
        gains: Mapping[Setting, Sequence[float]],
        loss: Callable[[Setting], float] = lambda _: 0.0,
    ) -> None:
        self._gains, self.loss = gains, loss

    def complete(self) -> list[Strengths]:
        return list({setting.strengths: None for setting in self._gains})

    def settings(self, choice: Strengths) -> list[Setting]:
        return [setting for setting in self._gains if setting.strengths == choice]

    def gains(self, setting: Setting, _items: Sequence[int] | None = None) -> np.ndarray:
        return np.array(self._gains[setting], float)


A, B = Setting(((0, 0.1),)), Setting(((0, 0.2),))
NONE = [0.0, 0, 0, 0]
NEAR, BEST = [1, 1, 1, 1], [1.1, 1, 1.2, 0.9]


class TestBest:
    @pytest.mark.parametrize(
        ("table", "expected"),
        [
            pytest.param({A: NEAR, B: BEST}, A, id="within one error the weaker directions"),
            pytest.param({A: BEST, B: NEAR}, A, id="or the best itself"),
            pytest.param({A: [0.9] * 4, B: BEST}, B, id="beyond it the best"),
            pytest.param(
                {A: [1, 2, 3, 4], B: [1.5, 2.5, 3.5, 4.6]}, B, id="beyond that of the pairs"
            ),
            pytest.param(
                {A: [0.1, 0.2, 0.1, 0.1], B: [1, -1, 1, -0.4]}, UNSTEERED, id="not beyond 0"
            ),
            pytest.param({A: [-1] * 4, B: [-2] * 4}, UNSTEERED, id="nothing gains"),
            pytest.param(
                {A: [0.2, 3, -1, 0.9], B: [1, 1.1, 1, 0.9]}, B, id="unlike the texts is no merit"
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
                id="of memories the best",
            ),
        ],
    )
    def test_of_those_near_the_best_the_most_selective_is_taken(
        self, table: dict[Setting, list[float]], expected: Setting
    ) -> None:
        for order in (table, dict(reversed(table.items()))):
            assert best(KnownScores({UNSTEERED: NONE} | order)) == expected

    @pytest.mark.parametrize(("loss", "expected"), [(0.99, B), (1.01, A)])
    def test_what_takes_more_than_a_little_from_neutral_text_is_no_choice(
        self, loss: float, expected: Setting
    ) -> None:
        table = {UNSTEERED: NONE, A: NEAR, B: [2.0] * 4}
        scores = KnownScores(table, lambda setting: loss * MOST_LOSS if setting == B else 0.0)
        assert best(scores) == expected


@pytest.mark.parametrize(
    ("leader", "around"),
    [
        (((0, 0.2),), [((0, 0.1),), ((0, 0.4),), ((0, 0.2), (2, 0.1))]),
        (((1, 0.2),), [((1, 0.1),), ((1, 0.4),), ((1, 0.2), (2, 0.1))]),
        (
            ((2, 0.1),),
            [((2, 0.05),), ((2, 0.2),), ((0, 0.1), (2, 0.1)), ((1, 0.1), (2, 0.1))],
        ),
        ((), []),
    ],
    ids=str,
)
def test_finer_is_weaker_stronger_and_beside_on_other_blocks(
    leader: Strengths, around: list[Strengths]
) -> None:
    scores = KnownScores({UNSTEERED: NONE, A: [-1.0] * 4} | {Setting(leader, 0.5, 0.1): NEAR})
    found = finer(scores)
    assert [[place for place, _ in choice] for choice in found] == [
        [place for place, _ in choice] for choice in around
    ]
    for choice, expected in zip(found, around, strict=True):
        assert [s for _, s in choice] == pytest.approx([s for _, s in expected])


@pytest.mark.parametrize(("gains", "n"), [([1, -1, 1, 0.9], 0), ([1, 0.5, 1, 0.9], 3)])
def test_where_directions_are_not_clearly_ahead_nothing_finer_is_tried(
    gains: list[float], n: int
) -> None:
    scores = KnownScores({UNSTEERED: NONE, A: gains})
    assert len(finer(scores)) == n


class TestRace:
    """Directions gain by their block, and of each text a little else."""

    GAINS: ClassVar = {1: -1.0, 2: 0.0, 3: 0.4}

    def race(self) -> tuple[ScriptedEngine, list[int]]:
        def score(job: ScoreRequest) -> float:
            gains = [self.GAINS[layer] for each in job.interventions for layer in each.layers]
            return -3 + sum(gains) * (1 + job.context[0] / 4)

        engine = ScriptedEngine(score, row=lambda job: (float(is_like_own(job)), 0.0))
        engine.candidates = tuple(
            Candidate("stylevector", layer, np.ones((4, 1), np.float32), 1.0) for layer in (1, 2, 3)
        )
        scores, done = engine.scores(), []
        race(scores, [((place, STRENGTH),) for place in range(3)], done.append)
        return engine, done

    def test_what_is_clearly_behind_on_half_of_the_texts_is_scored_on_no_more(self) -> None:
        engine, _ = self.race()
        read = [(each.layers[0], job) for job in engine.scored for each in job.interventions]
        of_block = {layer: [job for at, job in read if at == layer] for layer in (1, 2, 3)}
        for layer in (1, 2):
            assert [job.context for job in of_block[layer]] == [[0], [2]]
        # Of the neutral texts that one alone which the gate lets through.
        assert sorted(job.context[0] for job in of_block[3]) == [0, 1, 2, 3, NEUTRAL_REQUEST]

    def test_its_progress_never_goes_back(self) -> None:
        _, done = self.race()
        assert done == sorted(done)
        assert done[-1] == 3 * 2 + 2 + 1


class TestGate:
    """The first text's request is like no other, and one neutral request is like the person's."""

    def scores(self, *, gated: bool = True) -> HeldOutScores:
        engine = ScriptedEngine(
            lambda job: -3 + size_of(job) * (-1 if is_neutral(job) else 1), row=self.row
        )
        scores = engine.scores(gated=gated)
        scores.score([A.strengths])
        return scores

    @staticmethod
    def row(job: ScoreRequest) -> tuple[float, ...]:
        if job.interventions:
            return (1, 0, 0, 0)  # which must not be asked
        if job.context == [0]:
            return (0, 0, 1, 0)
        return (float(is_like_own(job)), 0, 0, float(is_neutral(job) and is_like_own(job)))

    def test_it_is_made_of_the_unsteered_rows_of_all_texts(self) -> None:
        own = np.array([[0, 0, 1, 0], *[[1, 0, 0, 0]] * 3], np.float16)
        neutral = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1]], np.float16)
        expected = Gate.fit(own, neutral)
        gate = self.scores().gate
        assert gate is not None
        np.testing.assert_array_equal(gate.direction, expected.direction)
        assert gate.threshold == expected.threshold

    def test_a_text_with_a_request_unlike_the_others_is_scored_unsteered(self) -> None:
        assert self.scores().gains(A) == pytest.approx([0, 0.1, 0.1, 0.1], abs=1e-6)

    def test_neutral_text_loses_only_where_its_request_is_like_the_persons(self) -> None:
        assert self.scores().loss(A) == pytest.approx(0.1 / 3, abs=1e-6)

    def test_without_a_gate_all_is_steered_and_all_neutral_text_counts(self) -> None:
        scores = self.scores(gated=False)
        assert scores.gate is None
        assert scores.gains(A) == pytest.approx([0.1] * 4, abs=1e-6)
        assert scores.loss(A) == pytest.approx(0.1, abs=1e-6)

    def test_beside_texts_in_the_prompt_neutral_text_does_not_count(self) -> None:
        scores = self.scores()
        ones = np.ones((1, 3), np.float32)
        prompted = scores.in_prompts([Scored(ones, np.ones((4, 1), np.float16))] * 4)
        assert prompted.gate is None
        assert prompted.loss(Setting((), 0.5)) == 0

    def test_answers_to_requests_unlike_the_persons_are_written_unsteered(self) -> None:
        steered: dict[tuple[int, ...], bool] = {}

        def write(job: GenerateRequest) -> list[int]:
            is_steered = bool(job.interventions or job.logit_bias or job.memory)
            request = tuple(job.context)
            steered[request] = steered.get(request, False) or is_steered
            return [100]

        engine = ScriptedEngine(lambda _: -3.0, write, row=self.row)
        fluent(engine.scores(engine.counts, ScriptedRows()), Setting(A.strengths, 0.5, 0.3))
        expected = {(0,): False, (1,): True, (2,): True, (3,): True}
        for item in NEUTRAL_ITEMS:
            request = tuple(engine.prompt(messages_for(item.request)))
            expected[request] = item.request == LIKE_OWN
        assert steered == expected


class TestFluent:
    """The user's texts take 3 nats a token, the model's own 1: up to 3 is fluent."""

    @staticmethod
    def score(job: ScoreRequest) -> float:
        """A text says with its first token how surprising it is, in hundredths."""
        return -3.0 if list(job.response) == [7, 7, 7] else -job.response[0] / 100

    @pytest.mark.parametrize(("strength", "is_kept"), [(1.99, True), (2.01, False)])
    def test_what_is_more_surprising_than_the_users_own_texts_is_weakened(
        self, strength: float, *, is_kept: bool
    ) -> None:
        engine = ScriptedEngine(
            self.score, lambda job: [100 + round(100 * size_of(job)), *range(900, 930)]
        )
        given = Setting(((0, strength),))
        assert fluent(engine.scores(), given) == (given if is_kept else UNSTEERED)

    @pytest.mark.parametrize(
        ("is_fluent", "left"),
        [
            (lambda _d, _t, _m: True, Setting(A.strengths, 1.0, 0.8)),
            (lambda d, _t, _m: not d, Setting((), 1.0, 0.8)),
            (lambda d, t, _m: not d and not t, Setting((), 0.0, 0.8)),
            (lambda d, t, m: not d and not t and m < 0.8, Setting((), 0.0, 0.3)),
            (lambda _d, _t, m: m < 0.3, Setting((), 0.0, 0.1)),
            (lambda d, t, m: not (d or t or m), UNSTEERED),
        ],
    )
    def test_directions_go_first_then_the_logit_bias_then_the_memory_by_halves(
        self, is_fluent: Callable[[float, float, float], bool], left: Setting
    ) -> None:
        """And the logit bias and the memory are those of all texts."""

        def write(job: GenerateRequest) -> list[int]:
            memory: Any = job.memory
            strengths = (size_of(job), job.logit_bias.get(0, 0.0), memory.strength if memory else 0)
            assert round(strengths[1], 4) in (0, round(float(engine.counts.values()[0]), 4))
            return list(range(40)) if is_fluent(*strengths) else [5] * 40

        engine = ScriptedEngine(self.score, write)
        scores = engine.scores(engine.counts, ScriptedRows())
        found = fluent(scores, Setting(A.strengths, 1.0, 0.8))
        assert found == left
        assert found.memory in MEMORY_STRENGTHS

    @pytest.mark.parametrize(("added", "is_kept"), [(0, True), (1, False)])
    def test_where_the_user_is_less_surprising_the_model_itself_is_the_bound(
        self, added: int, *, is_kept: bool
    ) -> None:
        def score(job: ScoreRequest) -> float:
            return -0.5 if list(job.response) == [7, 7, 7] else self.score(job)

        engine = ScriptedEngine(
            score, lambda job: [100 + added * (size_of(job) > 0), *range(900, 930)]
        )
        assert fluent(engine.scores(), A) == (A if is_kept else UNSTEERED)

    def test_the_directions_are_those_of_all_texts(self) -> None:
        """Which are the opposite of those without the last text."""
        given: list[float] = []

        def write(job: GenerateRequest) -> list[int]:
            given.extend(float(each.vectors.sum()) for each in job.interventions)
            return [100, *range(900, 930)]

        engine = ScriptedEngine(self.score, write)
        differences = np.array([[1], [1], [1], [-9]], np.float32)
        engine.candidates = tuple(
            replace(each, differences=differences) for each in engine.candidates
        )
        fluent(engine.scores(gated=False), Setting(((0, 0.5),)))
        assert given == [-0.5] * (4 + 3)

    @pytest.mark.parametrize("n_texts", [2, 8, 10])
    def test_no_more_than_eight_requests_of_the_users_are_answered(self, n_texts: int) -> None:
        asked: list[int] = []

        def write(job: GenerateRequest) -> list[int]:
            asked.append(job.context[0])
            return [100, *range(900, 930)]

        engine = ScriptedEngine(self.score, write)
        engine.texts = tuple(Text([j], [7, 7, 7]) for j in range(n_texts))
        engine.folds = tuple((j,) for j in range(n_texts))
        engine.candidates = tuple(
            replace(each, differences=np.ones((n_texts, 1), np.float32))
            for each in engine.candidates
        )
        fluent(engine.scores(), A)
        # And three neutral ones.
        assert sorted(asked) == sorted([*range(min(n_texts, 8)), *[NEUTRAL_REQUEST] * 3] * 2)

    @pytest.mark.parametrize("n_repeated", [0, 3, 4, 10])
    def test_what_repeats_is_weakened(self, n_repeated: int) -> None:
        def write(job: GenerateRequest) -> list[int]:
            # 30 4-grams, of which all but the first of the same token repeat.
            n = n_repeated if size_of(job) else 0
            same = [5] * (n + 4 if n else 0)
            return [100, *range(900, 932 - len(same)), *same]

        scores = ScriptedEngine(self.score, write).scores()
        assert fluent(scores, A) == (A if n_repeated <= 3 else UNSTEERED)

    @pytest.mark.parametrize("n_alike", [0, 7, 8, 33])
    @pytest.mark.parametrize("of_the_user", [False, True])
    def test_what_answers_neutral_requests_alike_is_weakened(
        self, n_alike: int, *, of_the_user: bool
    ) -> None:
        """The replies to the user's own requests may be alike."""

        def write(job: GenerateRequest) -> list[int]:
            first = 100 * sum(job.context)
            n = n_alike if size_of(job) and is_neutral(job) != of_the_user else 0
            # 30 4-grams a reply, of which n - 3 stand in each of the others.
            return [100, *range(1, n), *range(first, first + 33 - max(n, 1))]

        scores = ScriptedEngine(self.score, write).scores(gated=False)
        assert fluent(scores, A) == (A if of_the_user or n_alike < 8 else UNSTEERED)

    @pytest.mark.parametrize("written", [[100, *range(30)], [100] + [5] * 30, []], ids=len)
    def test_as_much_as_unsteered_may_be_shared_and_repeated(self, written: list[int]) -> None:
        assert fluent(ScriptedEngine(self.score, lambda _: written).scores(), A) == A

    def test_a_real_model_may_be_steered_mildly_and_not_ruined(self, tiny_engine: Engine) -> None:
        parts = random_texts(5), FOLDS, random_candidates(5), None
        scores = unsteered(tiny_engine, *parts, gated=False)
        mild, ruinous = Setting(((0, 0.01),)), Setting(((0, 8.0), (2, 8.0)))
        assert fluent(scores, mild) == mild
        assert fluent(scores, ruinous) == UNSTEERED


class TestCalibrate:
    @staticmethod
    def own(gain: Callable[[float], float]) -> Callable[[ScoreRequest], float]:
        """What directions do to the user's texts; to others, nothing."""
        return lambda job: -3.0 if is_neutral(job) else -3 + gain(size_of(job))

    def test_a_gain_that_holds_is_carried(self) -> None:
        found = ScriptedEngine(self.own(lambda size: size)).calibrate()
        # The strongest that was tried: twice as much, or another candidate direction beside it.
        assert strength_of(found.setting) == pytest.approx(0.2)
        assert found.gain is not None
        assert found.gain.mean == pytest.approx(0.2, abs=1e-6)
        assert found.gain.low == pytest.approx(0.2, abs=1e-6)
        assert found.gain.items == 4
        assert found.gate is not None  # without a memory, too

    def test_the_strength_is_in_units_of_the_residual_norm(self) -> None:
        engine = ScriptedEngine(lambda _: 0.0)
        engine.candidates = tuple(replace(each, norm=7.0) for each in engine.candidates)
        engine.calibrate()
        assert {round(size_of(job), 4) for job in engine.scored} == {0, round(7 * STRENGTH, 4)}

    def test_the_logit_bias_is_chosen_with_the_direction(self) -> None:
        """Half of it is best, and with it the direction as it was tried first."""
        engine = ScriptedEngine(
            self.own(lambda size: -abs(size - 0.1)),
            biased=lambda logit_bias: -abs(logit_bias - 0.5),
        )
        engine.row = lambda job: (float(not is_neutral(job)), 0.0)
        found = engine.calibrate(engine.counts, ScriptedRows())
        assert found.setting.logit_bias == 0.5
        assert strength_of(found.setting) == pytest.approx(0.1)
        assert found.gain is not None
        assert found.gain.mean == pytest.approx(0.6, abs=1e-4)

    def test_a_memory_that_helps_is_carried_with_the_gate_that_tells_what_it_is_for(self) -> None:
        engine = ScriptedEngine(
            self.own(lambda size: -size), row=lambda job: (float(not is_neutral(job)), 1.0)
        )
        found = engine.calibrate(None, ScriptedRows())
        assert found.setting == Setting((), 0.0, max(MEMORY_STRENGTHS))
        assert found.gate is not None
        assert found.gate.is_open(np.array([[1, 1], [0, 1]], np.float16)).tolist() == [True, False]
        assert found.gain is not None
        mixed = np.log(0.2 * np.exp(-3) + 0.8)  # the memory offers each token for certain
        assert found.gain.mean == pytest.approx(mixed + 3, abs=1e-5)

    @pytest.mark.parametrize(
        "logit_bias", [None, ScriptedEngine.counts], ids=["no logit bias", "logit_bias"]
    )
    def test_no_gain_is_no_preference(self, logit_bias: TokenCounts | None) -> None:
        engine = ScriptedEngine(self.own(lambda size: -size), biased=lambda logit_bias: -logit_bias)
        found = engine.calibrate(logit_bias, ScriptedRows())
        assert found.setting == UNSTEERED
        assert found.gain == Gain(0, 0, 0, 4)
        assert found.gate is None
        assert engine.n_written == 0

    def test_a_gain_whose_interval_reaches_0_is_no_preference(self) -> None:
        def score(job: ScoreRequest) -> float:
            sign = 0.0 if is_neutral(job) else (1.0, 1.0, 1.0, -0.5)[job.context[0]]
            return -3 + sign * size_of(job)

        engine = ScriptedEngine(score)
        found = engine.calibrate()
        assert found.setting == UNSTEERED
        assert found.gain is not None
        assert found.gain.low <= 0 < found.gain.mean < found.gain.high
        assert engine.n_written == 0

    def test_what_is_weakened_is_measured_again(self) -> None:
        engine = ScriptedEngine(
            self.own(lambda size: size),
            lambda job: [5] * 40 if size_of(job) else list(range(40)),
            row=lambda job: (float(not is_neutral(job)), 0.25),
        )
        found = engine.calibrate(None, ScriptedRows())
        assert found.setting.strengths == ()
        assert found.setting.memory > 0
        assert found.gain is not None
        z = found.setting.memory
        mixed = np.log((1 - z) * np.exp(-3) + 0.25 * z)
        assert found.gain.mean == pytest.approx(mixed + 3, abs=1e-4)

    def test_what_cannot_be_weakened_enough_is_not_carried(self) -> None:
        engine = ScriptedEngine(
            self.own(lambda size: size),
            lambda job: [5] * 40 if size_of(job) else list(range(40)),
        )
        found = engine.calibrate()
        assert (found.setting, found.gain) == (UNSTEERED, Gain(0, 0, 0, 4))

    @pytest.mark.parametrize("sign", [1, -1], ids=["gain", "loss"])
    def test_progress_counts_up_to_its_end(self, sign: int) -> None:
        calls: list[tuple[int, int]] = []
        engine = ScriptedEngine(self.own(lambda size: sign * size))
        engine.calibrate(done=lambda *call: calls.append(call))
        (of,) = {of for _, of in calls}
        done = [n for n, _ in calls]
        assert done == sorted(done)
        # Unsteered, three candidate directions, then four settings around the best at most, on
        # seven texts; and what is written.
        assert done[-1] == of == (1 + 3 + 4) * 7 + 1

    @pytest.mark.parametrize(
        ("offered", "memory"), [(1.0, 0.8), (0.0, 0.0)], ids=["helps", "takes away"]
    )
    def test_with_texts_in_the_prompt_logit_bias_and_memory_have_strengths_of_their_own(
        self, offered: float, memory: float
    ) -> None:
        engine = ScriptedEngine(self.own(lambda size: size))
        beside = [
            Scored(np.full((1, 3), -2.0, np.float32), np.tile(np.float16([-1, offered]), (4, 1)))
            for _ in engine.texts
        ]
        found = engine.calibrate(None, ScriptedRows(), prompted=beside)
        assert strength_of(found.setting) == pytest.approx(0.2)
        assert found.with_history == Setting((), 0.0, memory)
        assert found.gain_with_history is not None
        gain = np.log((1 - memory) * np.exp(-2) + memory) + 2
        assert found.gain_with_history.mean == pytest.approx(gain, abs=1e-5)
        alone = engine.calibrate(None, ScriptedRows())
        assert (alone.setting, alone.gain) == (found.setting, found.gain)
        assert (alone.with_history, alone.gain_with_history) == (UNSTEERED, None)

    def test_two_texts_are_enough(self, tiny_engine: Engine) -> None:
        texts = random_texts(2)
        rows = rows_of(tiny_engine, texts)
        found = calibrate(
            HeldOutScores(
                tiny_engine, texts, [[0], [1]], random_candidates(2), random_counts(2), rows
            )
        )
        assert found.gain is not None
        assert found.gain.items == 2
        assert (found.gain.low > 0) == (found.setting != UNSTEERED)


class TestRecalibrate:
    """The more rows, the more of each token the memory offers."""

    @staticmethod
    def calibrated(sign: int = 1) -> tuple[ScriptedEngine, HeldOutScores, Calibration]:
        engine = ScriptedEngine(
            lambda job: -3.0 if is_neutral(job) else -3 + sign * size_of(job),
            row=lambda job: (float(not is_neutral(job)), 0.0),
        )
        scores = engine.scores(None, ScriptedRows())
        return engine, scores, calibrate(scores)

    def test_more_rows_change_the_memory_alone_and_are_scored_without_a_pass(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine, scores, before = self.calibrated()
        monkeypatch.setattr(CHOOSE + "writes_fluently", lambda *_: True)
        assert before.setting.memory == 0
        n_scored = engine.n_scored
        scores.rows.more = 1.0  # type: ignore[union-attr]
        after = recalibrate(scores, before)
        assert engine.n_scored == n_scored
        assert after.setting == replace(before.setting, memory=max(MEMORY_STRENGTHS))
        assert after.gain == scores.gain(after.setting)
        assert before.gain is not None
        assert after.gain is not None
        assert after.gain.low > before.gain.high

    def test_a_rise_that_does_not_write_fluently_is_not_taken(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, scores, before = self.calibrated()
        scores.rows.more = 1.0  # type: ignore[union-attr]
        monkeypatch.setattr(CHOOSE + "writes_fluently", lambda *_: False)
        assert recalibrate(scores, before).setting == before.setting

    def test_where_nothing_was_reliable_nothing_changes(self) -> None:
        _, scores, before = self.calibrated(-1)
        scores.rows.more = 1.0  # type: ignore[union-attr]
        assert recalibrate(scores, before) is before

    def test_what_would_take_too_much_from_neutral_text_is_not_chosen(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, scores, before = self.calibrated()
        scores.rows.more = 1.0  # type: ignore[union-attr]
        monkeypatch.setattr(scores, "loss", lambda setting: setting.memory)
        assert recalibrate(scores, before).setting == before.setting


# ---------------------------------------------------------------- people


def counts_of(engine: Engine, texts: Sequence[Text], folds: Sequence[Sequence[int]]) -> TokenCounts:
    jobs = [ScoreRequest(text.context, text.response, expected=True) for text in texts]
    expected = [result.expected for result in engine.run_many(jobs)]
    used = [np.bincount(text.response, minlength=N_VOCAB) for text in texts]
    return TokenCounts(
        *(
            np.stack([np.sum([of[j] for j in fold], axis=0) for fold in folds]).astype(np.float32)
            for of in (used, expected)
        )
    )


QUARTERS = [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_a_planted_preference_for_some_words_is_found(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Few words cannot be preferred without being repeated.
    monkeypatch.setattr(CHOOSE + "fluent", lambda _, setting: setting)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        words = rng.integers(FIRST_WORD, N_VOCAB, 5)
        texts = [replace(t, response=rng.choice(words, 12).tolist()) for t in random_texts(8, seed)]
        counts, candidates = counts_of(tiny_engine, texts, QUARTERS), random_candidates(8, seed)
        scores = HeldOutScores(
            tiny_engine, texts, QUARTERS, candidates, counts, gated=False, spares_neutral=False
        )
        found = calibrate(scores)
        assert found.gain is not None
        assert found.setting.logit_bias > 0
        assert found.gain.low > 0.1


def test_a_planted_phrase_is_found(tiny_engine: Engine) -> None:
    """It stands in every text, each time in another place."""
    rng = np.random.default_rng(0)
    phrase = rng.integers(FIRST_WORD, N_VOCAB, 6).tolist()
    texts = [
        replace(text, response=[*text.response[:at], *phrase, *text.response[at:]])
        for at, text in enumerate(random_texts(8))
    ]
    rows, candidates = rows_of(tiny_engine, texts), random_candidates(8)
    found = calibrate(
        HeldOutScores(
            tiny_engine, texts, QUARTERS, candidates, None, rows, gated=False, spares_neutral=False
        )
    )
    assert found.setting.memory > 0
    assert found.gain is not None
    assert found.gain.low > 0.1
    assert found.gain.items == 8


def test_a_planted_direction_is_found(tiny_engine: Engine, tiny_f32: TinyModel) -> None:
    """The person is the model itself, steered: its candidate direction is found among others."""
    planted, other, _ = random_candidates(8)
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
    candidates = [other, planted]
    found = calibrate(
        HeldOutScores(
            tiny_engine, texts, QUARTERS, candidates, None, gated=False, spares_neutral=False
        )
    )
    assert found.gain is not None
    assert found.gain.low > 0
    assert 1 in [place for place, _ in found.setting.strengths]


def test_of_a_person_who_writes_as_the_model_does_mostly_nothing_is_found(
    tiny_engine: Engine,
) -> None:
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
        counts = counts_of(tiny_engine, texts, QUARTERS)
        found = calibrate(
            HeldOutScores(
                tiny_engine,
                texts,
                QUARTERS,
                random_candidates(8, seed),
                counts,
                rows_of(tiny_engine, texts),
            )
        )
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
