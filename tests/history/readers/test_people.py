"""Who the person is, where the export does not say it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers.people import normalized_name, who_is_the_person
from steerx_edge.history.readers.source import Source

SOURCE = Source(Path("chat.txt"))
ONE = Counter({"Ana": 12, "Kim Lee": 9})


def who(*chats: Counter[str], me: tuple[str, ...] = ()) -> frozenset[str]:
    return who_is_the_person(SOURCE, "a chat", chats, me, {"Kim Lee": {"U1", "kim@example.org"}})


@pytest.mark.parametrize("me", ["kim  lee", "@Kim\u202fLee", "u1", "KIM@example.org"])
def test_the_person_is_named_by_any_of_their_names(me: str) -> None:
    assert who(ONE, me=(me,)) == {"Kim Lee"}


def test_a_part_of_a_name_is_not_enough() -> None:
    with pytest.raises(HistoryError, match=r"none of its authors is 'Kim'\. They are Ana \(12\)"):
        who(ONE, me=("Kim",))


def test_one_chat_asks_who_the_person_is() -> None:
    with pytest.raises(
        HistoryError, match=r"does not say which .* Ana \(12\), Kim Lee \(9\)\. Give .* --me"
    ):
        who(ONE)


def test_it_is_the_only_author_of_all_chats(caplog: pytest.LogCaptureFixture) -> None:
    assert who(ONE, Counter({"Ben": 3, "Kim Lee": 1})) == {"Kim Lee"}
    assert "read as the messages by Kim Lee, the only author of all 2 chats" in caplog.text


def test_two_common_authors_are_not_guessed_between() -> None:
    with pytest.raises(HistoryError, match="does not say"):
        who(ONE, ONE)


def test_one_author_of_one_chat_may_be_another() -> None:
    with pytest.raises(HistoryError, match="does not say"):
        who(Counter({"Ana": 3}))


def test_many_authors_are_not_all_listed() -> None:
    with pytest.raises(HistoryError, match=r"a \(1\).*, and 16 more\."):
        who(Counter("abcdefghijklmnopqrstuvwxyz"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("+49 170 1234567", "\u202a+49\xa0170\xa01234567\u202c"),
        ("+49 (170) 123-4567", "491701234567"),
        ("~\u202fKim", "kim"),
        ("ＫＩＭ", "kim"),
        ("ẞtraße", "SSTRASSE"),
    ],
)
def test_names_are_compared_without_what_programs_add(one: str, other: str) -> None:
    assert normalized_name(one) == normalized_name(other)
