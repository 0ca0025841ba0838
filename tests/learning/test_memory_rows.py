"""The rows of a memory: which tokens it holds, and what each weighs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from steerx_edge.learning.effects import Effects
from steerx_edge.learning.memory_rows import MemoryRows, causal_weights, usual_words
from steerx_edge.steering.memory import SINGLE_RUN, KeySpace, Level, run_hashes

N_EMBD, END = 16, 999
SPACE = KeySpace.fit(np.random.default_rng(0).normal(size=(90, N_EMBD)))
VOCABULARY = ["so", "tea", "Bath", "...", "it", "kettle", "went"]


def rows_of(
    texts: Sequence[str],
    level: Level = "causal",
    requests: Sequence[str] = (),
    nats: float = 0.0,
    **before: Any,
) -> MemoryRows:
    """One token a word, all with the same effect, and keys that the text decides."""
    rows = MemoryRows(SPACE, level, END, **before)
    for number, text in enumerate(texts):
        words = text.split()
        tokens = [VOCABULARY.index(word) for word in words]
        pieces = [f" {word}".encode() for word in words]
        effects = Effects(tokens, pieces, np.full(len(tokens), nats, np.float32))
        rng = np.random.default_rng(list(text.encode()))
        keys = rows.keys(rng.normal(size=(len(tokens) + 1, N_EMBD)))
        rows.add(effects, requests[number] if requests else "", keys)
    return rows


def test_a_weight_is_the_logistic_function_of_twice_the_effect() -> None:
    weights = causal_weights(np.array([0, np.log(3) / 2, -np.log(3) / 2, 40, -40], np.float32))
    np.testing.assert_allclose(weights, [0.5, 0.75, 0.25, 1, 0], atol=1e-6)


@pytest.mark.parametrize(("level", "weight"), [("causal", 0.75), ("shared", 0.75), ("all", 1.0)])
def test_a_token_is_weighted_by_its_effect_and_the_end_by_1(level: Level, weight: float) -> None:
    memory = rows_of(["so it", "it so"], level, nats=np.log(3) / 2).memory()
    assert memory.tokens.tolist() == [0, 4, END, 4, 0, END]
    np.testing.assert_allclose(memory.weights, [weight, weight, 1] * 2, rtol=1e-6)


@pytest.mark.parametrize(("level", "weights"), [("causal", [0.5, 0, 0.5, 1]), ("all", [1] * 4)])
def test_a_word_of_the_request_has_no_weight_and_case_is_ignored(
    level: Level, weights: list[float]
) -> None:
    memory = rows_of(["it Bath ...", "so"], level, ["Been to BATH? It's far", ""]).memory(
        without=[1]
    )
    np.testing.assert_allclose(memory.weights, weights)


def test_a_word_is_usual_if_an_eighth_of_the_requests_and_at_least_two_have_it() -> None:
    requests = ["So, tea?", "so THEN", "tea for Bath", "it", "it", "", "went", "went, went", "a"]
    assert usual_words(requests[:8]) == {"so", "tea", "it", "went", ","}
    assert usual_words([*requests, *["a"] * 7]) == {"so", "tea", "it", "went", ",", "a"}
    assert usual_words([*requests, *["a"] * 8]) == {"a"}
    assert usual_words(["so so", "went"]) == frozenset()
    assert usual_words([]) == frozenset()


def test_a_usual_word_of_the_request_is_weighted_by_its_effect() -> None:
    rows = MemoryRows(SPACE, "causal", END, usual=["so"])
    effects = Effects([0, 2], [b"So", b" Bath"], np.zeros(2, np.float32))
    rows.add(effects, "so to Bath", np.zeros((3, 3), np.int8))
    assert rows.memory().weights.tolist() == [0.5, 0, 1]


def test_level_shared_holds_only_words_of_two_texts() -> None:
    memory = rows_of(["so tea it tea", "it so kettle", "went"], "shared").memory()
    held = [memory.tokens[i] for i in np.flatnonzero(memory.weights)]
    assert held == [0, 4, END, 4, 0, END, END]
    hidden = memory.weights == 0
    assert (memory.tokens[hidden] == END).all()
    assert hidden.sum() == 4


def test_a_text_that_is_left_out_does_not_count_as_a_second_one() -> None:
    rows = rows_of(["so it", "it so", "it went"], "shared")
    memory = rows.memory(without=[1])
    assert memory.tokens.tolist() == [END, 4, END, 4, END, END]
    assert (memory.weights > 0).tolist() == [False, True, True, True, False, True]


def test_a_memory_has_no_rows_of_texts_that_are_left_out() -> None:
    rows = rows_of(["so it went", "tea kettle", "it so"])
    own, others = rows.memory(without=[0, 2]), rows.memory(without=[1])
    assert {*own.tokens.tolist()} == {1, 5, END}
    assert {*others.tokens.tolist()} == {0, 4, 6, END}
    assert not {key.tobytes() for key in own.keys} & {key.tobytes() for key in others.keys}


def test_a_run_is_single_if_only_one_text_has_it() -> None:
    memory = rows_of(["so it went tea kettle", "it went tea kettle", "so so so so so so"]).memory()
    twice = [4, 6, 1, 5]  # it went tea kettle
    assert run_hashes(np.array([twice]))[0] not in memory.single
    assert run_hashes(np.array([[*twice[1:], END]]))[0] not in memory.single
    for run in ([0, 4, 6, 1], [0, 0, 0, 0], [0, 0, 0, END]):
        assert run_hashes(np.array([run]))[0] in memory.single
    assert len(memory.single) == 3
    assert SINGLE_RUN == 4


def test_level_shared_hashes_only_runs_of_words_that_it_holds() -> None:
    rows = rows_of(["so it so it so kettle so so", "it so tea so it"], "shared")
    runs = [[0, 4, 0, 4], [4, 0, 4, 0]]  # so it so it, it so it so
    assert rows.memory().single.tolist() == np.sort(run_hashes(np.array(runs))).tolist()


def test_texts_that_are_left_out_do_not_count_for_single_runs() -> None:
    rows = rows_of(["it went tea kettle", "it went tea kettle"])
    assert len(rows.memory().single) == 0
    assert len(rows.memory(without=[1]).single) == 2


def test_keys_use_the_full_range_of_int8() -> None:
    given = np.random.default_rng(2).normal(size=(9, N_EMBD))
    keys = rows_of([]).keys(given)
    assert keys.dtype == np.int8
    assert (np.abs(keys).max(axis=1) == 127).all()
    units = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    np.testing.assert_allclose(units, SPACE.keys(given), atol=0.01)


# Of the runs, one stands in both earlier texts, and another in one of them and the new one.
TEXTS = ["so tea it tea kettle", "so tea it tea went it", "Bath tea it tea went so"]


@pytest.mark.parametrize("level", ["causal", "all"])
def test_rows_added_to_a_memory_give_the_memory_of_all_texts(level: Level) -> None:
    whole = rows_of(TEXTS, level)
    before = rows_of(TEXTS[:2], level)
    earlier, several = before.memory().sorted(), before.runs()[1]
    rows = rows_of(TEXTS[2:], level, before=earlier, several=several)
    assert rows.memory().sorted().equals(whole.memory().sorted())
    assert rows.runs()[1].tolist() == whole.runs()[1].tolist() != []
    assert rows.memory(without=[0]).sorted().equals(before.memory().sorted())
