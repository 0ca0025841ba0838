"""What is read, changed and scored on a device is what the CPU gives, however much is offloaded."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from llama_cpp import Llama, LogitsProcessorList
from llama_cpp.llama_cpp import _lib
from numpy.typing import NDArray

from models import make_tiny
from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.effects import effects_of, read_control, read_treatment
from steerx_edge.live import steer
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.interventions import (
    Add,
    Clamp,
    Gate,
    Intervention,
    Positions,
    Rotate,
    SetComponent,
)
from steerx_edge.llamacpp.models import identify
from steerx_edge.llamacpp.requests import INPUT_LAYER, HookPoint, ScoreRequest, ScoreResult
from steerx_edge.profile import Profile
from tests.support.entries import an_entry
from tests.support.pairwise import pairwise
from tests.support.steered_reference import unit

pytestmark = pytest.mark.device

Rows = NDArray[np.float32]

MODELS = (
    "llama",
    "llama Q8_0",
    "llama Q4_0",
    "qwen2",
    "gemma3",
    "gpt2",
    "qwen3moe",
    "lfm2",
    "mamba2",
    "SmolLM2",
)
INPUT_NAMED = tuple(name for name in MODELS if name != "lfm2")
NAMED: dict[HookPoint, tuple[str, ...]] = {
    "attn_out": ("llama", "llama Q8_0", "llama Q4_0", "SmolLM2"),
    "ffn_out": ("llama", "llama Q8_0", "llama Q4_0", "qwen2", "gemma3", "gpt2", "SmolLM2"),
}
OFFLOADED = ("none", "output", "half", "all")
# Enough tokens for a GPU to take over the work of layers that are not offloaded: 32.
TOKENS = [int(token) for token in np.random.default_rng(2).integers(20, 300, size=60)]
N_CONTEXT = 20
ITEM = HistoryItem("She peeped into the book... twice!", "What did she do?")
IN_CONTEXT = [HistoryItem("The rabbit ran close by her.", "Who ran?"), HistoryItem("A daisy.")]


@dataclass(frozen=True)
class Bounds:
    """How far results on the device may be from the CPU's.

    Args:
        rows: the largest difference, as a share of the largest number in the rows of a layer.
        nats: the largest difference of a log-probability, and of a logit.
    """

    rows: float
    nats: float


# Behind the RPC backend is the CPU: it must be bit for bit what it is here.
EXACT = Bounds(0, 0)
# GPUs multiply with as few as 10 bits of mantissa (TF32, float16). These are three times what that
# does to the tiny models, with weights in float16 on the CPU: 0.7% and 0.05 nats.
GPU_F32 = Bounds(0.02, 0.15)
# Where the CPU rounds activations to 8 bits a GPU may not. These are three times what that does:
# 4% and 0.16 nats. Steering moves log-probabilities by more than 1.5.
GPU_QUANTIZED = Bounds(0.1, 0.5)


@dataclass(frozen=True)
class Model:
    """One file, opened on the CPU alone and with some layers on the device."""

    name: str
    path: Path
    cpu: Engine
    bounds: Bounds

    @property
    def n_layer(self) -> int:
        return self.cpu.analysis.n_layer

    @property
    def all_layers(self) -> tuple[int, ...]:
        return tuple(range(self.n_layer))

    def vectors(self, layers: Sequence[int], *, seed: int = 3) -> Rows:
        """Directions anywhere, half as long as the rows of their layers."""
        rows = self.cpu.run(split(layers=tuple(layers))).captured
        norms = np.median(np.linalg.norm(rows, axis=-1), axis=-1, keepdims=True)
        return np.asarray(0.5 * norms * self.directions(layers, seed=seed), np.float32)

    def directions(self, layers: Sequence[int], *, seed: int = 3) -> Rows:
        rng = np.random.default_rng(seed)
        directions = unit(rng.standard_normal((len(layers), self.cpu.analysis.n_embd)))
        return np.asarray(directions, np.float32)


class Override(ctypes.Structure):
    """A llama_model_tensor_buft_override."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


def split(*interventions: Intervention, n_context: int = N_CONTEXT, **options: Any) -> ScoreRequest:
    return ScoreRequest(
        TOKENS[:n_context], TOKENS[n_context:], interventions=interventions, **options
    )


