"""Messages become texts and requests by the same rules in every chat."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from steerx_edge.history.readers.conversations import (
    Message,
    reason_to_leave_out,
    shortened,
    texts_of,
)
from steerx_edge.history.readers.texts import Dropped, Text

START = datetime(2026, 1, 5, 10, 0, tzinfo=timezone.utc)


def message(author: str, text: str, minute: float | None = 0, left_out: str = "") -> Message:
    written = None if minute is None else START + timedelta(minutes=minute)
    return Message(author, text, f"at {minute}", written, author == "Kim", left_out)


def kept(*messages: Message, whom: str = "Ana") -> list[tuple[str, str]]:
    found = texts_of(messages, whom)
    return [(each.item.request, each.item.response) for each in found if isinstance(each, Text)]


def test_a_burst_is_one_text_and_answers_the_burst_before() -> None:
    assert kept(
        message("Ana", "are you up?", 0),
        message("Ana", "tea?", 1),
        message("Kim", "yes", 2),
        message("Kim", "coming", 6.9),
    ) == [("Reply to Ana: are you up?\ntea?", "yes\ncoming")]


def test_a_pause_begins_another_text_which_answers_nothing() -> None:
    assert kept(message("Ana", "tea?"), message("Kim", "yes", 1), message("Kim", "now", 6.1)) == [
        ("Reply to Ana: tea?", "yes"),
        ("Write a message to Ana.", "now"),
    ]


@pytest.mark.parametrize("between", ["well", ""])
def test_others_between_end_a_burst_also_with_a_picture(between: str) -> None:
    texts = kept(message("Kim", "one"), message("Ana", between), message("Kim", "two"))
    request = "Reply to Ana: well" if between else "Write a message to Ana."
    assert texts == [("Write a message to Ana.", "one"), (request, "two")]


def test_only_the_last_author_is_answered() -> None:
    assert kept(
        message("Ana", "tea?", 0),
        message("Ben", "rain", 1),
        message("Ana", "no, sun", 2),
        message("Kim", "both", 3),
        whom="the group Tea",
    ) == [("Reply to Ana: no, sun", "both")]


def test_after_a_day_it_is_no_answer() -> None:
    day = 24 * 60
    assert kept(message("Ana", "tea?"), message("Kim", "now", day)) == [
        ("Reply to Ana: tea?", "now")
    ]
    assert kept(message("Ana", "tea?"), message("Kim", "now", day + 1)) == [
        ("Write a message to Ana.", "now")
    ]


def test_without_times_the_order_decides() -> None:
    assert kept(message("Kim", "a", None), message("Kim", "b", None), whom="") == [
        ("Write a message.", "a\nb")
    ]


def test_messages_of_several_lines_are_paragraphs() -> None:
    assert kept(message("Kim", "see:"), message("Kim", "1\n2"), message("Kim", "ok")) == [
        ("Write a message to Ana.", "see:\n\n1\n2\n\nok")
    ]


def test_what_is_left_out_is_counted_and_others_are_not_quoted() -> None:
    found = list(
        texts_of(
            [
                message("Ana", "a secret"),
                message("", "Ana joined"),
                message("Kim", "hello"),
                message("Kim", "https://example.org", 1),
                message("Kim", "there", 2),
                message("Kim", "from Ben", 3, "forwarded message"),
            ]
        )
    )
    assert [each for each in found if isinstance(each, Dropped)] == [
        Dropped("written by others", "at 0"),
        Dropped("written by the program", "at 0"),
        Dropped("link alone", "at 1", "https://example.org"),
        Dropped("forwarded message", "at 3", "from Ben"),
    ]
    (text,) = (each for each in found if isinstance(each, Text))
    assert text.item.response == "hello\nthere"
    assert (text.where, text.written) == ("at 0", START)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("https://example.org/a?b=c", "link alone"),
        ("www.example.org\nhttp://b.org!", "link alone"),
        ("<https://example.org>", "link alone"),
        ("location: https://maps.example/?q=1,2", "link alone"),
        ("look: https://example.org it is good", ""),
        ("/roll 2d6", "command for a bot"),
        ("!help", "command for a bot"),
        ("/home/kim is full", ""),
        ("!Vamos", ""),
        ("/roll\nis what I typed", ""),
        (" \n", "picture, file or call without text"),
        ("?!", ""),
    ],
)
def test_messages_that_are_no_texts(text: str, reason: str) -> None:
    assert reason_to_leave_out(text) == reason


def test_a_long_request_keeps_its_end() -> None:
    long = " ".join(f"word{n}" for n in range(200))
    short = shortened(long)
    assert short.startswith("… word1")
    assert short.endswith("word199")
    assert len(short) <= 402
    assert long.endswith(short[1:])  # it begins with a whole word, after a space
    assert shortened("短" * 500) == "… " + "短" * 400
    assert shortened("a" * 400) == "a" * 400
