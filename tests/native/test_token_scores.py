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

N_VOCAB, N_ROWS = 448, 8
TOKENS = [1, 300, 301, 77, 302, 5, 303, 304]


def assert_close(actual: NDArray[np.float32], expected: NDArray[np.float64]) -> None:
    """To about float32's own precision: the sums are near to double."""
    np.testing.assert_allclose(actual, expected, rtol=2e-7, atol=1e-6)


class Outputs:
    """The logits of a batch of N_ROWS outputs, which tests may overwrite."""

    def __init__(self, llama: Llama) -> None:
        self.api = _native.LlamaApi([llama_cpp.llama_cpp._lib._handle])
        self.address = llama.ctx
        batch = llama_cpp.llama_batch_init(N_ROWS, 0, 1)
        batch.n_tokens = N_ROWS
        for row, token in enumerate(TOKENS):
            batch.token[row] = token
            batch.pos[row] = row
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = 0
            batch.logits[row] = True
        assert llama_cpp.llama_decode(self.address, batch) == 0
        llama_cpp.llama_batch_free(batch)
        rows = [llama_cpp.llama_get_logits_ith(self.address, row) for row in range(N_ROWS)]
        self.buffer = np.ctypeslib.as_array(rows[0], (N_ROWS * N_VOCAB,))
        self.logits = self.buffer.reshape(N_ROWS, N_VOCAB)
        for row, pointer in enumerate(rows):
            start = np.ctypeslib.as_array(pointer, (1,)).ctypes.data
            assert start == self.logits[row].ctypes.data

    def score(
        self,
        rows: Any,
        target: Any,
        *,
        n_vocab: int = N_VOCAB,
        n_threads: int = 1,
        top_k: int = 0,
    ) -> dict[str, NDArray[Any]]:
        n = len(rows)
        out: dict[str, NDArray[Any]] = {
            "log_prob": np.full(n, np.nan, np.float32),
            "entropy": np.full(n, np.nan, np.float32),
        }
        if top_k:
            out["top_token"] = np.full((n, top_k), -1, np.int32)
            out["top_log_prob"] = np.full((n, top_k), np.nan, np.float32)
        _native.score_tokens(
            self.api,
            self.address,
            n_vocab,
            np.asarray(rows, np.int32),
            np.asarray(target, np.int32),
            n_threads,
            **out,
        )
        return out


@pytest.fixture
def outputs(tiny_llama: Llama) -> Outputs:
    return Outputs(tiny_llama)


