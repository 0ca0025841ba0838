"""The ablation passes: which texts stand in whose context, and what is read there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models import TinyModel
from models.operations import log_softmax
from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.ablation import folds_of, read_further, read_items
from steerx_edge.learning.contrasts import pooled, row_weights
from steerx_edge.learning.effects import anchors
from steerx_edge.learning.settings import Settings
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import ScoreRequest, asked_for
from tests.support.histories import HISTORY, reference_arm

LAYERS = (1, 3)


def final_rows(
    engine: Engine, context: Sequence[int], response: Sequence[int]
) -> np.ndarray[Any, np.dtype[np.float32]]:
    (result,) = engine.run_many([ScoreRequest(context, response, final=True)])
    return asked_for(result.final)


@pytest.mark.parametrize(
    "settings",
    [
        Settings(selection="all"),
        Settings(selection="anchors", row="at", min_anchors=2),
        Settings(selection="anchors", threshold=0.25, min_anchors=1),
        Settings(selection="weighted", max_weight=0.02),
    ],
    ids=["all", "anchors at", "anchors above", "weighted"],
)
def test_both_arms_are_those_of_the_reference(
    tiny_engine: Engine, tiny_f32: TinyModel, settings: Settings
) -> None:
    ablation = read_items(tiny_engine, HISTORY, LAYERS, settings)
    used = np.zeros_like(ablation.counts.used)
    expected = np.zeros(used.shape)
    assert [fold.members for fold in ablation.folds] == [[0], [1], [2], [3]]
    for j, (item, result) in enumerate(zip(HISTORY, ablation.results, strict=True)):
        response = tiny_engine.tokenize(item.response)
        alone = tiny_engine.prompt(messages_for(item.request))
        beside = tiny_engine.prompt(messages_for(item.request, history=[HISTORY[j ^ 1]]))
        untreated, control, logits = reference_arm(tiny_f32, alone, response)
        treated, treatment, treated_logits = reference_arm(tiny_f32, beside, response)
        nats = result.effects.nats
        np.testing.assert_allclose(nats, treated - untreated, atol=5e-4)
        assert (result.item, result.text.context, result.text.response) == (item, alone, response)

        selected = anchors(nats, threshold=settings.threshold, at_least=settings.min_anchors)
        assert result.n_anchors == selected.sum()
        weights = {
            "all": np.ones(len(nats)),
            "anchors": selected.astype(float),
            "weighted": np.clip(nats, 1e-6, settings.max_weight),
        }[settings.selection]
        np.testing.assert_allclose(result.weights, row_weights(weights, settings.row), rtol=1e-6)
        layers = list(LAYERS)
        for found, residual in ((result.treatment, treatment), (result.control, control)):
            expected_rows = pooled(residual[layers].astype(np.float32), result.weights)
            np.testing.assert_allclose(found, expected_rows, atol=5e-4)
        norms = np.linalg.norm(control[layers, 1:], axis=-1)
        np.testing.assert_allclose(result.norms, norms, rtol=1e-5)
        rows_alone = final_rows(tiny_engine, alone, response)
        np.testing.assert_allclose(result.final, rows_alone, atol=0.01)

        # With others, under the logit biases of the other folds.
        rows_beside = final_rows(tiny_engine, beside, response)
        np.testing.assert_allclose(result.treatment_final, rows_beside, atol=0.01)
        for bias, scored in zip(
            ablation.counts.tried(without=j), result.treatment_biased, strict=True
        ):
            log_p = log_softmax(treated_logits + bias)[np.arange(len(response)), response]
            np.testing.assert_allclose(scored, log_p, atol=5e-4)
        used[j] = np.bincount(response, minlength=tiny_f32.n_vocab)
        expected[j] = np.exp(log_softmax(logits)).sum(axis=0)
    expected[:, tiny_engine.end_tokens] = 0  # no text of the person's holds these
    np.testing.assert_array_equal(ablation.counts.used, used)
    np.testing.assert_allclose(ablation.counts.expected, expected, atol=1e-4)


def test_further_texts_are_read_with_others_in_their_context(
    tiny_engine: Engine, tiny_f32: TinyModel
) -> None:
    further, others = [HISTORY[0], HISTORY[2]], [HISTORY[1]]
    found = read_further(tiny_engine, further, others, Settings())
    for item, result in zip(further, found, strict=True):
        response = tiny_engine.tokenize(item.response)
        alone = tiny_engine.prompt(messages_for(item.request))
        beside = tiny_engine.prompt(messages_for(item.request, history=others))
        untreated, _, logits = reference_arm(tiny_f32, alone, response)
        treated, _, _ = reference_arm(tiny_f32, beside, response)
        np.testing.assert_allclose(result.effects.nats, treated - untreated, atol=5e-4)
        expected = np.exp(log_softmax(logits)).sum(axis=0)
        np.testing.assert_allclose(result.expected, expected, atol=1e-3)
        rows_alone = final_rows(tiny_engine, alone, response)
        np.testing.assert_allclose(result.final, rows_alone, atol=1e-4)


# ---------------------------------------------------------------- folds


def in_folds(*folds: Sequence[HistoryItem]) -> list[HistoryItem]:
    """A history that is divided into these folds, all of one length."""
    return [item for together in zip(*folds, strict=True) for item in together]


def contexts_of(
    engine: Engine, items: Sequence[HistoryItem], settings: Settings
) -> list[list[HistoryItem]]:
    """The in-context texts of each item."""
    found = {j: fold.in_context for fold in folds_of(engine, items, settings) for j in fold.members}
    return [[items[i] for i in found[j]] for j in range(len(items))]


FIRST = (
    HistoryItem("Tea in the green kettle, with a spoon of sugar.", "tea kettle sugar"),
    *(HistoryItem(f"Something else, {word}.", word) for word in ("alpha", "beta", "gamma")),
)
PARTNER = (
    HistoryItem("Nothing of the sort.", "zeppelin"),
    HistoryItem("A kettle of tea.", "kettle tea"),
    HistoryItem("More sugar, and no milk.", "sugar"),
    HistoryItem("Trains are late.", "travel"),
)
OTHERS = [
    [HistoryItem(f"Tea, {n} kettles and sugar, no {end}.", "tea kettle sugar") for n in "1234"]
    for end in ("milk", "cream")
]
ITEMS = in_folds(FIRST, PARTNER, *OTHERS)


@pytest.mark.parametrize(("k", "places"), [(1, [1]), (2, [2, 1]), (99, [0, 3, 2, 1])])
def test_in_context_texts_are_the_most_relevant_of_the_partner_fold_the_best_last(
    tiny_engine: Engine, k: int, places: list[int]
) -> None:
    first, *_ = contexts_of(tiny_engine, ITEMS, Settings(in_context=k))
    assert first == [PARTNER[i] for i in places]


def test_without_a_request_the_text_itself_is_the_query(tiny_engine: Engine) -> None:
    items = [HistoryItem("Sugar in the tea."), *ITEMS[1:]]
    first, *_ = contexts_of(tiny_engine, items, Settings(in_context=2))
    assert {item.request for item in first} == {"kettle tea", "sugar"}


@pytest.mark.parametrize(
    ("n_items", "fold", "partners"),
    [
        (2, 4, [1, 0]),
        (3, 1, [1, 0, 0]),
        (5, 4, [1, 0, 3, 2]),
        (17, 4, [1, 0, 3, 2, 0]),
        (14, 2, [1, 0, 3, 2, 5, 4, 0]),
    ],
)
def test_each_item_is_in_one_fold_whose_context_is_one_other_fold(
    tiny_engine: Engine, n_items: int, fold: int, partners: list[int]
) -> None:
    items = [HistoryItem(f"Text {n}.", "Write.") for n in range(n_items)]
    folds = folds_of(tiny_engine, items, Settings(fold=fold, in_context=3))
    assert sorted(j for each in folds for j in each.members) == list(range(n_items))
    assert len(folds) == len(partners)
    for each, partner in zip(folds, partners, strict=True):
        others = folds[partner].members
        assert set(each.in_context) <= set(others)
        assert len(each.in_context) == len(set(each.in_context)) == min(3, len(others))


def test_in_context_texts_leave_room_for_the_item(tiny_engine: Engine) -> None:
    folds = [
        [HistoryItem(f"{name} " + "ran close by her. " * 6) for name in names]
        for names in ("ABCDEFGH", "IJKLMNOP", "ABCDEFGH", "IJKLMNOP")
    ]
    items = in_folds(*folds)
    room = tiny_engine.analysis.n_ctx * 3 // 8
    found = folds_of(tiny_engine, items, Settings(in_context=7, fold=8))
    for number, fold in enumerate(found):
        in_context = [items[i] for i in fold.in_context]
        prompt = tiny_engine.prompt(messages_for("", history=in_context))
        next_one = next(other for other in folds[number ^ 1] if other not in in_context)
        longer = tiny_engine.prompt(messages_for("", history=[next_one, *in_context]))
        assert 2 <= len(in_context) < 7
        assert len(prompt) <= room < len(longer)


def test_there_is_one_in_context_text_even_if_it_is_too_long(tiny_engine: Engine) -> None:
    items = [HistoryItem(f"{name} " + "ran close by her. " * 60) for name in "ABCDEFGH"]
    contexts = contexts_of(tiny_engine, items, replace(Settings(), in_context=2, fold=2))
    assert {len(each) for each in contexts} == {1}
