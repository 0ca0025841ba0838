"""Interventions in whole passes: against the NumPy reference, and which rows they reach."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_cpp import Llama
from numpy.typing import NDArray

from models import TinyModel, make_tiny
from steerx_edge.errors import ModelError, SteerxError
from steerx_edge.llamacpp import analysis
from steerx_edge.llamacpp.analysis import ScoreRequest, ScoreResult
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.interventions import (
    Add,
    Clamp,
    Gate,
    Intervention,
    Positions,
    Rotate,
    SetComponent,
    as_control_vector,
    selected_positions,
)
from tests.conftest import open_tiny
from tests.support.steered_reference import scores_of, steered_forward, unit

N_EMBD = 64
ALL_LAYERS = (0, 1, 2, 3)
TOKENS = [int(token) for token in np.random.default_rng(1).integers(5, 300, size=30)]
N, N_CONTEXT = len(TOKENS), 12
F32_MAX = 1e-4  # of tests/tiny_models/test_models_reference.py


def vectors(*, seed: int = 3, n_layers: int = 2) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n_layers, N_EMBD)).astype(np.float32)


def directions(*, seed: int = 3, n_layers: int = 2) -> NDArray[np.float32]:
    return unit(vectors(seed=seed, n_layers=n_layers)).astype(np.float32)


def split(*interventions: Intervention, n_context: int = N_CONTEXT, **options: Any) -> ScoreRequest:
    options = {"layers": ALL_LAYERS} | options
    return ScoreRequest(
        TOKENS[:n_context], TOKENS[n_context:], interventions=interventions, **options
    )


def assert_same(actual: ScoreResult, expected: ScoreResult) -> None:
    """Bit for bit."""
    np.testing.assert_array_equal(actual.captured, expected.captured)
    np.testing.assert_array_equal(actual.scored, expected.scored)


# A gate's threshold lies where no row of the reference is near.
COMPOSITIONS: dict[str, tuple[Intervention, ...]] = {
    "add": (Add((0, 2), vectors(), positions="all"),),
    "add to the last block": (Add((3,), vectors(n_layers=1), positions="all"),),
    "project out": (SetComponent((0, 1), directions(), [0, 0], positions="all"),),
    "set component": (SetComponent((1, 3), directions(), [3, -5], positions="response"),),
    "rotate": (Rotate((0, 2), directions(), 0.6, positions="generated"),),
    "gate": (Gate(Add((1,), vectors(n_layers=1), positions="all"), directions(n_layers=1), 0.0),),
    "clamp": (Clamp(Add((0, 3), 5 * vectors(), positions="all"), 0.3),),
    "several": (
        Add((0, 2), vectors(), positions="prompt"),
        Rotate((0, 1), directions(seed=5), 0.4, positions="all"),
        Clamp(SetComponent((2, 3), directions(seed=6), [4, 0], positions=9), 0.5),
        Gate(Clamp(Add((3,), vectors(n_layers=1)), 0.2), directions(seed=7, n_layers=1), 0.0),
    ),
}


@pytest.fixture(scope="module", params=["llama", "qwen2", "qwen3", "gemma3", "phi3", "gpt2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return make_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf", request.param)


@pytest.fixture(scope="module")
def engine(model: TinyModel) -> Engine:
    return Engine(open_tiny(model))


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_every_row_and_score_is_that_of_the_reference(
    model: TinyModel, engine: Engine, name: str
) -> None:
    interventions = COMPOSITIONS[name]
    changes = [(each, selected_positions(each.positions, N_CONTEXT, N)) for each in interventions]
    trace = steered_forward(model, TOKENS, changes)
    unsteered = model.forward(TOKENS)
    assert np.abs(trace.logits - unsteered.logits).max() > 0.3

    got = engine.run(split(*interventions))
    np.testing.assert_allclose(
        got.captured, trace.residual[:, N_CONTEXT - 1 :], rtol=0, atol=F32_MAX
    )
    np.testing.assert_allclose(
        got.scored, scores_of(trace, TOKENS, N_CONTEXT), rtol=0, atol=F32_MAX
    )


@pytest.mark.parametrize("chunks", [(7, 4096), (512, 3), (8, 3), (1, 1)])
@pytest.mark.parametrize("name", ["add to the last block", "rotate", "several"])
def test_passes_in_several_calls_change_the_same_rows(
    monkeypatch: pytest.MonkeyPatch,
    tiny_llama: Llama,
    tiny_f32: TinyModel,
    name: str,
    chunks: tuple[int, int],
) -> None:
    monkeypatch.setattr(analysis, "MICRO_BATCH", chunks[0])
    monkeypatch.setattr(analysis, "LOGITS_BYTES", 4 * tiny_f32.n_vocab * chunks[1])
    interventions = COMPOSITIONS[name]
    changes = [(each, selected_positions(each.positions, N_CONTEXT, N)) for each in interventions]
    trace = steered_forward(tiny_f32, TOKENS, changes)
    got = Engine(tiny_llama).run(split(*interventions))
    np.testing.assert_allclose(
        got.captured, trace.residual[:, N_CONTEXT - 1 :], rtol=0, atol=F32_MAX
    )
    np.testing.assert_allclose(
        got.scored, scores_of(trace, TOKENS, N_CONTEXT), rtol=0, atol=F32_MAX
    )


# Identities


@pytest.mark.parametrize(
    "nothing",
    [
        Add((0, 3), 0 * vectors(), positions="all"),
        Gate(Add((0, 3), vectors(), positions="all"), directions(), 1.01),
        Clamp(Add((0, 3), vectors(), positions="all"), 0.0),
        Add((0, 3), vectors(), positions=0),
        Add((0, 3), vectors(), positions=np.zeros(N, dtype=np.bool_)),
    ],
    ids=["strength 0", "closed gate", "clamp to 0", "no last row", "empty mask"],
)
def test_nothing_is_no_change_bit_for_bit(tiny_engine: Engine, nothing: Intervention) -> None:
    assert_same(tiny_engine.run(split(nothing)), tiny_engine.run(split()))


def test_adding_and_taking_away_is_nothing(tiny_engine: Engine) -> None:
    plain = tiny_engine.run(split())
    both = tiny_engine.run(
        split(Add((0, 3), vectors(), positions="all"), Add((0, 3), -vectors(), positions="all"))
    )
    np.testing.assert_allclose(both.captured, plain.captured, rtol=0, atol=1e-5)
    np.testing.assert_allclose(both.scored, plain.scored, rtol=0, atol=1e-5)


def test_nothing_is_left_of_a_direction_projected_out_everywhere(tiny_engine: Engine) -> None:
    u = np.repeat(directions(n_layers=1), 4, axis=0)
    rows = tiny_engine.run(split(SetComponent(ALL_LAYERS, u, [0] * 4, positions="all"))).captured
    left = np.abs(rows @ u[0]) / np.linalg.norm(rows, axis=-1)
    assert left.max() < 1e-4


def test_the_input_of_block_0_is_never_changed(tiny_engine: Engine) -> None:
    layers = (analysis.INPUT_LAYER, 0)
    plain = tiny_engine.run(split(layers=layers)).captured
    changed = tiny_engine.run(split(Add((0,), vectors(n_layers=1)), layers=layers)).captured
    np.testing.assert_array_equal(changed[0], plain[0])
    np.testing.assert_array_equal(changed[1], plain[1] + vectors(n_layers=1)[0])


def test_a_pass_is_not_touched_by_the_interventions_of_the_one_before(tiny_engine: Engine) -> None:
    plain = tiny_engine.run(split())
    tiny_engine.run(split(Add((0,), 10 * vectors(n_layers=1), positions="all")))
    tiny_engine.run(split(Add((0,), vectors(n_layers=1)), score=False, layers=(1,)))
    assert_same(tiny_engine.run(split()), plain)


@pytest.mark.parametrize("layer", ALL_LAYERS)
def test_a_change_above_what_is_read_does_not_matter(tiny_engine: Engine, layer: int) -> None:
    plain = tiny_engine.run(split(layers=(1,), score=False)).captured
    change = Add((layer,), vectors(n_layers=1), positions="all")
    changed = tiny_engine.run(split(change, layers=(1,), score=False)).captured
    assert np.array_equal(changed, plain) == (layer > 1)


# Which rows


MASK = np.arange(N) % 3 == 0


@pytest.mark.parametrize(
    ("rows", "first", "stop"),
    [
        ("all", 0, N),
        ("prompt", 0, N_CONTEXT),
        ("response", N_CONTEXT, N),
        ("generated", N_CONTEXT - 1, N),
        (5, N - 5, N),
        (0, N, N),
        (N, 0, N),
        (N + 100, 0, N),
    ],
)
def test_rows_by_name_and_number(
    tiny_engine: Engine, rows: Positions, first: int, stop: int
) -> None:
    mask = selected_positions(rows, N_CONTEXT, N)
    np.testing.assert_array_equal(np.flatnonzero(mask), np.arange(first, stop))
    assert_rows_changed(tiny_engine, rows, mask)


@pytest.mark.parametrize("mask", [MASK, ~MASK, np.arange(N) == 0, np.arange(N) == N - 1])
def test_rows_by_mask(tiny_engine: Engine, mask: NDArray[np.bool_]) -> None:
    np.testing.assert_array_equal(selected_positions(mask, N_CONTEXT, N), mask)
    assert_rows_changed(tiny_engine, mask, mask)


def assert_rows_changed(engine: Engine, rows: Positions, mask: NDArray[np.bool_]) -> None:
    """All rows are read: those of a context of one token and of the rest as its response."""
    vector = vectors(n_layers=1)
    read = split(n_context=1, layers=(0, 1))
    plain = engine.run(read).captured
    change = Add((0,), vector, positions=rows if not isinstance(rows, str) else mask)
    changed = engine.run(split(change, n_context=1, layers=(0, 1))).captured
    np.testing.assert_array_equal(changed[0], plain[0] + np.where(mask[:, None], vector, 0))
    first = int(np.argmax(mask)) if mask.any() else N
    np.testing.assert_array_equal(changed[1, :first], plain[1, :first])
    assert all(np.abs(changed[1, first:] - plain[1, first:]).max(axis=1) > 0)

    named = engine.run(split(Add((0,), vector, positions=rows))).scored
    masked = engine.run(split(Add((0,), vector, positions=mask))).scored
    np.testing.assert_array_equal(named, masked)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (-1, "The last -1 positions cannot be meant"),
        (np.ones(N - 1, dtype=np.bool_), rf"shape \({N - 1},\) and type bool; .* \({N},\) bool"),
        (np.ones((1, N), dtype=np.bool_), r"A mask of positions has shape \(1, 30\)"),
        (np.ones(N), "type float64"),
        (np.arange(3), "type int64"),
        ("answer", "one of all, prompt, response, generated, a number or a mask, not 'answer'"),
        (1.5, "not '1.5'"),
        (None, "not 'None'"),
        (True, "not 'True'"),
        ([True] * N, "a number or a mask, not"),
    ],
)
def test_rows_that_make_no_sense_are_refused(tiny_engine: Engine, rows: Any, message: str) -> None:
    with pytest.raises(SteerxError, match=message):
        tiny_engine.run(split(Add((1,), vectors(n_layers=1), positions=rows)))


def test_without_a_choice_rows_are_those_a_control_vector_would_change() -> None:
    defaults = [
        Add((1,), vectors(n_layers=1)),
        SetComponent((1,), directions(n_layers=1), [0]),
        Rotate((1,), directions(n_layers=1), 0.1),
    ]
    assert [each.positions for each in defaults] == ["generated"] * 3
    outer = [Gate(defaults[0], directions(n_layers=1), 0.5), Clamp(defaults[0], 0.5)]
    assert [each.positions for each in outer] == ["generated"] * 2
    assert [each.layers for each in outer] == [(1,)] * 2


# What does not fit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Add((4,), vectors(n_layers=1)), r"Layers \[4\] cannot be changed: this model has 0 to 3"),
        (Add((-1,), vectors(n_layers=1)), r"Layers \[-1\] cannot be changed"),
        (Add((), np.zeros((0, N_EMBD), np.float32)), r"Layers \[\] cannot be changed"),
        (Add((2, 1), vectors()), r"Layers \[2, 1\] cannot be changed: name increasing"),
        (Add((1, 1), vectors()), r"Layers \[1, 1\] cannot be changed: name increasing"),
        (Add((1,), vectors()), r"vectors \(1, n_embd\) for layers \[1\], got shape \(2, 64\)"),
        (Add((1,), vectors()[0]), r"got shape \(64,\)"),
        (Add((1,), np.full((1, N_EMBD), np.nan, np.float32)), "Expected finite vectors"),
        (Add((1,), np.ones((1, 32), np.float32)), "Vectors of 32 numbers do not fit .* have 64"),
        (Add((1,), np.ones((1, 96), np.float32)), "Vectors of 96 numbers do not fit .* have 64"),
        (SetComponent((1,), vectors(n_layers=1), [0]), "must be of unit length"),
        (SetComponent((1,), directions(n_layers=1), [0, 1]), "1 layers need as many values"),
        (Rotate((1,), 2 * directions(n_layers=1), 0.1), "must be of unit length"),
        (Rotate((1,), directions(n_layers=1), -0.1), "0 or more, not -0.1: to turn away, negate"),
        (Rotate((1,), directions(n_layers=1), float("nan")), "An angle is 0 or more, not nan"),
        (Gate(Add((1,), vectors(n_layers=1)), vectors(n_layers=1), 0.1), "of unit length"),
        (Gate(Add((1, 2), vectors()), directions(n_layers=1), 0.1), r"Expected .* \(2, n_embd\)"),
        (Clamp(Add((1,), vectors(n_layers=1)), -0.5), "is 0 or more, not -0.5"),
        (Clamp(Gate(Add((9,), vectors(n_layers=1)), directions(n_layers=1), 0), 1), "Layers"),
    ],
)
def test_a_change_that_does_not_fit_is_refused_and_spoils_nothing(
    tiny_engine: Engine, change: Intervention, message: str
) -> None:
    before = tiny_engine.run(split())
    with pytest.raises(SteerxError, match=message):
        tiny_engine.run(split(change))
    assert_same(tiny_engine.run(split()), before)


def test_a_change_far_too_strong_is_an_error_and_spoils_nothing(tiny_engine: Engine) -> None:
    before = tiny_engine.run(split())
    huge = Add((1,), np.full((1, N_EMBD), 3e38, np.float32), positions="all")
    with pytest.raises(ModelError, match="not numbers"):
        tiny_engine.run(split(huge, huge))
    assert_same(tiny_engine.run(split()), before)


# Hook and control vector


@pytest.mark.parametrize("layers", [(1,), (3,), (1, 2), (1, 2, 3)])
@pytest.mark.parametrize("n_context", [1, N_CONTEXT, N])
@pytest.mark.parametrize("rows", ["generated", "all"])
def test_an_addition_is_the_control_vector(
    engine: Engine, layers: tuple[int, ...], n_context: int, rows: Positions
) -> None:
    change = Add(layers, vectors(n_layers=len(layers)), positions=rows)
    assert as_control_vector([change]) is not None
    job = split(change, n_context=n_context)
    engine.analysis.in_graph = False
    by_hook = engine.run(job)
    engine.analysis.in_graph = True
    in_graph = engine.run(job)
    plain = engine.run(split(n_context=n_context))
    assert np.abs(in_graph.captured - plain.captured).max() > 1
    scale = np.abs(in_graph.captured).max()
    np.testing.assert_allclose(by_hook.captured, in_graph.captured, rtol=1e-4, atol=1e-6 * scale)
    np.testing.assert_allclose(by_hook.scored, in_graph.scored, rtol=1e-4, atol=1e-5)


def test_additions_have_one_control_vector_in_sum() -> None:
    one, two = vectors(seed=8), vectors(seed=9)
    control = as_control_vector([Add((1, 3), one), Add((2, 3), two)])
    assert control is not None
    assert control.layers == (1, 2, 3)
    np.testing.assert_array_equal(control.vectors, [one[0], two[0], one[1] + two[1]])
    assert control.vectors.dtype == np.float32


@pytest.mark.parametrize(
    "interventions",
    [
        (),
        (Add((0, 1), vectors()),),
        (Add((1,), vectors(n_layers=1), positions="all"), Add((1,), vectors(n_layers=1))),
        (Add((1,), vectors(n_layers=1), positions="response"),),
        (Add((1,), vectors(n_layers=1), positions=N),),
        (Add((1,), vectors(n_layers=1), positions=np.ones(N, dtype=np.bool_)),),
        (SetComponent((1,), directions(n_layers=1), [0]),),
        (Rotate((1,), directions(n_layers=1), 0.1),),
        (Clamp(Add((1,), vectors(n_layers=1)), 10),),
        (Gate(Add((1,), vectors(n_layers=1)), directions(n_layers=1), -2),),
        (Add((1,), vectors(n_layers=1)), Rotate((1,), directions(n_layers=1), 0.1)),
    ],
)
def test_what_no_control_vector_does_has_none(interventions: tuple[Intervention, ...]) -> None:
    assert as_control_vector(interventions) is None


def test_the_sum_does_not_change_what_it_is_made_of() -> None:
    one = vectors(seed=8)
    kept = one.copy()
    as_control_vector([Add((1, 3), one), Add((1, 3), one)])
    np.testing.assert_array_equal(one, kept)


# Quantized weights


@pytest.fixture
def open_engine(open_llama: Callable[..., Llama], tmp_path: Path) -> Callable[..., Engine]:
    def make(**options: Any) -> Engine:
        return Engine(open_llama(make_tiny(tmp_path / "tiny.gguf", **options)))

    return make


@pytest.mark.parametrize("quantization", ["F16", "Q8_0", "Q4_0"])
def test_quantized_models_take_changes_as_exactly(
    open_engine: Callable[..., Engine], quantization: str
) -> None:
    """Positions are float32 whatever the weights are."""
    engine = open_engine(architecture="llama", quantization=quantization)
    plain = engine.run(split()).captured
    vector = vectors(n_layers=1)
    changed = engine.run(split(Add((2,), vector, positions="all"))).captured
    np.testing.assert_array_equal(changed[:2], plain[:2])
    np.testing.assert_array_equal(changed[2], plain[2] + vector[0])
    u = directions(n_layers=1)
    projected = engine.run(split(SetComponent((3,), u, [0], positions="all"))).captured[3]
    assert (np.abs(projected @ u[0]) / np.linalg.norm(projected, axis=-1)).max() < 1e-6
