"""Candidate directions: which texts each is made from."""

from __future__ import annotations

import numpy as np
import pytest

from steerx_edge.learning.candidates import Candidate, reply_length
from steerx_edge.learning.directions import Estimate, direction_of

DIFFERENCES = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
IN_PAIRS = {j: frozenset({j ^ 1}) for j in range(4)}
"""Items 0 and 1 stood in each other's context, and so did 2 and 3; 4 was read alone."""


@pytest.mark.parametrize(
    ("items", "used"),
    [
        (None, [0, 1, 2, 3, 4]),
        ([1, 2, 3, 4], [2, 3, 4]),
        ([0, 1, 2], [0, 1]),
        ([1, 4], [4]),
        ([0, 3], []),
        ([], []),
    ],
    ids=str,
)
def test_a_direction_is_made_of_items_with_no_others_in_their_context(
    items: list[int] | None, used: list[int]
) -> None:
    found = Candidate("context-contrast", 1, DIFFERENCES, 1.0, IN_PAIRS).direction(items)
    expected = direction_of(DIFFERENCES[used], "mean") if used else np.zeros(8)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_an_item_may_have_several_in_its_context() -> None:
    candidate = Candidate("x", 1, DIFFERENCES, 1.0, {0: frozenset({1, 2})})
    alone = Candidate("x", 1, DIFFERENCES, 1.0)
    np.testing.assert_array_equal(candidate.direction([0, 1, 3]), alone.direction([1, 3]))
    np.testing.assert_array_equal(candidate.direction([0, 1, 2]), alone.direction([0, 1, 2]))


@pytest.mark.parametrize("estimate", ["pca", "logistic"])
def test_a_direction_is_estimated_as_set(estimate: Estimate) -> None:
    candidate = Candidate("x", 1, DIFFERENCES, 1.0, estimate=estimate)
    expected = direction_of(DIFFERENCES[[0, 1, 3]], estimate)
    np.testing.assert_array_equal(candidate.direction([0, 1, 3]), expected)


@pytest.mark.parametrize(("n_tokens", "length"), [(3, 16), (40, 40), (500, 96)])
def test_a_reply_is_as_long_as_the_text_within_bounds(n_tokens: int, length: int) -> None:
    assert reply_length(n_tokens) == length
