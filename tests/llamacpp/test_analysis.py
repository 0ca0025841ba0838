"""The analysis context against the NumPy reference: every row, every score, every split."""

from __future__ import annotations

import ctypes
import gc
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from llama_cpp import Llama
from numpy.typing import NDArray

from models import TinyModel, make_tiny_llama
from models.operations import log_softmax
from models.tiny_model import Trace
from steerx_edge import _native
from steerx_edge.errors import ModelError, SteerxError
from steerx_edge.llamacpp import analysis, compat
from steerx_edge.llamacpp.analysis import AnalysisContext, ScoreRequest, ScoreResult
from steerx_edge.llamacpp.control_vector import ControlVector
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.interventions import Add

N_LAYER, N_EMBD, N_VOCAB = 4, 64, 448
ALL_LAYERS = (0, 1, 2, 3)
TOKENS = [int(token) for token in np.random.default_rng(1).integers(3, N_VOCAB, size=40)]
N = len(TOKENS)

F32_MAX = 1e-4  # of tests/tiny_models/test_models_reference.py
# llama.cpp rounds activations to Q8_0 before each product, the reference does not. Over 12 seeds
# and both contexts below, rows deviate by 0.051 to 0.074 root mean square and 0.61 at most, and
# log-probabilities by 0.052 to 0.10 and 0.37. The model used here: 0.055 and 0.056 root mean
# square; a reference with unquantized weights would be off by 0.087 and 0.098.
Q8_0_ROW_MAX, Q8_0_ROW_RMS = 0.8, 0.075
Q8_0_SCORE_MAX, Q8_0_SCORE_RMS = 0.5, 0.08

# (tokens of a micro-batch, rows of logits held at a time): both larger than any pass here; passes
# in several calls; fewer rows of logits than tokens; single rows; chunks that end with the pass.
CHUNKS = [(512, 4096), (7, 4096), (512, 3), (8, 3), (1, 1), (13, 13)]
# A context of one token, even halves, one response token, and none.
CONTEXTS = [1, 2, 13, 20, N - 1, N]


def split(n_context: int, **options: Any) -> ScoreRequest:
    return ScoreRequest(TOKENS[:n_context], TOKENS[n_context:], **options)


def log_prob_of(trace: Trace, n_context: int) -> NDArray[np.float64]:
    log_p = log_softmax(trace.logits[n_context - 1 : -1])
    return log_p[np.arange(len(log_p)), TOKENS[n_context:]]


def added(*layers: int, seed: int = 2) -> Add:
    rng = np.random.default_rng(seed)
    return Add(layers, rng.standard_normal((len(layers), N_EMBD)).astype(np.float32))


TOO_STRONG = 2 * (Add((2,), np.full((1, N_EMBD), 3e38, np.float32)),)


def assert_close(actual: NDArray[Any], expected: NDArray[np.floating]) -> None:
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=F32_MAX)


def assert_same(actual: ScoreResult, expected: ScoreResult) -> None:
    """Bit for bit."""
    for name, values in vars(expected).items():
        np.testing.assert_array_equal(getattr(actual, name), values, err_msg=name)


@pytest.fixture(scope="module")
def trace(tiny_f32: TinyModel) -> Trace:
    return tiny_f32.forward(TOKENS)


@pytest.fixture
def chunked_engine(
    monkeypatch: pytest.MonkeyPatch, tiny_llama: Llama
) -> Callable[[int, int], Engine]:
    """Makes engines whose decode calls are limited in tokens and in rows of logits."""

    def make(micro_batch: int, n_outputs: int) -> Engine:
        monkeypatch.setattr(analysis, "MICRO_BATCH", micro_batch)
        monkeypatch.setattr(analysis, "LOGITS_BYTES", 4 * N_VOCAB * n_outputs)
        return Engine(tiny_llama)

    return make


