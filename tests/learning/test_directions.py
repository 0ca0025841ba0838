"""Unit directions, and the typical size of the residual stream."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from steerx_edge.errors import SteerxError
from steerx_edge.learning.directions import Estimate, direction_of, mean_direction, median_norms


def differences_of(seed: int = 0, items: int = 5, layers: int = 3, n_embd: int = 16) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(loc=0.5, size=(items, layers, n_embd)).astype(np.float32)


def test_identical_differences_give_their_own_unit_vector() -> None:
    difference = np.array([[3, 0, 4], [0, -5, 0]], dtype=np.float32)
    direction = mean_direction(np.stack([difference] * 7))
    np.testing.assert_array_equal(direction, np.array([[0.6, 0, 0.8], [0, -1, 0]], np.float32))
    assert direction.dtype == np.float32


def test_it_is_the_mean_over_items_not_over_unit_vectors() -> None:
    differences = np.array([[[3, 0]], [[0, 4]]], dtype=np.float32)  # (item, layer, n_embd)
    np.testing.assert_array_equal(
        mean_direction(differences), np.array([[0.6, 0.8]], dtype=np.float32)
    )


def test_each_layer_has_unit_length_whatever_its_size() -> None:
    differences = differences_of() * np.array([1e-3, 1, 1e3], dtype=np.float32)[None, :, None]
    direction = mean_direction(differences)
    assert direction.shape == (3, 16)
    np.testing.assert_allclose(np.linalg.norm(direction, axis=-1), 1, atol=1e-6)


def test_layers_do_not_mix() -> None:
    differences = differences_of()
    alone = np.concatenate([mean_direction(differences[:, i : i + 1]) for i in range(3)])
    np.testing.assert_array_equal(mean_direction(differences), alone)


@pytest.mark.parametrize("scale", [2.0**-20, 0.5, 2.0**20])
def test_scale_does_not_matter(scale: float) -> None:
    differences = differences_of()
    np.testing.assert_array_equal(
        mean_direction(differences * np.float32(scale)), mean_direction(differences)
    )


def test_opposite_differences_give_the_opposite_direction() -> None:
    differences = differences_of()
    np.testing.assert_array_equal(mean_direction(-differences), -mean_direction(differences))


@pytest.mark.parametrize(
    "differences",
    [
        pytest.param(np.zeros((3, 2, 4), dtype=np.float32), id="all zero"),
        pytest.param(np.stack([np.ones((2, 4)), -np.ones((2, 4))]).astype(np.float32), id="cancel"),
        pytest.param(np.stack([[np.ones(4), np.zeros(4)]] * 2).astype(np.float32), id="one layer"),
        pytest.param(np.full((2, 1, 4), np.nan, dtype=np.float32), id="nan"),
        pytest.param(np.full((2, 1, 4), np.inf, dtype=np.float32), id="infinite"),
    ],
)
def test_no_direction_is_an_error_that_says_what_to_do(differences: np.ndarray) -> None:
    with pytest.raises(SteerxError, match=r"no direction to steer in\. Use more texts"):
        mean_direction(differences)


ESTIMATES: tuple[Estimate, ...] = ("mean", "pca", "logistic")


def flat_differences(seed: int = 0, items: int = 9, n_embd: int = 40) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scale = rng.gamma(1, 1, (1, n_embd))
    return (scale * (0.4 + rng.normal(size=(items, n_embd)))).astype(np.float32)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("seed", range(5))
def test_the_principal_component_is_that_of_both_signs_towards_the_mean(seed: int) -> None:
    differences = flat_differences(seed)
    both = np.concatenate([differences, -differences]).astype(np.float64)
    component = np.linalg.eigh(np.cov(both.T))[1][:, -1]
    component *= np.sign(component @ differences.mean(axis=0))
    np.testing.assert_allclose(direction_of(differences, "pca"), component, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_the_logistic_direction_is_that_of_scikit_learn(seed: int) -> None:
    differences = flat_differences(seed)
    scaled = differences / np.sqrt((differences.astype(np.float64) ** 2).sum(axis=1).mean())
    both, signs = np.concatenate([scaled, -scaled]), np.repeat([1, 0], len(scaled))
    # Its loss has every difference twice, so that a penalty of 0.1 is 1 / (2 * 5).
    model = LogisticRegression(C=5.0, fit_intercept=False, tol=1e-10, max_iter=10_000)
    normal = model.fit(both, signs).coef_[0]
    np.testing.assert_allclose(direction_of(differences, "logistic"), unit(normal), atol=1e-5)


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_an_estimate_keeps_its_length_scale_and_sign(estimate: Estimate) -> None:
    differences = flat_differences()
    direction = direction_of(differences, estimate)
    assert (direction.shape, direction.dtype) == ((40,), np.float32)
    assert np.linalg.norm(direction) == pytest.approx(1, abs=1e-6)
    assert direction @ differences.mean(axis=0) > 0
    for scale in (1e-6, 1e6):
        scaled = differences * np.float32(scale)
        np.testing.assert_allclose(direction_of(scaled, estimate), direction, atol=1e-5)
    np.testing.assert_allclose(direction_of(-differences, estimate), -direction, atol=1e-6)
    alike = np.stack([differences[0]] * 4)
    np.testing.assert_allclose(direction_of(alike, estimate), unit(differences[0]), atol=1e-5)
    np.testing.assert_allclose(direction_of(alike[:1], estimate), unit(differences[0]), atol=1e-5)


def test_estimates_differ() -> None:
    found = [direction_of(flat_differences(), estimate) for estimate in ESTIMATES]
    assert found[0].tolist() == mean_direction(flat_differences()[:, None])[0].tolist()
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert found[one] @ found[other] < 0.9999


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_without_a_direction_there_is_no_estimate(estimate: Estimate) -> None:
    with pytest.raises(SteerxError, match="no direction to steer in"):
        direction_of(np.array([[1, 2], [-1, -2]], np.float32), estimate)


def test_median_norms_are_over_the_rows_of_all_items_together() -> None:
    norms = [
        np.array([[1, 2, 3], [10, 10, 10]], dtype=np.float32),  # (layer, row)
        np.array([[4, 100], [20, 30]], dtype=np.float32),
    ]
    median = median_norms(norms)  # layer 0: 1 2 3 4 100; layer 1: 10 10 10 20 30
    assert median.dtype == np.float32
    np.testing.assert_array_equal(median, np.array([3, 10], dtype=np.float32))


def test_the_median_of_an_even_number_of_rows_is_between_the_middle_two() -> None:
    assert median_norms([np.array([[1, 2, 5, 9]], dtype=np.float32)]) == pytest.approx([3.5])


def test_a_few_huge_rows_do_not_move_the_median() -> None:
    rows = np.ones((1, 100), dtype=np.float32)
    rows[0, :3] = 1e6
    np.testing.assert_array_equal(median_norms([rows]), [1])
