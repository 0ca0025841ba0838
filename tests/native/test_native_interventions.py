"""Each intervention alone, on the rows of a pass: exact identities, and NumPy's own computation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from steerx_edge import _native
from steerx_edge.llamacpp.interventions import Add, Clamp, Gate, Intervention, Rotate, SetComponent
from tests.native.conftest import N_EMBD, TOKENS, Context, Rows
from tests.support.steered_reference import angle_to, changed_rows, unit

LAYERS = (0, 2)
EVERY_ROW = tuple(range(len(TOKENS)))
ROUNDING = 2e-6  # of float32 rows whose elements are below 10


def vectors(*, seed: int = 3, n_layers: int = len(LAYERS)) -> Rows:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n_layers, N_EMBD)).astype(np.float32)


def directions(*, seed: int = 3, n_layers: int = len(LAYERS)) -> Rows:
    return unit(vectors(seed=seed, n_layers=n_layers)).astype(np.float32)


def apply(
    context: Context, *changes: Intervention, rows: Sequence[int] = EVERY_ROW
) -> tuple[Rows, Rows]:
    """All rows of all layers, before and after: each (layer, row, n_embd)."""
    return context.read(), context.read(
        writes=[_native.Write(each.native(), each.layers, rows) for each in changes]
    )


EXAMPLES: dict[str, Intervention] = {
    "add": Add(LAYERS, vectors()),
    "project out": SetComponent(LAYERS, directions(), [0, 0]),
    "set component": SetComponent(LAYERS, directions(), [2.5, -4]),
    "rotate": Rotate(LAYERS, directions(), 0.5),
    "rotate all the way": Rotate(LAYERS, directions(), 4.0),
    "gated add": Gate(Add(LAYERS, vectors()), directions(seed=4), 0.0),
    "gated rotation": Gate(Rotate(LAYERS, directions(), 0.5), directions(seed=4), 0.05),
    "clamped add": Clamp(Add(LAYERS, vectors()), 0.25),
    "clamped component": Clamp(SetComponent(LAYERS, directions(), [0, 0]), 0.1),
    "clamped gate": Clamp(Gate(Add(LAYERS, vectors()), directions(seed=4), 0.0), 0.2),
    "gated clamp": Gate(Clamp(Add(LAYERS, vectors()), 0.2), directions(seed=4), 0.0),
}


# Each with all rows, and with one of three other choices.
CHOICES = [EVERY_ROW, (5,), (0, 11), (3, 4, 9)]
CASES = [
    pytest.param(change, rows, id=f"{name} {len(rows)}")
    for i, (name, change) in enumerate(EXAMPLES.items())
    for rows in (EVERY_ROW, CHOICES[1 + i % 3])
]


@pytest.mark.parametrize(("change", "rows"), CASES)
def test_the_rows_asked_for_change_as_numpy_says(
    context: Context, change: Intervention, rows: tuple[int, ...]
) -> None:
    before, after = apply(context, change, rows=rows)
    others = sorted(set(EVERY_ROW) - set(rows))
    np.testing.assert_array_equal(after[0, others], before[0, others])
    for layer in (0, 2):  # block 2's own rows: those that block 0's change has led to
        unchanged = before if layer == 0 else apply(context, first_layer_of(change), rows=rows)[1]
        expected = changed_rows(change, layer, unchanged[layer, list(rows)].astype(np.float64))
        np.testing.assert_allclose(after[layer, list(rows)], expected, rtol=0, atol=ROUNDING)
        np.testing.assert_array_equal(after[layer, others], unchanged[layer, others])
    np.testing.assert_array_equal(after[:, : rows[0]], before[:, : rows[0]])
    if rows == EVERY_ROW:
        moved = np.abs(after[0] - before[0]).max(axis=1)
        assert moved.max() > 0.01
        is_gated = isinstance(change, Gate) or isinstance(getattr(change, "inner", None), Gate)
        assert (moved.min() == 0) == is_gated  # closed for some rows, open for others


def first_layer_of(change: Intervention) -> Intervention:
    """The same at block 0 only."""
    match change:
        case Add():
            return Add((0,), change.vectors[:1])
        case SetComponent():
            return SetComponent((0,), change.directions[:1], change.values[:1])
        case Rotate():
            return Rotate((0,), change.directions[:1], change.angle)
        case Gate():
            return Gate(first_layer_of(change.inner), change.conditions[:1], change.threshold)
        case Clamp():
            return Clamp(first_layer_of(change.inner), change.share)


@pytest.mark.parametrize(
    ("first_name", "second_name"),
    [("add", "project out"), ("rotate", "clamped add"), ("set component", "gated rotation")],
)
def test_several_are_applied_in_the_order_given(
    context: Context, first_name: str, second_name: str
) -> None:
    first, second = EXAMPLES[first_name], EXAMPLES[second_name]
    before, after = apply(context, first, second)
    _, reverse = apply(context, second, first)

    def composed(*changes: Intervention) -> NDArray[np.float64]:
        rows: NDArray[np.float64] = before[0]
        for change in changes:
            rows = changed_rows(change, 0, rows)
        return rows

    np.testing.assert_allclose(after[0], composed(first, second), rtol=0, atol=2 * ROUNDING)
    np.testing.assert_allclose(reverse[0], composed(second, first), rtol=0, atol=2 * ROUNDING)
    assert np.abs(after[0] - reverse[0]).max() > 1e-3


# Add


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_add_adds_its_vector_to_its_layer_only(context: Context, layer: int) -> None:
    change = Add((layer,), vectors(n_layers=1))
    before, after = apply(context, change)
    np.testing.assert_array_equal(after[:layer], before[:layer])
    np.testing.assert_array_equal(after[layer], before[layer] + change.vectors[0])
    for upper in range(layer + 1, 4):
        assert np.abs(after[upper] - before[upper]).max(axis=1).min() > 0.1


# Set component


def test_projecting_out_leaves_nothing_of_the_direction(context: Context) -> None:
    change = SetComponent(LAYERS, directions(), [0, 0])
    before, after = apply(context, change)
    for place, layer in enumerate(LAYERS):
        u = unit(change.directions[place])
        norms = np.linalg.norm(after[layer], axis=1)
        assert np.abs(before[layer] @ u).max() > 0.5
        assert (np.abs(after[layer] @ u) / norms).max() < 1e-6


@pytest.mark.parametrize("values", [[0.5, 3], [-2, 40]])
def test_the_component_has_the_value_asked_for(context: Context, values: list[float]) -> None:
    change = SetComponent(LAYERS, directions(), values)
    _, after = apply(context, change)
    for place, layer in enumerate(LAYERS):
        component = after[layer] @ unit(change.directions[place])
        np.testing.assert_allclose(component, values[place], rtol=0, atol=1e-5)


def test_almost_unit_directions_project_out_as_well(context: Context) -> None:
    change = SetComponent(LAYERS, directions() * np.float32(1.0008), [0, 0])
    _, after = apply(context, change)
    assert np.abs(after[0] @ unit(change.directions[0])).max() < 1e-5


# Rotate


@pytest.mark.parametrize("angle", [0.01, 1.0])
def test_rotation_keeps_lengths_and_turns_by_the_angle(context: Context, angle: float) -> None:
    change = Rotate(LAYERS, directions(), angle)
    before, after = apply(context, change)
    u = change.directions[0]
    norms = np.linalg.norm(before[0], axis=1)
    np.testing.assert_allclose(np.linalg.norm(after[0], axis=1), norms, rtol=1e-6)
    assert angle_to(before[0], u).min() > 1.0
    np.testing.assert_allclose(angle_to(after[0], u), angle_to(before[0], u) - angle, atol=1e-5)
    turned = [angle_to(row[None], old)[0] for row, old in zip(after[0], before[0], strict=True)]
    np.testing.assert_allclose(turned, angle, atol=1e-5)  # within the plane of both


@pytest.mark.parametrize("angle", [3.2, float("inf")])
def test_rotation_never_goes_past_the_direction(context: Context, angle: float) -> None:
    change = Rotate(LAYERS, directions(), angle)
    before, after = apply(context, change)
    norms = np.linalg.norm(before[0], axis=1)
    expected = norms[:, None] * change.directions[0]
    np.testing.assert_allclose(after[0], expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("along", [3.0, -3.0, 0.0])
def test_rotation_of_rows_on_the_axis(context: Context, along: float) -> None:
    """Of a row opposite to the direction only rounding says in which plane it turns."""
    row, u = 5, directions(n_layers=1)
    target = along * u[0]
    to_axis = Add((0,), (target - context.read(layers=(0,))[0, row])[None])
    _, start = apply(context, to_axis, rows=[row])
    _, after = apply(context, to_axis, Rotate((0,), u, 0.7), rows=[row])
    np.testing.assert_allclose(start[0, row], target, rtol=0, atol=ROUNDING)
    start_length, length = (np.linalg.norm(rows[0, row]) for rows in (start, after))
    np.testing.assert_allclose(length, start_length, rtol=1e-6)
    if along > 0:
        np.testing.assert_allclose(after[0, row], target, rtol=0, atol=ROUNDING)
    elif along < 0:
        turned = np.pi - angle_to(after[0, [row]].astype(np.float64), u[0])[0]
        assert min(abs(turned), abs(turned - 0.7)) < 1e-5


# Gate


def test_a_gate_that_is_always_open_is_none(context: Context) -> None:
    inner = Add(LAYERS, vectors())
    _, gated = apply(context, Gate(inner, directions(seed=4), -1.01))
    _, ungated = apply(context, inner)
    np.testing.assert_array_equal(gated, ungated)


@pytest.mark.parametrize("threshold", [-0.1, 0.1])
def test_a_gate_opens_above_its_threshold(context: Context, threshold: float) -> None:
    inner = Add((0,), vectors(n_layers=1))
    condition = directions(seed=4, n_layers=1)
    before, after = apply(context, Gate(inner, condition, threshold))
    is_open = np.cos(angle_to(before[0], condition[0])) > threshold
    assert 0 < is_open.sum() < len(TOKENS)
    np.testing.assert_array_equal(after[0, ~is_open], before[0, ~is_open])
    np.testing.assert_array_equal(after[0, is_open], before[0, is_open] + inner.vectors[0])


def test_a_gate_asks_for_the_row_as_it_is_by_then(context: Context) -> None:
    """What came before may open it."""
    row, condition = 4, directions(seed=4, n_layers=1)
    added = Add((0,), vectors(n_layers=1))
    gate = Gate(added, condition, 0.9)
    opener = Add((0,), 200 * condition)
    before, closed = apply(context, gate, rows=[row])
    np.testing.assert_array_equal(closed, before)
    _, opened = apply(context, opener, gate, rows=[row])
    expected = before[0, row] + opener.vectors[0] + added.vectors[0]
    np.testing.assert_allclose(opened[0, row], expected, rtol=0, atol=1e-4)


# Clamp


@pytest.mark.parametrize("share", [1e6, float("inf")])
def test_a_clamp_that_is_never_reached_is_none(context: Context, share: float) -> None:
    inner = Add(LAYERS, vectors())
    _, clamped = apply(context, Clamp(inner, share))
    _, unclamped = apply(context, inner)
    np.testing.assert_array_equal(clamped, unclamped)


@pytest.mark.parametrize("share", [0.05, 2.0])
def test_a_clamped_change_has_its_share_and_its_direction(context: Context, share: float) -> None:
    inner = Add((0,), 100 * vectors(n_layers=1))
    before, after = apply(context, Clamp(inner, share))
    change = after[0].astype(float) - before[0]
    norms = np.linalg.norm(before[0], axis=1)
    np.testing.assert_allclose(np.linalg.norm(change, axis=1) / norms, share, rtol=1e-5)
    np.testing.assert_allclose(angle_to(change, inner.vectors[0]), 0, atol=1e-4)


# What cannot be made


ONE = np.ones((1, 4), np.float32)
NARROW = _native.make_add([0], np.ones((1, 3), np.float32))


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (_native.make_add, ([0, 1], ONE), "layer axis: expected 2 elements, got 1"),
        (_native.make_add, ([1, 1], np.ones((2, 4), np.float32)), "must strictly increase"),
        (_native.make_add, ([2, 1], np.ones((2, 4), np.float32)), "must strictly increase"),
        (_native.make_set_component, ([0], ONE, [0.0, 1.0]), "one value for each layer"),
        (_native.make_rotate, ([0], ONE, -0.1), "an angle must be 0 or more"),
        (_native.make_rotate, ([0], ONE, float("nan")), "an angle must be 0 or more"),
        (_native.make_clamp, (NARROW, -0.1), "share must be 0 or more"),
        (_native.make_clamp, (NARROW, float("nan")), "share must be 0 or more"),
        (_native.make_gate, (NARROW, [0], ONE, 0.0), "conditions must be as wide"),
    ],
)
def test_what_makes_no_sense_is_refused(
    make: Any, arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(*arguments)


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (_native.make_clamp, (None, 0.1)),
        (_native.make_gate, (None, [0], ONE, 0.1)),
        (_native.Write, (None, [0], [0])),
        (_native.make_add, ([0], np.ones(4, np.float32))),
        (_native.Intervention, ()),
    ],
)
def test_what_is_no_intervention_is_refused(make: Any, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        make(*arguments)


def test_an_intervention_keeps_what_it_is_made_of(context: Context) -> None:
    matrix = vectors()
    write = _native.Write(_native.make_clamp(_native.make_add(LAYERS, matrix), 9.0), LAYERS, [3])
    expected = context.read(writes=[write])
    matrix[:] = 0
    del matrix
    np.testing.assert_array_equal(context.read(writes=[write]), expected)


def test_rows_without_output_are_left_out_of_the_last_layer(context: Context) -> None:
    outputs = [False] * 8 + [True] * 4
    picks = [(row, row, 1.0) for row in range(8, 12)]
    change = Add((3,), vectors(n_layers=1))
    plans: dict[str, Any] = {"outputs": outputs, "picks": picks, "layers": (3,)}
    before = context.read(**plans)
    after = context.read(writes=[_native.Write(change.native(), (3,), EVERY_ROW)], **plans)
    np.testing.assert_array_equal(after[0, 8:], before[0, 8:] + change.vectors[0])


def test_changes_reach_the_logits(context: Context) -> None:
    context.decode()
    plain = context.logits(11)
    write = _native.Write(Add((3,), vectors(n_layers=1)).native(), (3,), [11])
    context.read(writes=[write])
    assert np.abs(context.logits(11) - plain).max() > 0.1
    context.decode()
    np.testing.assert_array_equal(context.logits(11), plain)
