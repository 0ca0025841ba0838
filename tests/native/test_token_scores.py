"""Scores of chosen tokens: log-probabilities, entropies and best tokens against float64 NumPy.

The logits are written by the tests into llama.cpp's own output buffer.
"""

from __future__ import annotations

from typing import Any

import llama_cpp
import numpy as np
import pytest
from llama_cpp import Llama
from numpy.typing import NDArray

from models import TinyModel
from models.operations import log_softmax
from steerx_edge import _native
from tests.native.conftest import find_functions
from tests.support.steered_llama import reset

N_VOCAB, N_ROWS = 448, 8
TOKENS = [1, 300, 301, 77, 302, 5, 303, 304]
ROWS = np.arange(N_ROWS, dtype=np.int32)


def assert_close(actual: NDArray[np.float32], expected: NDArray[np.float64]) -> None:
    """To about float32's own precision: the sums are near to double."""
    np.testing.assert_allclose(actual, expected, rtol=2e-7, atol=1e-6)


class Outputs:
    """The logits of a batch of N_ROWS outputs, which tests may overwrite."""

    def __init__(self, llama: Llama) -> None:
        self.context = (find_functions(), llama.ctx)
        batch = llama_cpp.llama_batch_init(N_ROWS, 0, 1)
        batch.n_tokens = N_ROWS
        for row, token in enumerate(TOKENS):
            batch.token[row] = token
            batch.pos[row] = row
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = 0
            batch.logits[row] = True
        assert llama_cpp.llama_decode(llama.ctx, batch) == 0
        llama_cpp.llama_batch_free(batch)
        rows = [llama_cpp.llama_get_logits_ith(llama.ctx, row) for row in range(N_ROWS)]
        self.buffer = np.ctypeslib.as_array(rows[0], (N_ROWS * N_VOCAB,))
        self.logits = self.buffer.reshape(N_ROWS, N_VOCAB)
        for row, pointer in enumerate(rows):
            start = np.ctypeslib.as_array(pointer, (1,)).ctypes.data
            assert start == self.logits[row].ctypes.data

    def score(self, **change: Any) -> dict[str, Any]:
        """All outputs for token 0, or as changed; the arguments, whose arrays are filled."""
        n = len(change.get("batch_index", ROWS))
        arguments: dict[str, Any] = {
            "n_vocab": N_VOCAB,
            "batch_index": ROWS,
            "target": np.zeros(n, np.int32),
            "n_threads": 1,
            "log_prob": np.full(n, np.nan, np.float32),
            "entropy": np.full(n, np.nan, np.float32),
            "top_token": np.full((n, 3), -1, np.int32),
            "top_log_prob": np.full((n, 3), np.nan, np.float32),
        } | change
        for name in ("batch_index", "target"):
            arguments[name] = np.asarray(arguments[name], np.int32)
        _native.score_tokens(*self.context, **arguments)
        return arguments


@pytest.fixture
def outputs(tiny_llama: Llama) -> Outputs:
    return Outputs(tiny_llama)


def assert_scores(
    actual: dict[str, Any], logits: NDArray[np.float32], target: NDArray[np.integer]
) -> None:
    log_p = log_softmax(logits.astype(np.float64))
    p = np.exp(log_p)
    assert_close(actual["log_prob"], log_p[np.arange(len(target)), target])
    entropy = -np.sum(np.where(p > 0, p * np.where(p > 0, log_p, 0), 0), axis=-1)
    assert_close(actual["entropy"], entropy)
    best = np.argsort(-logits, axis=1, kind="stable")[:, : actual["top_token"].shape[1]]
    np.testing.assert_array_equal(actual["top_token"], best)
    assert_close(actual["top_log_prob"], np.take_along_axis(log_p, best, axis=1))


def draw(spread: float, offset: float = 0.0) -> NDArray[np.float32]:
    rng = np.random.default_rng(7)
    return rng.normal(offset, spread, size=(N_ROWS, N_VOCAB)).astype(np.float32)


IMPOSSIBLE = draw(3)
IMPOSSIBLE[:, ::2] = -np.inf
LOGITS = {
    "as a model gives them": draw(3),
    "almost equal": draw(1e-4),
    "beyond the range of exp": draw(2000),
    "large and positive": draw(3, 5000),
    "large and negative": draw(3, -5000),
    "half of them impossible": IMPOSSIBLE,
}


