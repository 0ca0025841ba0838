"""Telegram: one chat, or all of an account."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers import telegram
from steerx_edge.history.readers.source import Options, Source
from tests.support.exports import Result, write

ANA, KIM = {"from": "Ana", "from_id": "user7"}, {"from": "Kim", "from_id": "user9"}


def message(number: int, author: dict[str, Any], text: Any, **fields: Any) -> dict[str, Any]:
    return {
        "id": number,
        "type": "message",
        "date": f"2026-01-05T12:{number:02}:00",  # local
        "date_unixtime": str(1767607200 + 60 * number),
        **author,
        "text": text,
        **fields,
    }


CHAT = {
    "name": "Ana",
    "type": "personal_chat",
    "id": 7,
    "messages": [
        {"id": 0, "type": "service", "actor": "Ana", "actor_id": "user7", "text": ""},
        message(1, ANA, "Which one?"),
        message(
            2,
            KIM,
            [
                "The ",
                {"type": "bold", "text": "red"},
                " one, see ",
                {"type": "link", "text": "https://example.org"},
            ],
        ),
        message(3, KIM, "I wrote nothing of this", forwarded_from="News"),
        message(4, KIM, "", photo="photos/1.jpg"),
        message(5, KIM, [{"type": "blockquote", "text": "Which one?"}, "Really"]),
        message(6, KIM, "@gif cat", via_bot="@gif"),
        message(20, KIM, [{"type": "pre", "text": "x = 1"}, "is the code"]),
        message(21, {"from": None, "from_id": "user8"}, "gone"),
    ],
}


def test_a_personal_chat_says_who_the_other_is(tmp_path: Path) -> None:
    result = Result(telegram, write(tmp_path / "result.json", {**CHAT, "messages": BOTH}))
    assert result.kept == KEPT


BOTH = CHAT["messages"][:-1]  # type: ignore[index]
KEPT = [
    ("Reply to Ana: Which one?", "The red one, see https://example.org\nReally"),
    ("Write a message to Ana.", "```\nx = 1\n```\nis the code"),
]


def test_the_person_is_named_by_name_or_id(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", CHAT)
    for me in ("kim", "user9", "9"):
        assert Result(telegram, path, me).kept == KEPT
    with pytest.raises(HistoryError, match=r"Kim \(6\), Ana \(1\), user8 \(1\)"):
        list(telegram.read(Source(path), Options()))


def test_what_is_left_out(tmp_path: Path) -> None:
    result = Result(telegram, write(tmp_path / "result.json", CHAT), "Kim")
    assert result.dropped == {
        "written by the program": 2,
        "written by others": 2,
        "forwarded message": 1,
        "picture, file or call without text": 1,
    }
    assert result.texts[0].written == datetime(2026, 1, 5, 10, 2, tzinfo=timezone.utc)


def test_an_account_says_who_the_person_is(tmp_path: Path) -> None:
    group = {
        "name": "Tea",
        "type": "private_group",
        "id": 5,
        "messages": [message(1, KIM, "Who has tea?")],
    }
    bot = {"name": "Bot", "type": "bot_chat", "id": 6, "messages": [message(1, KIM, "start")]}
    saved = {"type": "saved_messages", "id": 9, "messages": [message(1, KIM, "Buy tea")]}
    path = write(
        tmp_path / "DataExport" / "result.json",
        {
            "about": "Here is the data you requested.",
            "personal_information": {"user_id": 9, "first_name": "Kim"},
            "contacts": {"about": "x", "list": [{"date": "y"}] * 5000},
            "chats": {"about": "", "list": [CHAT, group, bot, saved]},
            "left_chats": {"about": "", "list": [{**group, "name": None}]},
        },
    )
    write(path.parent / "chats" / "files" / "by_ana.txt", "A file that Ana sent.")
    result = Result(telegram, tmp_path)
    assert result.kept == [
        *KEPT,
        ("Write a message to the group Tea.", "Who has tea?"),
        ("Write a message to yourself.", "Buy tea"),
        ("Write a message.", "Who has tea?"),
    ]
    assert result.dropped["command for a bot"] == 1


def test_fields_of_other_kinds_are_no_messages(tmp_path: Path) -> None:
    broken = [None, 5, {"type": "message"}, message(1, KIM, 5), message(2, KIM, [None, {"a": 1}])]
    broken.append(message(3, KIM, "a \ud83d b \ud83d\ude00", date_unixtime="x", date=None))
    path = write(tmp_path / "a.json", json.dumps({**CHAT, "messages": broken}))
    assert [text for _, text in Result(telegram, path, "Kim").kept] == ["5\na � b 😀"]


def test_a_chat_may_be_named_after_its_messages(tmp_path: Path) -> None:
    turned = {**dict(reversed(CHAT.items())), "messages": BOTH}
    assert Result(telegram, write(tmp_path / "result.json", turned)).kept == KEPT
