"""The logit bias against values worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from steerx_edge.steering.logit_bias import BIAS_STRENGTHS, TokenCounts


@pytest.fixture(autouse=True)
def _easy_smoothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steerx_edge.steering.logit_bias.SMOOTHING", 1.0)


def counts(used: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> TokenCounts:
    return TokenCounts(np.array(used, np.float32), np.array(expected, np.float32))


@pytest.mark.parametrize(
    ("used", "expected", "value"),
    [
        pytest.param(7, 1, math.log(8 / 2), id="used more than expected"),
        pytest.param(1, 7, math.log(2 / 8), id="used less"),
        pytest.param(3, 0, math.log(4), id="never expected"),
        pytest.param(0, 0.5, -math.log(1.5), id="never used"),
        pytest.param(0, 0, 0, id="neither"),
        pytest.param(9, 10.07, -math.log(1.107), id="just not negligible"),
        pytest.param(9, 10.04, 0, id="negligible"),
        pytest.param(9, 8.06, 0, id="negligible, too"),
        pytest.param(9, 8.04, -math.log(0.904), id="just not negligible, either"),
    ],
)
def test_a_value_is_the_log_of_the_smoothed_ratio_or_0_if_negligible(
    used: float, expected: float, value: float
) -> None:
    values = counts([[used]], [[expected]]).values()
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, [value], rtol=1e-4)


USED = [[4, 0, 1], [0, 2, 1], [1, 1, 30]]
EXPECTED = [[1.0, 1, 1], [0.5, 3, 1], [1.0, 0, 1]]


@pytest.mark.parametrize(
    ("folds", "ratios"),
    [
        (None, [(5, 2.5), (3, 4), (32, 3)]),
        ([1, 2], [(1, 1.5), (3, 3), (31, 2)]),
        ([2], [(1, 1), (1, 0), (30, 1)]),
    ],
)
def test_values_are_of_the_sums_over_the_folds(
    folds: list[int] | None, ratios: list[tuple[float, float]]
) -> None:
    given = counts(USED, EXPECTED)
    by_hand = [math.log((used + 1) / (expected + 1)) for used, expected in ratios]
    np.testing.assert_allclose(given.values(folds), by_hand, rtol=1e-6)
    np.testing.assert_array_equal(given.used, USED)


@pytest.mark.parametrize(("without", "folds"), [(None, [0, 1, 2]), (0, [1, 2])])
def test_every_strength_is_tried_with_the_values_of_the_other_folds(
    without: int | None, folds: list[int]
) -> None:
    given = counts(USED, EXPECTED)
    tried = given.tried(without)
    assert tried.dtype == np.float32
    np.testing.assert_allclose(tried, np.outer(BIAS_STRENGTHS, given.values(folds)), rtol=1e-6)
