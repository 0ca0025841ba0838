"""Which texts of a history are learned from, and how much of each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.texts import chosen, items_of, sampled, shortened, usable
from steerx_edge.llamacpp.engine import Engine
from tests.support.histories import HISTORY

BLANK = HistoryItem(" \n", "Write about nothing.")
COPY = HistoryItem(f" {HISTORY[1].response.upper().replace(' ', '  ', 1)}\n", "Another request.")


def test_texts_that_are_blank_or_copied_later_are_left_out() -> None:
    assert chosen([HISTORY[1], BLANK, COPY, *HISTORY, BLANK], None) == HISTORY
    assert chosen([*HISTORY, COPY], None) == [HISTORY[0], *HISTORY[2:], COPY]


def test_of_a_long_history_the_last_texts_are_chosen() -> None:
    assert chosen([*HISTORY, BLANK], 3) == HISTORY[-3:]


@pytest.mark.parametrize(
    ("history", "n"), [([], "no text"), ([BLANK, HISTORY[1], COPY], "only one text")]
)
def test_fewer_than_two_different_texts_are_an_error(
    tiny_engine: Engine, history: list[HistoryItem], n: str
) -> None:
    with pytest.raises(
        HistoryError, match=f"There is {n} to learn from, but at least 2 .* by blank lines"
    ):
        usable(tiny_engine, history, None)


def test_strings_are_texts_that_answer_no_request() -> None:
    assert items_of(["one", HISTORY[0], "two"]) == [
        HistoryItem("one"),
        HISTORY[0],
        HistoryItem("two"),
    ]


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ("one text", r"^The history is of type str\. Give a list of texts, or read a file with"),
        (Path("me.txt"), "of type PosixPath"),
        ({"text": "one"}, "of type dict"),
        (None, "of type NoneType"),
        (["one", {"text": "two"}], r"^history\[1\] is of type dict\. Give strings, or"),
    ],
)
def test_what_is_no_list_of_texts_is_said(history: Any, message: str) -> None:
    with pytest.raises(HistoryError, match=message):
        items_of(history)


def test_an_item_is_made_of_strings() -> None:
    with pytest.raises(
        HistoryError, match=r"^The response of an item is of type bytes\. Give a str"
    ):
        HistoryItem(b"one")  # type: ignore[arg-type]
    with pytest.raises(HistoryError, match="The request of an item is of type NoneType"):
        HistoryItem("one", None)  # type: ignore[arg-type]


def test_a_copy_of_a_text_is_recognized_by_its_hash(tiny_engine: Engine) -> None:
    texts = usable(tiny_engine, HISTORY, None)
    (copy,) = {text.hash for text in usable(tiny_engine, [HISTORY[0], COPY], None)} - {
        texts[0].hash
    }
    assert [text.hash == copy for text in texts] == [False, True, False, False]


@pytest.mark.parametrize("has_template", [False, True])
def test_long_texts_and_requests_are_cut_to_their_share_of_the_context(
    tiny_engine: Engine, tiny_chat_engine: Engine, *, has_template: bool
) -> None:
    engine = tiny_chat_engine if has_template else tiny_engine
    long = "down the rabbit hole again and again, so very tired of it all... " * 60
    item = HistoryItem(f"First {long}", f"Write about {long}")
    cut, n_ctx = shortened(engine, item), engine.analysis.n_ctx
    for part, whole, share in (
        (cut.response, item.response, n_ctx // 8),
        (cut.request, item.request, n_ctx * 3 // 16),
    ):
        assert whole.startswith(part)
        # One token more at most: a text is tokenized anew after it is cut.
        assert len(engine.tokenize(part)) == pytest.approx(share, abs=1)
    assert shortened(engine, replace(HISTORY[0])) == HISTORY[0]


@pytest.mark.parametrize(
    ("n_items", "most", "places"),
    [(10, 1, [9]), (10, 3, [2, 5, 9]), (4, 4, [0, 1, 2, 3]), (3, 24, [0, 1, 2])],
)
def test_a_sample_is_spread_over_all_texts_and_holds_the_last(
    n_items: int, most: int, places: list[int]
) -> None:
    assert sampled(n_items, most) == places


def test_texts_in_a_wrong_encoding_are_told(
    tiny_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    usable(tiny_engine, [*HISTORY, HistoryItem("caf\u00c3\u00a9")], None)
    (message,) = caplog.messages
    assert message.startswith(f"1 of {len(HISTORY) + 1} texts look like UTF-8 that was read as")
