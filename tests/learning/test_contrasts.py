"""Row weights, pooling, and the half of a contrast that is read under a description."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from steerx_edge.learning.contrasts import RowConvention, halves, pooled, row_weights

THIRD = 1 / 3


def random_rows(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("tokens", "convention", "weights"),
    [
        ([True], "predicts", [1, 0]),
        ([True], "at", [0, 1]),
        ([True, False, True, False], "predicts", [0.5, 0, 0.5, 0, 0]),
        ([True, False, True, False], "at", [0, 0.5, 0, 0.5, 0]),
        ([True, True, True], "predicts", [THIRD, THIRD, THIRD, 0]),
        ([3.0, 0.0, 1.0], "at", [0, 0.75, 0, 0.25]),
    ],
)
def test_weights_of_tokens_are_put_on_their_rows_and_sum_to_1(
    tokens: list[float], convention: RowConvention, weights: list[float]
) -> None:
    found = row_weights(np.array(tokens), convention)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, weights, rtol=1e-6)


def test_pooled_is_the_weighted_sum_over_rows() -> None:
    residual, weights = random_rows(0, 3, 5, 8), random_rows(1, 5)
    expected = sum(weights[row] * residual[:, row].astype(float) for row in range(5))
    found = pooled(residual, weights)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_rows_and_rows_under_the_description_count_alike() -> None:
    rows, described = random_rows(0, 3, 2, 8), random_rows(1, 3, 2, 8)
    found = halves(rows, described)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, (rows.astype(float) + described) / 2, atol=1e-6)
    np.testing.assert_array_equal(halves(rows, None), rows)
