"""Held-out scores against the NumPy reference, and the gate's part in them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import pytest

from models import TinyModel
from models.operations import log_softmax
from steerx_edge.learning.ablation import Text
from steerx_edge.learning.calibration.grid import UNSTEERED, Setting, Strengths
from steerx_edge.learning.calibration.score import HeldOutScores, Scored
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.interventions import Add
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import ScoreRequest
from steerx_edge.steering.gate import Gate
from steerx_edge.steering.logit_bias import BIAS_STRENGTHS, TokenCounts
from steerx_edge.steering.memory import ActiveMemory, Memory
from tests.support.calibration import (
    FIRST_WORD,
    FOLDS,
    NEUTRAL_ITEMS,
    ScriptedEngine,
    add_rows,
    is_neutral,
    random_candidates,
    random_counts,
    random_texts,
    row_for_gate,
    rows_of,
    similar_texts,
    size_of,
    unsteered_scores,
)
from tests.support.steered_reference import scores_of, steered_forward

NEUTRAL = (5, 6, 7)  # places of the neutral texts, after the person's five
ALL_FOLDS = (*FOLDS, NEUTRAL)
COUNTS = random_counts(3)


def others_of(fold: int) -> list[int]:
    """The texts outside of a fold; all of the person's for the fold of the neutral texts."""
    return [j for j in range(5) if j not in ALL_FOLDS[fold]]


