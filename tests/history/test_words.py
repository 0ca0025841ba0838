"""Words and sentences in the scripts of the world."""

from __future__ import annotations

from unicodedata import normalize

import pytest

from steerx_edge.history.item import HistoryItem
from steerx_edge.history.words import SENTENCE_END, WORD, bare_words, pieces, sentences

FAMILY = "👩\u200d👩\u200d👧\u200d👦"
SCRIPTS = {
    "en": ("I don't e-mail, ok?", ["I", "don't", "e-mail", ",", "ok", "?"]),
    "hi": ("हिन्दी में लिखता हूँ।", ["हिन्दी", "में", "लिखता", "हूँ", "।"]),
    "ta": ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
    "ar": ("كِتَابٌ جَدِيدٌ؟", ["كِتَابٌ", "جَدِيدٌ", "؟"]),
    "fa": ("می\u200cخواهم بروم", ["می\u200cخواهم", "بروم"]),
    "he": ('שָׁלוֹם צה״ל צה"ל', ["שָׁלוֹם", "צה״ל", 'צה"ל']),
    "th": ("ที่นี่", ["ที่", "นี่"]),
    "ja": ("私はラーメンを。", ["私", "は", "ラーメン", "を", "。"]),
    "zh": ("我喝茶！", ["我", "喝", "茶", "！"]),
    "ko": ("한국어 좋아요", ["한국어", "좋아요"]),
    "nfd": (normalize("NFD", "déjà vu"), [normalize("NFD", "déjà"), "vu"]),
    "ca": ("col·lecció", ["col·lecció"]),
    "uz": ("O‘zbek ‘tili’", ["O‘zbek", "‘", "tili", "’"]),
    "hy": ("Ինչպե՞ս ես։", ["Ինչպե՞ս", "ես", "։"]),
    "marks of direction": (
        "\u200fשלום \u200e ok\u200e, \u2067.\u2069",
        ["שלום", "ok\u200e", ",", "\u2067.\u2069"],
    ),
    "emoji": (f"ok {FAMILY} 🇩🇪 1️⃣", ["ok", FAMILY, "🇩🇪", "1️⃣"]),
}


@pytest.mark.parametrize(("text", "words"), SCRIPTS.values(), ids=SCRIPTS.keys())
def test_words(text: str, words: list[str]) -> None:
    assert WORD.findall(text) == words


def test_figures_count_characters_where_there_are_no_spaces() -> None:
    assert bare_words("don't_go 我喝茶 हिन्दी") == ["don", "t", "go", "我", "喝", "茶", "हिन्दी"]
    assert pieces("don't go, 我喝茶！") == ["don't", "go,", "我", "喝", "茶", "！"]


@pytest.mark.parametrize(
    ("text", "n_sentences"),
    [
        ("茶を飲む。寒い！何？", 3),
        ("मैं आया। तुम कहाँ हो? ठीक॥", 3),
        ("أين أنت؟ أنا هنا۔ نعم.", 3),
        ("Ողջույն։ Ինչպես ես։", 2),
        ("བཀྲ་ཤིས། བདེ་ལེགས།", 2),
        ("Version 3.5 is out. Good.", 2),
    ],
)
def test_sentences(text: str, n_sentences: int) -> None:
    assert len(sentences([text])) == n_sentences


def test_the_same_text_is_the_same_item_from_any_container() -> None:
    given = HistoryItem(normalize("NFD", "déjà\r\nvu\r"), "a\r\nb")
    assert (given.response, given.request) == ("d\u00e9j\u00e0\nvu\n", "a\nb")


def test_a_run_of_dots_is_looked_at_once() -> None:
    dots = "." * 1_000_000
    assert SENTENCE_END.search(f"{dots}x", timeout=20) is None
    assert SENTENCE_END.split(f"One{dots} Two.") == ["One", "Two."]