# Against the reference


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("n_context", CONTEXTS)
def test_scores_and_rows_of_all_layers(
    chunked_engine: Callable[..., Engine], trace: Trace, n_context: int, chunks: tuple[int, int]
) -> None:
    engine = chunked_engine(*chunks)
    got = engine.run(split(n_context, layers=ALL_LAYERS, entropy=True, top_k=4))
    assert_close(got.captured, trace.residual[:, n_context - 1 :])
    assert_close(got.scored, log_prob_of(trace, n_context))

    log_p = log_softmax(trace.logits[n_context - 1 : -1])
    best = np.argsort(-log_p, axis=1)[:, :4]
    assert got.entropy is not None
    assert got.top_log_prob is not None
    assert_close(got.entropy, -np.sum(np.exp(log_p) * log_p, axis=1))
    np.testing.assert_array_equal(got.top_token, best)
    assert_close(got.top_log_prob, np.take_along_axis(log_p, best, axis=1))


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("layers", [(0,), (2,), (3,), (0, 3), (1, 2)])
@pytest.mark.parametrize("n_context", [1, 20, N])
def test_rows_without_scores(
    chunked_engine: Callable[..., Engine],
    trace: Trace,
    n_context: int,
    layers: tuple[int, ...],
    chunks: tuple[int, int],
) -> None:
    engine = chunked_engine(*chunks)
    rows = engine.capture(TOKENS[:n_context], TOKENS[n_context:], layers)
    assert_close(rows, trace.residual[list(layers), n_context - 1 :])


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("layers", [(2,), (3,), (1, 3), (1, 2, 3)])
@pytest.mark.parametrize("n_context", [1, 2, 20, N])
@pytest.mark.parametrize("in_graph", [True, False])
def test_steering_begins_at_the_last_context_token(
    chunked_engine: Callable[..., Engine],
    in_graph: bool,
    tiny_f32: TinyModel,
    trace: Trace,
    n_context: int,
    layers: tuple[int, ...],
    chunks: tuple[int, int],
) -> None:
    change = added(*layers)
    rows = np.zeros((len(layers), N, N_EMBD))
    rows[:, n_context - 1 :] = change.vectors[:, None]
    steered = tiny_f32.forward(TOKENS, dict(zip(layers, rows, strict=True)))
    assert np.abs(steered.logits - trace.logits).max() > 1

    engine = chunked_engine(*chunks)
    engine.analysis.in_graph = in_graph
    got = engine.run(split(n_context, layers=ALL_LAYERS, interventions=(change,)))
    assert_close(got.captured, steered.residual[:, n_context - 1 :])
    assert_close(got.scored, log_prob_of(steered, n_context))


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("score", [True, False])
def test_weights_pool_rows(
    chunked_engine: Callable[..., Engine], trace: Trace, score: bool, chunks: tuple[int, int]
) -> None:
    n_context = 9
    rng = np.random.default_rng(3)
    weights = rng.standard_normal((4, N - n_context + 1)).astype(np.float32)
    weights[0] = 1 / weights.shape[1]
    weights[1, :] = 0
    weights[2, 1:] = 0  # the last context token alone
    weights[3, rng.random(weights.shape[1]) < 0.5] = 0

    engine = chunked_engine(*chunks)
    rows = engine.run(split(n_context, score=score, layers=ALL_LAYERS)).captured
    pooled = engine.run(split(n_context, score=score, layers=ALL_LAYERS, weights=weights)).captured

    expected = np.einsum("sr,lre->lse", weights.astype(np.float64), rows.astype(np.float64))
    assert pooled.shape == (N_LAYER, 4, N_EMBD)
    np.testing.assert_allclose(pooled, expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(pooled[:, 1], 0)
    np.testing.assert_array_equal(pooled[:, 2], weights[2, 0] * rows[:, 0])
    mean = trace.residual[:, n_context - 1 :].mean(axis=1)
    np.testing.assert_allclose(pooled[:, 0], mean, rtol=0, atol=F32_MAX)


def test_weights_may_be_float64(tiny_engine: Engine) -> None:
    weights = np.full((1, N - 8), 0.125)
    pooled = [
        tiny_engine.capture(TOKENS[:9], TOKENS[9:], (1, 3), weights=weights.astype(kind))
        for kind in (np.float32, np.float64)
    ]
    np.testing.assert_array_equal(*pooled)


@pytest.mark.parametrize("n_context", [1, 13])
def test_a_quantized_model(
    open_llama: Callable[..., Llama], tiny_q8: TinyModel, n_context: int
) -> None:
    trace = tiny_q8.forward(TOKENS)
    got = Engine(open_llama(tiny_q8)).run(split(n_context, layers=ALL_LAYERS))
    row_error = got.captured - trace.residual[:, n_context - 1 :]
    assert np.abs(row_error).max() < Q8_0_ROW_MAX
    assert np.sqrt(np.mean(row_error**2)) < Q8_0_ROW_RMS
    score_error = got.scored - log_prob_of(trace, n_context)
    assert np.abs(score_error).max() < Q8_0_SCORE_MAX
    assert np.sqrt(np.mean(score_error**2)) < Q8_0_SCORE_RMS


@pytest.mark.parametrize(("n_layer", "n_embd"), [(2, 32), (7, 96)])
def test_models_of_other_shapes(
    open_llama: Callable[..., Llama], tmp_path: Path, n_layer: int, n_embd: int
) -> None:
    model = make_tiny_llama(tmp_path / "tiny.gguf", n_layer=n_layer, n_embd=n_embd, seed=5)
    trace = model.forward(TOKENS)
    got = Engine(open_llama(model)).run(split(13, layers=tuple(range(n_layer))))
    assert_close(got.captured, trace.residual[:, 12:])
    assert_close(got.scored, log_prob_of(trace, 13))


# Identities, bit for bit


@pytest.mark.parametrize("layer", ALL_LAYERS)
@pytest.mark.parametrize("micro_batch", [512, 7])
def test_a_pass_that_ends_early_reads_the_same_rows(
    chunked_engine: Callable[..., Engine], layer: int, micro_batch: int
) -> None:
    engine = chunked_engine(micro_batch, 4096)
    whole = engine.run(split(20, layers=ALL_LAYERS)).captured
    early = engine.run(split(20, score=False, layers=(layer,))).captured
    np.testing.assert_array_equal(early[0], whole[layer])


@pytest.mark.parametrize("micro_batch", [512, 7])
def test_a_pass_that_ends_early_leaves_nothing_behind(
    chunked_engine: Callable[..., Engine], micro_batch: int
) -> None:
    wanted = split(20, layers=ALL_LAYERS, entropy=True, top_k=2)
    fresh = chunked_engine(micro_batch, 4096).run(wanted)
    engine = chunked_engine(micro_batch, 4096)
    for layer in ALL_LAYERS:
        engine.capture(TOKENS[::-1], TOKENS, (layer,))
        assert_same(engine.run(wanted), fresh)


def test_reading_changes_no_score(tiny_engine: Engine) -> None:
    scores = tiny_engine.score(TOKENS[:20], TOKENS[20:])
    for layers in [(0,), (3,), ALL_LAYERS]:
        np.testing.assert_array_equal(tiny_engine.run(split(20, layers=layers)).scored, scores)


def test_a_pass_does_not_depend_on_those_before_it(tiny_engine: Engine) -> None:
    wanted = split(20, layers=ALL_LAYERS)
    first = tiny_engine.run(wanted)
    tiny_engine.score(TOKENS[5:6], TOKENS[:30])
    tiny_engine.run(split(3, layers=(1,), interventions=(added(1, 2),)))
    assert_same(tiny_engine.run(wanted), first)


@pytest.mark.parametrize("in_graph", [True, False])
@pytest.mark.parametrize("layers", [(1,), (2,), (1, 3)])
def test_no_strength_is_no_steering(
    tiny_engine: Engine, layers: tuple[int, ...], in_graph: bool
) -> None:
    tiny_engine.analysis.in_graph = in_graph
    vectors = added(*layers).vectors
    unsteered = tiny_engine.run(split(20, layers=ALL_LAYERS))
    for none in (0 * vectors, vectors - vectors):
        job = split(20, layers=ALL_LAYERS, interventions=(Add(layers, none),))
        assert_same(tiny_engine.run(job), unsteered)


@pytest.mark.parametrize("in_graph", [True, False])
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_steering_adds_its_vector_and_leaves_lower_layers_alone(
    tiny_engine: Engine, layer: int, in_graph: bool
) -> None:
    tiny_engine.analysis.in_graph = in_graph
    change = added(layer)
    plain = tiny_engine.run(split(20, layers=ALL_LAYERS)).captured
    job = split(20, layers=ALL_LAYERS, interventions=(change,))
    steered = tiny_engine.run(job).captured
    np.testing.assert_array_equal(steered[:layer], plain[:layer])
    np.testing.assert_array_equal(steered[layer], plain[layer] + change.vectors[0])
    for upper in range(layer + 1, N_LAYER):
        assert np.abs(steered[upper] - plain[upper]).max(axis=1).min() > 0.1


@pytest.mark.parametrize("in_graph", [True, False])
def test_steered_reading_without_scores(tiny_engine: Engine, in_graph: bool) -> None:
    tiny_engine.analysis.in_graph = in_graph
    options: dict[str, Any] = {"interventions": (added(1, 3),)}
    whole = tiny_engine.run(split(20, layers=ALL_LAYERS, **options)).captured
    early = tiny_engine.run(split(20, score=False, layers=(2,), **options)).captured
    np.testing.assert_array_equal(early[0], whole[2])


def test_the_next_control_vector_takes_the_place_of_the_last(tiny_engine: Engine) -> None:
    tiny_engine.analysis.in_graph = True
    second = split(20, layers=ALL_LAYERS, interventions=(added(2),))
    fresh = tiny_engine.run(second)
    tiny_engine.run(split(20, interventions=(added(1, 3),)))
    assert_same(tiny_engine.run(second), fresh)


# Passes that do not fit, or fail


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (ScoreRequest([], TOKENS), "at least one token before its response"),
        (split(20, score=False), "must score tokens or read layers"),
        (ScoreRequest([5] * 500, [6] * 13), "513 tokens does not fit the analysis context of 512"),
        (split(20, layers=(1,), weights=np.ones((1, 20), np.float32)), r"expected \(slot, 21\)"),
        (split(20, layers=(1,), weights=np.ones(21, np.float32)), r"\(21,\), expected \(slot, 21"),
        (split(20, layers=(4,)), r"Layers \[4\] cannot be read: .* 0 to 3"),
        (split(20, layers=(-2,)), r"Layers \[-2\] cannot be read"),
        (split(20, layers=(-1,), hook_point="ffn_out"), r"Layers \[-1\] cannot be read"),
        (split(20, layers=(2, 1)), r"Layers \[2, 1\] cannot be read: name increasing ones"),
        (split(20, score=False, layers=(1, 1)), r"Layers \[1, 1\] cannot be read"),
        (split(20, top_k=N_VOCAB + 1), "top_k is 449, and the vocabulary has 448 tokens"),
        (split(20, top_k=-1), "top_k is -1"),
        (split(20, score=False, layers=(1,), entropy=True), "come with scores"),
        (split(20, score=False, layers=(1,), top_k=2), "come with scores"),
        (split(20, interventions=(added(4),)), r"Layers \[4\] cannot be changed: .* 0 to 3"),
        (ScoreRequest([5, N_VOCAB], [6]), "failed to evaluate a batch"),
        (ScoreRequest([5, 6], [-1]), "failed to evaluate a batch"),
        (
            split(20, interventions=TOO_STRONG),
            "log-probabilities that are not numbers: .* the control vector far too strong",
        ),
        (
            split(20, score=False, layers=(3,), interventions=TOO_STRONG),
            "residual rows that are not numbers",
        ),
        (
            split(20, score=False, final=True, interventions=TOO_STRONG),
            "final rows that are not numbers",
        ),
    ],
)
def test_a_pass_that_cannot_be_run_is_refused_and_spoils_nothing(
    tiny_engine: Engine, job: ScoreRequest, message: str
) -> None:
    wanted = split(20, layers=ALL_LAYERS)
    before = tiny_engine.run(wanted)
    with pytest.raises(ModelError, match=message):
        tiny_engine.run(job)
    assert_same(tiny_engine.run(wanted), before)


