"""The fluency check: what is written under a setting must read like text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from steerx_edge.learning.ablation import Text
from steerx_edge.learning.calibration.fluency import (
    fluent,
    repeated_four_grams,
    shared_four_grams,
)
from steerx_edge.learning.calibration.grid import UNSTEERED, Setting
from steerx_edge.learning.candidates import Candidate
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.interventions import Add
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import GenerateRequest, ScoreRequest
from tests.support.calibration import (
    FOLDS,
    LIKE_OWN,
    NEUTRAL_ITEMS,
    NEUTRAL_REQUEST,
    ScriptedEngine,
    ScriptedRows,
    is_neutral,
    random_candidates,
    random_texts,
    row_for_gate,
    size_of,
    unsteered_scores,
)

A = Setting(((0, 0.1),))
FLUENT = [100, *range(900, 930)]
"""No 4-gram twice, and as surprising as the model's own text."""


def score(request: ScoreRequest, own: float = -3.0) -> float:
    """The person's texts take 3 nats a token; others say it with their first token, in hundredths.

    The model's own text has 1 nat, so up to 3 is fluent.
    """
    return own if list(request.response) == [7, 7, 7] else -request.response[0] / 100


def engine_that_writes(write: Callable[[GenerateRequest], list[int]]) -> ScriptedEngine:
    return ScriptedEngine(score, write)


@pytest.mark.parametrize(("strength", "is_kept"), [(1.99, True), (2.01, False)])
def test_text_that_is_more_surprising_than_the_persons_is_not_fluent(
    strength: float, *, is_kept: bool
) -> None:
    engine = engine_that_writes(lambda request: [100 + round(100 * size_of(request)), *FLUENT[1:]])
    setting = Setting(((0, strength),))
    assert fluent(engine.unsteered(), setting) == (setting if is_kept else UNSTEERED)


@pytest.mark.parametrize(("added", "is_kept"), [(0, True), (1, False)])
def test_where_the_persons_text_is_less_surprising_the_models_own_is_the_bound(
    added: int, *, is_kept: bool
) -> None:
    engine = ScriptedEngine(
        lambda request: score(request, own=-0.5),
        lambda request: [100 + added * (size_of(request) > 0), *FLUENT[1:]],
    )
    assert fluent(engine.unsteered(), A) == (A if is_kept else UNSTEERED)


@pytest.mark.parametrize(
    ("is_fluent", "left"),
    [
        (lambda d, b, _m: not d and not b, Setting((), 0.0, 0.8)),
        (lambda _d, _b, m: m < 0.3, Setting((), 0.0, 0.1)),
    ],
)
def test_a_setting_is_weakened_until_it_is_fluent(
    is_fluent: Callable[[float, float, float], bool], left: Setting
) -> None:
    def write(request: GenerateRequest) -> list[int]:
        memory: Any = request.memory
        bias = request.logit_bias.get(0, 0.0)
        # The logit bias is that of all texts.
        assert bias == pytest.approx(float(bias > 0) * engine.counts.values()[0])
        strengths = size_of(request), bias, memory.strength if memory else 0
        return list(range(40)) if is_fluent(*strengths) else [5] * 40

    engine = engine_that_writes(write)
    scores = engine.unsteered(engine.counts, ScriptedRows())
    assert fluent(scores, Setting(A.strengths, 1.0, 0.8)) == left


def test_directions_are_those_of_all_texts() -> None:
    """Without the last text they would be the opposite."""
    engine = engine_that_writes(lambda _: FLUENT)
    differences = np.array([[1], [1], [1], [-9]], np.float32)
    engine.candidates = [Candidate("stylevector", 1, differences, 1.0)]
    fluent(engine.unsteered(gated=False), Setting(((0, 0.5),)))
    added = [each for request in engine.written for each in request.interventions]
    assert [float(add.vectors.sum()) for add in added if isinstance(add, Add)] == [-0.5] * (4 + 3)


