"""Runs that are not completed, against lists."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from steerx_edge import _native

NONE = np.empty(0, np.uint32)


def i32(values: list[int]) -> NDArray[np.int32]:
    return np.array(values, np.int32)


def hashes_of(*runs: list[int]) -> NDArray[np.uint32]:
    hashes = np.empty(len(runs), np.uint32)
    _native.run_hashes(np.array(runs, np.int32), hashes)
    return hashes


def left(text: list[int], hashes: NDArray[np.uint32], length: int = 4) -> list[int]:
    """Which of the tokens 0 to 9 are left, each offered twice."""
    tokens = i32([*range(10), *range(10)])
    shares = np.ones(20, np.float32)
    _native.leave_out_runs(i32(text), hashes, length, tokens, shares)
    np.testing.assert_array_equal(shares[:10], shares[10:])
    assert set(shares.tolist()) <= {0, 1}
    return np.flatnonzero(shares[:10]).tolist()


def test_hashes_are_those_that_memory_files_hold() -> None:
    """By the formula, in whole numbers."""
    runs = [[0, 0, 0, 0], [1, 2, 3, 4], [4, 3, 2, 1], [49151, 0, 7, 2**31 - 1], [-1, 5, -7, 5]]
    expected = []
    for run in runs:
        state = 0
        for token in run:
            state = (state ^ (token + 1) % 2**64) * 0x9E3779B97F4A7C15 % 2**64
            state ^= state >> 29
        expected.append(state >> 32)
    assert hashes_of(*runs).tolist() == expected


@pytest.mark.parametrize("seed", range(8))
def test_runs_of_three_are_found_in_the_text(seed: int) -> None:
    text = np.random.default_rng(seed).integers(0, 4, 3 * seed).tolist()
    runs = [text[i : i + 3] for i in range(len(text) - 2)]
    expected = [token for token in range(10) if [*text[-2:], token] not in runs]
    assert left(text, NONE) == expected


def test_a_run_of_three_may_begin_the_text() -> None:
    assert left([1, 2, 3, 1, 2], NONE) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert left([1, 1], NONE) == list(range(10))
    assert left([1, 1, 1], NONE) == [0, *range(2, 10)]


@pytest.mark.parametrize("length", [1, 4, 5])
def test_known_runs_are_not_completed(length: int) -> None:
    text = [20, 21, 22, 23, 24, 25]
    begun = text[len(text) + 1 - length :]
    known = np.sort(hashes_of([*begun, 7], [*begun, 2], [30] * length))
    assert left(text, known, length) == [0, 1, 3, 4, 5, 6, 8, 9]


@pytest.mark.parametrize("text", [[21, 22, 24], [9, 22, 23], [22, 23], []])
def test_a_run_is_known_by_all_of_its_tokens(text: list[int]) -> None:
    assert left([21, 22, 23], hashes_of([21, 22, 23, 5])) == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert left(text, hashes_of([21, 22, 23, 5])) == list(range(10))


@pytest.mark.parametrize("seed", range(40))
def test_a_text_that_repeats_its_end_is_told(seed: int) -> None:
    text = np.random.default_rng(seed).integers(0, 3, seed // 2).tolist()
    for length in (1, 3, 6):
        ends = [text[i - length : i] for i in range(length, len(text))]
        assert _native.ends_in_a_repeat(i32(text), length) == (text[-length:] in ends)


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="hashes: expected 2"):
        _native.run_hashes(np.zeros((2, 4), np.int32), np.empty(3, np.uint32))
    with pytest.raises(ValueError, match="shares: expected 2"):
        _native.leave_out_runs(i32([]), NONE, 4, i32([1, 2]), np.ones(3, np.float32))
    with pytest.raises(ValueError, match="one token at least"):
        _native.leave_out_runs(i32([]), NONE, 0, i32([1]), np.ones(1, np.float32))