def test_the_longest_pass_that_fits(tiny_engine: Engine, tiny_f32: TinyModel) -> None:
    tokens = [int(token) for token in np.random.default_rng(4).integers(3, N_VOCAB, size=512)]
    scores = tiny_engine.score(tokens[:1], tokens[1:])
    assert_close(scores, tiny_f32.log_probabilities(tokens))


@pytest.mark.parametrize("failing_call", [1, 2, 4])
def test_a_pass_that_fails_half_way_spoils_nothing(
    monkeypatch: pytest.MonkeyPatch, chunked_engine: Callable[..., Engine], failing_call: int
) -> None:
    engine = chunked_engine(8, 4096)
    wanted = split(9, layers=ALL_LAYERS)
    before = engine.run(wanted)
    real, calls = llama_cpp.llama_decode, []

    def decode(*args: Any) -> int:
        calls.append(args)
        return 2 if len(calls) == failing_call else real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(llama_cpp, "llama_decode", decode)
        with pytest.raises(ModelError, match="llama_decode gave 2"):
            engine.run(split(9, layers=(1, 3), interventions=(added(1, 2),)))
    assert len(calls) == failing_call
    assert_same(engine.run(wanted), before)


def test_asking_a_result_for_what_the_pass_did_not_do(tiny_engine: Engine) -> None:
    with pytest.raises(SteerxError, match="not asked for"):
        _ = tiny_engine.run(split(20)).captured
    with pytest.raises(SteerxError, match="not asked for"):
        _ = tiny_engine.run(split(20, score=False, layers=(1,))).scored
    result = tiny_engine.run(split(20))
    assert (result.entropy, result.top_token, result.top_log_prob) == (None, None, None)


