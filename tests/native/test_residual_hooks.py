"""The eval callback, on a context of its own: which rows of which layers it reads.

What llama.cpp computes in no model here is in native/tests.
"""

from __future__ import annotations

import ctypes
import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import llama_cpp
import numpy as np
import pytest
from llama_cpp._ggml import libggml
from numpy.typing import NDArray

from models import TinyModel
from steerx_edge import _native
from steerx_edge.llamacpp.control_vector import ControlVector, set_control_vector
from tests.native.conftest import (
    ALL,
    ALL_LAYERS,
    F32_MAX,
    N_EMBD,
    N_LAYER,
    NONE,
    TOKENS,
    Context,
    Rows,
    f32,
    find_functions,
    i32,
)


@pytest.fixture(scope="module")
def expected(tiny_f32: TinyModel) -> NDArray[np.float64]:
    """(layer, row, n_embd)."""
    return tiny_f32.forward(TOKENS).residual


def assert_rows_close(actual: Rows, expected: NDArray[np.floating]) -> None:
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=F32_MAX)


# What is read


@pytest.mark.parametrize("layers", [ALL_LAYERS, (0,), (3,), (1, 2)])
def test_only_the_layers_asked_for(
    context: Context, expected: NDArray[np.float64], layers: tuple[int, ...]
) -> None:
    assert_rows_close(context.read(layers=layers), expected[list(layers)])


@pytest.mark.parametrize("rows", [[11], [0], [1, 4, 5, 10]])
def test_the_last_layer_has_output_rows_only(
    context: Context, expected: NDArray[np.float64], rows: list[int]
) -> None:
    outputs = [row in rows for row in range(len(TOKENS))]
    picks = [(row, slot, 1.0) for slot, row in enumerate(rows)]
    actual = context.read(n_slots=len(rows), picks=picks, outputs=outputs)
    assert_rows_close(actual, expected[:, rows])


@pytest.mark.parametrize(
    ("rows", "stop"), [(range(12), True), ([11], False), ([1, 4, 5, 10], True)]
)
def test_output_rows_of_the_last_norm(
    context: Context, tiny_f32: TinyModel, rows: Sequence[int], stop: bool
) -> None:
    """Together with those of the last block, in another order."""
    outputs = [row in rows for row in range(len(TOKENS))]
    picks = [(row, slot, 1.0) for slot, row in enumerate(reversed(rows))]
    block, norm = context.read(
        layers=(3, N_LAYER), n_slots=len(rows), picks=picks, outputs=outputs, stop=stop
    )
    residual = tiny_f32.forward(TOKENS).residual[3, list(reversed(rows))]
    assert_rows_close(block, residual)
    assert_rows_close(norm, tiny_f32.network.norm("output_norm", residual))


def test_layers_below_the_last_are_read_without_any_output(
    context: Context, expected: NDArray[np.float64]
) -> None:
    assert_rows_close(context.read(layers=(0, 1, 2), outputs=NONE), expected[:3])


def test_slots_sum_weighted_rows(context: Context, expected: NDArray[np.float64]) -> None:
    weights = np.zeros((3, len(TOKENS)))
    weights[0, 1:5] = 0.25
    weights[2, [0, 5, 11]] = [1.0, -2.0, 0.5]
    picks = [(int(row), int(slot), float(weights[slot, row])) for slot, row in np.argwhere(weights)]
    picks.reverse()  # in any order
    actual = np.full((4, 3, N_EMBD), 10.0, np.float32)  # is added to
    context.arm(actual, picks=picks)
    context.decode()
    context.hooks.finish()
    assert_rows_close(actual, 10 + np.einsum("sr,lre->lse", weights, expected))


def test_what_a_control_vector_adds_is_read(
    context: Context, expected: NDArray[np.float64]
) -> None:
    plain = context.read()
    vector = np.linspace(-1, 1, N_EMBD, dtype=np.float32)
    set_control_vector(context.address, context.model, ControlVector((2,), vector[None]))
    steered = context.read()
    np.testing.assert_array_equal(steered[:2], plain[:2])
    np.testing.assert_array_equal(steered[2], plain[2] + vector)
    assert np.abs(steered[3] - expected[3]).max() > 0.1


