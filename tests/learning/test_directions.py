"""Unit directions, and the typical norm of residual rows."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from steerx_edge.errors import SteerxError
from steerx_edge.learning.directions import Estimate, direction_of, mean_direction, median_norms

every_estimate = pytest.mark.parametrize("estimate", ["mean", "pca", "logistic"])


def random_differences(seed: int = 0) -> NDArray[np.float32]:
    """(item, n_embd), with a mean unlike 0."""
    rng = np.random.default_rng(seed)
    scale = rng.gamma(1, 1, (1, 40))
    return (scale * (0.4 + rng.normal(size=(9, 40)))).astype(np.float32)


def unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def test_it_is_the_mean_over_items_of_unit_length_at_each_layer() -> None:
    # (item, layer, n_embd)
    differences = np.array([[[3, 0], [1e3, 0]], [[0, 4], [0, 0]]], np.float32)
    direction = mean_direction(differences)
    assert direction.dtype == np.float32
    np.testing.assert_array_equal(direction, np.array([[0.6, 0.8], [1, 0]], np.float32))


@pytest.mark.parametrize(
    "differences",
    [
        pytest.param(np.zeros((3, 2, 4), np.float32), id="all zero"),
        pytest.param(np.stack([[np.ones(4), np.zeros(4)]] * 2), id="zero at one layer"),
        pytest.param(np.stack([np.ones((2, 4)), -np.ones((2, 4))]), id="cancel out"),
        pytest.param(np.full((2, 1, 4), np.nan, np.float32), id="nan"),
        pytest.param(np.full((2, 1, 4), np.inf, np.float32), id="infinite"),
    ],
)
def test_no_direction_is_an_error_that_says_what_to_do(differences: NDArray[np.float32]) -> None:
    with pytest.raises(SteerxError, match=r"no direction to steer along\. Use more texts"):
        mean_direction(differences)


@pytest.mark.parametrize("seed", range(2))
def test_pca_is_the_first_principal_component_with_the_sign_of_the_mean(seed: int) -> None:
    differences = random_differences(seed)
    both = np.concatenate([differences, -differences]).astype(np.float64)
    component = np.linalg.eigh(np.cov(both.T))[1][:, -1]
    component *= np.sign(component @ differences.mean(axis=0))
    np.testing.assert_allclose(direction_of(differences, "pca"), component, atol=1e-5)


@pytest.mark.parametrize("seed", range(2))
def test_logistic_is_the_normal_that_scikit_learn_finds(seed: int) -> None:
    differences = random_differences(seed)
    scaled = differences / np.sqrt((differences.astype(np.float64) ** 2).sum(axis=1).mean())
    both, signs = np.concatenate([scaled, -scaled]), np.repeat([1, 0], len(scaled))
    # Its loss has every difference twice, so that a penalty of 0.1 is 1 / (2 * 5).
    model = LogisticRegression(C=5.0, fit_intercept=False, tol=1e-10, max_iter=10_000)
    normal = model.fit(both, signs).coef_[0]
    np.testing.assert_allclose(direction_of(differences, "logistic"), unit(normal), atol=1e-5)


@every_estimate
def test_an_estimate_has_unit_length_and_the_sign_of_the_differences(estimate: Estimate) -> None:
    differences = random_differences()
    direction = direction_of(differences, estimate)
    assert direction.dtype == np.float32
    assert np.linalg.norm(direction) == pytest.approx(1, abs=1e-6)
    for scale in (1e-6, 1e6, -1):
        found = direction_of(differences * np.float32(scale), estimate)
        np.testing.assert_allclose(found, np.sign(scale) * direction, atol=1e-5)
    for n in (1, 4):
        same = np.stack([differences[0]] * n)
        np.testing.assert_allclose(direction_of(same, estimate), unit(differences[0]), atol=1e-5)


@every_estimate
def test_differences_that_cancel_out_have_no_estimate(estimate: Estimate) -> None:
    with pytest.raises(SteerxError, match="no direction to steer along"):
        direction_of(np.array([[1, 2], [-1, -2]], np.float32), estimate)


def test_norms_are_medians_over_the_rows_of_all_items() -> None:
    norms = [  # (layer, row)
        np.array([[1, 2, 3], [10, 10, 10]], np.float32),
        np.array([[1e6, 5, 9], [20, 30, 20]], np.float32),
    ]
    median = median_norms(norms)
    assert median.dtype == np.float32
    assert median.tolist() == [4, 15]