# What is asked of llama.cpp


@pytest.mark.parametrize("chunks", [(8, 3), (8, 4096), (512, 3)])
def test_decode_calls_stay_within_the_bounds(
    monkeypatch: pytest.MonkeyPatch, chunked_engine: Callable[..., Engine], chunks: tuple[int, int]
) -> None:
    engine = chunked_engine(*chunks)
    _ = engine.analysis
    real, calls = llama_cpp.llama_decode, []

    def decode(context: Any, batch: Any) -> int:
        flags = [bool(batch.logits[row]) for row in range(batch.n_tokens)]
        calls.append((batch.n_tokens, sum(flags)))
        return int(real(context, batch))

    monkeypatch.setattr(llama_cpp, "llama_decode", decode)
    engine.score(TOKENS[:20], TOKENS[20:])
    assert sum(n_tokens for n_tokens, _ in calls) == N
    assert sum(n_outputs for _, n_outputs in calls) == N - 20 + 1
    assert max(n_tokens for n_tokens, _ in calls) <= chunks[0]
    assert max(n_outputs for _, n_outputs in calls) <= chunks[1]

    calls.clear()
    engine.capture(TOKENS[:20], TOKENS[20:], (2,))
    assert sum(n_outputs for _, n_outputs in calls) == 0


@pytest.mark.parametrize("n_context", [1, 20])
def test_a_pass_without_scores_runs_no_further_than_it_must(
    monkeypatch: pytest.MonkeyPatch, chunked_engine: Callable[..., Engine], n_context: int
) -> None:
    engine = chunked_engine(8, 4096)
    hooks, plans = engine.analysis._hooks, []
    layers_read: list[Sequence[int]] = []
    make_read = _native.Read

    class Spy:
        finish, cancel = hooks.finish, hooks.cancel

        def arm(self, **plan: Any) -> None:
            plans.append(plan)
            hooks.arm(**plan)

    def read(hook_point: str, layers: Sequence[int], *arrays: Any) -> _native.Read:
        layers_read.append(layers)
        return make_read(hook_point, layers, *arrays)

    calls = []
    decode = llama_cpp.llama_decode
    monkeypatch.setattr(_native, "Read", read)
    monkeypatch.setattr(engine.analysis, "_hooks", Spy())
    monkeypatch.setattr(
        llama_cpp, "llama_decode", lambda *args: calls.append(args) or decode(*args)
    )
    engine.capture(TOKENS[:n_context], TOKENS[n_context:], (0, 2))
    assert len(plans) == len(calls) > 4
    assert all(plan["stop_after_last_layer"] and plan["reads"] for plan in plans)
    assert {layers[-1] for layers in layers_read} == {2}


