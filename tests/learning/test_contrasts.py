"""Row weights, pooling, and the halves of SteerX."""

from __future__ import annotations

import numpy as np
import pytest

from steerx_edge.learning.contrasts import RowConvention, halves, pooled, row_weights

THIRD = 1 / 3


def rows_of(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("selected", "convention", "weights"),
    [
        ([True], "predicts", [1, 0]),
        ([True], "at", [0, 1]),
        ([True, False, False], "predicts", [1, 0, 0, 0]),
        ([True, False, False], "at", [0, 1, 0, 0]),
        ([False, False, True], "predicts", [0, 0, 1, 0]),
        ([False, False, True], "at", [0, 0, 0, 1]),
        ([True, False, True, False], "predicts", [0.5, 0, 0.5, 0, 0]),
        ([True, False, True, False], "at", [0, 0.5, 0, 0.5, 0]),
        ([True, True, True], "predicts", [THIRD, THIRD, THIRD, 0]),
        ([True, True, True], "at", [0, THIRD, THIRD, THIRD]),
    ],
)
def test_each_selected_token_weighs_the_same_on_the_row_that_stands_for_it(
    selected: list[bool], convention: RowConvention, weights: list[float]
) -> None:
    result = row_weights(np.array(selected), convention)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, np.array(weights, dtype=np.float32))


def test_weights_sum_to_one_however_many_tokens_are_selected() -> None:
    for n in (1, 3, 7, 64, 255):
        selected = np.zeros(300, dtype=np.bool_)
        selected[:n] = True
        assert row_weights(selected, "at").sum() == pytest.approx(1, abs=1e-5)


def test_the_two_conventions_lie_one_row_apart() -> None:
    selected = np.random.default_rng(0).random(40) > 0.7
    np.testing.assert_array_equal(
        row_weights(selected, "at")[1:], row_weights(selected, "predicts")[:-1]
    )


def test_pooled_is_the_weighted_sum_over_rows() -> None:
    residual, weights = rows_of(0, 3, 5, 8), rows_of(1, 5)
    expected = np.zeros((3, 8))
    for layer in range(3):
        for row in range(5):
            for i in range(8):
                expected[layer, i] += float(weights[row]) * float(residual[layer, row, i])
    result = pooled(residual, weights)
    assert result.shape == (3, 8)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize(("convention", "row"), [("predicts", 2), ("at", 3)])
def test_pooling_one_selected_token_gives_its_row(convention: RowConvention, row: int) -> None:
    residual = rows_of(0, 2, 6, 4)
    selected = np.arange(5) == 2
    np.testing.assert_array_equal(
        pooled(residual, row_weights(selected, convention)), residual[:, row]
    )


def test_pooling_equal_rows_gives_that_row() -> None:
    row = rows_of(0, 2, 1, 4)
    weights = row_weights(np.array([True, False, True, True]), "at")
    np.testing.assert_allclose(pooled(np.repeat(row, 5, axis=1), weights), row[:, 0], rtol=1e-6)


def test_without_a_description_it_is_the_rows() -> None:
    rows = rows_of(0, 3, 2, 8)
    np.testing.assert_array_equal(halves(rows, None), rows)


def test_where_the_description_does_what_the_rows_do_it_is_the_rows() -> None:
    rows = rows_of(0, 3, 2, 8)
    np.testing.assert_array_equal(halves(rows, rows), rows)


def test_where_the_description_does_nothing_half_of_the_contrast_is_left() -> None:
    treatment, control = rows_of(0, 3, 2, 8), rows_of(1, 3, 2, 8)
    np.testing.assert_allclose(
        halves(treatment, control) - control, 0.5 * (treatment - control), atol=1e-6
    )


def test_rows_and_description_count_alike() -> None:
    rows, described = rows_of(0, 3, 2, 8), rows_of(1, 3, 2, 8)
    both = halves(rows, described)
    assert both.dtype == np.float32
    np.testing.assert_array_equal(both, halves(described, rows))
    np.testing.assert_allclose(both, (rows.astype(np.float64) + described) / 2, atol=1e-6)
