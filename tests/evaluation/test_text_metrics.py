"""Figures of a text, computed by hand."""

from __future__ import annotations

import pytest

from steerx_edge.errors import SteerxError
from steerx_edge.evaluation import text_metrics
from steerx_edge.evaluation.text_metrics import Attribution, copied, overlap, request_fit


def test_overlap_by_hand() -> None:
    figures = overlap("The cat sat.", "the cats sat, on")
    assert figures["rouge1"] == pytest.approx(4 / 7)  # 2 of 4 words, 2 of 3
    assert figures["rougeL"] == pytest.approx(4 / 7)
    # METEOR: all 3 words by stems, in one chunk: P = 3/4, R = 1, penalty 0.5 (1/3)^3.
    expected = 0.75 / (0.9 * 0.75 + 0.1) * (1 - 0.5 / 27)
    assert figures["meteor"] == pytest.approx(expected)


def test_rouge_l_minds_the_order_and_rouge_1_does_not() -> None:
    figures = overlap("one two three", "three two one")
    assert figures["rouge1"] == pytest.approx(1)
    assert figures["rougeL"] == pytest.approx(1 / 3)


def test_words_of_every_script_count() -> None:
    assert overlap("Über Käse", "über käse")["rouge1"] == 1
    assert overlap("чайник пел", "чайник пел")["rougeL"] == 1
    assert overlap("हिन्दी में", "हिन्दा में")["rouge1"] == 0.5
    assert overlap("我喝茶", "我不喝茶")["rouge1"] == pytest.approx(6 / 7)
    assert overlap("one", "") == {"rouge1": 0, "rougeL": 0, "meteor": 0}


@pytest.mark.parametrize(
    ("log_probs", "figures"),
    [
        ([-2.0], {}),  # no request
        ([-2.0, -3.0], {"topic": 1}),  # no other request
        ([-2.0, -3.0, -2.5, -2.25], {"topic": 1, "own_request": 1}),
        ([-2.0, -3.0, -2.5, -1.75], {"topic": 1, "own_request": 0}),
        ([-2.0, -1.5, -2.0], {"topic": -0.5, "own_request": 0}),  # no better is not better
    ],
)
def test_request_fit_by_hand(log_probs: list[float], figures: dict[str, float]) -> None:
    assert request_fit(log_probs) == figures


ALPHABET = "a b c d e f g h i j"


@pytest.mark.parametrize(
    ("texts", "history", "leaked", "habit"),
    [
        (["a b c d e f g h"], ["x y"], 0, 0),
        (["a b c d e f g h"], ["a b c d e f g x"], 2 / 3, 0),
        (["a b c d e f g h"], ["a b c d e f g x", "x b c d e f g x"], 1 / 3, 1 / 3),
        (["a b c d e f g h"], ["b c d e f g", "b c d e f g b c d e f g h"], 1 / 3, 1 / 3),
        (["b c d e f g"], ["b c d e f g x b c d e f g"], 1, 0),  # twice in one text
        (["b c d e f g"], ["a b c d e f g", "A, b: c d e f (g)!"], 1, 0),  # twice the same text
        (["A, b – C d; «e» f."], ["(a) B c d e F!"], 1, 0),
        (["STRASSE b c d e f"], ["straße b c d e f"], 1, 0),
        (["a b c d e f", "x y z x y z x y z"], [ALPHABET], 1 / 5, 0),  # of all texts together
        (["a b c d e f", "short"], [ALPHABET], 1, 0),
        (["我每天早上喝茶。"], ["他每天早上喝茶"], 1 / 2, 0),  # by characters
    ],
)
def test_copied_by_hand(texts: list[str], history: list[str], leaked: float, habit: float) -> None:
    assert copied(texts, history) == pytest.approx({"leaked": leaked, "habit": habit})


def test_of_texts_without_six_words_nothing_can_be_said() -> None:
    assert copied(["a b c d e", ""], [ALPHABET]) == {}


def test_attribution_knows_who_writes_how() -> None:
    attribution = Attribution(
        {
            "plain": ["The house is old.", "The road is long.", "The sun is up."],
            "loud": ["WOW!!! SO OLD!!!", "WOW!!! LONG!!!", "YES!!! UP!!!"],
            "quiet": ["old... oh well...", "long... sigh...", "up... i guess..."],
        }
    )
    assert attribution.rank("loud", "OH WOW!!!") == 1
    assert attribution.rank("quiet", "so... oh well...") == 1
    assert attribution.rank("plain", "OH WOW!!!") > 1
    assert sorted(attribution.rank(a, "The hill is far.") for a in ("plain", "loud", "quiet")) == [
        1,
        2,
        3,
    ]


def test_attribution_between_two() -> None:
    attribution = Attribution({"b": ["xxxx", "xxyx"], "a": ["ooooo", "oooo"]})
    assert [attribution.rank(author, "xxx") for author in "ba"] == [1, 2]
    assert [attribution.rank(author, "ooo") for author in "ba"] == [2, 1]


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    text_metrics.check_installed()
    monkeypatch.setattr(text_metrics, "find_spec", lambda name: None if name == "nltk" else 1)
    with pytest.raises(SteerxError, match=r"nltk, .* 'steerx-edge\[eval\]', .* --no-generate"):
        text_metrics.check_installed()