def test_the_logits_are_those_of_the_model(outputs: Outputs, tiny_f32: TinyModel) -> None:
    target = ROWS * 50
    log_p = log_softmax(tiny_f32.forward(TOKENS).logits)
    actual = outputs.score(target=target)["log_prob"]
    np.testing.assert_allclose(actual, log_p[ROWS, target], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", LOGITS)
def test_scores_are_numpys(outputs: Outputs, name: str) -> None:
    outputs.logits[:] = logits = LOGITS[name]
    target = np.random.default_rng(8).integers(0, N_VOCAB, N_ROWS)
    target[:2] = logits[:2].argmax(axis=1)  # the certain ones as well
    assert_scores(outputs.score(target=target), logits, target)


@pytest.mark.parametrize("n_vocab", [1, 2, 15, 16, 17, 448, 1023, 1024, 1040, 1041, 3001])
def test_vocabularies_of_any_size(outputs: Outputs, n_vocab: int) -> None:
    rng = np.random.default_rng(n_vocab)
    outputs.buffer[:] = rng.normal(0, 3, size=outputs.buffer.shape)
    outputs.buffer[n_vocab:] = 1e9  # not to be read
    for target in {0, n_vocab // 2, n_vocab - 1}:
        actual = outputs.score(
            n_vocab=n_vocab,
            batch_index=[0],
            target=[target],
            top_token=np.empty((1, 1), np.int32),
            top_log_prob=np.empty((1, 1), np.float32),
        )
        assert_scores(actual, outputs.buffer[None, :n_vocab], np.array([target]))


def test_every_logit_counts(outputs: Outputs) -> None:
    for token in range(N_VOCAB):
        outputs.logits[0] = 0
        outputs.logits[0, token] = 8
        actual = outputs.score(batch_index=[0], target=[3])
        assert_scores(actual, outputs.logits[:1], np.array([3]))


def test_certainty_is_exact(outputs: Outputs) -> None:
    outputs.logits[0] = 0
    outputs.logits[0, 9] = 1e4
    actual = outputs.score(batch_index=[0, 0], target=[9, 10])
    np.testing.assert_array_equal(actual["log_prob"], [0, -1e4])
    np.testing.assert_allclose(actual["entropy"], [0, 0], rtol=0, atol=1e-30)


def test_all_tokens_in_order_and_of_equals_the_lower_id_first(outputs: Outputs) -> None:
    outputs.logits[0] = 0
    outputs.logits[0, [40, 20]] = 2
    actual = outputs.score(
        batch_index=[0],
        top_token=np.empty((1, N_VOCAB), np.int32),
        top_log_prob=np.empty((1, N_VOCAB), np.float32),
    )
    others = [token for token in range(N_VOCAB) if token not in (20, 40)]
    assert actual["top_token"][0].tolist() == [20, 40, *others]


@pytest.mark.parametrize("n_threads", [-1, 2, 64])
def test_neither_order_nor_threads_change_a_bit(outputs: Outputs, n_threads: int) -> None:
    outputs.logits[:] = draw(3)
    target = ROWS * 7
    straight = outputs.score(target=target)
    order = np.tile([6, 0, 0, 3, 7], 30)
    chosen = outputs.score(batch_index=order, target=target[order], n_threads=n_threads)
    for name in ("log_prob", "entropy", "top_token", "top_log_prob"):
        np.testing.assert_array_equal(chosen[name], straight[name][order])


def test_outputs_that_are_not_wanted_change_nothing(outputs: Outputs) -> None:
    nothing = dict.fromkeys(["entropy", "top_token", "top_log_prob"])
    distributions = {
        "expected": np.zeros(N_VOCAB),
        "bias_factors": np.ones((2, N_VOCAB), np.float32),
        "biased": np.empty((2, N_ROWS), np.float32),
    }
    all_wanted = outputs.score(target=ROWS)["log_prob"]
    for wanted in (nothing, nothing | distributions):
        np.testing.assert_array_equal(outputs.score(target=ROWS, **wanted)["log_prob"], all_wanted)


def test_no_rows_are_no_error(outputs: Outputs) -> None:
    assert outputs.score(batch_index=[], n_threads=4)["top_token"].shape == (0, 3)


@pytest.mark.parametrize("name", LOGITS)
@pytest.mark.parametrize("n_threads", [1, 3])
def test_expected_tokens_and_logit_biases(outputs: Outputs, name: str, n_threads: int) -> None:
    outputs.logits[:] = LOGITS[name]
    logits, target = LOGITS[name].astype(np.float64), ROWS * 50 + 1
    biases = np.random.default_rng(3).normal(0, 1, (4, N_VOCAB)).astype(np.float32)
    biases[0] = 0
    got = outputs.score(
        target=target,
        n_threads=n_threads,
        expected=np.ones(N_VOCAB),  # is added to
        bias_factors=np.exp(biases),
        biased=np.full((4, N_ROWS), np.nan, np.float32),
    )
    expected = 1 + np.exp(log_softmax(logits)).sum(axis=0)
    np.testing.assert_allclose(got["expected"], expected, rtol=1e-5, atol=1e-6)
    wanted = log_softmax(logits + biases[:, None])[:, ROWS, target]
    # exp is cut off at -87: what is less probable than that counts as this much.
    near = wanted > -60
    np.testing.assert_allclose(got["biased"][near], wanted[near], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got["biased"][0], got["log_prob"], rtol=1e-6, atol=1e-5)


def test_a_real_vocabulary(smollm2: Llama) -> None:
    """49,152 tokens: many blocks of the sum."""
    reset(smollm2)
    smollm2.eval(smollm2.tokenize(b"The capital of France is"))
    last, target = np.array([smollm2.n_tokens - 1], np.int32), np.array([1234], np.int32)
    pointer = llama_cpp.llama_get_logits_ith(smollm2.ctx, int(last[0]))
    logits = np.ctypeslib.as_array(pointer, (1, smollm2.n_vocab())).copy()
    out: dict[str, Any] = {
        "log_prob": np.empty(1, np.float32),
        "entropy": np.empty(1, np.float32),
        "top_token": np.empty((1, 2), np.int32),
        "top_log_prob": np.empty((1, 2), np.float32),
    }
    place: dict[str, Any] = {
        "n_vocab": smollm2.n_vocab(),
        "batch_index": last,
        "target": target,
        "n_threads": 1,
    }
    _native.score_tokens(find_functions(), smollm2.ctx, **place, **out)
    assert_scores(out, logits, target)
    with pytest.raises(IndexError, match=f"row {last[0] - 1} of the batch has no logits"):
        _native.score_tokens(
            find_functions(), smollm2.ctx, **place | {"batch_index": last - 1}, **out
        )
    reset(smollm2)


# What does not fit


@pytest.mark.parametrize(
    ("rows", "target", "message"),
    [
        ([0], [-1], "token -1 is not in the vocabulary of 448"),
        ([0, 1], [0, 448], "token 448 is not in the vocabulary of 448"),
        ([8], [0], "row 8 of the batch has no logits"),
        ([0, 1, 900], [0, 0, 0], "row 900 of the batch has no logits"),
    ],
)
def test_rows_and_tokens_that_are_not_there(
    outputs: Outputs, rows: list[int], target: list[int], message: str
) -> None:
    log_prob = np.full(len(rows), 7, np.float32)
    with pytest.raises(IndexError, match=message):
        outputs.score(batch_index=rows, target=target, n_threads=2, log_prob=log_prob)
    np.testing.assert_array_equal(log_prob, np.full(len(rows), 7))  # none or all


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": ROWS[:2]}, "target: expected 8 elements, got 2"),
        ({"log_prob": np.empty(4, np.float32)}, "log_prob: expected 8 elements, got 4"),
        ({"entropy": np.empty(2, np.float32)}, "entropy: expected 8 elements, got 2"),
        ({"top_token": np.empty((2, 3), np.int32)}, "top_token: expected 24 elements, got 6"),
        ({"top_log_prob": np.empty((8, 1), np.float32)}, "top_log_prob: expected 24 .* got 8"),
        ({"n_vocab": 1}, "top_k is larger than the vocabulary"),
        ({"expected": np.zeros(447)}, "expected: expected 448"),
        (
            {
                "bias_factors": np.ones((2, 447), np.float32),
                "biased": np.ones((2, 8), np.float32),
            },
            "n_vocab axis",
        ),
        (
            {
                "bias_factors": np.ones((2, 448), np.float32),
                "biased": np.ones((1, 8), np.float32),
            },
            "biased: expected 16",
        ),
    ],
)
def test_arrays_that_do_not_fit_each_other(
    outputs: Outputs, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        outputs.score(**change)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"log_prob": np.full(8, 7.0)}, id="log_prob float64"),
        pytest.param({"log_prob": np.full(16, 7, np.float32)[::2]}, id="log_prob with gaps"),
        pytest.param({"log_prob": np.frombuffer(bytes(32), np.float32)}, id="log_prob read-only"),
        pytest.param({"entropy": np.full(8, 7.0)}, id="entropy float64"),
        pytest.param({"top_token": np.full((8, 3), 7)}, id="top_token int64"),
        pytest.param({"top_log_prob": np.full((8, 3), 7.0)}, id="top_log_prob float64"),
    ],
)
def test_outputs_that_would_be_copied_are_refused(outputs: Outputs, change: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        outputs.score(**change)
