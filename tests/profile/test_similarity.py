"""How alike two entries are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from steerx_edge.profile import Entry, LogitBias, Word
from steerx_edge.profile.similarity import bias_correlation, direction_cosines, shared_words
from tests.support.entries import a_full_entry, a_model

DIAGONAL = np.array([3, 4, 0, 0, 0, 0, 0, 0]) / 5


def steering(layers: tuple[int, ...], *directions: object, **changes: object) -> Entry:
    return a_full_entry(
        layers=layers,
        directions=directions,
        strengths=np.ones(len(layers)),
        with_history=None,
        **changes,
    )


def biased(tokens: list[int], values: list[float], **changes: object) -> Entry:
    return a_full_entry(logit_bias=LogitBias(np.array(tokens), np.array(values), 0.5), **changes)


def test_cosines_are_those_of_the_layers_that_both_have() -> None:
    one, other = np.eye(2, 8)
    a, b = steering((1, 2, 4), one, one, one), steering((2, 3, 4), DIAGONAL, one, -one)
    assert direction_cosines(a, b) == pytest.approx({2: 0.6, 4: -1})
    assert list(direction_cosines(b, a)) == [2, 4]
    assert direction_cosines(steering((1,), one), steering((1,), other)) == {1: 0}
    assert direction_cosines(steering((1,), one), steering((2,), one)) == {}


def test_a_token_of_one_bias_alone_counts_as_0_in_the_other() -> None:
    a = biased([1, 5], [3, 4])
    assert bias_correlation(a, biased([1, 5], [30, 40])) == pytest.approx(1)
    assert bias_correlation(a, biased([1, 5], [-3, -4])) == pytest.approx(-1)
    assert bias_correlation(a, biased([1, 7], [1, 0.5])) == pytest.approx(
        3 / (5 * np.sqrt(1.25)), abs=1e-7
    )
    assert bias_correlation(a, biased([2, 3], [1, 1])) == 0


@pytest.mark.parametrize("bias", [None, LogitBias(np.array([1]), np.array([0.0]), 0.5)])
def test_without_a_bias_there_is_no_correlation(bias: LogitBias | None) -> None:
    a, b = biased([1], [1]), a_full_entry(logit_bias=bias)
    assert bias_correlation(a, b) is bias_correlation(b, a) is None


def test_only_words_are_compared_between_models() -> None:
    a, b = a_full_entry(), a_full_entry(model=a_model("b"))
    assert direction_cosines(a, b) == {}
    assert bias_correlation(a, b) is None
    assert shared_words(a, b) == ("honestly", "señor")


def test_shared_words_are_in_the_order_of_the_first() -> None:
    a = replace(a_full_entry(), words=tuple(Word(word, 1, 0, 2, 3, 2) for word in "cab"))
    b = replace(a_full_entry(), words=tuple(Word(word, 1, 0, 2, 3, 2) for word in "abcd"))
    assert shared_words(a, b) == ("c", "a", "b")
    assert shared_words(b, a) == ("a", "b", "c")