def open_llama(
    path: Path, n_gpu_layers: int, *, on_cpu: bytes | None = None, **options: Any
) -> Llama:
    """Open a model, `n_gpu_layers` on the device except for tensors whose names match `on_cpu`.

    Weights are not repacked for the CPU, as those behind the RPC backend are not either, and other
    kernels round otherwise. `Llama` has no argument for these two.
    """
    parameters = llama_cpp.llama_model_default_params()
    parameters.use_extra_bufts = False
    _lib.ggml_backend_cpu_buffer_type.restype = ctypes.c_void_p
    cpu = _lib.ggml_backend_cpu_buffer_type()
    overrides = (Override * 2)(Override(on_cpu, cpu))  # the second ends the list
    if on_cpu:
        parameters.tensor_buft_overrides = ctypes.addressof(overrides)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llama_cpp.llama_cpp.llama_model_default_params", lambda: parameters)
        return Llama(
            str(path),
            n_ctx=512,
            n_threads=1,
            n_threads_batch=1,
            n_gpu_layers=n_gpu_layers,
            type_k=llama_cpp.GGML_TYPE_F32,
            type_v=llama_cpp.GGML_TYPE_F32,
            verbose=False,
            **options,
        )


@pytest.fixture(scope="module")
def model(
    request: pytest.FixtureRequest, is_rpc: bool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Model]:
    name: str = request.param
    if name == "SmolLM2":
        path: Path = request.getfixturevalue("smollm2_path")
    else:
        architecture, _, quantization = name.partition(" ")
        path = tmp_path_factory.mktemp("models") / "tiny.gguf"
        make_tiny(path, architecture, quantization=quantization or "F32")  # type: ignore[arg-type]
    is_quantized = name == "SmolLM2" or " " in name
    bounds = EXACT if is_rpc else GPU_QUANTIZED if is_quantized else GPU_F32
    llama = open_llama(path, 0, op_offload=False)
    yield Model(name, path, Engine(llama), bounds)
    llama.close()


_turns = count()


def on_each_model(*names: str, of: Sequence[Sequence[object]] = ()) -> pytest.MarkDecorator:
    """Run a test on each model, each time with another part of it on the device.

    Over all tests, each model meets each part, and so do most tests. Not every test runs on each
    model with each part, and of `names`, further parameters, each pair of values is enough.

    Args:
        names: of further parameters.
        of: their values.
    """
    turn = next(_turns)
    cases = [
        (model, OFFLOADED[(turn + i) % len(OFFLOADED)], *options)
        for i, (model, *options) in enumerate(pairwise(MODELS, *of))
    ]
    return pytest.mark.parametrize(
        ("model", "n_gpu_layers", *names), cases, indirect=["model", "n_gpu_layers"]
    )


