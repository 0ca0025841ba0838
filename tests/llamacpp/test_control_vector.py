"""llama.cpp's control vector on a plain Llama: what is set, what is refused, what remains."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import llama_cpp
import numpy as np
import pytest
from llama_cpp import Llama
from numpy.typing import NDArray

from models import TinyModel
from steerx_edge.errors import ModelError
from steerx_edge.llamacpp.control_vector import ControlVector, set_control_vector
from tests.llamacpp.conftest import (
    F32_MAX,
    N_EMBD,
    N_LAYER,
    TOKENS,
    vectors,
)
from tests.support.steered_llama import Logits, last_logits, reset

LAYERS = [(1,), (3,), (1, 3), (1, 2, 3)]


def direction(*layers: int, seed: int = 2) -> ControlVector:
    return ControlVector(layers, vectors(len(layers), seed=seed))


def steer(llama: Llama, control: ControlVector | None) -> None:
    set_control_vector(llama.ctx, llama.model, control)


def logits_anew(llama: Llama) -> Logits:
    """Of the last of TOKENS, evaluated anew."""
    reset(llama)
    llama.eval(TOKENS)
    return last_logits(llama)


@pytest.mark.parametrize("layers", LAYERS)
def test_every_row_is_steered(
    tiny_llama: Llama, tiny_f32: TinyModel, layers: tuple[int, ...]
) -> None:
    control = direction(*layers)
    steer(tiny_llama, control)
    trace = tiny_f32.forward(TOKENS, dict(zip(layers, control.vectors, strict=True)))
    np.testing.assert_allclose(logits_anew(tiny_llama), trace.logits[-1], rtol=0, atol=F32_MAX)


@pytest.mark.parametrize(
    ("first", "second"), [*pairwise([*LAYERS, None]), ((1, 2, 3), (2,)), ((1, 3), (1, 2, 3))]
)
def test_a_vector_or_none_leaves_nothing_of_the_one_before(
    open_llama: Callable[..., Llama],
    tiny_f32: TinyModel,
    first: tuple[int, ...] | None,
    second: tuple[int, ...] | None,
) -> None:
    fresh, used = open_llama(tiny_f32), open_llama(tiny_f32)
    steer(used, direction(*first, seed=3) if first else None)
    logits_anew(used)
    for llama in (fresh, used):
        steer(llama, direction(*second) if second else None)
    np.testing.assert_array_equal(logits_anew(used), logits_anew(fresh))


def test_no_strength_is_no_steering(tiny_llama: Llama) -> None:
    before = logits_anew(tiny_llama)
    steer(tiny_llama, ControlVector((1, 3), 0 * vectors(2)))
    np.testing.assert_array_equal(logits_anew(tiny_llama), before)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda vectors: vectors.astype(np.float64), id="float64"),
        pytest.param(np.asfortranarray, id="Fortran order"),
        pytest.param(lambda vectors: np.repeat(vectors, 2, axis=1)[:, ::2], id="with gaps"),
    ],
)
def test_the_arrays_layout_does_not_matter(
    tiny_llama: Llama, other: Callable[[NDArray[np.float32]], NDArray[np.floating]]
) -> None:
    control = direction(1, 3)
    steer(tiny_llama, control)
    expected = logits_anew(tiny_llama)
    steer(tiny_llama, None)
    steer(tiny_llama, ControlVector(control.layers, other(control.vectors)))
    np.testing.assert_array_equal(logits_anew(tiny_llama), expected)


@pytest.mark.parametrize(
    ("control", "message"),
    [
        (direction(0), r"Layers \[0\] cannot be steered: give increasing ones, 1 to 3"),
        (direction(0, 1), r"Layers \[0, 1\] cannot be steered"),
        (direction(-1), r"Layers \[-1\] cannot be steered"),
        (direction(N_LAYER), r"Layers \[4\] cannot be steered"),
        (direction(2, N_LAYER), r"Layers \[2, 4\] cannot be steered"),
        (ControlVector((), np.empty((0, N_EMBD), np.float32)), r"Layers \[\] cannot be steered"),
        (
            ControlVector((1,), np.zeros(N_EMBD, np.float32)),
            r"shape \(64,\) does not fit this model: expected \(1, 64\)",
        ),
        (ControlVector((1, 2), np.zeros((1, N_EMBD), np.float32)), r"expected \(2, 64\)"),
        (ControlVector((1,), np.zeros((1, 63), np.float32)), r"shape \(1, 63\)"),
        (ControlVector((1,), np.zeros((1, 3 * N_EMBD), np.float32)), r"shape \(1, 192\)"),
    ],
)
def test_a_vector_that_does_not_fit_is_refused_and_changes_nothing(
    tiny_llama: Llama, control: ControlVector, message: str
) -> None:
    steer(tiny_llama, direction(2))
    before = logits_anew(tiny_llama)
    with pytest.raises(ModelError, match=message):
        steer(tiny_llama, control)
    np.testing.assert_array_equal(logits_anew(tiny_llama), before)


def test_a_refusal_of_llama_cpp_is_not_swallowed(
    monkeypatch: pytest.MonkeyPatch, tiny_llama: Llama
) -> None:
    monkeypatch.setattr(llama_cpp, "llama_set_adapter_cvec", lambda *_: -1)
    for control in (direction(2), None):
        with pytest.raises(ModelError, match=r"refused the control vector \(status -1\)"):
            steer(tiny_llama, control)