def test_a_row_of_logits_above_the_bound_is_taken_alone(
    monkeypatch: pytest.MonkeyPatch, tiny_llama: Llama, trace: Trace
) -> None:
    monkeypatch.setattr(analysis, "LOGITS_BYTES", 1)
    assert_close(Engine(tiny_llama).score(TOKENS[:20], TOKENS[20:]), log_prob_of(trace, 20))


@pytest.mark.parametrize(
    ("rows", "taken"), [(20, 20), (32, 32), (33, 32), (63, 32), (110, 96), (128, 128), (500, 128)]
)
def test_rows_of_logits_in_a_call_are_a_multiple_of_a_tile_where_there_are_more(
    chunked_engine: Callable[..., Engine], rows: int, taken: int
) -> None:
    assert chunked_engine(256, rows).analysis._limits.outputs == taken


def test_context_parameters_are_those_of_the_llama(tiny_f32: TinyModel) -> None:
    llama = Llama(
        str(tiny_f32.path),
        n_ctx=64,
        n_threads=1,
        n_threads_batch=1,
        rope_freq_base=50.0,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        logits_all=True,
        verbose=False,
    )
    llama.eval(TOKENS)
    log_p = log_softmax(llama.scores[:N].astype(np.float64))
    expected = log_p[np.arange(N - 1), TOKENS[1:]]
    scores = Engine(llama).score(TOKENS[:1], TOKENS[1:])
    assert_close(scores, expected)
    assert np.abs(scores - tiny_f32.log_probabilities(TOKENS)).max() > 0.1
    llama.close()


