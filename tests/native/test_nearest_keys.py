"""The keys of rows, and nearest keys, against float64 NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from steerx_edge import _native

FLOAT = 3e-7  # of what is rounded to float32 some times


def drawn(n: int, d: int, n_queries: int, seed: int = 0) -> tuple[NDArray[Any], ...]:
    """Keys (n, d), factors (n,) that make them unit vectors, and unit queries (query, d)."""
    rng = np.random.default_rng(seed)
    keys = rng.integers(-128, 128, (n, d)).astype(np.int8)
    keys[keys == 0] = 1
    scales = 1 / np.linalg.norm(keys.astype(np.float64), axis=1)
    queries = rng.standard_normal((n_queries, d))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    return keys, scales.astype(np.float32), queries.astype(np.float32)


def outputs(n_queries: int, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    return np.full((n_queries, k), -7), np.full((n_queries, k), np.nan, np.float32)


def nearest(
    keys: NDArray[np.int8], scales: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    places, similarities = outputs(len(queries), k)
    _native.nearest_keys(keys, scales, queries, places, similarities)
    return places, similarities


def keys_of(
    rows: NDArray[np.float32], mean: NDArray[np.float32], basis: NDArray[np.float32]
) -> NDArray[np.float32]:
    keys = np.full((len(rows), basis.shape[1]), np.nan, np.float32)
    _native.keys_of(rows, mean, basis, keys)
    return keys


@pytest.mark.parametrize(("n_rows", "n_embd", "d"), [(0, 4, 2), (1, 1, 1), (19, 96, 33), (8, 7, 7)])
def test_keys_are_centred_projected_and_of_unit_length(n_rows: int, n_embd: int, d: int) -> None:
    rng = np.random.default_rng(d)
    rows, mean, basis = (
        rng.standard_normal(shape).astype(np.float32)
        for shape in ((n_rows, n_embd), n_embd, (n_embd, d))
    )
    rows *= 50
    keys = keys_of(rows, mean, basis)
    units = rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    expected = (units - mean) @ basis.astype(np.float64)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(keys, expected, rtol=0, atol=10 * FLOAT)
    for row in range(n_rows):
        np.testing.assert_array_equal(keys_of(rows[row : row + 1], mean, basis)[0], keys[row])


def test_a_row_that_is_nothing_has_the_key_of_the_mean() -> None:
    rows, mean = np.zeros((1, 2), np.float32), np.array([3, 4], np.float32)
    np.testing.assert_allclose(keys_of(rows, mean, np.eye(2, dtype=np.float32)), [[-0.6, -0.8]])
    assert keys_of(rows, 0 * mean, np.eye(2, dtype=np.float32)).tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("shapes", "complaint"),
    [
        (((2, 3), 4, (4, 5), (2, 5)), "rows, n_embd axis: expected 4"),
        (((2, 4), 4, (3, 5), (2, 5)), "basis, n_embd axis: expected 4"),
        (((2, 4), 4, (4, 5), (3, 5)), "keys, row axis: expected 2"),
        (((2, 4), 4, (4, 5), (2, 6)), "keys, d axis: expected 5"),
        (((2, 0), 0, (0, 5), (2, 5)), "one number at least"),
    ],
)
def test_keys_that_do_not_fit_are_refused(shapes: tuple[Any, ...], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        _native.keys_of(*(np.ones(shape, np.float32) for shape in shapes))


@pytest.mark.parametrize(
    ("n", "d", "k", "n_queries"),
    [(1, 1, 1, 1), (64, 1, 3, 5), (65, 7, 65, 1), (200, 33, 64, 5), (1000, 256, 64, 9)],
)
def test_similarities_are_exact_and_the_nearest_are_found(
    n: int, d: int, k: int, n_queries: int
) -> None:
    keys, scales, queries = drawn(n, d, n_queries)
    places, similarities = nearest(keys, scales, queries, k)
    exact = queries.astype(np.float64) @ (keys * scales.astype(np.float64)[:, None]).T
    lengths = np.abs(keys.astype(np.float64)).sum(axis=1) * scales
    off = 2 * lengths.max() * np.abs(queries).max() / 65534
    for row in range(n_queries):
        assert len(set(places[row])) == k
        assert (np.diff(similarities[row]) <= 0).all()
        np.testing.assert_allclose(similarities[row], exact[row, places[row]], rtol=0, atol=FLOAT)
        others = np.delete(exact[row], places[row])
        assert (others <= similarities[row, -1] + off + FLOAT).all()
        alone = nearest(keys, scales, queries[row : row + 1], k)  # in any company
        np.testing.assert_array_equal(alone[0][0], places[row])
        np.testing.assert_array_equal(alone[1][0], similarities[row])


def test_of_equal_keys_the_first_come_first() -> None:
    keys = np.tile(np.array([[3, 4], [-3, 4]], np.int8), (100, 1))
    scales = np.full(200, 0.2, np.float32)
    places, similarities = nearest(keys, scales, np.array([[0.6, 0.8]], np.float32), 103)
    assert places[0].tolist() == [*range(0, 200, 2), 1, 3, 5]
    np.testing.assert_allclose(similarities[0], [1.0] * 100 + [0.28] * 3, rtol=FLOAT)


@pytest.mark.parametrize("d", [512, 513, 70_000])
def test_no_sum_overflows(d: int) -> None:
    keys = np.full((2, d), -128, np.int8)
    keys[1] = 127
    queries = np.full((1, d), -1, np.float32)
    places, similarities = nearest(keys, np.ones(2, np.float32), queries, 2)
    assert places[0].tolist() == [0, 1]
    np.testing.assert_allclose(similarities[0], [128 * d, -127 * d], rtol=FLOAT)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -np.inf])
def test_a_query_that_is_nothing_is_like_no_key(value: float) -> None:
    keys, scales, queries = drawn(70, 5, 2)
    if value == 0:
        queries[0] = 0
    queries[0, 2] = value
    places, similarities = nearest(keys, scales, queries, 3)
    assert places[0].tolist() == [0, 1, 2]
    assert similarities[0].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(places[1:], nearest(keys, scales, queries[1:], 3)[0])


def test_there_may_be_nothing() -> None:
    keys, scales, queries = drawn(10, 4, 2)
    assert nearest(keys, scales, queries[:0], 3)[0].shape == (0, 3)
    assert nearest(keys, scales, queries, 0)[0].shape == (2, 0)
    assert nearest(keys[:0], scales[:0], queries, 0)[0].shape == (2, 0)


def test_keys_may_lie_in_a_file_wherever_they_begin(tmp_path: Path) -> None:
    keys, scales, queries = drawn(100, 32, 2)
    (tmp_path / "keys").write_bytes(b"odd" + keys.tobytes())
    mapped = np.memmap(tmp_path / "keys", np.int8, mode="r", offset=3, shape=keys.shape)
    for ours, theirs in zip(
        nearest(mapped, scales, queries, 9), nearest(keys, scales, queries, 9), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        pytest.param({"scales": np.ones(9, np.float32)}, "scales: expected 10", id="scales"),
        pytest.param({"queries": np.ones((2, 3), np.float32)}, "queries, d axis", id="queries"),
        pytest.param({"places": np.ones((3, 3), np.int64)}, "places, query axis", id="places"),
        pytest.param(
            {"similarities": np.ones((3, 3), np.float32)}, "similarities, query axis", id="rows"
        ),
        pytest.param(
            {"similarities": np.ones((2, 4), np.float32)}, "similarities, k axis", id="columns"
        ),
        pytest.param(
            dict(zip(("places", "similarities"), outputs(2, 11), strict=True)),
            "11 nearest of 10 keys",
            id="more than there are",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        _native.nearest_keys(**arguments(**change))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"keys": np.ones((10, 8), np.int8)[:, ::2]}, id="keys with gaps"),
        pytest.param({"keys": np.ones((10, 4), np.uint8)}, id="keys uint8"),
        pytest.param({"scales": np.ones(10)}, id="scales float64"),
        pytest.param({"queries": np.ones((2, 4))}, id="queries float64"),
        pytest.param({"places": np.ones((2, 3), np.int32)}, id="places int32"),
        pytest.param({"similarities": np.ones((2, 3))}, id="similarities float64"),
        pytest.param(
            {"similarities": np.frombuffer(bytes(24), np.float32).reshape(2, 3)}, id="read-only"
        ),
    ],
)
def test_arrays_that_would_be_copied_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        _native.nearest_keys(**arguments(**change))


def arguments(**change: Any) -> dict[str, Any]:
    keys, scales, queries = drawn(10, 4, 2)
    places, similarities = outputs(2, 3)
    return {
        "keys": keys,
        "scales": scales,
        "queries": queries,
        "places": places,
        "similarities": similarities,
    } | change