@pytest.mark.parametrize("n_texts", [2, 10])
def test_at_most_eight_of_the_persons_requests_and_three_neutral_ones_are_answered(
    n_texts: int,
) -> None:
    engine = engine_that_writes(lambda _: FLUENT)
    engine.texts = [Text([j], [7, 7, 7]) for j in range(n_texts)]
    engine.candidates = [Candidate("stylevector", 1, np.ones((n_texts, 1), np.float32), 1.0)]
    fluent(engine.unsteered(), A)
    requests = sorted(request.context[0] for request in engine.written)
    # Steered and unsteered.
    assert requests == sorted([*range(min(n_texts, 8)), *[NEUTRAL_REQUEST] * 3] * 2)


def test_requests_to_which_the_gate_is_closed_are_answered_unsteered() -> None:
    engine = ScriptedEngine(lambda _: -3.0, lambda _: [100], row=row_for_gate)
    fluent(engine.unsteered(engine.counts, ScriptedRows()), Setting(A.strengths, 0.5, 0.3))
    is_steered = {tuple(each.context): False for each in engine.written}
    for each in engine.written:
        is_steered[tuple(each.context)] |= bool(each.interventions or each.logit_bias)
    expected: dict[tuple[int, ...], bool] = {(j,): j > 0 for j in range(4)}
    for item in NEUTRAL_ITEMS:
        expected[tuple(engine.prompt(messages_for(item.request)))] = item.request == LIKE_OWN
    assert is_steered == expected


@pytest.mark.parametrize(("n_repeated", "is_kept"), [(3, True), (4, False)])
def test_text_that_repeats_itself_is_not_fluent(n_repeated: int, *, is_kept: bool) -> None:
    def write(request: GenerateRequest) -> list[int]:
        # 30 4-grams, of which all but the first of the same token repeat.
        same = [5] * (n_repeated + 4 if size_of(request) else 0)
        return [100, *range(900, 932 - len(same)), *same]

    assert fluent(engine_that_writes(write).unsteered(), A) == (A if is_kept else UNSTEERED)


@pytest.mark.parametrize(
    ("n_alike", "is_neutral_request", "is_kept"),
    [(7, True, True), (8, True, False), (33, False, True)],
)
def test_answers_to_neutral_requests_that_are_alike_are_not_fluent(
    n_alike: int, *, is_neutral_request: bool, is_kept: bool
) -> None:
    """Those to the person's requests may be."""

    def write(request: GenerateRequest) -> list[int]:
        first = 100 * sum(request.context)
        is_alike = size_of(request) and is_neutral(request) == is_neutral_request
        n = n_alike if is_alike else 1
        # 30 4-grams an answer, of which n - 3 stand in each of the others.
        return [100, *range(1, n), *range(first, first + 33 - n)]

    scores = engine_that_writes(write).unsteered(gated=False)
    assert fluent(scores, A) == (A if is_kept else UNSTEERED)


@pytest.mark.parametrize("written", [[100, *range(30)], [100] + [5] * 30, []], ids=len)
def test_text_may_repeat_and_share_as_much_as_unsteered(written: list[int]) -> None:
    assert fluent(engine_that_writes(lambda _: written).unsteered(), A) == A


def test_a_tiny_model_is_fluent_under_mild_steering_only(
    tiny_engine: Engine,
) -> None:
    parts = random_texts(5), FOLDS, random_candidates(5), None
    scores = unsteered_scores(tiny_engine, *parts, gated=False)
    mild, ruinous = Setting(((0, 0.01),)), Setting(((0, 8.0), (2, 8.0)))
    assert fluent(scores, mild) == mild
    assert fluent(scores, ruinous) == UNSTEERED


@pytest.mark.parametrize(
    ("tokens", "share"),
    [
        ([1, 2, 3], 0),
        ([1, 1, 1, 1, 1], 1 / 2),
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
        ([[], [1, 2, 3]], 0),
        ([[1] * 20], 0),  # repeats, and shares nothing
        ([[1, 2, 3, 4], [5, 6, 7, 8]], 0),
        ([[1, 2, 3, 4, 5], [0, 1, 2, 3, 4], [1, 2, 3, 4, 5, 6]], 3 / 7),
        ([[1] * 9, [1] * 5], 1 / 2),
    ],
)
def test_shared_four_grams(texts: list[list[int]], share: float) -> None:
    assert shared_four_grams(texts) == pytest.approx(share)
