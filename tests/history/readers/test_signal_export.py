"""Signal's plaintext export."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from steerx_edge.history.readers import signal_export
from tests.support.exports import Result, jsonl, write, zipped

HEADER = {"version": "1", "backupTimeMs": "1767607200000", "currentAppVersion": "Signal 8.10"}
PEOPLE = [
    {"account": {"givenName": "Kim", "profileKey": "x"}},
    {"recipient": {"id": "1", "self": {}}},
    {
        "recipient": {
            "id": "2",
            "contact": {"aci": "QQ==", "profileGivenName": "Ana", "profileFamilyName": "Ruiz"},
        }
    },
    {"recipient": {"id": "3", "group": {"snapshot": {"title": {"title": "Tea"}}}}},
    {"recipient": {"id": "4", "releaseNotes": {}}},
    {"chat": {"id": "20", "recipientId": "2"}},
    {"chat": {"id": "30", "recipientId": "3"}},
    {"chat": {"id": "10", "recipientId": "1"}},
]


def item(chat: str, author: str, minute: int, body: str | None, **fields: Any) -> dict[str, Any]:
    direction: dict[str, Any] = (
        {"outgoing": {"sendStatus": []}} if author == "1" else {"incoming": {"read": True}}
    )
    text = {} if body is None else {"text": {"body": body}}
    return {
        "chatItem": {
            "chatId": chat,
            "authorId": author,
            "dateSent": str(1767607200000 + 60_000 * minute),
            **direction,
            **(fields or {"standardMessage": text}),
        }
    }


ITEMS = [
    item("20", "2", 1, "Tea at five?"),
    item("30", "2", 2, "Group: tea?"),
    item("20", "1", 3, "Make it six"),
    item("30", "1", 4, "\ufffc yes", standardMessage={
        "text": {
            "body": "\ufffc yes",
            "bodyRanges": [{"start": 0, "length": 1, "mentionAci": "QQ=="}],
        }
    }),
    item("20", "1", 5, "please"),
    item("20", "1", 6, None),
    item("20", "1", 7, None, stickerMessage={"sticker": {}}),
    item("20", "1", 8, None, remoteDeletedMessage={}),
    item("20", "1", 9, None, updateMessage={"simpleUpdate": {}}, directionless={}),
    item("10", "1", 10, "Buy tea"),
]  # fmt: skip
KEPT = [
    ("Reply to Ana Ruiz: Tea at five?", "Make it six\nplease"),
    ("Reply to Ana Ruiz: Group: tea?", "@Ana Ruiz yes"),
    ("Write a message to yourself.", "Buy tea"),
]


@pytest.mark.parametrize("archived", [False, True])
def test_chats_side_by_side(tmp_path: Path, archived: bool) -> None:
    folder = write(
        tmp_path / "signal-export-2026-01-05",
        {
            "main.jsonl": jsonl(HEADER, *PEOPLE, *ITEMS),
            "metadata.json": {"version": 1},
            "files/ab/abc.txt": "A file that Ana sent.",
        },
    )
    path = zipped(folder, "signal-export/") if archived else folder
    result = Result(signal_export, path)
    assert result.kept == KEPT
    assert result.dropped == {
        "written by others": 2,
        "picture, file or call without text": 2,
        "deleted message": 1,
        "written by the program": 1,
    }
    assert result.texts[0].written == datetime(2026, 1, 5, 10, 3, tzinfo=timezone.utc)


def test_a_damaged_line_costs_only_itself(tmp_path: Path) -> None:
    lines = jsonl(HEADER, *PEOPLE, *ITEMS).replace('{"chatItem"', '{"chatItem": {}}\n{broken', 1)
    result = Result(signal_export, write(tmp_path / "a.txt", f"\ufeff{lines}"))
    assert result.dropped["damaged record"] == 1
    assert result.kept[0] == ("Write a message to Ana Ruiz.", "Make it six\nplease")


def test_the_person_is_the_author_or_the_sender(tmp_path: Path) -> None:
    by_self, sent = item("20", "1", 1, "By me"), item("20", "1", 20, "Sent by me")
    del by_self["chatItem"]["outgoing"]
    sent["chatItem"]["authorId"] = "99"
    path = write(tmp_path / "a", jsonl(HEADER, *PEOPLE, by_self, sent))
    assert [text for _, text in Result(signal_export, path).kept] == ["By me", "Sent by me"]
