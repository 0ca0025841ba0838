"""Phrases against values worked out by hand, and against the formula over a whole vocabulary."""

from __future__ import annotations

import math

import numpy as np
import pytest

from steerx_edge.phrases import NOTHING, ORDER, START, Grams, PhraseBook, weigh_grams
from tests.phrases_reference import with_phrases

N_VOCAB = 12


def as_dict(grams: Grams) -> dict[tuple[int, ...], float]:
    runs = (tuple(t for t in run if t != NOTHING) for run in grams.tokens.tolist())
    return dict(zip(runs, grams.weights.tolist(), strict=True))


def test_runs_that_go_on_alike_are_weighed_with_the_beginning_of_the_text() -> None:
    assert as_dict(weigh_grams([[5, 6, 5, 6], [5, 6, 7]], min_texts=1)) == pytest.approx(
        {
            (START, 5): 2,  # always the same: an occurrence weighs 1
            (5, 6): 3,
            (START, 5, 6): 2,
        }
    )


def test_an_occurrence_weighs_how_often_two_go_on_alike() -> None:
    # After 5: three times 6 and once 7. Of 4 * 3 pairs of occurrences, 3 * 2 agree.
    weights = as_dict(weigh_grams([[5, 6, 8, 5, 6, 9, 5, 6, 4, 5, 7]], min_texts=1))
    assert weights[5, 6] == pytest.approx(3 / 2)
    assert weights[5, 7] == pytest.approx(1 / 2)


def test_a_run_of_too_few_texts_is_not_kept_and_its_context_is_the_less_consistent() -> None:
    texts = [[5, 6, 5, 7], [9, 5, 6], [8, 5, 7]]
    # After 5: twice 6 and twice 7, in two texts each.
    assert as_dict(weigh_grams(texts, min_texts=2)) == pytest.approx({(5, 6): 2 / 3, (5, 7): 2 / 3})
    once = [[5, 6, 5, 7], [9, 5, 6], [8]]
    assert as_dict(weigh_grams(once, min_texts=2)) == pytest.approx({(5, 6): 2 / 3})
    assert not len(weigh_grams(texts, min_texts=3).weights)


def test_a_run_that_one_text_has_twice_is_not_in_two_texts() -> None:
    texts = [[5, 6, 9, 5, 6], [7, 5]]
    assert not len(weigh_grams(texts, min_texts=2).weights)
    assert (5, 6) in as_dict(weigh_grams(texts, min_texts=1))


def test_what_stands_in_one_text_alone_is_not_kept() -> None:
    secret = [101, 102, 103, 104, 105]
    texts = [[5, 6, *secret, 5, 6], [5, 6, 7], [*range(20, 60)]]
    kept = {token for run in as_dict(weigh_grams(texts, min_texts=2)) for token in run}
    assert kept == {START, 5, 6}


def test_runs_are_distinct_and_in_order() -> None:
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, N_VOCAB, 30).tolist() for _ in range(3)]
    runs = weigh_grams(texts, min_texts=1).tokens.tolist()
    assert runs == sorted(runs)
    assert len({tuple(run) for run in runs}) == len(runs)
    assert {len(run) for run in runs} == {ORDER + 1}


def test_one_context_adds_its_share_by_hand() -> None:
    book = PhraseBook(weigh_grams([[8, 5, 6, 9, 5, 6, 3, 5, 7]], min_texts=1), 0.5)
    # After 4, 5: only (5,) is known, with 6 twice and 7 once; a third of the pairs agree.
    assert book.added([4, 5]) == pytest.approx({6: 1 / 3, 7: 1 / 6})
    assert not book.added([9])
    nothing = Grams(np.empty((0, 4), np.int32), np.empty(0, np.float32))
    assert PhraseBook(nothing, 1.0).added([5]) == {}


@pytest.fixture
def texts() -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, N_VOCAB // 2, 40).tolist() for _ in range(3)]


@pytest.mark.parametrize("strength", [0.003, 0.1, 5.0])
@pytest.mark.parametrize("n_before", [0, 1, 2, 3, 9])
def test_the_next_token_is_as_by_the_formula(
    texts: list[list[int]], n_before: int, strength: float
) -> None:
    before = texts[0][:n_before]
    logits = np.random.default_rng(2).normal(size=N_VOCAB).astype(np.float32)
    p = np.exp(logits.astype(np.float64))
    p /= p.sum()
    expected = with_phrases(p, before, texts, strength)
    book = PhraseBook(weigh_grams(texts, min_texts=1), strength)
    assert book.added(before)
    book.shift(before, logits)
    shifted = np.exp(logits.astype(np.float64))
    np.testing.assert_allclose(shifted / shifted.sum(), expected, rtol=1e-5)


def test_a_text_is_scored_as_token_by_token(texts: list[list[int]]) -> None:
    text = [*texts[1][5:12], 11, 3]
    rng = np.random.default_rng(3)
    p = rng.dirichlet(np.ones(N_VOCAB), size=len(text))
    book = PhraseBook(weigh_grams(texts, min_texts=1), 0.05)
    log_prob = np.log(p[np.arange(len(text)), text]).astype(np.float32)
    expected = [
        math.log(with_phrases(p[row], text[:row], texts, 0.05)[token])
        for row, token in enumerate(text)
    ]
    np.testing.assert_allclose(book.of_text(text).log_prob(log_prob), expected, atol=1e-5)
    both = book.of_text(text).log_prob(np.stack([log_prob, log_prob - 1]))
    assert both.shape == (2, len(text))
    assert both.dtype == np.float32


def test_a_pair_of_the_text_is_not_offered_again() -> None:
    book = PhraseBook(weigh_grams([[5, 6, 5, 6, 5, 6]], min_texts=1), 0.5)
    assert 6 in book.added([5])
    assert 6 not in book.added([5, 6, 5])
    own = book.of_text([5, 6, 5, 6]).own
    assert own[1] > 0
    assert own[3] == 0


def test_strength_0_changes_nothing(texts: list[list[int]]) -> None:
    book = PhraseBook(weigh_grams(texts, min_texts=1), 0.0)
    logits = np.arange(N_VOCAB, dtype=np.float32)
    book.shift(texts[0][:3], logits)
    np.testing.assert_array_equal(logits, np.arange(N_VOCAB))
    log_prob = np.full(5, -2, np.float32)
    np.testing.assert_array_equal(book.of_text(texts[0][:5]).log_prob(log_prob), log_prob)
