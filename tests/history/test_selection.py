"""The rules that all formats share: what is kept, what is not, and that they are stable."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

import pytest

from steerx_edge.history.item import HistoryItem
from steerx_edge.history.language import foreign, language_of
from steerx_edge.history.near_duplicates import NearDuplicates
from steerx_edge.history.pasted import PASTED
from steerx_edge.history.readers.texts import Dropped, Text
from steerx_edge.history.selection import LINKS, NEAR_DUPLICATE, ONE_WORD, Selection
from steerx_edge.history.splitting import MOST_WORDS, parts_of
from steerx_edge.history.tally import OTHER_LANGUAGE, Tally
from steerx_edge.history.words import letter_words

ENGLISH = "Thank you for the tea, it came on Monday and we drank all of it."
GERMAN = "Danke für den Tee, er kam am Montag und wir haben ihn ganz ausgetrunken."
TRACE = "ValueError: cold\n  File \"tea.py\", line 3\nKeyError: 'pot'"


def texts(*responses: str, request: str = "") -> list[Text]:
    return [
        Text(HistoryItem(response, request), f"text {i}") for i, response in enumerate(responses)
    ]


def kept(found: Iterable[Text | Dropped]) -> list[Text]:
    return [each for each in found if isinstance(each, Text)]


def outcome(*responses: str) -> list[str]:
    """What becomes of each text: itself, or the reason why it is left out."""
    found = Selection().selected(texts(*responses))
    return [each.item.response if isinstance(each, Text) else each.reason for each in found]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Ok.", ONE_WORD),
        ("42!", ONE_WORD),
        ("👍🏽", ONE_WORD),
        (" \n ", ONE_WORD),
        ("See https://example.org/a/very/long/address?with=fields", LINKS),
        ("call me: +49 170 1234567 or 030 987654", LINKS),
        ("kim@example.org, ana@example.org and me", LINKS),
        (TRACE, PASTED),
    ],
)
def test_what_is_left_out(text: str, reason: str) -> None:
    assert outcome(text) == [reason]


@pytest.mark.parametrize(
    "text",
    ["Will do.", "好的", "The site https://example.org/tea sells the tea that I like."],
)
def test_what_is_kept(text: str) -> None:
    assert outcome(text) == [text]


def test_code_is_cut_out_of_a_text() -> None:
    assert outcome(f"It broke again:\n\n{TRACE}\n\nAny idea?") == [
        PASTED,
        "It broke again:\n\nAny idea?",
    ]


def test_traces_of_wrong_decoding_are_mended() -> None:
    assert outcome("A cafÃ© by the sea", "a lone \ud800 surrogate") == [
        "A café by the sea",
        "a lone ? surrogate",
    ]


def test_near_duplicates_are_kept_once() -> None:
    long = " ".join(f"{word} and tea" for word in ENGLISH.split() * 3)
    assert outcome(ENGLISH, "Thanks, will do!", long, "thanks will do", f"{long} Bye.") == [
        ENGLISH,
        "Thanks, will do!",
        long,
        NEAR_DUPLICATE,
        NEAR_DUPLICATE,
    ]


@pytest.mark.parametrize(("n_changed", "is_known"), [(3, True), (30, False)])
def test_texts_are_near_by_the_share_of_common_runs(n_changed: int, is_known: bool) -> None:
    # Each changed word changes three of the 198 runs: 189 of 207, or 108 of 288, are common.
    words = [f"word{i}" for i in range(200)]
    changed = [f"other{i}" if i % 6 == 1 and i < 6 * n_changed else words[i] for i in range(200)]
    known = NearDuplicates()
    assert not known.add(" ".join(words))
    assert known.add(" ".join(changed)) is is_known


def test_long_texts_are_split_and_ask_for_the_rest() -> None:
    paragraphs = [" ".join([word + end for word in "abcdefghij"] * 12) for end in "vwxyz"]
    (text,) = texts("\n\n".join(paragraphs), request="Write about tea")
    parts = kept(Selection().selected([text]))
    assert [part.item.response for part in parts] == [
        "\n\n".join(paragraphs[:2]),
        "\n\n".join(paragraphs[2:4]),
        paragraphs[4],
    ]
    assert [part.item.request for part in parts] == [
        "Write about tea",
        *["Write about tea (continued)"] * 2,
    ]
    assert parts[1].where == "text 0, part 2"


def test_parts_are_of_about_the_same_length() -> None:
    text = "\n\n".join([" ".join(["word"] * 50)] * 13)
    assert [len(part.split()) for part in parts_of(text)] == [250, 250, 150]


@pytest.mark.parametrize("gap", ["\n\n", "\n", ". ", " ", ""])
def test_parts_are_short_and_leave_nothing_out(gap: str) -> None:
    unit = "字" * 50 if not gap else " ".join(["word"] * 50)
    text = gap.join([unit] * 30)
    parts = parts_of(text)
    assert all(0 < len(letter_words(part)) <= MOST_WORDS for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert len(parts) <= 6  # 1500 words


LINES = "so I told them all about it and they told me all of it\n" * 20
MIXED = LINES + "int x = 1;\n" * 30  # prose as a whole, but its second part is code
POOL = [
    *[MIXED] * 4,
    *(ENGLISH, "Ok.", TRACE, "Will do, thanks!", "will do thanks", "www.example.org/tea 12"),
    *(f"A line\n```\nx\n\ny\n```\n{TRACE}", "```\nan open fence", "$ ls\n\nwhat is this?"),
    *("word " * 700, "one. two! " * 200, f"{TRACE}\n" * 80, "line\nof = code;\n" * 200, "字" * 700),
    *("cafÃ© au lait", "- a\n\n- b", "{\n}\n\nand prose"),
]


@pytest.mark.parametrize("seed", range(20))
def test_selected_texts_selected_again_are_the_same_in_the_same_order(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    given = texts(*("\n\n".join(chance.choices(POOL, k=chance.randint(1, 4))) for _ in range(20)))
    once = kept(Selection().selected(given))
    assert once
    assert list(Selection().selected(once)) == once
    places = [int(text.where.split(",")[0].removeprefix("text ")) for text in once]
    assert places == sorted(places)


def test_nothing_is_held_back() -> None:
    def endless() -> Iterable[Text]:
        yield from texts(ENGLISH)
        raise AssertionError("a second text was asked for")

    assert next(Selection().selected(endless())) == replace(*texts(ENGLISH), language="en")


@pytest.mark.parametrize(
    ("text", "code"),
    [(ENGLISH, "en"), (GERMAN, "de"), ("Ja gut", ""), ("明日の会議は十時からです。", "ja")],
)
def test_the_language_of_a_text(text: str, code: str) -> None:
    assert language_of(text) == code


@pytest.mark.parametrize(
    ("counts", "others"),
    [
        ({"en": 9, "de": 1}, {"de"}),
        ({"en": 8, "de": 2}, set()),  # a fifth
        ({"en": 4, "de": 1, "": 95}, set()),
        ({"no": 9, "da": 1}, set()),  # close
        (dict.fromkeys(("en", "de", "fr", "ja", "ko", "fi"), 1), set()),
        ({}, set()),
    ],
)
def test_languages_that_are_not_the_persons(counts: dict[str, int], others: set[str]) -> None:
    assert foreign(counts) == others


def test_texts_in_another_language_are_taken_back_at_the_end() -> None:
    varied = [f"{ENGLISH} And {word} {word} came." for word in "abcdefghi"]
    tally = Tally()
    for each in Selection().selected(texts(*varied, GERMAN)):
        tally.add(each)
    assert (tally.kept, tally.dropped) == (9, {OTHER_LANGUAGE: 1})
    assert list(tally.order()) == list(range(9))
    assert tally.samples[OTHER_LANGUAGE] == [Dropped(OTHER_LANGUAGE, "text 9", GERMAN)]
    assert GERMAN not in {text.item.response for text in tally.examples}