@pytest.fixture(scope="module")
def n_gpu_layers(request: pytest.FixtureRequest, model: Model) -> int:
    """Of `n_layer` blocks and, the first to be offloaded, the output layer."""
    numbers = {"none": 0, "output": 1, "half": model.n_layer // 2 + 1, "all": model.n_layer + 1}
    return numbers[request.param]


@pytest.fixture(scope="module")
def engine(model: Model, n_gpu_layers: int) -> Iterator[Engine]:
    everything = n_gpu_layers > model.n_layer
    llama = open_llama(model.path, -1 if everything else n_gpu_layers)
    yield Engine(llama)
    llama.close()


def assert_rows_close(actual: Rows, expected: Rows, bounds: Bounds) -> None:
    """Both (layer, row, n_embd)."""
    assert actual.shape == expected.shape
    largest = np.abs(expected).max(axis=(1, 2), keepdims=True)
    difference = np.abs(actual - expected) / largest
    assert difference.max() <= bounds.rows


def assert_nats_close(actual: Rows, expected: Rows, bounds: Bounds) -> None:
    """Log-probabilities or logits."""
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= bounds.nats


def log_probabilities(result: ScoreResult) -> Rows:
    """(T, n_vocab), of a pass whose `top_k` was the whole vocabulary."""
    assert result.top_token is not None
    assert result.top_log_prob is not None
    distribution = np.empty_like(result.top_log_prob)
    np.put_along_axis(distribution, result.top_token, result.top_log_prob, axis=1)
    return distribution


def assert_agree(actual: ScoreResult, expected: ScoreResult, bounds: Bounds) -> None:
    assert_rows_close(actual.captured, expected.captured, bounds)
    if expected.log_prob is not None:
        assert_nats_close(actual.scored, expected.scored, bounds)
    if expected.entropy is not None:
        assert actual.entropy is not None
        assert_nats_close(actual.entropy, expected.entropy, bounds)
    if expected.top_token is not None:
        assert_nats_close(log_probabilities(actual), log_probabilities(expected), bounds)


def assert_changed(steered: ScoreResult, plain: ScoreResult, bounds: Bounds) -> None:
    """By more than the bounds let pass, so that a change not made would be noticed."""
    assert np.abs(steered.scored - plain.scored).max() > 2 * bounds.nats


# Where the rows are


class Tensor(ctypes.Structure):
    """How a ggml_tensor begins."""

    _fields_ = (("type", ctypes.c_int), ("buffer", ctypes.c_void_p))


def layers_off_the_host(llama: Llama) -> set[int]:
    """The blocks whose output lies in a buffer that is not host memory."""
    _lib.ggml_get_name.restype = ctypes.c_char_p
    _lib.ggml_backend_buffer_is_host.restype = ctypes.c_bool
    is_host: dict[int, bool] = {}

    @llama_cpp.ggml_backend_sched_eval_callback  # type: ignore[untyped-decorator]
    def look(address: int, ask: bool, _: Any) -> bool:
        name = re.fullmatch(rb"l_out-(\d+)", _lib.ggml_get_name(ctypes.c_void_p(address)))
        if name and not ask:
            buffer = ctypes.c_void_p(Tensor.from_address(address).buffer)
            is_host[int(name[1])] = _lib.ggml_backend_buffer_is_host(buffer)
        return bool(name) or not ask

    parameters = type(llama.context_params).from_buffer_copy(llama.context_params)
    parameters.cb_eval = look
    context = llama_cpp.llama_init_from_model(llama.model, parameters)
    tokens = (llama_cpp.llama_token * len(TOKENS))(*TOKENS)
    assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, len(TOKENS))) == 0
    llama_cpp.llama_free(context)
    assert len(is_host) == llama_cpp.llama_model_n_layer(llama.model)
    return {layer for layer, host in is_host.items() if not host}


@pytest.mark.parametrize("model", MODELS, indirect=True)
@pytest.mark.parametrize("n_gpu_layers", OFFLOADED, indirect=True)
def test_offloaded_layers_are_not_in_host_memory(
    model: Model, engine: Engine, n_gpu_layers: int
) -> None:
    """Else all the rest would prove nothing."""
    assert layers_off_the_host(model.cpu.llama) == set()
    n_on_device = max(0, n_gpu_layers - 1)
    assert set(model.all_layers[model.n_layer - n_on_device :]) <= layers_off_the_host(engine.llama)


# Reading


@on_each_model("n_context", of=[[1, N_CONTEXT]])
def test_every_row_of_every_layer_and_every_score(
    model: Model, engine: Engine, n_context: int
) -> None:
    job = split(
        n_context=n_context,
        layers=(INPUT_LAYER,) * (model.name in INPUT_NAMED) + model.all_layers,
        top_k=engine.analysis.n_vocab,
        entropy=True,
    )
    assert_agree(engine.run(job), model.cpu.run(job), model.bounds)


@on_each_model()
def test_hook_points(model: Model, engine: Engine) -> None:
    for hook_point, names in NAMED.items():
        if model.name in names:
            job = split(layers=model.all_layers, hook_point=hook_point)
            assert_agree(engine.run(job), model.cpu.run(job), model.bounds)