def expected_scores(
    logits: NDArray[np.float32], target: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """log p(target) (row,), entropy (row,) and log p (row, n_vocab)."""
    log_p = log_softmax(logits.astype(np.float64))
    p = np.exp(log_p)
    entropy = -np.sum(np.where(p > 0, p * np.where(p > 0, log_p, 0), 0), axis=-1)
    return log_p[np.arange(len(target)), target], entropy, log_p


def draw(spread: float, offset: float = 0.0) -> NDArray[np.float32]:
    rng = np.random.default_rng(7)
    return rng.normal(offset, spread, size=(N_ROWS, N_VOCAB)).astype(np.float32)


LOGITS = {
    "as a model gives them": draw(3),
    "almost equal": draw(1e-4),
    "wide apart": draw(60),
    "beyond the range of exp": draw(2000),
    "large and positive": draw(3, 5000),
    "large and negative": draw(3, -5000),
}


def test_the_logits_are_those_of_the_model(outputs: Outputs, tiny_f32: TinyModel) -> None:
    trace = tiny_f32.forward(TOKENS)
    target = np.arange(N_ROWS) * 50
    log_prob, entropy, _ = expected_scores(trace.logits, target)
    actual = outputs.score(np.arange(N_ROWS), target)
    np.testing.assert_allclose(actual["log_prob"], log_prob, rtol=0, atol=1e-4)
    np.testing.assert_allclose(actual["entropy"], entropy, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", LOGITS)
def test_log_probabilities_and_entropy(outputs: Outputs, name: str) -> None:
    outputs.logits[:] = logits = LOGITS[name]
    target = np.random.default_rng(8).integers(0, N_VOCAB, N_ROWS)
    target[:2] = logits[:2].argmax(axis=1)  # the certain ones as well
    log_prob, entropy, _ = expected_scores(logits, target)
    actual = outputs.score(np.arange(N_ROWS), target)
    assert_close(actual["log_prob"], log_prob)
    assert_close(actual["entropy"], entropy)


@pytest.mark.parametrize("n_vocab", [1, 2, 15, 16, 17, 33, 447, 448, 1023, 1024, 1040, 1041, 3001])
def test_vocabularies_of_any_size(outputs: Outputs, n_vocab: int) -> None:
    rng = np.random.default_rng(n_vocab)
    outputs.buffer[:] = rng.normal(0, 3, size=outputs.buffer.shape)
    outputs.buffer[n_vocab:] = 1e9  # not to be read
    logits = outputs.buffer[None, :n_vocab]
    for target in {0, n_vocab // 2, n_vocab - 1}:
        log_prob, entropy, _ = expected_scores(logits, np.array([target]))
        actual = outputs.score([0], [target], n_vocab=n_vocab)
        assert_close(actual["log_prob"], log_prob)
        assert_close(actual["entropy"], entropy)


def test_every_logit_counts(outputs: Outputs) -> None:
    for token in range(N_VOCAB):
        outputs.logits[0] = 0
        outputs.logits[0, token] = 8
        log_prob, entropy, _ = expected_scores(outputs.logits[:1], np.array([3]))
        actual = outputs.score([0], [3])
        assert_close(actual["log_prob"], log_prob)
        assert_close(actual["entropy"], entropy)


def test_certainty_and_ignorance(outputs: Outputs) -> None:
    outputs.logits[0] = 0
    outputs.logits[0, 9] = 1e4
    outputs.logits[1] = 0
    actual = outputs.score([0, 0, 1], [9, 10, 11])
    np.testing.assert_array_equal(actual["log_prob"][:2], np.float32([0, -1e4]))
    np.testing.assert_allclose(actual["entropy"][:2], [0, 0], rtol=0, atol=1e-30)
    uniform = np.log(N_VOCAB)
    assert_close(actual["log_prob"][2:], np.array([-uniform]))
    assert_close(actual["entropy"][2:], np.array([uniform]))


def test_impossible_tokens(outputs: Outputs) -> None:
    outputs.logits[0] = draw(3)[0]
    outputs.logits[0, ::2] = -np.inf
    log_prob, entropy, _ = expected_scores(outputs.logits[[0, 0]], np.array([5, 6]))
    actual = outputs.score([0, 0], [5, 6])
    assert_close(actual["log_prob"], log_prob)
    assert actual["log_prob"][1] == -np.inf
    assert_close(actual["entropy"], entropy)


@pytest.mark.parametrize("top_k", [1, 5, N_VOCAB])
def test_the_most_probable_tokens_come_first(outputs: Outputs, top_k: int) -> None:
    outputs.logits[:] = logits = draw(3)
    actual = outputs.score(np.arange(N_ROWS), np.zeros(N_ROWS), top_k=top_k)
    best = np.argsort(-logits, axis=1, kind="stable")[:, :top_k]
    np.testing.assert_array_equal(actual["top_token"], best)
    log_p = log_softmax(logits.astype(np.float64))
    assert_close(actual["top_log_prob"], np.take_along_axis(log_p, best, axis=1))


def test_of_equally_probable_tokens_the_lower_id_comes_first(outputs: Outputs) -> None:
    outputs.logits[0] = 0
    outputs.logits[0, [40, 20]] = 2
    actual = outputs.score([0], [0], top_k=5)
    np.testing.assert_array_equal(actual["top_token"], [[20, 40, 0, 1, 2]])


def test_rows_may_be_chosen_in_any_order_and_repeated(outputs: Outputs) -> None:
    outputs.logits[:] = draw(3)
    target = np.arange(N_ROWS) * 7
    straight = outputs.score(np.arange(N_ROWS), target, top_k=3)
    order = np.array([6, 0, 0, 3])
    chosen = outputs.score(order, target[order], top_k=3)
    for name, values in straight.items():
        np.testing.assert_array_equal(chosen[name], values[order])


@pytest.mark.parametrize("n_threads", [-1, 0, 2, 4, 64])
def test_threads_change_no_bit(outputs: Outputs, n_threads: int) -> None:
    outputs.logits[:] = draw(3)
    rows = np.tile(np.arange(N_ROWS), 20)
    target = np.arange(len(rows)) % N_VOCAB
    alone = outputs.score(rows, target, top_k=3)
    spread = outputs.score(rows, target, top_k=3, n_threads=n_threads)
    for name, values in alone.items():
        np.testing.assert_array_equal(spread[name], values)


def test_outputs_that_are_not_wanted_change_nothing(outputs: Outputs) -> None:
    rows = target = np.arange(N_ROWS, dtype=np.int32)
    log_prob = np.empty(N_ROWS, np.float32)
    _native.score_tokens(outputs.api, outputs.address, N_VOCAB, rows, target, 1, log_prob)
    np.testing.assert_array_equal(log_prob, outputs.score(rows, target, top_k=2)["log_prob"])
    with_distributions = np.empty(N_ROWS, np.float32)
    _native.score_tokens(
        outputs.api,
        outputs.address,
        N_VOCAB,
        rows,
        target,
        1,
        with_distributions,
        expected=np.zeros(N_VOCAB),
        bias_factors=np.ones((2, N_VOCAB), np.float32),
        biased=np.empty((2, N_ROWS), np.float32),
    )
    np.testing.assert_array_equal(log_prob, with_distributions)


def test_no_rows_are_no_error(outputs: Outputs) -> None:
    assert outputs.score([], [], top_k=2, n_threads=4)["top_token"].shape == (0, 2)


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
        _native.score_tokens(
            outputs.api,
            outputs.address,
            N_VOCAB,
            np.array(rows, np.int32),
            np.array(target, np.int32),
            2,
            log_prob,
        )
    np.testing.assert_array_equal(log_prob, np.full(len(rows), 7))  # none or all


def test_a_row_whose_output_was_not_asked_for(tiny_llama: Llama) -> None:
    tiny_llama.eval(TOKENS)  # asks for the last row only
    api = _native.LlamaApi([llama_cpp.llama_cpp._lib._handle])
    last, other = np.array([7], np.int32), np.array([6], np.int32)
    log_prob = np.empty(1, np.float32)
    _native.score_tokens(api, tiny_llama.ctx, N_VOCAB, last, last, 1, log_prob)
    with pytest.raises(IndexError, match="row 6 of the batch has no logits"):
        _native.score_tokens(api, tiny_llama.ctx, N_VOCAB, other, last, 1, log_prob)


def with_outputs(**change: Any) -> dict[str, Any]:
    return {
        "n_vocab": N_VOCAB,
        "batch_index": np.zeros(3, np.int32),
        "target": np.zeros(3, np.int32),
        "n_threads": 1,
        "log_prob": np.full(3, 7, np.float32),
        "entropy": np.full(3, 7, np.float32),
        "top_token": np.full((3, 2), 7, np.int32),
        "top_log_prob": np.full((3, 2), 7, np.float32),
    } | change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": np.zeros(2, np.int32)}, "target: expected 3 elements, got 2"),
        ({"log_prob": np.empty(4, np.float32)}, "log_prob: expected 3 elements, got 4"),
        ({"entropy": np.empty(2, np.float32)}, "entropy: expected 3 elements, got 2"),
        ({"top_token": np.empty((2, 2), np.int32)}, "top_token: expected 6 elements, got 4"),
        ({"top_log_prob": np.empty((3, 1), np.float32)}, "top_log_prob: expected 6 .* got 3"),
        ({"n_vocab": 1}, "top_k is larger than the vocabulary"),
    ],
)
def test_arrays_that_do_not_fit_each_other(
    outputs: Outputs, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _native.score_tokens(outputs.api, outputs.address, **with_outputs(**change))


def read_only() -> NDArray[np.float32]:
    array = np.full(3, 7, np.float32)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"log_prob": np.full(3, 7.0)}, id="log_prob float64"),
        pytest.param({"log_prob": np.full(6, 7, np.float32)[::2]}, id="log_prob with gaps"),
        pytest.param({"entropy": np.full(3, 7.0)}, id="entropy float64"),
        pytest.param({"top_token": np.full((3, 2), 7)}, id="top_token int64"),
        pytest.param({"top_log_prob": np.full((3, 2), 7.0)}, id="top_log_prob float64"),
    ],
)
def test_outputs_that_would_be_copied_are_refused(outputs: Outputs, change: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        _native.score_tokens(outputs.api, outputs.address, **with_outputs(**change))


def test_outputs_that_cannot_be_written_are_refused(outputs: Outputs) -> None:
    with pytest.raises(TypeError):
        _native.score_tokens(outputs.api, outputs.address, **with_outputs(log_prob=read_only()))


def test_the_real_model_agrees_with_itself(smollm2: Llama) -> None:
    """49,152 tokens: many blocks of the sum."""
    smollm2.reset()
    smollm2.eval(smollm2.tokenize(b"The capital of France is"))
    last = np.array([smollm2.n_tokens - 1], np.int32)
    pointer = llama_cpp.llama_get_logits_ith(smollm2.ctx, int(last[0]))
    logits = np.ctypeslib.as_array(pointer, (1, smollm2.n_vocab()))
    target = np.array([1234], np.int32)
    log_prob, entropy, log_p = expected_scores(logits, target)
    out = with_outputs(n_vocab=smollm2.n_vocab(), batch_index=last, target=target) | {
        "log_prob": np.empty(1, np.float32),
        "entropy": np.empty(1, np.float32),
        "top_token": np.empty((1, 2), np.int32),
        "top_log_prob": np.empty((1, 2), np.float32),
    }
    api = _native.LlamaApi([llama_cpp.llama_cpp._lib._handle])
    _native.score_tokens(api, smollm2.ctx, **out)
    assert_close(out["log_prob"], log_prob)
    assert_close(out["entropy"], entropy)
    assert out["top_token"][0, 0] == log_p[0].argmax()
    smollm2.reset()


def score_distributions(
    outputs: Outputs, biases: NDArray[np.float32], target: NDArray[np.integer], n_threads: int
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    expected = np.ones(N_VOCAB)
    biased = np.full((len(biases), N_ROWS), np.nan, np.float32)
    _native.score_tokens(
        outputs.api,
        outputs.address,
        N_VOCAB,
        np.arange(N_ROWS, dtype=np.int32),
        target.astype(np.int32),
        n_threads,
        np.empty(N_ROWS, np.float32),
        expected=expected,
        bias_factors=np.exp(biases),
        biased=biased,
    )
    return expected - 1, biased  # added to what was there


@pytest.mark.parametrize("name", LOGITS)
@pytest.mark.parametrize("n_threads", [1, 3])
def test_expected_tokens_and_logit_biases(outputs: Outputs, name: str, n_threads: int) -> None:
    outputs.logits[:] = LOGITS[name]
    target = np.arange(N_ROWS) * 50
    rng = np.random.default_rng(3)
    biases = rng.normal(0, 1, (4, N_VOCAB)).astype(np.float32)
    biases[0] = 0
    expected, biased = score_distributions(outputs, biases, target, n_threads)
    log_p = log_softmax(LOGITS[name].astype(np.float64))
    np.testing.assert_allclose(expected, np.exp(log_p).sum(axis=0), rtol=1e-5, atol=1e-6)
    wanted = np.stack(
        [log_softmax(LOGITS[name].astype(np.float64) + logit_bias) for logit_bias in biases]
    )
    wanted = wanted[:, np.arange(N_ROWS), target]
    # exp is cut off at -87: what is less probable than that counts as this much.
    near = wanted > -60
    np.testing.assert_allclose(biased[near], wanted[near], rtol=1e-5, atol=1e-5)
    plain = outputs.score(np.arange(N_ROWS), target)["log_prob"]
    np.testing.assert_allclose(biased[0], plain, rtol=1e-6, atol=1e-5)


def test_distributions_that_do_not_fit(outputs: Outputs) -> None:
    target = np.zeros(N_ROWS, np.int32)
    with pytest.raises(ValueError, match="n_vocab axis"):
        score_distributions(outputs, np.zeros((2, N_VOCAB - 1), np.float32), target, 1)
