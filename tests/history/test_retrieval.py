"""The texts that are put before a request: the most relevant ones, and which of them fit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem
from steerx_edge.history.retrieval import Retriever, query_for

ROOT = Path(__file__).parents[2]
ITEMS = [
    HistoryItem("The kettle boils over.", "Write about tea."),
    HistoryItem("A bicycle with a flat tyre.", "Write about travel."),
    HistoryItem("Green tea, black tea, and a kettle for each.", "Write about tea."),
    HistoryItem("Rain on the window."),
]


@pytest.mark.parametrize(
    ("query", "k", "expected"),
    [
        ("kettle tea", 2, [2, 0]),
        ("kettle tea", 99, [2, 0, 3, 1]),
        ("bicycle", 3, [1, 3, 2]),
        ("tea", 0, []),
    ],
)
def test_the_most_relevant_come_first_then_the_most_recent(
    query: str, k: int, expected: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    assert Retriever(ITEMS).retrieve(query, k) == expected
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("query", "first"), [("travel", 1), ("bicycle", 1), ("window", 3)])
def test_request_and_text_are_both_searched(query: str, first: int) -> None:
    assert Retriever(ITEMS).retrieve(query, 1) == [first]


@pytest.mark.parametrize("query", ["zeppelin", "", "the and of", "x"])
def test_a_query_that_shares_no_word_finds_the_most_recent(query: str) -> None:
    assert Retriever(ITEMS).retrieve(query, 3) == [3, 2, 1]


def test_equally_relevant_items_are_in_order() -> None:
    items = [HistoryItem("other"), *[HistoryItem("same words")] * 4, HistoryItem("last")]
    assert Retriever(items).retrieve("same words", 4) == [1, 2, 3, 4]


@pytest.mark.parametrize("query", ["kettle tea", "zeppelin"])
def test_excluded_items_are_not_returned(query: str) -> None:
    retriever = Retriever(ITEMS)
    for index in range(len(ITEMS)):
        found = retriever.retrieve(query, 10, exclude={index})
        assert sorted(found) == [other for other in range(len(ITEMS)) if other != index]
    assert retriever.retrieve(query, 10, exclude=range(4)) == []
    assert retriever.retrieve("kettle tea", 1, exclude=[2, 99, -1]) == [0]


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], []),
        ([HistoryItem("One only.")], [0]),
        ([HistoryItem("")], [0]),
        ([HistoryItem(""), HistoryItem("the")], [1, 0]),
        ([HistoryItem(""), HistoryItem("only")], [1, 0]),
    ],
)
@pytest.mark.parametrize("query", ["only", ""])
def test_small_and_empty_histories(
    items: list[HistoryItem], expected: list[int], query: str
) -> None:
    assert Retriever(items).retrieve(query, 5) == expected


def test_in_context_texts_have_the_most_relevant_last() -> None:
    expected = [ITEMS[index] for index in (3, 0, 2)]
    assert Retriever(ITEMS).in_context("kettle tea", 3, lambda _: True) == expected


def test_in_context_texts_skip_only_what_does_not_fit() -> None:
    asked: list[list[int]] = []

    def fits(items: Sequence[HistoryItem]) -> bool:
        asked.append([ITEMS.index(item) for item in items])
        return sum(len(item.response) for item in items) <= 63

    assert Retriever(ITEMS).in_context("kettle tea", 4, fits) == [ITEMS[3], ITEMS[2]]
    assert asked == [[2], [0, 2], [3, 2], [1, 3, 2]]
    assert Retriever(ITEMS).in_context("kettle tea", 4, lambda _: False) == []


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(HistoryError, match="must not be negative: -1"):
        Retriever(ITEMS).retrieve("tea", -1)


def test_an_item_finds_its_in_context_texts() -> None:
    retriever = Retriever(ITEMS)
    assert [
        retriever.retrieve(query_for(item), 2, exclude={index}) for index, item in enumerate(ITEMS)
    ] == [[2, 1], [0, 2], [0, 1], [2, 1]]


def test_the_answer_does_not_depend_on_the_hash_seed() -> None:
    code = (
        "from steerx_edge.history.reading import read_history as r\n"
        "from steerx_edge.history.retrieval import Retriever, query_for\n"
        "retriever = Retriever(r('docs/demo/history.jsonl'))\n"
        "for item in r('docs/demo/held_out.jsonl'): print(retriever.retrieve(query_for(item), 20))"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in "123"
    }
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("item", "query"),
    [
        (HistoryItem("text", "request"), "request"),
        (HistoryItem("text"), "text"),
        (HistoryItem("text", " \n"), "text"),
    ],
)
def test_query_for(item: HistoryItem, query: str) -> None:
    assert query_for(item) == query


def test_importing_does_not_import_bm25s() -> None:
    code = "import sys, steerx_edge.history.retrieval; print('bm25s' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "False\n"


SCRIPTS = {
    "ja": (
        ["猫が好きです。", "コーヒーを飲みました。", "犬の散歩をした。"],
        "コーヒーを飲みたい",
        1,
    ),
    "ja, one": (["猫が好きです。", "茶を飲みました。", "犬の散歩をした。"], "猫", 0),
    "ja, half width": (["ラーメンを食べた。", "猫。", "犬。"], "ﾗｰﾒﾝ", 0),
    "zh": (["我喜欢喝茶。", "今天下雨了。", "他在公园跑步。"], "喝茶", 0),
    "th": (["ฉันชอบดื่มกาแฟ", "วันนี้ฝนตก", "เขาไปวิ่ง"], "กาแฟ", 0),
    "ar, without points": (["كِتَابٌ جَدِيدٌ", "بيت", "قلم"], "كتاب", 0),
    "hi": (["चाय पीता हूँ", "हिन्दी लिखता हूँ", "घर"], "हिन्दी", 1),
    "NFD": (["le caf\u00e9", "le the\u0301", "non"], "the\u0301", 1),
    "fa": (["می\u200cخواهم", "کتاب", "خانه"], "میخواهم", 0),
}


@pytest.mark.parametrize(("texts", "query", "found"), SCRIPTS.values(), ids=SCRIPTS.keys())
def test_texts_are_found_in_every_script(texts: list[str], query: str, found: int) -> None:
    assert Retriever([HistoryItem(text) for text in texts]).retrieve(query, 1) == [found]
