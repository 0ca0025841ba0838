"""Interventions in whole passes: against the NumPy reference, and which rows they reach."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from llama_cpp import Llama
from numpy.typing import NDArray

from models import TinyModel, make_tiny
from steerx_edge.errors import SteerxError
from steerx_edge.llamacpp.analysis import AnalysisContext
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
from steerx_edge.llamacpp.requests import INPUT_LAYER
from tests.llamacpp.conftest import (
    ALL_LAYERS,
    CALLS,
    N_EMBD,
    TOKENS,
    N,
    assert_agree,
    assert_close,
    assert_same,
    directions,
    masked,
    split,
    vectors,
)
from tests.support.steered_reference import scores_of, steered_forward

N_CONTEXT = 10

# A gate's threshold lies where no row of the reference is near.
COMPOSITIONS: dict[str, tuple[Intervention, ...]] = {
    "add": (Add((0, 3), vectors(2), positions="all"),),
    "project out": (SetComponent((0, 1), directions(2), [0, 0], positions="all"),),
    "set component": (SetComponent((1, 3), directions(2), [3, -5], positions="response"),),
    "rotate": (Rotate((0, 2), directions(2), 0.6, positions="generated"),),
    "gate": (Gate(Add((1,), vectors(), positions="all"), directions(), 0.0),),
    "clamp": (Clamp(Add((0, 3), 5 * vectors(2), positions="all"), 0.3),),
    "several": (
        Add((0, 2), vectors(2), positions="prompt"),
        Rotate((0, 1), directions(2, seed=5), 0.4, positions="all"),
        Clamp(SetComponent((2, 3), directions(2, seed=6), [4, 0], positions=9), 0.5),
        Gate(Clamp(Add((3,), vectors()), 0.2), directions(seed=7), 0.0),
    ),
}


# "several" in calls of every kind; all architectures are in test_architectures.py.
@pytest.mark.parametrize(
    ("name", "calls"),
    [*((name, CALLS[0]) for name in COMPOSITIONS), *(("several", calls) for calls in CALLS[1:])],
)
def test_every_row_and_score_is_that_of_the_reference(
    limit_calls: Callable[[tuple[int, int]], None],
    tiny_llama: Llama,
    tiny_f32: TinyModel,
    name: str,
    calls: tuple[int, int],
) -> None:
    changes = COMPOSITIONS[name]
    trace = steered_forward(tiny_f32, TOKENS, masked(changes, N_CONTEXT, N))
    assert np.abs(trace.logits - tiny_f32.forward(TOKENS).logits).max() > 0.3
    limit_calls(calls)
    got = AnalysisContext(tiny_llama, 512).run(split(*changes))
    assert_close(got.captured, trace.residual[:, N_CONTEXT - 1 :])
    assert_close(got.scored, scores_of(trace, TOKENS, N_CONTEXT))


# Identities


@pytest.mark.parametrize(
    "nothing",
    [
        Add((0, 3), 0 * vectors(2), positions="all"),
        Gate(Add((0, 3), vectors(2), positions="all"), directions(2), 1.01),
        Clamp(Add((0, 3), vectors(2), positions="all"), 0.0),
        Add((0, 3), vectors(2), positions=0),
        Add((0, 3), vectors(2), positions=np.zeros(N, dtype=np.bool_)),
    ],
    ids=["strength 0", "closed gate", "clamp to 0", "no last row", "empty mask"],
)
def test_nothing_is_no_change_bit_for_bit(tiny_engine: Engine, nothing: Intervention) -> None:
    assert_same(tiny_engine.run(split(nothing)), tiny_engine.run(split()))


def test_adding_and_taking_away_is_nothing(tiny_engine: Engine) -> None:
    both = [Add((0, 3), sign * vectors(2), positions="all") for sign in (1, -1)]
    assert_agree(tiny_engine.run(split(*both)), tiny_engine.run(split()), 1e-5)


def test_nothing_is_left_of_a_direction_projected_out_everywhere(tiny_engine: Engine) -> None:
    u = np.repeat(directions(), 4, axis=0)
    rows = tiny_engine.run(split(SetComponent(ALL_LAYERS, u, [0] * 4, positions="all"))).captured
    left = np.abs(rows @ u[0]) / np.linalg.norm(rows, axis=-1)
    assert left.max() < 1e-4


def test_the_input_of_block_0_is_never_changed(tiny_engine: Engine) -> None:
    layers = (INPUT_LAYER, 0)
    plain = tiny_engine.run(split(layers=layers)).captured
    changed = tiny_engine.run(split(Add((0,), vectors()), layers=layers)).captured
    np.testing.assert_array_equal(changed[0], plain[0])
    np.testing.assert_array_equal(changed[1], plain[1] + vectors()[0])


def test_a_pass_is_not_touched_by_the_interventions_of_the_one_before(tiny_engine: Engine) -> None:
    plain = tiny_engine.run(split())
    tiny_engine.run(split(Add((0,), 10 * vectors(), positions="all")))
    tiny_engine.run(split(Add((0,), vectors()), score=False, layers=(1,)))
    assert_same(tiny_engine.run(split()), plain)


@pytest.mark.parametrize("layer", ALL_LAYERS)
def test_a_change_above_what_is_read_does_not_matter(tiny_engine: Engine, layer: int) -> None:
    plain = tiny_engine.run(split(layers=(1,), score=False)).captured
    change = Add((layer,), vectors(), positions="all")
    changed = tiny_engine.run(split(change, layers=(1,), score=False)).captured
    assert np.array_equal(changed, plain) == (layer > 1)


# Which rows


EVERY_THIRD = np.arange(N) % 3 == 0


@pytest.mark.parametrize(
    ("positions", "rows"),
    [
        ("all", range(N)),
        ("prompt", range(N_CONTEXT)),
        ("response", range(N_CONTEXT, N)),
        ("generated", range(N_CONTEXT - 1, N)),
        (5, range(N - 5, N)),
        (0, []),
        (N, range(N)),
        (N + 100, range(N)),
        (EVERY_THIRD, range(0, N, 3)),
        (np.arange(N) == N - 1, [N - 1]),
    ],
)
def test_positions_and_no_others_are_changed(
    tiny_engine: Engine, positions: Positions, rows: list[int] | range
) -> None:
    mask = selected_positions(positions, N_CONTEXT, N)
    np.testing.assert_array_equal(np.flatnonzero(mask), list(rows))
    named = tiny_engine.run(split(Add((0,), vectors(), positions=positions))).scored
    masked_ = tiny_engine.run(split(Add((0,), vectors(), positions=mask))).scored
    np.testing.assert_array_equal(named, masked_)
    # All rows are read: those of a context of one token and of the rest as its response.
    plain = tiny_engine.run(split(n_context=1, layers=(0, 1))).captured
    change = Add((0,), vectors(), positions=mask)
    changed = tiny_engine.run(split(change, n_context=1, layers=(0, 1))).captured
    np.testing.assert_array_equal(changed[0], plain[0] + np.where(mask[:, None], vectors(), 0))
    first = int(np.argmax(mask)) if mask.any() else N
    np.testing.assert_array_equal(changed[1, :first], plain[1, :first])
    assert all(np.abs(changed[1, first:] - plain[1, first:]).max(axis=1) > 0)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (-1, "positions is -1: a number of positions"),
        (np.ones(N - 1, dtype=np.bool_), rf"shape \({N - 1},\) and type bool; .* \({N},\) bool"),
        (np.ones((1, N), dtype=np.bool_), r"A mask of positions has shape \(1, 40\)"),
        (np.arange(N), "type int64"),
        ("answer", "one of all, prompt, response, generated, a number or a mask, not 'answer'"),
        (1.5, "not '1.5'"),
        (None, "not 'None'"),
        (True, "not 'True'"),
        ([True] * N, "a number or a mask, not"),
    ],
)
def test_positions_that_make_no_sense_are_refused(
    tiny_engine: Engine, positions: Any, message: str
) -> None:
    with pytest.raises(SteerxError, match=message):
        tiny_engine.run(split(Add((1,), vectors(), positions=positions)))


def test_without_a_choice_positions_are_those_a_control_vector_would_change() -> None:
    plain = Add((1,), vectors())
    others: list[Intervention] = [
        SetComponent((1,), directions(), [0]),
        Rotate((1,), directions(), 0.1),
    ]
    outer: list[Intervention] = [Gate(plain, directions(), 0.5), Clamp(plain, 0.5)]
    assert {each.positions for each in [plain, *others, *outer]} == {"generated"}
    assert {each.layers for each in outer} == {(1,)}


# What does not fit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Add((4,), vectors()), r"Layers \[4\] cannot be changed: this model has 0 to 3"),
        (Add((-1,), vectors()), r"Layers \[-1\] cannot be changed"),
        (Add((), np.zeros((0, N_EMBD), np.float32)), r"Layers \[\] cannot be changed"),
        (Add((2, 1), vectors(2)), r"Layers \[2, 1\] cannot be changed: give increasing"),
        (Add((1, 1), vectors(2)), r"Layers \[1, 1\] cannot be changed: give increasing"),
        (Add((1,), vectors(2)), r"vectors \(1, n_embd\) for layers \[1\], got shape \(2, 64\)"),
        (Add((1,), vectors()[0]), r"got shape \(64,\)"),
        (Add((1,), np.full((1, N_EMBD), np.nan, np.float32)), "Expected finite vectors"),
        (Add((1,), np.ones((1, 32), np.float32)), "Vectors of 32 numbers do not fit .* have 64"),
        (SetComponent((1,), vectors(), [0]), "must be of unit length"),
        (SetComponent((1,), directions(), [0, 1]), "1 layers need as many values"),
        (Rotate((1,), 2 * directions(), 0.1), "must be of unit length"),
        (Rotate((1,), directions(), -0.1), "0 or more, not -0.1: to turn away, negate"),
        (Rotate((1,), directions(), float("nan")), "An angle is 0 or more, not nan"),
        (Gate(Add((1,), vectors()), vectors(), 0.1), "of unit length"),
        (Gate(Add((1, 2), vectors(2)), directions(), 0.1), r"Expected .* \(2, n_embd\)"),
        (Clamp(Add((1,), vectors()), -0.5), "is 0 or more, not -0.5"),
        (Clamp(Gate(Add((9,), vectors()), directions(), 0), 1), "Layers"),
    ],
)
def test_a_change_that_does_not_fit_is_refused_and_spoils_nothing(
    tiny_engine: Engine, change: Intervention, message: str
) -> None:
    before = tiny_engine.run(split())
    with pytest.raises(SteerxError, match=message):
        tiny_engine.run(split(change))
    assert_same(tiny_engine.run(split()), before)


# What a control vector can do; that the results are the same is in test_architectures.py


def test_additions_have_one_control_vector_in_sum() -> None:
    one, two = vectors(2, seed=8), vectors(2, seed=9)
    kept = one.copy()
    control = as_control_vector([Add((1, 3), one), Add((2, 3), two)])
    assert control is not None
    assert control.layers == (1, 2, 3)
    np.testing.assert_array_equal(control.vectors, [one[0], two[0], one[1] + two[1]])
    assert control.vectors.dtype == np.float32
    np.testing.assert_array_equal(one, kept)


@pytest.mark.parametrize(
    "interventions",
    [
        (),
        (Add((0, 1), vectors(2)),),
        (Add((1,), vectors(), positions="all"), Add((1,), vectors())),
        (Add((1,), vectors(), positions="response"),),
        (Add((1,), vectors(), positions=N),),
        (Add((1,), vectors(), positions=np.ones(N, dtype=np.bool_)),),
        (SetComponent((1,), directions(), [0]),),
        (Rotate((1,), directions(), 0.1),),
        (Clamp(Add((1,), vectors()), 10),),
        (Gate(Add((1,), vectors()), directions(), -2),),
        (Add((1,), vectors()), Rotate((1,), directions(), 0.1)),
    ],
)
def test_what_no_control_vector_does_has_none(interventions: tuple[Intervention, ...]) -> None:
    assert as_control_vector(interventions) is None


@pytest.mark.parametrize("quantization", ["F16", "Q4_0"])
def test_quantized_models_take_changes_as_exactly(
    open_llama: Callable[..., Llama], tmp_path: Any, quantization: Any
) -> None:
    """Rows are float32 whatever the weights are."""
    model = make_tiny(tmp_path / "tiny.gguf", "llama", quantization=quantization)
    engine = Engine(open_llama(model))
    plain = engine.run(split()).captured
    changed = engine.run(split(Add((2,), vectors(), positions="all"))).captured
    np.testing.assert_array_equal(changed[:2], plain[:2])
    np.testing.assert_array_equal(changed[2], plain[2] + vectors()[0])
    u: NDArray[np.float32] = directions()
    projected = engine.run(split(SetComponent((3,), u, [0], positions="all"))).captured[3]
    assert (np.abs(projected @ u[0]) / np.linalg.norm(projected, axis=-1)).max() < 1e-6
