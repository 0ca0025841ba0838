"""The token logit bias against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from steerx_edge.steering.logit_bias import BIAS_STRENGTHS, TokenCounts


@pytest.fixture(autouse=True)
def _one_occurrence_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Smoothing that makes values easy to work out."""
    monkeypatch.setattr("steerx_edge.steering.logit_bias.SMOOTHING", 1.0)


def counts(used: list[list[float]], expected: list[list[float]]) -> TokenCounts:
    return TokenCounts(np.array(used, np.float32), np.array(expected, np.float32))


@pytest.mark.parametrize(
    ("used", "expected", "value"),
    [
        pytest.param(7, 1, math.log(8 / 2), id="used more than expected"),
        pytest.param(1, 7, math.log(2 / 8), id="used less"),
        pytest.param(3, 0, math.log(4), id="never expected"),
        pytest.param(0, 0.5, -math.log(1.5), id="never used"),
        pytest.param(0, 0, 0, id="neither"),
        pytest.param(5, 5, 0, id="as expected"),
    ],
)
def test_a_value_is_the_log_of_the_smoothed_ratio(
    used: float, expected: float, value: float
) -> None:
    values = counts([[used]], [[expected]]).values()
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, [value], rtol=1e-6)


@pytest.mark.parametrize(
    ("expected", "is_kept"), [(0.107, True), (0.104, False), (-0.094, False), (-0.096, True)]
)
def test_small_values_are_cut(expected: float, *, is_kept: bool) -> None:
    """Used 9 times, so that a ratio is 10 to 10 times (1 + expected)."""
    (value,) = counts([[9]], [[9 + 10 * expected]]).values()
    assert value == (pytest.approx(-math.log(1 + expected), rel=1e-4) if is_kept else 0)


USED = [[4, 0, 1], [0, 2, 1], [1, 1, 30]]
EXPECTED = [[1, 1, 1], [0.5, 3, 1], [1, 0, 1]]


@pytest.mark.parametrize(
    ("folds", "ratios"),
    [
        (None, [(5, 2.5), (3, 4), (32, 3)]),
        ([0, 1, 2], [(5, 2.5), (3, 4), (32, 3)]),
        ([0, 1], [(4, 1.5), (2, 4), (2, 2)]),
        ([1, 2], [(1, 1.5), (3, 3), (31, 2)]),
        ([2], [(1, 1), (1, 0), (30, 1)]),
    ],
)
def test_values_are_of_the_folds_alone_and_of_their_sums(
    folds: list[int] | None, ratios: list[tuple[float, float]]
) -> None:
    values = counts(USED, EXPECTED).values(folds)
    by_hand = [math.log((used + 1) / (expected + 1)) for used, expected in ratios]
    np.testing.assert_allclose(values, by_hand, rtol=1e-6)


@pytest.mark.parametrize(("without", "folds"), [(None, [0, 1, 2]), (0, [1, 2]), (2, [0, 1])])
def test_what_is_tried_is_every_strength_of_the_other_folds_values(
    without: int | None, folds: list[int]
) -> None:
    given = counts(USED, EXPECTED)
    tried = given.tried(without)
    assert tried.dtype == np.float32
    for logit_bias, added in zip(BIAS_STRENGTHS, tried, strict=True):
        np.testing.assert_allclose(added, logit_bias * given.values(folds), rtol=1e-6)


def test_what_was_counted_is_left_as_it_was() -> None:
    given = counts(USED, EXPECTED)
    given.values()
    np.testing.assert_array_equal(given.used, np.array(USED, np.float32))
    np.testing.assert_array_equal(given.expected, np.array(EXPECTED, np.float32))
