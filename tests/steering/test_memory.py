"""The memory: its mixture against the reference, scored and token by token; runs and loops."""

from __future__ import annotations

import numpy as np
import pytest
from llama_cpp import Llama

from models import TinyModel
from models.operations import Array, log_softmax
from steerx_edge.learning.effects import Effects
from steerx_edge.learning.memory_rows import MemoryRows
from steerx_edge.llamacpp.analysis import AnalysisContext
from steerx_edge.llamacpp.requests import ScoreRequest
from steerx_edge.steering.memory import ActiveMemory, KeySpace, Memory
from tests.support.memory_reference import Run, Text, memory_of, mixture, normed

EXACT = 1e-4  # float64 in the reference against float32 in llama.cpp
END = 2
CONTEXT = [1, 300, 17, 305]


def drawn(seed: int, n: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(5, 448, n)]


LOOP = drawn(1, 7)
TEXT = [*drawn(2, 12), *LOOP, *LOOP, *drawn(3, 6), *LOOP[:4], *drawn(4, 3)]
"""Repeats itself, and leaves a loop."""

TEXTS: list[Text] = [(CONTEXT, TEXT), (drawn(5, 4), drawn(6, 40)), (CONTEXT[:2], drawn(7, 30))]
SINGLE: list[Run] = [(*TEXT[i : i + 3], TEXT[i + 3]) for i in (0, 4, 27)]


@pytest.fixture
def memory(tiny_llama: Llama) -> Memory:
    return memory_of(tiny_llama, TEXTS, end=END, seed=1, single=SINGLE)


@pytest.fixture(scope="module")
def rows_and_logits(tiny_f32: TinyModel) -> tuple[Array, Array]:
    """(T, n_embd) final rows and (T, n_vocab) log-probabilities that predict the text."""
    trace = tiny_f32.forward([*CONTEXT, *TEXT])
    of_text = slice(len(CONTEXT) - 1, -1)
    return normed(tiny_f32, trace.residual[-1, of_text]), log_softmax(trace.logits[of_text])


@pytest.mark.parametrize("strength", [0.3, 5.0])
def test_scored_texts_have_the_log_probabilities_of_the_reference(
    tiny_llama: Llama,
    memory: Memory,
    rows_and_logits: tuple[Array, Array],
    strength: float,
) -> None:
    request = ScoreRequest(CONTEXT, TEXT, memory=ActiveMemory(memory, strength))
    got = AnalysisContext(tiny_llama, 512).run(request).scored
    rows, log_p = rows_and_logits
    for t, token in enumerate(TEXT):
        mixed = mixture(memory, strength, rows[t], TEXT[:t], np.exp(log_p[t]), SINGLE)
        assert mixed.sum() == pytest.approx(1)
        assert got[t] == pytest.approx(np.log(mixed[token]), abs=EXACT), t
    moved = got - log_p[range(len(TEXT)), TEXT]
    assert moved.max() > 1
    assert moved.min() < -0.3


@pytest.mark.parametrize("strength", [0.3, 5.0])
def test_logits_are_changed_to_the_same_mixture_token_by_token(
    memory: Memory, rows_and_logits: tuple[Array, Array], strength: float
) -> None:
    rows, log_p = rows_and_logits
    active = ActiveMemory(memory, strength)
    own = log_p[range(len(TEXT)), TEXT].astype(np.float32)
    scored = active.log_prob(rows, TEXT, own)
    for t, token in enumerate(TEXT):
        logits = (log_p[t] + 3).astype(np.float32)  # logits are not normalized
        active.shift(rows[t], TEXT[:t], logits)
        got = log_softmax(logits.astype(np.float64))
        expected = mixture(memory, strength, rows[t], TEXT[:t], np.exp(log_p[t]), SINGLE)
        np.testing.assert_allclose(got, np.log(expected), rtol=0, atol=EXACT)
        assert got[token] == pytest.approx(scored[t], abs=1e-5)


def test_at_strength_zero_nothing_changes(
    memory: Memory, rows_and_logits: tuple[Array, Array]
) -> None:
    rows, log_p = rows_and_logits
    own = log_p[range(len(TEXT)), TEXT].astype(np.float32)
    active = ActiveMemory(memory, 0.0)
    np.testing.assert_array_equal(active.log_prob(rows, TEXT, own), own)
    logits = log_p[0].astype(np.float32)
    active.shift(rows[0], [], logits)
    np.testing.assert_array_equal(logits, log_p[0].astype(np.float32))


class LearnedMemory:
    """A memory made of texts, and what it offers after one of their rows."""

    def __init__(self, *texts: list[int]) -> None:
        rng = np.random.default_rng(0)
        self.texts = texts
        self.rows = [rng.standard_normal((len(text) + 1, 48)) for text in texts]
        rows = MemoryRows(KeySpace.fit(rng.standard_normal((400, 48))), "all", END)
        for text, final in zip(texts, self.rows, strict=True):
            pieces = [b" w%d" % token for token in text]
            effects = Effects(text, pieces, np.zeros(len(text), np.float32))
            rows.add(effects, "", rows.keys(final))
        self.active = ActiveMemory(rows.memory(), 1.0)

    def offered(self, text: int, place: int, before: list[int]) -> list[int]:
        """Tokens that the row at a place of a text makes more probable, after tokens `before`."""
        logits = np.zeros(100, np.float32)
        self.active.shift(self.rows[text][place], before, logits)
        offered: list[int] = np.flatnonzero(logits > 1).tolist()
        return offered


def test_a_run_of_three_is_offered_once() -> None:
    memory = LearnedMemory([10, 11, 12], [10, 11, 12])
    assert memory.offered(0, 2, [10, 11]) == [12]
    assert memory.offered(0, 2, [10, 11, 9, 10, 11]) == [12]
    assert memory.offered(0, 2, [11, 12, 9, 10, 11]) == [12]
    assert memory.offered(0, 2, [10, 11, 12, 9, 10, 11]) == []
    assert memory.offered(0, 2, [12, 12]) == [12]
    assert memory.offered(0, 2, [12, 12, 12]) == []


def test_a_run_of_four_that_only_one_text_has_is_not_completed() -> None:
    memory = LearnedMemory([10, 11, 12, 13, 14, 15], [20, 10, 11, 12, 13, 21], [30, 31, 32, 33])
    assert memory.offered(0, 3, [10, 11, 12]) == [13]
    assert memory.offered(0, 4, [11, 12, 13]) == []
    assert memory.offered(2, 3, [30, 31, 32]) == []
    assert memory.offered(2, 3, [31, 32]) == [33]
    assert memory.offered(2, 3, [30, 31, 9, 32]) == [33]
    assert memory.offered(2, 4, [31, 32, 33]) == []  # nor is the end of the text


def test_in_a_loop_only_the_end_is_offered() -> None:
    memory = LearnedMemory([10, 11, 12], [13, 14, 15])
    six = [40, 41, 42, 43, 44, 45]
    assert memory.offered(0, 0, [*six, 46, *six[1:]]) == [10]
    assert memory.offered(0, 0, [*six, 46, *six]) == [END]
    assert memory.offered(0, 0, [*six, 46, *six, 47]) == [10]
    logits = np.zeros(100, np.float32)
    memory.active.shift(np.full(48, 1e-3), [*six, *six], logits)  # like no row of a text
    assert np.exp(log_softmax(logits.astype(np.float64)))[END] == pytest.approx(0.95 + 0.05 / 100)