@pytest.mark.parametrize(
    "options",
    [
        {"n_batch": 8, "n_ubatch": 8},
        {"n_batch": 16, "n_ubatch": 4},
        {"logits_all": True},
        {"embedding": True},
        {"embedding": True, "pooling_type": llama_cpp.LLAMA_POOLING_TYPE_MEAN},
    ],
)
def test_how_the_llama_runs_its_own_batches_does_not_matter(
    tiny_f32: TinyModel, trace: Trace, options: dict[str, Any]
) -> None:
    common = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1, "type_k": 0, "type_v": 0}
    llama = Llama(str(tiny_f32.path), verbose=False, **common | options)
    got = Engine(llama).run(split(20, layers=ALL_LAYERS))
    assert_close(got.captured, trace.residual[:, 19:])
    assert_close(got.scored, log_prob_of(trace, 20))
    llama.close()


# Models that cannot be used


def test_an_architecture_that_ignores_control_vectors_is_refused(
    monkeypatch: pytest.MonkeyPatch, tiny_engine: Engine
) -> None:
    monkeypatch.setattr(analysis, "set_control_vector", lambda *_: None)
    with pytest.raises(ModelError, match="'llama' ignores control vectors"):
        tiny_engine.score([1, 2], [3])


def test_an_architecture_that_applies_them_to_another_layer_is_refused(
    monkeypatch: pytest.MonkeyPatch, tiny_engine: Engine
) -> None:
    real = analysis.set_control_vector

    def one_late(context: int, model: int, control: ControlVector | None) -> None:
        if control is not None:
            control = ControlVector(tuple(layer + 1 for layer in control.layers), control.vectors)
        real(context, model, control)

    monkeypatch.setattr(analysis, "set_control_vector", one_late)
    with pytest.raises(ModelError, match="cannot be steered"):
        tiny_engine.score([1, 2], [3])


def test_an_architecture_without_readable_layers_is_refused(
    monkeypatch: pytest.MonkeyPatch, tiny_engine: Engine
) -> None:
    monkeypatch.setattr(llama_cpp, "llama_model_n_layer", lambda _: N_LAYER + 1)
    with pytest.raises(
        ModelError, match=r"'llama' does not expose its residual stream .* no tensor l_out-4"
    ):
        tiny_engine.score([1, 2], [3])


def test_a_model_of_one_layer_is_refused(open_llama: Callable[..., Llama], tmp_path: Path) -> None:
    engine = Engine(open_llama(make_tiny_llama(tmp_path / "tiny.gguf", n_layer=1)))
    with pytest.raises(ModelError, match=r"1 layer.* no block that can be steered"):
        engine.score([1, 2], [3])