# What reading does to the pass


def test_reading_changes_no_logit(context: Context, tiny_f32: TinyModel) -> None:
    context.decode()
    idle = context.logits(11)
    context.read()
    np.testing.assert_array_equal(context.logits(11), idle)
    np.testing.assert_allclose(idle, tiny_f32.forward(TOKENS).logits[11], rtol=0, atol=F32_MAX)


@pytest.mark.parametrize("layers", [(0,), (0, 2), (3,)])
def test_a_stopped_pass_reads_the_same_rows_bit_for_bit(
    context: Context, layers: tuple[int, ...]
) -> None:
    whole = context.read(layers=layers)
    np.testing.assert_array_equal(context.read(layers=layers, stop=True), whole)


def test_a_stopped_pass_computes_no_logits(context: Context, tiny_f32: TinyModel) -> None:
    context.decode(tokens=TOKENS[::-1])  # so that the buffers hold other logits
    context.read(layers=(0, 1), stop=True)
    logits = tiny_f32.forward(TOKENS).logits[11]
    assert np.abs(context.logits(11) - logits).max() > 1
    context.decode()
    np.testing.assert_allclose(context.logits(11), logits, rtol=0, atol=F32_MAX)


@pytest.mark.parametrize("stop", [True, False])
def test_hook_points_of_one_block_are_read_together(context: Context, stop: bool) -> None:
    """What is changed above all that is read does not matter, nor that it never comes by."""
    hook_points = ("attn_out", "l_out", "ffn_out")
    apart = [context.read(layers=(2,), hook_point=hook_point) for hook_point in hook_points]
    together = [np.zeros_like(values) for values in apart]
    every = np.arange(12, dtype=np.int32)
    reads = [
        _native.Read(hook_point, [2], every, every, np.ones(12, np.float32), values)
        for hook_point, values in zip(hook_points, together, strict=True)
    ]
    above = _native.make_add([3], np.ones((1, N_EMBD), np.float32))
    writes = [_native.Write(above, [3], every.tolist())]
    context.hooks.arm(i32(*TOKENS), every, writes, reads, stop)
    context.decode()
    context.hooks.finish()
    for values, expected in zip(together, apart, strict=True):
        assert values.any()
        np.testing.assert_array_equal(values, expected)


