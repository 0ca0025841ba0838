"""The request gate: its regression, and its held-out decisions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from steerx_edge.steering.gate import Gate, held_out

N_EMBD = 12
Rows = NDArray[np.float32]


def some_rows(n_own: int = 9, n_neutral: int = 5, apart: float = 1.0) -> tuple[Rows, Rows]:
    """Rows of two kinds, of any length, whose means lie apart."""
    rng = np.random.default_rng(n_own)
    rows = rng.normal(size=(n_own + n_neutral, N_EMBD)).astype(np.float32)
    rows[:n_own, 0] += 2 * apart
    rows[:, 1] += 3
    return rows[:n_own], rows[n_own:]


def units(rows: NDArray[Any]) -> NDArray[np.float64]:
    rows = rows.astype(np.float64)
    return np.asarray(rows / np.linalg.norm(rows, axis=1)[:, None])


@pytest.mark.parametrize("counts", [(9, 5), (3, 40), (1, 1)], ids=str)
def test_it_is_a_weighted_ridge_regression(counts: tuple[int, int]) -> None:
    own, neutral = some_rows(*counts)
    gate = Gate.fit(own, neutral)

    rows = units(np.concatenate([own, neutral]))
    weights = np.array([1 / (2 * counts[0])] * counts[0] + [1 / (2 * counts[1])] * counts[1])
    target = np.array([1.0] * counts[0] + [0.0] * counts[1])
    # The mean of the targets, and of the rows, by these weights.
    middle, mean = 0.5, (rows * weights[:, None]).sum(axis=0)
    squares = (weights[:, None] * (rows - mean)).T @ (rows - mean)
    ridge = 0.1 * np.trace(squares) / sum(counts)
    moment = (rows - mean).T @ (weights * (target - middle))
    direction = np.linalg.inv(squares + ridge * np.eye(N_EMBD)) @ moment

    assert gate.direction.dtype == np.float32
    np.testing.assert_allclose(gate.direction, direction, rtol=1e-5, atol=1e-5)
    tried = np.random.default_rng(1).normal(size=(200, N_EMBD)).astype(np.float32)
    tried[:, 1] += 3
    predicted = middle + (units(tried) - mean) @ direction
    is_open = gate.is_open(tried)
    assert is_open.dtype == np.bool_
    assert 10 < is_open.sum() < 190
    np.testing.assert_array_equal(is_open, predicted >= 0.6)


def test_more_neutral_rows_of_the_same_kind_do_not_close_it() -> None:
    """The threshold stays a tenth above what is half-way between the means."""
    own, neutral = some_rows(6, 4)
    for times in (1, 50):
        gate = Gate.fit(own, np.tile(neutral, (times, 1)))
        half_way = (units(own).mean(axis=0) + units(neutral).mean(axis=0)) / 2
        assert gate.threshold == pytest.approx(half_way @ gate.direction + 0.1, abs=1e-5)


def test_the_length_of_rows_does_not_matter() -> None:
    own, neutral = some_rows()
    rng = np.random.default_rng(0)
    longer = [rows * rng.uniform(0.1, 90, (len(rows), 1)) for rows in (own, neutral)]
    np.testing.assert_allclose(
        Gate.fit(*longer).direction, Gate.fit(own, neutral).direction, rtol=1e-4, atol=1e-5
    )
    for alike, given in zip(held_out(*longer), held_out(own, neutral), strict=True):
        np.testing.assert_array_equal(alike, given)


def test_half_precision_rows_give_what_double_precision_rows_give() -> None:
    own, neutral = (rows.astype(np.float16) for rows in some_rows())
    half = Gate.fit(200 * own, 200 * neutral)  # their squares overflow in half precision
    exact = Gate.fit((200 * own).astype(np.float64), (200 * neutral).astype(np.float64))
    np.testing.assert_array_equal(half.direction, exact.direction)
    assert half.threshold == exact.threshold


@pytest.mark.parametrize("row", [np.full(N_EMBD, 0.1), np.zeros(N_EMBD)], ids=["rows", "zeros"])
def test_it_is_closed_if_all_rows_are_the_same(row: NDArray[np.float64]) -> None:
    own, neutral = np.tile(row, (3, 1)), np.tile(row, (7, 1))
    gate = Gate.fit(own, neutral)
    assert np.abs(gate.direction).max() < 1e-3
    assert not gate.is_open(own).any()


def test_each_row_is_judged_by_a_gate_that_has_not_seen_it() -> None:
    """The last row of each kind is unlike its own, the neutral one half like the person's."""
    own, neutral = np.zeros((4, N_EMBD)), np.zeros((4, N_EMBD))
    own[:3, 0] = neutral[:3, 1] = 1
    own[3, 2] = neutral[3, 3] = neutral[3, 0] = 1
    gate = Gate.fit(own, neutral)
    assert gate.is_open(own).all()
    assert not gate.is_open(neutral).any()
    own_open, neutral_open = held_out(own, neutral)
    assert own_open.tolist() == [True, True, True, False]
    assert neutral_open.tolist() == [False, False, False, True]


@pytest.mark.parametrize("counts", [(2, 2), (2, 16), (24, 16)], ids=str)
def test_held_out_gates_are_fitted_to_most_rows(
    counts: tuple[int, int],
) -> None:
    rows = some_rows(*counts, apart=9)
    own, neutral = held_out(*rows)
    assert (own.shape, neutral.shape) == ((counts[0],), (counts[1],))
    assert own.all()
    assert not neutral.any()