def test_a_llama_cpp_without_our_functions_is_refused(
    monkeypatch: pytest.MonkeyPatch, tiny_engine: Engine
) -> None:
    other = ctypes.CDLL(_native.__file__)
    monkeypatch.setattr(llama_cpp.llama_cpp, "_lib", other)
    with pytest.raises(
        ModelError, match=r"does not export ggml_get_name\. Install one in the range >=0\.3"
    ):
        tiny_engine.score([1, 2], [3])


def test_too_little_memory_is_a_model_error(
    monkeypatch: pytest.MonkeyPatch, tiny_engine: Engine
) -> None:
    monkeypatch.setattr(llama_cpp, "llama_init_from_model", lambda *_: None)
    with pytest.raises(ModelError, match="could not make an analysis context of 512 tokens"):
        tiny_engine.score([1, 2], [3])


def test_a_refused_model_keeps_no_context(
    monkeypatch: pytest.MonkeyPatch, tiny_engine: Engine
) -> None:
    monkeypatch.setattr(analysis, "set_control_vector", lambda *_: None)
    made, freed = [], []
    make, free = llama_cpp.llama_init_from_model, llama_cpp.llama_free
    monkeypatch.setattr(
        llama_cpp, "llama_init_from_model", lambda *args: made.append(make(*args)) or made[-1]
    )
    monkeypatch.setattr(
        llama_cpp, "llama_free", lambda context: freed.append(context) or free(context)
    )
    with pytest.raises(ModelError) as refused:
        tiny_engine.score([1, 2], [3])
    assert refused.tb is not None  # nor does a kept error keep it
    assert len(made) == 1
    assert freed == made


# Lifetimes


def test_closing_the_llama_closes_the_analysis(tiny_engine: Engine) -> None:
    tiny_engine.score(TOKENS[:20], TOKENS[20:])
    context = tiny_engine.analysis
    tiny_engine.llama.close()
    for use in (tiny_engine.run, context.run):
        with pytest.raises(ModelError, match="closed"):
            use(split(20))
    context.close()
    tiny_engine.close()


def test_an_analysis_of_a_closed_llama_is_refused(tiny_engine: Engine) -> None:
    tiny_engine.llama.close()
    with pytest.raises(ModelError, match="closed"):
        tiny_engine.score([1, 2], [3])
    with pytest.raises(ModelError, match="closed"):
        AnalysisContext(tiny_engine.llama, n_ctx=64)


def test_a_closed_engine_makes_a_new_analysis_when_needed(tiny_engine: Engine) -> None:
    before = tiny_engine.score(TOKENS[:20], TOKENS[20:])
    old = tiny_engine.analysis
    tiny_engine.close()
    tiny_engine.close()
    with pytest.raises(ModelError, match="closed"):
        old.run(split(20))
    np.testing.assert_array_equal(tiny_engine.score(TOKENS[:20], TOKENS[20:]), before)
    assert tiny_engine.analysis is not old


def test_two_engines_on_one_llama_do_not_disturb_each_other(tiny_llama: Llama) -> None:
    one, other = Engine(tiny_llama), Engine(tiny_llama)
    before = one.score(TOKENS[:20], TOKENS[20:])
    other.run(split(3, layers=(1,), interventions=(added(1, 2),)))
    np.testing.assert_array_equal(one.score(TOKENS[:20], TOKENS[20:]), before)
    other.close()
    np.testing.assert_array_equal(one.score(TOKENS[:20], TOKENS[20:]), before)


def test_a_dropped_engine_leaves_the_llama_usable(tiny_llama: Llama) -> None:
    tiny_llama.eval(TOKENS[:20])
    before = last_logits(tiny_llama)
    Engine(tiny_llama).score(TOKENS[:20], TOKENS[20:])
    gc.collect()
    tiny_llama.reset()
    tiny_llama.eval(TOKENS[:20])
    np.testing.assert_array_equal(last_logits(tiny_llama), before)