@on_each_model()
def test_early_exit_and_then_a_whole_pass(model: Model, engine: Engine) -> None:
    whole = split(layers=model.all_layers)
    expected = model.cpu.run(whole)
    for layer in {0, 1, model.n_layer // 2, model.n_layer - 2, model.n_layer - 1}:
        early = engine.run(split(layers=(layer,), score=False))
        assert_rows_close(early.captured, expected.captured[layer : layer + 1], model.bounds)
        assert_agree(engine.run(whole), expected, model.bounds)


@pytest.mark.usefixtures("is_rpc")
def test_an_early_exit_ends_every_part_of_the_graph(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each part that lies on another device asks anew; one node of it is computed, and no more."""
    answers: list[tuple[bool, bool]] = []
    callbacks: list[Any] = []
    init = llama_cpp.llama_init_from_model

    def listen(model: Any, parameters: Any) -> Any:
        address = ctypes.cast(parameters.cb_eval, ctypes.c_void_p).value
        assert address is not None
        hook = llama_cpp.ggml_backend_sched_eval_callback(address)

        @llama_cpp.ggml_backend_sched_eval_callback  # type: ignore[untyped-decorator]
        def answer(tensor: int, ask: bool, user_data: int) -> bool:
            answers.append((ask, bool(hook(tensor, ask, user_data))))
            return answers[-1][1]

        callbacks.append(answer)
        parameters.cb_eval = answer
        return init(model, parameters)

    tiny = make_tiny(tmp_path / "tiny.gguf", "llama")
    with closing(open_llama(tiny.path, 3, op_offload=False)) as llama:
        monkeypatch.setattr(llama_cpp, "llama_init_from_model", listen)
        engine = Engine(llama)
        engine.run(split())  # makes the context that is listened to
        answers.clear()
        engine.run(split(n_context=1, layers=(0,), score=False))
    after = answers[answers.index((False, False)) + 1 :]
    assert len(after) in range(2, 20)
    assert after == [(True, True), (False, False)] * (len(after) // 2)


def test_early_exit_where_experts_are_chosen_on_another_device(
    is_rpc: bool, tmp_path: Path
) -> None:
    """Nothing is computed of the choice, and llama.cpp would crash on what lies in its place."""
    tiny = make_tiny(tmp_path / "tiny.gguf", "qwen3moe")
    rng = np.random.default_rng(0)
    with (
        closing(open_llama(tiny.path, -1, on_cpu=b"ffn_.*_exps")) as apart,
        closing(open_llama(tiny.path, 0, op_offload=False)) as together,
    ):
        engines = Engine(apart), Engine(together)
        for _ in range(8):
            tokens = [int(token) for token in rng.integers(5, 300, size=60)]
            job = ScoreRequest(tokens[:N_CONTEXT], tokens[N_CONTEXT:], layers=(0,), score=False)
            actual, expected = (engine.run(job).captured for engine in engines)
            assert_rows_close(actual, expected, EXACT if is_rpc else GPU_F32)


@on_each_model()
def test_effects(model: Model, engine: Engine) -> None:
    arms = []
    for each in (engine, model.cpu):
        (treatment,) = read_treatment(each, [ITEM], IN_CONTEXT, model.all_layers)
        (control,) = read_control(each, [ITEM], model.all_layers)
        arms.append((treatment, control, effects_of(each, ITEM, treatment, control).nats))
    (*actual, actual_nats), (*expected, expected_nats) = arms
    assert_nats_close(actual_nats, expected_nats, model.bounds)
    for of_device, of_cpu in zip(actual, expected, strict=True):
        assert_rows_close(of_device.captured, of_cpu.captured, model.bounds)
    assert np.abs(expected_nats).max() > 2 * model.bounds.nats


# Changing


def set_component(model: Model) -> tuple[Intervention, ...]:
    layers = model.all_layers
    return (
        SetComponent(layers, model.directions(layers), [0.0] * len(layers), positions="response"),
    )


def gate(model: Model) -> tuple[Intervention, ...]:
    """Open for about half of the rows; its threshold is as far from any as can be."""
    layers = (model.n_layer // 2,)
    conditions = model.directions(layers, seed=5)
    cosines = np.sort(unit(model.cpu.run(split(layers=layers)).captured[0]) @ conditions[0])
    middle = cosines[len(cosines) // 4 : -len(cosines) // 4]
    widest = np.argmax(np.diff(middle))
    threshold = float(middle[widest : widest + 2].mean())
    return (Gate(Add(layers, 2 * model.vectors(layers)), conditions, threshold),)


def several(model: Model) -> tuple[Intervention, ...]:
    half, last = model.n_layer // 2, model.n_layer - 1
    return (
        Add((0, half, last), model.vectors((0, half, last)), positions="all"),
        Rotate((0, last), model.directions((0, last)), 0.6),
        Clamp(Add((0, half), 9 * model.vectors((0, half)), positions=30), 0.4),
    )


@on_each_model("make", of=[[set_component, gate, several]])
def test_interventions(
    model: Model, engine: Engine, make: Callable[[Model], tuple[Intervention, ...]]
) -> None:
    job = split(*make(model), layers=model.all_layers, top_k=engine.analysis.n_vocab)
    expected = model.cpu.run(job)
    assert_changed(expected, model.cpu.run(split()), model.bounds)
    assert_agree(engine.run(job), expected, model.bounds)


@on_each_model()
def test_rows_in_the_middle(model: Model, engine: Engine) -> None:
    """Neither what is changed nor what is read begins with the first row of its batch."""
    layers = (0, model.n_layer // 2)
    weights = np.zeros((2, len(TOKENS) - N_CONTEXT + 1), np.float32)
    weights[0, 6:9] = [0.5, -1, 2]
    weights[1, [9, 20]] = 1
    rows = np.zeros(len(TOKENS), np.bool_)
    rows[[8, 9, N_CONTEXT + 5, N_CONTEXT + 9]] = True
    change = Add(layers, model.vectors(layers), positions=rows)
    job = split(change, layers=model.all_layers[1:], weights=weights)
    expected = model.cpu.run(job)
    assert_changed(expected, model.cpu.run(split()), model.bounds)
    assert_agree(engine.run(job), expected, model.bounds)


@on_each_model("in_graph", "positions", of=[[True, False], ["generated", "all"]])
def test_a_control_vector_and_the_hook_that_adds_it(
    monkeypatch: pytest.MonkeyPatch,
    model: Model,
    engine: Engine,
    in_graph: bool,
    positions: Positions,
) -> None:
    layers = model.all_layers[1:]
    options: dict[str, Any] = {"layers": model.all_layers, "top_k": engine.analysis.n_vocab}
    job = split(Add(layers, model.vectors(layers), positions=positions), **options)
    expected = model.cpu.run(job)
    assert_changed(expected, model.cpu.run(split()), model.bounds)
    monkeypatch.setattr(engine.analysis, "in_graph", in_graph)
    assert_agree(engine.run(job), expected, model.bounds)


@on_each_model()
def test_side_by_side(model: Model, engine: Engine) -> None:
    jobs = [
        split(layers=model.all_layers),
        split(*several(model), layers=model.all_layers),
        split(*set_component(model), n_context=1, layers=(0,)),
        split(layers=(model.n_layer - 1,), n_context=len(TOKENS), score=False),
    ]
    for actual, expected in zip(engine.run_many(jobs), model.cpu.run_many(jobs), strict=True):
        assert_agree(actual, expected, model.bounds)


def steered_logits(llama: Llama, profile: Profile) -> Rows:
    """(8, n_vocab) of tokens that are given, not chosen, so that all models are asked the same."""
    rows: list[Rows] = []

    def force(_: NDArray[np.intc], scores: NDArray[np.single]) -> NDArray[np.single]:
        rows.append(scores.copy())
        forced = np.full_like(scores, -np.inf)
        forced[TOKENS[N_CONTEXT + len(rows)]] = 0
        return forced

    with steer(llama, profile):
        llama.create_completion(
            TOKENS[:N_CONTEXT], max_tokens=8, logits_processor=LogitsProcessorList([force])
        )
    return np.stack(rows)


@on_each_model()
def test_steer(model: Model, engine: Engine) -> None:
    layers = (1, model.n_layer - 1)
    vectors = model.vectors(layers)
    norms = np.linalg.norm(vectors, axis=1)
    entry = an_entry(identify(model.cpu.llama), layers, vectors / norms[:, None], norms=norms)
    profile = Profile((entry,))
    expected = steered_logits(model.cpu.llama, profile)
    assert len(expected) == 8
    off = replace(entry, strengths=np.zeros(len(layers), np.float32))
    unsteered = steered_logits(model.cpu.llama, Profile((off,)))
    assert np.abs(expected - unsteered).max() > 2 * model.bounds.nats
    assert_nats_close(steered_logits(engine.llama, profile), expected, model.bounds)
