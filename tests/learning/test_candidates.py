"""Candidate directions: what their differences are, and which texts each is made from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models import TinyModel
from steerx_edge.learning.ablation import Ablation, read_items
from steerx_edge.learning.candidates import Candidate, candidates_of, reply_length
from steerx_edge.learning.contrasts import ContrastMethod, pooled
from steerx_edge.learning.directions import Estimate, direction_of, median_norms
from steerx_edge.learning.settings import Settings
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.profile import Description
from tests.support.histories import HISTORY, reference_arm, reference_reply

LAYERS = (1, 3)
BOTH: tuple[ContrastMethod, ...] = ("stylevector", "context-contrast")
DESCRIPTION = Description("You trail off with dots.", "user")

DIFFERENCES = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
IN_PAIRS = {j: frozenset({j ^ 1}) for j in range(4)}
"""Items 0 and 1 stood in each other's context, and so did 2 and 3; 4 was read alone."""


@pytest.fixture
def ablation(tiny_engine: Engine) -> Ablation:
    return read_items(tiny_engine, HISTORY, LAYERS, Settings())


def find(engine: Engine, ablation: Ablation, *, described: bool = False, **how: Any) -> list[Any]:
    settings = replace(Settings(contrast_methods=BOTH, described=described), **how)
    return candidates_of(engine, ablation, DESCRIPTION, LAYERS, settings)


def reference_rows(
    model: TinyModel, context: list[int], response: list[int], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Weighted mean of rows at LAYERS, (layer, n_embd)."""
    residual = reference_arm(model, context, response)[1][list(LAYERS)]
    return pooled(residual.astype(np.float32), weights)


@pytest.mark.parametrize(("described", "row"), [(False, "predicts"), (True, "at")])
def test_differences_are_those_of_the_reference(
    tiny_engine: Engine, tiny_f32: TinyModel, row: Any, *, described: bool
) -> None:
    settings = Settings(contrast_methods=BOTH, described=described, row=row)
    ablation = read_items(tiny_engine, HISTORY, LAYERS, settings)
    candidates = find(tiny_engine, ablation, described=described, row=row)
    assert [(each.contrast_method, each.layer) for each in candidates] == [
        (method, layer) for method in BOTH for layer in LAYERS
    ]
    assert [each.contexts for each in candidates] == [{}, {}, IN_PAIRS, IN_PAIRS]
    norms = median_norms([result.norms for result in ablation.results])
    assert [each.norm for each in candidates] == 2 * norms.tolist()
    style, contrast = (
        np.stack([each.differences for each in candidates[begin : begin + 2]], axis=1)
        for begin in (0, 2)
    )
    for j, result in enumerate(ablation.results):
        request, response = result.item.request, result.text.response
        prompt = tiny_engine.prompt(messages_for(request, description=DESCRIPTION.text))
        under_description = reference_rows(tiny_f32, prompt, response, result.weights)
        written, beside = result.control, result.treatment
        if described:
            written, beside = (0.5 * (each + under_description) for each in (written, beside))
        length, ends = reply_length(len(response)), tiny_engine.end_tokens
        reply = reference_reply(tiny_f32, result.context, length, ends)
        weights = np.full(len(reply) + 1, 1 / len(reply), np.float32)
        weights[0 if row == "at" else -1] = 0
        replied = reference_rows(tiny_f32, result.context, reply, weights)
        np.testing.assert_allclose(style[j], written - replied, atol=1e-3)
        np.testing.assert_allclose(contrast[j], beside - result.control, atol=1e-3)


def test_without_calibration_only_the_first_contrast_method_is_computed(
    tiny_engine: Engine, ablation: Ablation
) -> None:
    found = find(tiny_engine, ablation, calibrate=False)
    assert [each.contrast_method for each in found] == 2 * ["stylevector"]


@pytest.mark.parametrize("silent_at", [{1, 3}, {0, 1, 2, 3}], ids=["two texts", "all texts"])
def test_without_a_reply_of_the_model_a_text_has_no_difference(
    tiny_engine: Engine,
    ablation: Ablation,
    monkeypatch: pytest.MonkeyPatch,
    silent_at: set[int],
) -> None:
    whole = find(tiny_engine, ablation)
    generate = tiny_engine.analysis.generate_many

    def silent(requests: Any) -> list[list[int]]:
        return [[] if j in silent_at else r for j, r in enumerate(generate(requests))]

    monkeypatch.setattr(tiny_engine.analysis, "generate_many", silent)
    found = find(tiny_engine, ablation)
    if len(silent_at) < len(HISTORY):
        expected = whole[0].differences.copy()
        expected[list(silent_at)] = 0
        np.testing.assert_allclose(found[0].differences, expected, atol=1e-5)
    else:
        assert [each.contrast_method for each in found] == 2 * ["context-contrast"]
        np.testing.assert_array_equal(found[0].differences, whole[2].differences)


@pytest.mark.parametrize(
    ("items", "used"),
    [
        (None, [0, 1, 2, 3, 4]),
        ([1, 2, 3, 4], [2, 3, 4]),
        ([0, 1, 2], [0, 1]),
        ([1, 4], [4]),
        ([0, 3], []),
        ([], []),
    ],
    ids=str,
)
def test_a_direction_is_made_of_items_with_no_others_in_their_context(
    items: list[int] | None, used: list[int]
) -> None:
    found = Candidate("context-contrast", 1, DIFFERENCES, 1.0, IN_PAIRS).direction(items)
    expected = direction_of(DIFFERENCES[used], "mean") if used else np.zeros(8)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_an_item_may_have_several_in_its_context() -> None:
    candidate = Candidate("x", 1, DIFFERENCES, 1.0, {0: frozenset({1, 2})})
    alone = Candidate("x", 1, DIFFERENCES, 1.0)
    np.testing.assert_array_equal(candidate.direction([0, 1, 3]), alone.direction([1, 3]))
    np.testing.assert_array_equal(candidate.direction([0, 1, 2]), alone.direction([0, 1, 2]))


@pytest.mark.parametrize("estimate", ["pca", "logistic"])
def test_a_direction_is_estimated_as_set(estimate: Estimate) -> None:
    candidate = Candidate("x", 1, DIFFERENCES, 1.0, estimate=estimate)
    expected = direction_of(DIFFERENCES[[0, 1, 3]], estimate)
    np.testing.assert_array_equal(candidate.direction([0, 1, 3]), expected)


@pytest.mark.parametrize(("n_tokens", "length"), [(3, 16), (40, 40), (500, 96)])
def test_a_reply_is_as_long_as_the_text_within_bounds(n_tokens: int, length: int) -> None:
    assert reply_length(n_tokens) == length