def test_a_dropped_llama_is_freed_with_its_analysis(tiny_f32: TinyModel) -> None:
    llama = Llama(str(tiny_f32.path), n_ctx=64, n_threads=1, n_threads_batch=1, verbose=False)
    engine = Engine(llama)
    engine.score([1, 2], [3])
    alive, analysis_alive = weakref.ref(llama), weakref.ref(engine.analysis)
    del llama, engine
    gc.collect()
    assert alive() is None
    assert analysis_alive() is None


def test_a_dropped_engine_frees_its_analysis(
    monkeypatch: pytest.MonkeyPatch, tiny_llama: Llama
) -> None:
    engine = Engine(tiny_llama)
    engine.score([1, 2], [3])
    alive, address = weakref.ref(engine.analysis), engine.analysis._open.address
    freed: list[Any] = []
    free = llama_cpp.llama_free
    monkeypatch.setattr(
        llama_cpp, "llama_free", lambda context: freed.append(context) or free(context)
    )
    del engine
    gc.collect()
    assert alive() is None
    assert address in freed


def test_in_a_cycle_too_the_analysis_is_freed_before_its_model(
    monkeypatch: pytest.MonkeyPatch, tiny_f32: TinyModel
) -> None:
    freed: list[str] = []

    def record(module: Any, function: str) -> None:
        free = getattr(module, function)

        def recording(address: Any) -> None:
            if "llama_model_free" not in freed:  # else it would be undefined behaviour
                free(address)
            freed.append(function)

        monkeypatch.setattr(module, function, recording)

    gc.collect()
    record(llama_cpp, "llama_free")  # what the analysis calls
    record(llama_cpp.llama_cpp, "llama_free")  # what llama-cpp-python calls
    record(llama_cpp.llama_cpp, "llama_model_free")
    llama = Llama(str(tiny_f32.path), n_ctx=64, n_threads=1, n_threads_batch=1, verbose=False)
    engine = Engine(llama)
    engine.score([1, 2], [3])
    application: dict[str, Any] = {"llama": llama, "engine": engine}
    application["itself"] = application
    del llama, engine, application
    gc.collect()
    assert freed == ["llama_free", "llama_free", "llama_model_free"]


def last_logits(llama: Llama) -> NDArray[np.float32]:
    pointer = llama_cpp.llama_get_logits_ith(llama.ctx, -1)
    return np.ctypeslib.as_array(pointer, (N_VOCAB,)).copy()


def test_the_llamas_own_context_is_not_touched(
    open_llama: Callable[..., Llama], tiny_f32: TinyModel
) -> None:
    alone, analysed = open_llama(tiny_f32), open_llama(tiny_f32)
    engine = Engine(analysed)
    for begin in range(0, N, 10):
        for llama in (alone, analysed):
            llama.eval(TOKENS[begin : begin + 10])
        engine.run(split(20, layers=ALL_LAYERS, interventions=(added(1, 3),)))
        engine.capture(TOKENS[::-1], TOKENS, (1,))
        np.testing.assert_array_equal(last_logits(analysed), last_logits(alone))
    assert analysed.n_tokens == alone.n_tokens == N


def test_a_context_of_a_chosen_size(tiny_llama: Llama, trace: Trace) -> None:
    context = AnalysisContext(tiny_llama, n_ctx=N)
    assert_close(context.run(split(20)).scored, log_prob_of(trace, 20))
    with pytest.raises(ModelError, match=f"{N + 1} tokens does not fit .* of {N}"):
        context.run(ScoreRequest(TOKENS, [1]))


# Which llama.cpp


def test_the_tested_versions_are_those_the_package_asks_for() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'"llama-cpp-python{compat.LLAMA_CPP_RANGE}"' in project


@pytest.mark.parametrize("version", ["0.3.35", "0.2.90", "0.4.0", "1.0"])
def test_an_untested_llama_cpp_python_is_a_warning_that_names_those_that_work(
    monkeypatch: pytest.MonkeyPatch, tiny_llama: Llama, version: str
) -> None:
    monkeypatch.setattr(llama_cpp, "__version__", version)
    with pytest.warns(UserWarning, match=rf"{version} is not tested .*>=0\.3\.36,<0\.4 is"):
        Engine(tiny_llama).score([1, 2], [3])
