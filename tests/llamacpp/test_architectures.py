"""What holds for every architecture: the reference where there is one, identities elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import ARCHITECTURES, REFERENCED, TinyModel, Trace, make_tiny
from models.gguf_file import Quantization
from models.operations import Array
from models.transformer import Transformer
from steerx_edge.errors import ModelError
from steerx_edge.llamacpp.analysis import AnalysisContext
from steerx_edge.llamacpp.interventions import (
    Add,
    Clamp,
    Intervention,
    Positions,
    Rotate,
    SetComponent,
)
from steerx_edge.llamacpp.requests import INPUT_LAYER, HookPoint, ScoreRequest, ScoreResult
from tests.conftest import open_tiny
from tests.llamacpp.conftest import (
    ALL_LAYERS,
    CALLS,
    F32_MAX,
    N_EMBD,
    TOKENS,
    N,
    assert_agree,
    assert_all_agree,
    assert_close,
    assert_same,
    directions,
    masked,
    split,
    vectors,
)
from tests.support.steered_reference import scores_of, steered_forward

N_CONTEXT = 10

# Of tests/tiny_models/test_models_reference.py, as are the reasons.
QUANTIZED_ROW_MAX = {"F16": 0.04, "Q8_0": 1.0, "Q4_0": 1.0, "Q4_K": 1.0}
QUANTIZED_ROW_MEDIAN = {"F16": 0.004, "Q8_0": 0.08, "Q4_0": 0.08, "Q4_K": 0.08}
ALONE_MAX = 1e-4  # a batch of another size sums in another order

# Rounding within the GELU (see models/README.md) shows more before the norm that makes it smaller.
GEMMA3_FFN_MAX = 1e-3

# What the llama.cpp of llama-cpp-python 0.3.36 names. gemma3's ffn_out comes before its norm.
NAMED: dict[HookPoint, tuple[str, ...]] = {
    "attn_out": ("llama",),
    "ffn_out": ("llama", "qwen2", "qwen3", "gemma3", "phi3", "gpt2"),
}
INPUT_NAMED = tuple(name for name in ARCHITECTURES if name != "lfm2")
RECURRENT = ("lfm2", "mamba2")


class Tiny:
    """A tiny model of one architecture, opened and ready to be analysed."""

    def __init__(self, path: Path, architecture: str, quantization: Quantization = "F32") -> None:
        self.architecture = architecture
        n_embd = 256 if quantization == "Q4_K" else N_EMBD
        self.model = make_tiny(path, architecture, quantization=quantization, n_embd=n_embd)
        self.llama = open_tiny(self.model)
        self.context = AnalysisContext(self.llama, 512)

    def run(self, *interventions: Intervention, **options: Any) -> ScoreResult:
        return self.context.run(split(*interventions, **options))

    @property
    def is_referenced(self) -> bool:
        return self.architecture in REFERENCED


@pytest.fixture(scope="module", params=ARCHITECTURES)
def tiny(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tiny]:
    opened = Tiny(tmp_path_factory.mktemp("models") / "tiny.gguf", request.param)
    yield opened
    opened.llama.close()


@pytest.fixture(scope="module")
def trace(tiny: Tiny) -> Trace:
    return tiny.model.forward(TOKENS)


# Reading


@pytest.mark.parametrize("tiny", REFERENCED, indirect=True)
@pytest.mark.parametrize("n_context", [1, N_CONTEXT, N])
def test_every_row_of_every_layer(tiny: Tiny, trace: Trace, n_context: int) -> None:
    got = tiny.run(n_context=n_context)
    assert_close(got.captured, trace.residual[:, n_context - 1 :])
    assert_close(got.scored, scores_of(trace, TOKENS, n_context))


def test_early_exit_reads_what_the_whole_pass_does_and_leaves_nothing_behind(tiny: Tiny) -> None:
    whole = tiny.run()
    for layers in [(0,), (1,), (2,), (3,), (0, 3)]:
        early = tiny.run(layers=layers, score=False).captured
        np.testing.assert_array_equal(early, whole.captured[list(layers)])
        assert_same(tiny.run(), whole)


def test_the_input_of_block_0(tiny: Tiny) -> None:
    if tiny.architecture not in INPUT_NAMED:
        with pytest.raises(ModelError, match="no tensor for the input of block 0"):
            tiny.run(layers=(INPUT_LAYER, 0))
        assert_same(tiny.run(), tiny.run())
        return
    got = tiny.run(n_context=1, layers=(INPUT_LAYER, *ALL_LAYERS)).captured
    np.testing.assert_array_equal(got[1:], tiny.run(n_context=1).captured)
    if tiny.is_referenced:
        assert_close(got[0], tiny.model.network.embed(np.array(TOKENS)))
    alone = tiny.run(n_context=1, layers=(INPUT_LAYER,), score=False).captured
    np.testing.assert_array_equal(alone[0], got[0])


# Hook points


def parts_of(model: TinyModel) -> dict[HookPoint, Array]:
    """What attention and feed-forward network of each block give: (layer, token, n_embd)."""
    network = model.network
    assert isinstance(network, Transformer)
    residual = network.embed(np.array(TOKENS))
    attention, feed_forward = [], []
    for layer in ALL_LAYERS:
        name = f"blk.{layer}"
        x = network.attention(layer, network.norm(f"{name}.attn_norm", residual))
        attention.append(x)
        if network.architecture == "gemma3":
            x = network.norm(f"{name}.post_attention_norm", x)
        x = network.norm(f"{name}.ffn_norm", residual + x)
        feed_forward.append(network.feed_forward(layer, x))
        residual = network.block(layer, residual)
    return {"attn_out": np.stack(attention), "ffn_out": np.stack(feed_forward)}


@pytest.mark.parametrize(("hook_point", "score"), [("attn_out", True), ("ffn_out", False)])
def test_hook_points_that_are_named_are_read(
    tiny: Tiny, hook_point: HookPoint, score: bool
) -> None:
    if tiny.architecture not in NAMED[hook_point]:
        with pytest.raises(ModelError, match=rf"no tensor {hook_point}-\d"):
            tiny.run(hook_point=hook_point, score=score)
        assert_same(tiny.run(), tiny.run())
        return
    rows = tiny.run(hook_point=hook_point, score=score).captured
    bound = GEMMA3_FFN_MAX if tiny.architecture == "gemma3" else F32_MAX
    assert_close(rows, parts_of(tiny.model)[hook_point][:, N_CONTEXT - 1 :], bound)


@pytest.mark.parametrize("tiny", NAMED["attn_out"], indirect=True)
def test_a_block_adds_its_parts_to_its_input(tiny: Tiny) -> None:
    """Of the architectures here llama.cpp names both parts in llama only."""
    output = tiny.run(layers=(INPUT_LAYER, *ALL_LAYERS)).captured
    attention, feed_forward = (tiny.run(hook_point=hook_point).captured for hook_point in NAMED)
    assert_close(output[:-1] + attention + feed_forward, output[1:])


@pytest.mark.parametrize(
    "tiny", [name for name in NAMED["ffn_out"] if name != "gemma3"], indirect=True
)
def test_what_attention_adds_follows_from_the_rest(tiny: Tiny) -> None:
    output = tiny.run(layers=(INPUT_LAYER, *ALL_LAYERS)).captured
    feed_forward = tiny.run(hook_point="ffn_out").captured
    attention = parts_of(tiny.model)["attn_out"][:, N_CONTEXT - 1 :]
    assert_close(output[1:] - output[:-1] - feed_forward, attention, 2 * F32_MAX)


# Changing


def composition(n_embd: int) -> tuple[Intervention, ...]:
    return (
        Add((0, 2), vectors(2, n_embd=n_embd), positions="all"),
        SetComponent((1,), directions(seed=4, n_embd=n_embd), [0], positions="response"),
        Rotate((2, 3), directions(2, seed=5, n_embd=n_embd), 0.3, positions=20),
        Clamp(Add((3,), 9 * vectors(seed=6, n_embd=n_embd)), 0.2),
    )


COMPOSITION = composition(N_EMBD)


@pytest.mark.parametrize("tiny", REFERENCED, indirect=True)
def test_interventions_are_those_of_the_reference(tiny: Tiny, trace: Trace) -> None:
    steered = steered_forward(tiny.model, TOKENS, masked(COMPOSITION, N_CONTEXT, N))
    assert np.abs(steered.logits - trace.logits).max() > 1
    got = tiny.run(*COMPOSITION)
    assert_close(got.captured, steered.residual[:, N_CONTEXT - 1 :])
    assert_close(got.scored, scores_of(steered, TOKENS, N_CONTEXT))


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_a_change_adds_to_its_layer_and_spares_those_below(tiny: Tiny, layer: int) -> None:
    plain = tiny.run(n_context=1)
    mask = np.arange(N) >= 7
    changed = tiny.run(Add((layer,), vectors(), positions=mask), n_context=1)
    np.testing.assert_array_equal(changed.captured[:layer], plain.captured[:layer])
    np.testing.assert_array_equal(
        changed.captured[layer], plain.captured[layer] + np.where(mask[:, None], vectors(), 0)
    )
    np.testing.assert_array_equal(changed.captured[:, :7], plain.captured[:, :7])
    assert np.abs(changed.scored - plain.scored)[7:].min() > 0
    np.testing.assert_array_equal(changed.scored[:6], plain.scored[:6])


@pytest.mark.parametrize(
    ("layers", "positions", "n_context"),
    [((1,), "generated", N_CONTEXT), ((1, 2, 3), "all", N_CONTEXT), ((3,), "generated", N)],
)
def test_an_addition_is_the_control_vector(
    monkeypatch: pytest.MonkeyPatch,
    tiny: Tiny,
    layers: tuple[int, ...],
    positions: Positions,
    n_context: int,
) -> None:
    change = Add(layers, vectors(len(layers)), positions=positions)
    by_hook = tiny.run(change, n_context=n_context)
    monkeypatch.setattr(tiny.context, "in_graph", True)
    in_graph = tiny.run(change, n_context=n_context)
    assert_agree(by_hook, in_graph, 1e-4 * float(np.abs(in_graph.captured).max()))
    plain = tiny.run(n_context=n_context)
    assert np.abs(in_graph.captured - plain.captured).max() > 0.1


# Side by side


def test_side_by_side_is_one_by_one(tiny: Tiny) -> None:
    requests = [
        split(),
        split(*COMPOSITION),
        ScoreRequest(TOKENS[3:4], TOKENS[4:30], layers=(1, 3)),
        split(Add((0,), vectors(seed=7), positions="all"), n_context=30),
        split(score=False, layers=(2,)),
        ScoreRequest(
            TOKENS[:7],
            TOKENS[9:20],
            layers=ALL_LAYERS,
            interventions=(Rotate((1,), directions(seed=8), 0.5),),
        ),
        split(Add((2,), vectors(seed=9))),
        split(n_context=N, layers=(3,), score=False),
    ]
    alone = [tiny.context.run(request) for request in requests]
    assert_all_agree(tiny.context.run_many(requests), alone, ALONE_MAX)


def test_recurrent_models_run_one_pass_at_a_time(tiny: Tiny) -> None:
    assert (tiny.context.limits.sequences == 1) == (tiny.architecture in RECURRENT)


@pytest.mark.parametrize("calls", [CALLS[1], CALLS[-1]])
def test_passes_in_several_calls(
    limit_calls: Callable[[tuple[int, int]], None], tiny: Tiny, calls: tuple[int, int]
) -> None:
    limit_calls(calls)
    context = AnalysisContext(tiny.llama, 512)
    for request in (split(), split(*COMPOSITION), split(layers=(1,), score=False)):
        assert_agree(context.run(request), tiny.context.run(request), ALONE_MAX)
    context.close()


# Quantized weights


@pytest.mark.parametrize(
    ("architecture", "quantization"),
    [("llama", "Q8_0"), ("qwen2", "Q4_K"), ("gemma3", "F16"), ("gpt2", "Q4_0"), ("qwen3", "Q4_K")],
)
def test_quantized_models(tmp_path: Path, architecture: str, quantization: Quantization) -> None:
    tiny = Tiny(tmp_path / "tiny.gguf", architecture, quantization)
    several = composition(tiny.model.n_embd)
    for interventions in ((), several):
        changes = masked(interventions, N_CONTEXT, N)
        expected = steered_forward(tiny.model, TOKENS, changes).residual[:, N_CONTEXT - 1 :]
        got = tiny.run(*interventions).captured
        error = np.abs(got - expected)
        assert error.max() < QUANTIZED_ROW_MAX[quantization]
        assert np.median(error) < QUANTIZED_ROW_MEDIAN[quantization]
        early = tiny.run(*interventions, layers=(2,), score=False).captured
        np.testing.assert_array_equal(early[0], got[2])
    tiny.llama.close()