def values_of(fold: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """The logit bias at strength 1 without a fold."""
    return COUNTS.values([f for f in range(3) if f != fold])


def with_neutral(engine: Engine, texts: Sequence[Text]) -> list[Text]:
    neutral = [
        Text(engine.prompt(messages_for(item.request)), engine.tokenize(item.response))
        for item in NEUTRAL_ITEMS
    ]
    return [*texts, *neutral]


@pytest.mark.parametrize(
    ("strengths", "counts"),
    [
        ((), COUNTS),
        (((0, 0.1),), None),
        (((1, 0.4),), COUNTS),
        (((0, 0.2), (2, 0.1)), COUNTS),
    ],
    ids=["logit bias", "one direction", "both", "two directions"],
)
def test_gains_are_those_of_the_reference_steered_by_the_other_folds(
    tiny_engine: Engine, tiny_f32: TinyModel, strengths: Strengths, counts: TokenCounts | None
) -> None:
    texts, candidates = random_texts(5), random_candidates(5)
    scores = unsteered_scores(tiny_engine, texts, FOLDS, candidates, counts, gated=False)
    scores.score([strengths])
    for logit_bias in BIAS_STRENGTHS if counts else (0.0,):
        found = scores.gains(Setting(strengths, logit_bias), range(8))
        for fold, members in enumerate(ALL_FOLDS):
            for j in members:
                text = with_neutral(tiny_engine, texts)[j]
                tokens, first = [*text.context, *text.response], len(text.context) - 1
                changes = []
                for place, strength in strengths:
                    candidate = candidates[place]
                    vector = strength * candidate.norm * candidate.direction(others_of(fold))
                    generated = np.arange(len(tokens)) >= first
                    changes.append((Add((candidate.layer,), vector[None]), generated))
                logits = steered_forward(tiny_f32, tokens, changes).logits[first:-1]
                log_p = log_softmax(logits + logit_bias * values_of(fold))
                steered = log_p[np.arange(len(log_p)), text.response].mean()
                own = scores_of(tiny_f32.forward(tokens), tokens, first + 1).mean()
                assert found[j] == pytest.approx(steered - own, abs=3e-4)


def test_the_gain_of_unsteered_is_exactly_0(tiny_engine: Engine) -> None:
    for counts in (COUNTS, None):
        scores = unsteered_scores(tiny_engine, random_texts(5), FOLDS, [], counts)
        assert scores.gains(UNSTEERED).tolist() == [0.0] * 5
        gain = scores.gain(UNSTEERED)
        assert (gain.mean, gain.low, gain.high, gain.items) == (0, 0, 0, 5)
        assert scores.loss(UNSTEERED) == 0


@pytest.mark.parametrize("changed", [0, 2, 3])
def test_a_text_is_not_used_for_its_own_fold_or_for_folds_in_its_context(
    tiny_engine: Engine, changed: int
) -> None:
    texts, (candidate, *_) = random_texts(5), random_candidates(5)
    # The first two folds are each other's context, and the last one has the first.
    contexts = {0: {1}, 3: {1, 4}, 1: {0, 3}, 4: {3}, 2: {0}}
    candidate = replace(candidate, contexts={j: frozenset(each) for j, each in contexts.items()})
    differences = candidate.differences.copy()
    differences[changed] = -50 * differences[changed][::-1] + 3
    setting, gains = Setting(((0, 0.3),)), []
    for each in (candidate, replace(candidate, differences=differences)):
        scores = unsteered_scores(tiny_engine, texts, FOLDS, [each], None, gated=False)
        scores.score([setting.strengths])
        gains.append(scores.gains(setting))
    for fold, members in enumerate(FOLDS):
        others = others_of(fold)
        enters = changed in others and contexts[changed] <= set(others)
        assert ((np.abs(gains[0] - gains[1])[list(members)] > 1e-3) == enters).all()
    # Each text outside of the first fold has a text of it in its context.
    np.testing.assert_allclose(gains[0][list(FOLDS[0])], 0, atol=1e-6)


@pytest.mark.parametrize(
    "setting", [Setting((), 0.0, 0.3), Setting(((0, 0.2), (2, 0.1)), 1.0, 0.45)], ids=str
)
def test_scores_with_a_memory_are_those_of_a_pass_with_it(
    tiny_engine: Engine, setting: Setting
) -> None:
    texts = similar_texts(5, range(FIRST_WORD, FIRST_WORD + 3), 10)
    candidates, rows = random_candidates(5), rows_of(tiny_engine, texts)
    scores = unsteered_scores(tiny_engine, texts, FOLDS, candidates, COUNTS, rows, gated=False)
    scores.score([setting.strengths])
    found = scores.gains(setting, range(8))
    for fold, members in enumerate(ALL_FOLDS):
        memory = rows.memory(without=[j for j in members if j < 5])
        vectors = tuple(
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
            plain = ScoreRequest(text.context, text.response)
            steered = replace(
                plain,
                interventions=vectors,
                logit_bias=dict(enumerate((setting.logit_bias * values_of(fold)).tolist())),
                memory=ActiveMemory(memory, setting.memory),
            )
            one, other = tiny_engine.run_many([steered, plain])
            # Scores keep final rows in half precision.
            gain = one.scored.mean() - other.scored.mean()
            assert found[j] == pytest.approx(gain, abs=5e-3)
    without = scores.gains(replace(setting, memory=0.0), range(5))
    assert (np.abs(found[:5] - without) > 1e-2).all()


def test_further_texts_are_in_the_memory_of_every_fold(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the neutral texts' fold, whose places are those of the further texts' rows."""
    texts = random_texts(9)
    rows = rows_of(tiny_engine, texts[:5])
    scores = unsteered_scores(tiny_engine, texts[:5], FOLDS, [], None, rows, gated=False)
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
    scores.gains(setting, range(7, -1, -1))  # the last memory first, which was kept
    lengths = [len(text.response) + 1 for text in texts]
    assert sizes == {
        members: sum(n for j, n in enumerate(lengths) if j not in members)
        for members in (*FOLDS, ())
    }


def test_a_setting_is_scored_once() -> None:
    engine = ScriptedEngine(lambda request: -size_of(request))
    scores = engine.unsteered(gated=False)
    assert len(engine.scored) == 4 + 3
    for _ in range(2):
        scores.score([(), ((0, 0.1),)])
        assert len(engine.scored) == 2 * 7


class TestGate:
    """The first text's request is unlike the others, and one neutral request is like them."""

    SETTING = Setting(((0, 0.1),))

    def scores(self, *, gated: bool = True) -> HeldOutScores:
        engine = ScriptedEngine(
            lambda request: -3 + size_of(request) * (-1 if is_neutral(request) else 1),
            row=row_for_gate,
        )
        scores = engine.unsteered(gated=gated)
        scores.score([self.SETTING.strengths])
        return scores

    def test_it_is_fitted_to_the_unsteered_rows_of_all_texts(self) -> None:
        own = np.array([[0, 0, 1, 0], *[[1, 0, 0, 0]] * 3], np.float16)
        neutral = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1]], np.float16)
        expected, gate = Gate.fit(own, neutral), self.scores().gate
        assert gate is not None
        np.testing.assert_array_equal(gate.direction, expected.direction)
        assert gate.threshold == expected.threshold

    def test_texts_are_scored_unsteered_where_it_is_closed(self) -> None:
        scores = self.scores()
        assert scores.gains(self.SETTING) == pytest.approx([0, 0.1, 0.1, 0.1], abs=1e-6)
        assert scores.loss(self.SETTING) == pytest.approx(0.1 / 3, abs=1e-6)

    def test_without_it_all_texts_are_steered(self) -> None:
        scores = self.scores(gated=False)
        assert scores.gate is None
        assert scores.gains(self.SETTING) == pytest.approx([0.1] * 4, abs=1e-6)
        assert scores.loss(self.SETTING) == pytest.approx(0.1, abs=1e-6)

    def test_with_in_context_texts_there_is_no_gate_and_neutral_text_does_not_count(self) -> None:
        ones = np.ones((1, 3), np.float32)
        scored = [Scored(ones, np.ones((4, 1), np.float16))] * 4
        prompted = self.scores().in_prompts(scored)
        assert prompted.gate is None
        assert prompted.loss(Setting((), 0.5)) == 0