def test_the_input_of_block_0(context: Context, tiny_f32: TinyModel) -> None:
    embedding = tiny_f32.network.embed(np.array(TOKENS))
    values = context.read(layers=(-1, 0))
    np.testing.assert_allclose(values[0], embedding, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(values[1], context.read(layers=(0,))[0])
    picks = [(7, 1, 2.0), (3, 0, -1.0)]
    pooled = context.read(layers=(-1,), picks=picks, n_slots=2)
    np.testing.assert_array_equal(pooled[0], [-values[0, 3], 2 * values[0, 7]])


def test_the_hook_is_idle_after_a_reading(context: Context) -> None:
    values = context.read()
    kept = values.copy()
    context.decode(tokens=TOKENS[::-1])
    np.testing.assert_array_equal(values, kept)


# Plans that do not fit


VALID_READ: dict[str, Any] = {
    "hook_point": "l_out",
    "layers": [1, 3],
    "rows": i32(0, 1),
    "slots": i32(0, 1),
    "weights": f32(1, 1),
    "values": np.zeros((2, 2, N_EMBD), np.float32),
}
ADD_ONE = _native.make_add([2], np.ones((1, N_EMBD), np.float32))
WRITE = _native.Write(ADD_ONE, [2], [0, 1])
VALID_WRITE: dict[str, Any] = {"intervention": ADD_ONE, "layers": [2], "rows": [0, 1]}


def valid_plan(**change: Any) -> dict[str, Any]:
    return {
        "tokens": i32(5, 6),
        "output_row": i32(0, 1),
        "writes": [WRITE],
        "reads": [_native.Read(**VALID_READ)],
        "stop_after_last_layer": False,
    } | change


def assert_refused(context: Context, plan: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        context.hooks.arm(**plan)
    context.hooks.arm(**valid_plan())  # the refused one left nothing behind
    context.hooks.cancel()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": [-2, 3]}, "in -1..4, got -2"),
        ({"layers": [1, 5]}, "in -1..4, got 5"),
        ({"layers": [1, 1]}, "must increase .* got 1"),
        ({"layers": [], "values": np.zeros((0, 2, N_EMBD), np.float32)}, "at least one layer"),
        ({"layers": [1]}, "values, layer axis: expected 1 elements, got 2"),
        ({"rows": i32(0, 2)}, "row 2 is not in the batch of 2 tokens"),
        ({"rows": i32(-1, 0)}, "row -1 is not in the batch"),
        ({"slots": i32(0, 2)}, "slot 2 is not among the 2"),
        ({"slots": i32(-1, 0)}, "slot -1 is not among the 2"),
        ({"slots": i32(0)}, "slots: expected 2 elements, got 1"),
        ({"weights": f32(1, 1, 1)}, "weights: expected 2 elements, got 3"),
        ({"values": np.zeros((2, 2, 63), np.float32)}, "n_embd axis: expected 64 .* got 63"),
    ],
)
def test_a_reading_that_does_not_fit_is_refused(
    context: Context, change: dict[str, Any], message: str
) -> None:
    assert_refused(context, valid_plan(reads=[_native.Read(**VALID_READ | change)]), message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": []}, "at least one layer"),
        ({"layers": [-1]}, r"in 0\.\.3, got -1"),
        ({"layers": [4]}, r"in 0\.\.3, got 4"),
        ({"layers": [2, 1]}, "must increase .* got 1"),
        ({"rows": [2]}, "row 2 is not in the batch of 2 tokens"),
        ({"rows": [-1]}, "row -1 is not in the batch"),
        (
            {"intervention": _native.make_add([2], np.ones((1, 32), np.float32))},
            "on rows of 32 does not fit a model with rows of 64",
        ),
    ],
)
def test_a_change_that_does_not_fit_is_refused(
    context: Context, change: dict[str, Any], message: str
) -> None:
    assert_refused(context, valid_plan(writes=[_native.Write(**VALID_WRITE | change)]), message)


@pytest.mark.parametrize("output_row", [i32(0), i32(0, 1, 2)])
def test_outputs_of_another_number_than_tokens_are_refused(
    context: Context, output_row: NDArray[np.int32]
) -> None:
    assert_refused(context, valid_plan(output_row=output_row), "one element for each token")


@pytest.mark.parametrize("change", [{"reads": [None]}, {"writes": [None]}, {"writes": [ADD_ONE]}])
def test_other_things_than_reads_and_writes_are_refused(
    context: Context, change: dict[str, Any]
) -> None:
    with pytest.raises(TypeError):
        context.hooks.arm(**valid_plan(**change))


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(np.zeros((2, 2, N_EMBD)), id="float64"),
        pytest.param(np.zeros((2, 4, N_EMBD), np.float32)[:, ::2], id="every other slot"),
        pytest.param(np.zeros((2, 2, N_EMBD), np.float32, order="F"), id="Fortran order"),
        pytest.param(np.zeros((4, N_EMBD), np.float32), id="two axes"),
        pytest.param([[[0.0] * N_EMBD] * 2] * 2, id="list"),
        pytest.param(
            np.frombuffer(bytes(4 * 4 * N_EMBD), np.float32).reshape(2, 2, N_EMBD), id="read-only"
        ),
    ],
)
def test_values_that_would_be_copied_are_refused(values: Any) -> None:
    with pytest.raises(TypeError):
        _native.Read(**VALID_READ | {"values": values})


