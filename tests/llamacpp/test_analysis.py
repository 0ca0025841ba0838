"""One request at a time against the NumPy reference: every row, every score, every split."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from llama_cpp import Llama

from models import TinyModel, make_tiny_llama
from models.operations import log_softmax
from models.tiny_model import Trace
from steerx_edge import _native
from steerx_edge.errors import ModelError, SteerxError
from steerx_edge.llamacpp import compat
from steerx_edge.llamacpp import context as context_module
from steerx_edge.llamacpp.analysis import AnalysisContext
from steerx_edge.llamacpp.context import limits_of
from steerx_edge.llamacpp.control_vector import ControlVector, set_control_vector
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.interventions import Add
from steerx_edge.llamacpp.requests import ScoreRequest
from tests.llamacpp.conftest import (
    ALL_LAYERS,
    CALLS,
    N_EMBD,
    N_LAYER,
    N_VOCAB,
    TOKENS,
    Call,
    N,
    assert_close,
    assert_same,
    masked,
    pairwise,
    split,
    tokens_of,
    vectors,
)
from tests.support.memory_reference import normed
from tests.support.steered_llama import last_logits
from tests.support.steered_reference import scores_of, steered_forward

LAST = N_LAYER - 1
ADDED = Add((1, 3), vectors(2))
TOO_STRONG = 2 * (Add((2,), np.full((1, N_EMBD), 3e38, np.float32)),)


@pytest.fixture(scope="module")
def trace(tiny_f32: TinyModel) -> Trace:
    return tiny_f32.forward(TOKENS)


# Against the reference


@pytest.mark.parametrize(
    ("calls", "n_context", "layers", "steered_by", "score"),
    pairwise(
        CALLS,
        [1, 2, 20, N],  # a context of one token, even halves, no response
        [ALL_LAYERS, (0,), (LAST,), (0, 2)],
        ["nothing", "the hook", "the control vector"],
        [True, False],
    ),
)
def test_rows_and_scores_are_those_of_the_reference(
    limit_calls: Callable[[tuple[int, int]], None],
    tiny_llama: Llama,
    tiny_f32: TinyModel,
    calls: tuple[int, int],
    n_context: int,
    layers: tuple[int, ...],
    steered_by: str,
    score: bool,
) -> None:
    limit_calls(calls)
    context = AnalysisContext(tiny_llama, 512)
    context.in_graph = steered_by == "the control vector"
    changes = () if steered_by == "nothing" else (ADDED,)
    trace = steered_forward(tiny_f32, TOKENS, masked(changes, n_context, N))
    asked: dict[str, Any] = {"entropy": True, "top_k": 4, "final": True} if score else {}
    got = context.run(split(*changes, n_context=n_context, layers=layers, score=score, **asked))
    assert_close(got.captured, trace.residual[list(layers), n_context - 1 :])
    if score:
        assert_close(got.scored, scores_of(trace, TOKENS, n_context))
        assert_close(got.final, normed(tiny_f32, trace.residual[LAST, n_context - 1 :]))
        log_p = log_softmax(trace.logits[n_context - 1 : -1])
        best = np.argsort(-log_p, axis=1)[:, :4]
        assert_close(got.entropy, -np.sum(np.exp(log_p) * log_p, axis=1))
        assert_close(got.top_log_prob, np.take_along_axis(log_p, best, axis=1))
        np.testing.assert_array_equal(got.top_token, best)


@pytest.mark.parametrize(("calls", "score"), [(CALLS[0], True), (CALLS[2], False)])
def test_weights_pool_rows(
    limit_calls: Callable[[tuple[int, int]], None],
    tiny_llama: Llama,
    score: bool,
    calls: tuple[int, int],
) -> None:
    limit_calls(calls)
    context = AnalysisContext(tiny_llama, 512)
    rng = np.random.default_rng(3)
    weights = rng.standard_normal((3, N - 9)).astype(np.float32)
    weights[1, :] = 0
    weights[2, 1:] = 0  # the last context token alone
    rows = context.run(split(score=score)).captured
    for kind in (np.float32, np.float64):
        pooled = context.run(split(score=score, weights=weights.astype(kind))).captured
        assert_close(pooled, np.einsum("sr,lre->lse", weights, rows.astype(np.float64)), 1e-5)
        np.testing.assert_array_equal(pooled[:, 1], 0)
        np.testing.assert_array_equal(pooled[:, 2], weights[2, 0] * rows[:, 0])


@pytest.mark.parametrize(("n_layer", "n_embd"), [(2, 32), (7, 96)])
def test_models_of_other_shapes(
    open_llama: Callable[..., Llama], tmp_path: Path, n_layer: int, n_embd: int
) -> None:
    model = make_tiny_llama(tmp_path / "tiny.gguf", n_layer=n_layer, n_embd=n_embd, seed=5)
    trace = model.forward(TOKENS)
    got = Engine(open_llama(model)).run(split(layers=tuple(range(n_layer))))
    assert_close(got.captured, trace.residual[:, 9:])
    assert_close(got.scored, scores_of(trace, TOKENS, 10))


def test_the_longest_pass_that_fits(tiny_engine: Engine, tiny_f32: TinyModel) -> None:
    tokens = tokens_of(4, 512)
    scores = tiny_engine.score(tokens[:1], tokens[1:])
    assert_close(scores, tiny_f32.log_probabilities(tokens))


def test_a_context_of_a_chosen_size(tiny_llama: Llama, trace: Trace) -> None:
    context = AnalysisContext(tiny_llama, n_ctx=N)
    assert_close(context.run(split()).scored, scores_of(trace, TOKENS, 10))
    with pytest.raises(ModelError, match=f"{N + 1} tokens does not fit .* of {N}"):
        context.run(ScoreRequest(TOKENS, [1]))


# Identities, bit for bit


def test_a_pass_that_ends_early_reads_the_same_rows_and_leaves_nothing_behind(
    limit_calls: Callable[[tuple[int, int]], None], tiny_llama: Llama
) -> None:
    limit_calls((7, 4096))
    context = AnalysisContext(tiny_llama, 512)
    whole = context.run(split())
    for layer in ALL_LAYERS:
        early = context.run(split(score=False, layers=(layer,))).captured
        np.testing.assert_array_equal(early[0], whole.captured[layer])
        assert_same(context.run(split()), whole)


def test_reading_changes_no_score(tiny_engine: Engine) -> None:
    scores = tiny_engine.score(TOKENS[:10], TOKENS[10:])
    for layers in [(0,), (LAST,), ALL_LAYERS]:
        np.testing.assert_array_equal(tiny_engine.run(split(layers=layers)).scored, scores)


@pytest.mark.parametrize("in_graph", [True, False])
def test_a_pass_does_not_depend_on_those_before_it(tiny_engine: Engine, in_graph: bool) -> None:
    tiny_engine.analysis.in_graph = in_graph
    wanted = [split(), split(Add((2,), vectors()))]
    first = [tiny_engine.run(request) for request in wanted]
    tiny_engine.score(TOKENS[5:6], TOKENS[:30])
    for request, expected in zip(wanted, first, strict=True):
        tiny_engine.run(split(ADDED, n_context=3))
        assert_same(tiny_engine.run(request), expected)


@pytest.mark.parametrize("in_graph", [True, False])
def test_no_strength_is_no_steering(tiny_engine: Engine, in_graph: bool) -> None:
    tiny_engine.analysis.in_graph = in_graph
    unsteered = tiny_engine.run(split())
    assert_same(tiny_engine.run(split(Add((1, 3), 0 * vectors(2)))), unsteered)


@pytest.mark.parametrize(("layer", "in_graph"), [(1, True), (2, False), (3, True)])
def test_steering_adds_its_vector_and_leaves_lower_layers_alone(
    tiny_engine: Engine, layer: int, in_graph: bool
) -> None:
    tiny_engine.analysis.in_graph = in_graph
    plain = tiny_engine.run(split()).captured
    steered = tiny_engine.run(split(Add((layer,), vectors()))).captured
    np.testing.assert_array_equal(steered[:layer], plain[:layer])
    np.testing.assert_array_equal(steered[layer], plain[layer] + vectors()[0])
    for upper in range(layer + 1, N_LAYER):
        assert np.abs(steered[upper] - plain[upper]).max(axis=1).min() > 0.1


# Requests that do not fit, or fail


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ScoreRequest([], TOKENS), "at least one token before its response"),
        (split(score=False, layers=()), "must score tokens or read layers"),
        (ScoreRequest([5] * 500, [6] * 13), "513 tokens does not fit the analysis context of 512"),
        (split(weights=np.ones((1, 30), np.float32)), r"\(1, 30\), expected \(slot, 31\)"),
        (split(weights=np.ones(31, np.float32)), r"\(31,\), expected \(slot, 31\)"),
        (split(layers=(4,)), r"Layers \[4\] cannot be read: .* 0 to 3"),
        (split(layers=(-2,)), r"Layers \[-2\] cannot be read"),
        (split(layers=(-1,), hook_point="ffn_out"), r"Layers \[-1\] cannot be read"),
        (split(layers=(2, 1)), r"Layers \[2, 1\] cannot be read: name increasing ones"),
        (split(score=False, layers=(1, 1)), r"Layers \[1, 1\] cannot be read"),
        (split(top_k=N_VOCAB + 1), "top_k is 449, and the vocabulary has 448 tokens"),
        (split(top_k=-1), "top_k is -1"),
        (split(score=False, entropy=True), "need scores"),
        (split(score=False, top_k=2), "need scores"),
        (split(score=False, expected=True), "need scores"),
        (split(logit_bias={448: 1.0}), "not in the vocabulary"),
        (split(biases=np.zeros((1, 3), np.float32)), r"\(1, 3\), expected \(bias, 448\)"),
        (split(Add((4,), vectors())), r"Layers \[4\] cannot be changed: .* 0 to 3"),
        (ScoreRequest([5, N_VOCAB], [6]), "could not evaluate a batch"),
        (ScoreRequest([5, 6], [-1]), "could not evaluate a batch"),
        (
            split(*TOO_STRONG),
            "log-probabilities with NaN: .* the control vector far too strong",
        ),
        (split(*TOO_STRONG, score=False, layers=(3,)), "residual rows with NaN"),
        (
            split(*TOO_STRONG, score=False, final=True, layers=()),
            "final rows with NaN",
        ),
    ],
)
def test_a_request_that_cannot_be_run_is_refused_and_spoils_nothing(
    tiny_engine: Engine, request_: ScoreRequest, message: str
) -> None:
    short = ScoreRequest(TOKENS[:3], TOKENS[3:6])  # cells behind it hold what they held
    before, before_short = tiny_engine.run(split()), tiny_engine.run(short)
    with pytest.raises(ModelError, match=message):
        tiny_engine.run(request_)
    assert_same(tiny_engine.run(short), before_short)
    assert_same(tiny_engine.run(split()), before)


def test_asking_a_result_for_what_the_pass_did_not_do(tiny_engine: Engine) -> None:
    scored, read = tiny_engine.run(split(layers=())), tiny_engine.run(split(score=False))
    for result, name in ((scored, "captured"), (read, "scored")):
        with pytest.raises(SteerxError, match="did not ask for"):
            getattr(result, name)
    assert (scored.entropy, scored.top_token, scored.top_log_prob) == (None, None, None)


# What is asked of llama.cpp


@pytest.mark.parametrize("calls", CALLS[1:])
def test_decode_calls_stay_within_the_bounds(
    limit_calls: Callable[[tuple[int, int]], None],
    tiny_llama: Llama,
    decoded: list[Call],
    calls: tuple[int, int],
) -> None:
    limit_calls(calls)
    context = AnalysisContext(tiny_llama, 512)
    decoded.clear()
    context.run(split())
    sizes = [(len(call.outputs), sum(call.outputs)) for call in decoded]
    assert np.sum(sizes, axis=0).tolist() == [N, N - 10 + 1]
    assert (np.max(sizes, axis=0) <= calls).all()
    decoded.clear()
    context.run(split(score=False, layers=(2,)))
    assert not any(any(call.outputs) for call in decoded)


@pytest.mark.parametrize(
    ("asked", "last"),
    [({"layers": (0, 2)}, "l_out-2"), ({"layers": (1,), "final": True}, "result_norm")],
)
def test_a_pass_without_scores_runs_no_further_than_it_must(
    tiny_llama: Llama, computed: list[str], asked: dict[str, Any], last: str
) -> None:
    context = AnalysisContext(tiny_llama, 512)
    assert "result_output" in computed  # of the probe
    whole = context.run(split(**asked))
    computed.clear()
    early = context.run(split(score=False, **asked))
    assert computed[-1] == last
    np.testing.assert_array_equal(early.captured, whole.captured)
    np.testing.assert_array_equal(early.final, whole.final)


@pytest.mark.parametrize(
    ("n_vocab", "rows"),
    [(151_936, 128), (262_144, 64), (262_145, 64), (600_000, 32), (983_041, 19), (1 << 40, 1)],
)
def test_rows_of_logits_are_bounded_and_fill_tiles_where_they_can(n_vocab: int, rows: int) -> None:
    limits = limits_of(512, n_vocab, side_by_side=True)
    assert limits.outputs == rows
    assert limits.sequences == max(1, min(16, rows - 1))


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
    scores = Engine(llama).score(TOKENS[:1], TOKENS[1:])
    assert_close(scores, log_p[np.arange(N - 1), TOKENS[1:]])
    assert np.abs(scores - tiny_f32.log_probabilities(TOKENS)).max() > 0.1
    llama.close()


@pytest.mark.parametrize(
    "options",
    [
        {"n_batch": 16, "n_ubatch": 4, "logits_all": True},
        {"embedding": True, "pooling_type": llama_cpp.LLAMA_POOLING_TYPE_MEAN},
    ],
)
def test_how_the_llama_runs_its_own_batches_does_not_matter(
    tiny_f32: TinyModel, trace: Trace, options: dict[str, Any]
) -> None:
    common = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1, "type_k": 0, "type_v": 0}
    llama = Llama(str(tiny_f32.path), verbose=False, **common | options)
    got = Engine(llama).run(split())
    assert_close(got.captured, trace.residual[:, 9:])
    assert_close(got.scored, scores_of(trace, TOKENS, 10))
    llama.close()


def test_the_llamas_own_context_is_not_touched(
    open_llama: Callable[..., Llama], tiny_f32: TinyModel
) -> None:
    alone, analysed = open_llama(tiny_f32), open_llama(tiny_f32)
    engine = Engine(analysed)
    for begin in range(0, N, 10):
        for llama in (alone, analysed):
            llama.eval(TOKENS[begin : begin + 10])
        engine.run(split(ADDED))
        engine.capture(TOKENS[::-1], TOKENS, (1,))
        np.testing.assert_array_equal(last_logits(analysed), last_logits(alone))
    assert analysed.n_tokens == alone.n_tokens == N


def test_two_engines_on_one_llama_do_not_disturb_each_other(tiny_llama: Llama) -> None:
    one, other = Engine(tiny_llama), Engine(tiny_llama)
    before = one.run(split())
    other.run(split(ADDED, n_context=3))
    assert_same(one.run(split()), before)
    other.close()
    assert_same(one.run(split()), before)


# Models and versions that cannot be used


def no_steering(*_: object) -> None:
    """What an architecture makes of a control vector that it ignores."""


def one_block_late(context: int, model: int, control: ControlVector | None) -> None:
    if control is not None:
        control = ControlVector(tuple(layer + 1 for layer in control.layers), control.vectors)
    set_control_vector(context, model, control)


@pytest.mark.parametrize("ignored", [no_steering, one_block_late])
def test_an_architecture_that_is_not_steered_as_told_is_refused(
    monkeypatch: pytest.MonkeyPatch, tiny_engine: Engine, ignored: Callable[..., None]
) -> None:
    monkeypatch.setattr(context_module, "set_control_vector", ignored)
    made: list[int] = []
    freed: list[int] = []
    make, free = llama_cpp.llama_init_from_model, llama_cpp.llama_free

    def noted_make(model: Any, params: Any) -> Any:
        context = make(model, params)
        made.append(context)
        return context

    def noted_free(context: Any) -> None:
        freed.append(context)
        free(context)

    monkeypatch.setattr(llama_cpp, "llama_init_from_model", noted_make)
    monkeypatch.setattr(llama_cpp, "llama_free", noted_free)
    with pytest.raises(ModelError, match="'llama' ignores control vectors") as refused:
        tiny_engine.score([1, 2], [3])
    assert refused.tb is not None  # nor does a kept error keep its context
    assert len(made) == 1
    assert freed == made


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
        ModelError, match=r"does not export ggml_get_name\. Install a version in the range >=0\.3"
    ):
        tiny_engine.score([1, 2], [3])


def test_too_little_memory_is_a_model_error(
    monkeypatch: pytest.MonkeyPatch, tiny_engine: Engine
) -> None:
    monkeypatch.setattr(llama_cpp, "llama_init_from_model", lambda *_: None)
    with pytest.raises(ModelError, match="could not make an analysis context of 512 tokens"):
        tiny_engine.score([1, 2], [3])


def test_the_tested_versions_are_those_the_package_asks_for() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'"llama-cpp-python{compat.LLAMA_CPP_RANGE}"' in project


@pytest.mark.parametrize("version", ["0.3.35", "0.4.0"])
def test_an_untested_llama_cpp_python_is_a_warning_that_names_those_that_work(
    monkeypatch: pytest.MonkeyPatch, tiny_llama: Llama, version: str
) -> None:
    monkeypatch.setattr(llama_cpp, "__version__", version)
    with pytest.warns(UserWarning, match=rf"{version} has not been tested .*>=0\.3\.36,<0\.4 has"):
        Engine(tiny_llama).score([1, 2], [3])
