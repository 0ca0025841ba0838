"""Mixing offers into logits, against float64 NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from steerx_edge import _native

EXACT = 1e-6
TOKENS = np.array([3, 0, 3, 5], np.int32)
SHARES = np.array([0.2, 0.1, 0.3, 0.0], np.float32)


def log_p(logits: NDArray[Any]) -> NDArray[np.float64]:
    exact = logits.astype(np.float64)
    above = exact - exact.max()
    return np.asarray(above - np.log(np.exp(above).sum()))


def drawn(n: int, spread: float) -> NDArray[np.float32]:
    """Logits that differ by up to two spreads, far from 0."""
    return (np.random.default_rng(n).uniform(-spread, spread, n) + 50).astype(np.float32)


@pytest.mark.parametrize(("n_rows", "k"), [(0, 3), (1, 1), (5, 64)])
def test_neighbours_weigh_by_their_softmax(n_rows: int, k: int) -> None:
    rng = np.random.default_rng(k)
    near = -np.sort(-rng.uniform(-1, 1, (n_rows, k)).astype(np.float32), axis=1)
    weights = rng.random((n_rows, k)).astype(np.float32)
    shares, gates = np.empty((n_rows, k), np.float32), np.empty(n_rows, np.float32)
    _native.weigh(near, weights, 0.1, 0.25, 0.75, shares, gates)
    softmax = np.exp(np.array([log_p(row / 0.1) for row in near]).reshape(n_rows, k))
    np.testing.assert_allclose(shares, softmax * weights, rtol=10 * EXACT, atol=EXACT)


def test_the_gate_opens_between_two_similarities() -> None:
    near = np.array([[-1], [0.25], [0.5], [0.75], [1]], np.float32)
    gates = np.empty(5, np.float32)
    _native.weigh(near, np.ones_like(near), 0.1, 0.25, 0.75, np.empty_like(near), gates)
    assert gates.tolist() == [0, 0, 0.5, 1, 1]


@pytest.mark.parametrize(
    ("shapes", "complaint"),
    [
        (((2, 3), (2, 3), (3, 3), 2), "shares, row axis"),
        (((3, 3), (2, 3), (2, 3), 2), "row axis: expected 2"),
        (((2, 3), (2, 4), (2, 3), 2), "k axis: expected 3"),
        (((2, 0), (2, 0), (2, 0), 2), "one neighbour at least"),
    ],
)
def test_neighbours_that_do_not_fit_are_refused(shapes: tuple[Any, ...], complaint: str) -> None:
    near, weights, shares, gates = (np.ones(shape, np.float32) for shape in shapes)
    with pytest.raises(ValueError, match=complaint):
        _native.weigh(near, weights, 0.1, 0.3, 0.7, shares, gates)


@pytest.mark.parametrize(
    ("n", "spread", "weight"),
    [(6, 1, 0.5), (1023, 30, 1e-4), (1024, 300, 1.5), (1025, 1, 1.5), (5000, 30, 0.5)],
)
def test_the_softmax_becomes_the_mixture(n: int, spread: float, weight: float) -> None:
    logits = drawn(n, spread)
    offered = np.zeros(n)
    np.add.at(offered, TOKENS, SHARES.astype(np.float64))
    model = np.log1p(-weight * offered.sum()) + log_p(logits)
    with np.errstate(divide="ignore"):
        expected = np.logaddexp(model, np.log(weight * offered))
    before = logits.copy()
    _native.mix(logits, TOKENS, SHARES, weight)
    np.testing.assert_allclose(log_p(logits), expected, rtol=EXACT, atol=50 * EXACT)
    assert np.flatnonzero(logits != before).tolist() == [0, 3]


def test_logits_may_lie_among_other_numbers() -> None:
    together = drawn(2000, 5)
    records = np.full(
        2000, 7, np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
    )
    records["logit"] = together
    _native.mix(records["logit"], TOKENS, SHARES, 0.5)
    _native.mix(together, TOKENS, SHARES, 0.5)
    np.testing.assert_array_equal(records["logit"], together)
    assert (records["id"] == 7).all()
    assert (records["p"] == 7).all()


def test_what_is_impossible_can_be_offered() -> None:
    logits = np.full(3000, -np.inf, np.float32)
    logits[[1, 2500]] = [1, 2]
    model = log_p(logits[[1, 2500]])
    _native.mix(logits, TOKENS, SHARES, 0.5)
    expected = [*np.log([0.05, 0.25]), *(model + np.log(0.7))]
    np.testing.assert_allclose(log_p(logits[[0, 3, 1, 2500]]), expected, rtol=EXACT)
    assert np.isinf(logits).sum() == 2996


def test_a_weight_of_zero_changes_nothing() -> None:
    logits = drawn(10, 5)
    _native.mix(logits, TOKENS, SHARES, 0.0)
    _native.mix(logits, TOKENS, SHARES, -1.0)
    _native.mix(logits, TOKENS, np.zeros(4, np.float32), 0.5)
    _native.mix(logits, TOKENS[:0], SHARES[:0], 0.5)
    np.testing.assert_array_equal(logits, drawn(10, 5))


@pytest.mark.parametrize("token", [-1, 10])
def test_a_token_outside_the_vocabulary_is_refused(token: int) -> None:
    logits = drawn(10, 5)
    with pytest.raises(IndexError, match=f"token {token} is not in the vocabulary of 10"):
        _native.mix(logits, np.array([3, token], np.int32), SHARES[:2], 0.5)
    np.testing.assert_array_equal(logits, drawn(10, 5))


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="shares: expected 4"):
        _native.mix(drawn(10, 5), TOKENS, SHARES[:3], 0.5)
    for logits in (drawn(10, 5)[::-1], np.lib.stride_tricks.as_strided(drawn(1, 1), (10,), (0,))):
        with pytest.raises(ValueError, match="one after the other"):
            _native.mix(logits, TOKENS, SHARES, 0.5)
    with pytest.raises(TypeError):
        _native.mix(np.zeros(10), TOKENS, SHARES, 0.5)  # type: ignore[arg-type]