@pytest.mark.parametrize(("n_layer", "n_embd"), [(0, 64), (4, 0), (-1, 64)])
def test_a_model_without_layers_or_width_is_refused(n_layer: int, n_embd: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        _native.ResidualHooks(find_functions(), n_layer, n_embd)


# What can go wrong in a pass


def test_it_follows_one_pass_at_a_time(context: Context) -> None:
    for _ in range(2):
        context.hooks.arm(**valid_plan())
        with pytest.raises(RuntimeError, match="already at work"):
            context.hooks.arm(**valid_plan())
        context.hooks.cancel()


@pytest.mark.parametrize(
    ("plan", "name"),
    [
        ({"layers": (1,)}, "l_out-1"),
        ({"layers": (N_LAYER,)}, "result_norm"),
        ({"layers": (3,), "hook_point": "nowhere"}, "nowhere-3"),
        ({"layers": (0,), "writes": [WRITE]}, "l_out-0"),
    ],
)
def test_what_never_came_by_is_named(context: Context, plan: dict[str, Any], name: str) -> None:
    context.arm(np.zeros((1, 12, N_EMBD), np.float32), **plan)
    with pytest.raises(RuntimeError, match=f"no tensor {name}$"):
        context.hooks.finish()
    context.hooks.finish()  # nothing is being read any more


def test_a_changed_layer_that_never_came_by_is_named(context: Context) -> None:
    context.hooks.arm(**valid_plan(reads=[]))
    with pytest.raises(RuntimeError, match=r"no tensor l_out-2$"):
        context.hooks.finish()


def test_what_the_graph_does_not_have_is_named(open_context: Callable[..., Context]) -> None:
    context = open_context(hooks=_native.ResidualHooks(find_functions(), 9, N_EMBD))
    plans: list[tuple[dict[str, Any], str]] = [
        ({"layers": (1, 7)}, "l_out-7"),
        ({"layers": (1,), "hook_point": "nowhere"}, "nowhere-1"),
    ]
    for plan, name in plans:
        context.arm(np.zeros((len(plan["layers"]), 12, N_EMBD), np.float32), **plan)
        context.decode()
        with pytest.raises(RuntimeError, match=f"no tensor {name}$"):
            context.hooks.finish()


@pytest.mark.parametrize(("layer", "name"), [(3, "l_out-3"), (N_LAYER, "result_norm")])
def test_a_row_without_output_is_not_read_from_the_last_layer(
    context: Context, layer: int, name: str
) -> None:
    message = f"row 11 of {name} is not computed: .* only output"
    context.refuse(message, layers=(layer,), outputs=[True] * 11 + [False])


def test_other_outputs_than_planned_are_refused(context: Context) -> None:
    context.refuse(
        "l_out-3 has 5 rows where 12 were expected",
        layers=(3,),
        picks=[(0, 0, 1.0)],
        outputs=[True] * 3 + [False] * 9,
        decoded=[True] * 5 + [False] * 7,
    )


# The order of the tokens


def swapped(i: int, j: int) -> list[int]:
    tokens = list(TOKENS)
    tokens[i], tokens[j] = tokens[j], tokens[i]
    return tokens


@pytest.mark.parametrize(
    ("order", "stop"), [(TOKENS[::-1], True), (swapped(0, 1), False), (swapped(10, 11), True)]
)
def test_tokens_in_another_order_are_refused(
    context: Context, order: list[int], stop: bool
) -> None:
    message = "the tokens of the batch in another order"
    context.refuse(message, layers=(1,), tokens=order, stop=stop)


def test_changes_are_not_made_to_tokens_in_another_order(context: Context) -> None:
    context.decode()
    plain = context.logits(11)
    write = _native.Write(ADD_ONE, [2], [3])
    context.hooks.arm(i32(*TOKENS[::-1]), i32(*range(12)), [write], [], False)
    context.decode()
    with pytest.raises(RuntimeError, match="another order"):
        context.hooks.finish()
    context.decode()
    np.testing.assert_array_equal(context.logits(11), plain)


def test_a_failed_pass_runs_on_as_if_there_were_no_hook(context: Context) -> None:
    context.decode()
    idle = context.logits(11)
    values = np.zeros((1, 12, N_EMBD), np.float32)
    context.arm(values, layers=(1,), tokens=TOKENS[::-1], stop=True)
    context.decode()
    np.testing.assert_array_equal(context.logits(11), idle)
    with pytest.raises(RuntimeError, match="another order"):
        context.hooks.finish()


def test_more_or_fewer_tokens_than_planned_are_refused(context: Context) -> None:
    for tokens in (TOKENS[1:], [*TOKENS, 5]):
        n = len(tokens)
        values = np.zeros((1, n, N_EMBD), np.float32)
        context.arm(values, layers=(1,), tokens=tokens, outputs=[True] * n)
        context.decode()
        with pytest.raises(RuntimeError, match=f"split: llama.cpp computes 12 of {n} tokens"):
            context.hooks.finish()
        assert not values.any()


@pytest.mark.parametrize(("layer", "outputs"), [(0, ALL), (1, NONE), (3, [True] * 8 + [False] * 4)])
def test_a_batch_split_in_two_is_refused(
    open_context: Callable[..., Context], layer: int, outputs: list[bool]
) -> None:
    open_context(n_ubatch=8).refuse(
        r"was split: llama.cpp computes 8 of 12 tokens",
        layers=(layer,),
        picks=[(0, 0, 1.0)],
        outputs=outputs,
    )


@pytest.mark.parametrize(
    ("sequences", "message"),
    [([0] * 8 + [1] * 4, "computes 8 of 12 tokens"), ([0, 1] * 6, "another order")],
)
def test_sequences_that_llama_cpp_rearranges_are_refused(
    open_context: Callable[..., Context], sequences: list[int], message: str
) -> None:
    """With a split KV cache it takes equally many tokens of each sequence at a time."""
    split = open_context(n_seq_max=2, kv_unified=False)
    split.refuse(message, layers=(1,), sequences=sequences)
    unified, values = open_context(n_seq_max=2), np.zeros((1, 12, N_EMBD), np.float32)
    unified.arm(values, layers=(1,))
    unified.decode(sequences=sequences)
    unified.hooks.finish()
    assert values.any()


def test_a_failed_reading_spoils_nothing(context: Context, expected: NDArray[np.float64]) -> None:
    context.refuse("another order", layers=(1,), tokens=TOKENS[::-1])
    assert_rows_close(context.read(), expected)


def test_a_cancelled_reading_writes_nothing(context: Context) -> None:
    values = np.zeros((4, 12, N_EMBD), np.float32)
    context.arm(values)
    context.hooks.cancel()
    context.decode()
    assert not values.any()


@pytest.mark.parametrize("end", ["finish", "cancel"])
def test_values_live_until_the_reading_ends(context: Context, end: str) -> None:
    values = np.zeros((4, 12, N_EMBD), np.float32)
    alive = weakref.ref(values)
    context.arm(values)
    context.decode()
    del values
    gc.collect()
    assert alive() is not None
    getattr(context.hooks, end)()
    gc.collect()
    assert alive() is None


# Finding llama.cpp's functions


def handle_without_functions() -> int:
    """A library that is loaded and has nothing to do with llama.cpp."""
    return int(ctypes.CDLL(_native.__file__)._handle)


def test_a_missing_function_is_named() -> None:
    with pytest.raises(RuntimeError, match="does not export ggml_get_name"):
        _native.LlamaApi([handle_without_functions()])
    with pytest.raises(RuntimeError, match="does not export ggml_get_name"):
        _native.LlamaApi([])
    with pytest.raises(RuntimeError, match="does not export llama_get_logits_ith"):
        _native.LlamaApi([libggml._handle])


def test_functions_may_come_from_several_libraries(
    open_context: Callable[..., Context], expected: NDArray[np.float64]
) -> None:
    libraries = [handle_without_functions(), libggml._handle, llama_cpp.llama_cpp._lib._handle]
    hooks = _native.ResidualHooks(_native.LlamaApi(libraries), N_LAYER, N_EMBD)
    assert_rows_close(open_context(hooks=hooks).read(), expected)
