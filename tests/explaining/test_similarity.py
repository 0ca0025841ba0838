"""What two profiles have in common, against arithmetic done by hand."""

from __future__ import annotations

import numpy as np
import pytest

from steerx_edge.explaining.similarity import similarity
from steerx_edge.profile import LogitBias, Word
from tests.support.entries import a_full_entry, a_model, an_entry


def words_of(*names: str) -> tuple[Word, ...]:
    return tuple(Word(name, 1.0, 0.5, 1.5, 2, 1) for name in names)


def test_an_entry_is_like_itself() -> None:
    entry = a_full_entry()
    found = similarity(entry, entry)
    assert found.cosines == pytest.approx({2: 1, 3: 1, 5: 1})
    assert found.logit_bias == pytest.approx(1)
    assert (found.words, found.n_words) == (("honestly", "señor"), 2)


def test_directions_are_compared_at_shared_layers() -> None:
    eye = np.eye(8)
    one = an_entry(a_model(), (2, 3), [eye[0], eye[1]])
    other = an_entry(a_model(), (3, 4), [(eye[1] * 3 + eye[2] * 4) / 5, eye[0]])
    assert similarity(one, other).cosines == pytest.approx({3: 0.6})


def test_logit_biases_are_compared_over_the_tokens_of_both() -> None:
    # [1, 0, 2, 0] and [0, 3, 2, 1]
    one = LogitBias(np.array([1, 5]), np.array([1, 2], np.float32), 1.0)
    other = LogitBias(np.array([3, 5, 7]), np.array([3, 2, 1], np.float32), 0.1)
    found = similarity(a_full_entry(logit_bias=one), a_full_entry(logit_bias=other))
    expected = np.corrcoef([1, 0, 2, 0], [0, 3, 2, 1])[0, 1]
    assert found.logit_bias == pytest.approx(expected)


def test_logit_biases_without_a_correlation() -> None:
    constant = LogitBias(np.array([1, 5]), np.array([2, 2], np.float32), 1.0)
    entry = a_full_entry(logit_bias=constant)
    assert similarity(entry, entry).logit_bias is None
    assert similarity(entry, a_full_entry(logit_bias=None)).logit_bias is None


def test_vectors_of_two_models_are_not_compared() -> None:
    one = a_full_entry(words=words_of("so", "honestly"))
    other = a_full_entry(model=a_model("b"), words=words_of("honestly", "dear"))
    assert similarity(one, other) == ({}, None, ("honestly",), 3)
