"""Facebook, Messenger and Instagram."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers import meta_messages
from steerx_edge.history.readers.source import Options, Source
from tests.support.exports import Result, write, zipped


def broken(text: str) -> str:
    """As Facebook writes UTF-8: each byte as a character."""
    return text.encode().decode("latin-1")


def message(author: str, minute: int, text: str | None, **fields: Any) -> dict[str, Any]:
    content = {} if text is None else {"content": broken(text)}
    time = 1767607200000 + 60_000 * minute
    return {"sender_name": broken(author), "timestamp_ms": time, **content, **fields}


def chat(title: str, *messages: dict[str, Any]) -> dict[str, Any]:
    names = [{"name": each} for each in {message["sender_name"] for message in messages}]
    return {"participants": names, "messages": list(messages), "title": broken(title)}


ZOE = chat(
    "Zoë",
    message("Zoë", 9, None, photos=[{"uri": "a.jpg"}]),
    message("Kim", 8, "Kim sent an attachment.", share={"link": "https://example.org"}),
    message("Kim", 7, None, call_duration=20),
    message("Kim", 6, "oops", is_unsent=True),
    message("Kim", 3, "see https://example.org", share={"link": "https://example.org"}),
    message("Kim", 2, "un café 😀"),
    message("Zoë", 1, "On se voit où ?"),
)
EARLIER = chat("Zoë", message("Kim", -2000, "first of all"))
KEPT = [
    ("Write a message to Zoë.", "first of all"),
    ("Reply to Zoë: On se voit où ?", "un café 😀\nsee https://example.org"),
]


@pytest.mark.parametrize("root", ["", "your_facebook_activity/", "your_instagram_activity/"])
def test_a_whole_export(tmp_path: Path, root: str) -> None:
    folder = write(
        tmp_path / "facebook-kim",
        {
            f"{root}messages/inbox/zoe_1/message_1.json": ZOE,
            f"{root}messages/inbox/zoe_1/message_2.json": EARLIER,
            f"{root}messages/inbox/zoe_1/files/by_zoe.txt": "A file that Zoë sent.",
            f"{root}messages/message_requests/ben_2/message_1.json": chat(
                "Tea", message("Ben", 1, "hi"), message("Kim", 2, "hm"), message("Cleo", 3, "ho")
            ),
            f"{root}messages/autofill_information.json": {"autofill_information_v2": {}},
            "profile_information/a.json": {"profile_v2": {}},
        },
    )
    result = Result(meta_messages, zipped(folder))
    assert result.kept == [*KEPT, ("Reply to Ben: hi", "hm")]
    assert result.dropped == {
        "written by others": 4,
        "picture, file or call without text": 1,
        "written by the program": 1,
        "deleted message": 1,
    }
    assert result.texts[1].written == datetime(2026, 1, 5, 10, 2, tzinfo=timezone.utc)


def test_one_chat_asks_who_the_person_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", ZOE)
    assert Result(meta_messages, path, "kim").kept == KEPT[1:]
    with pytest.raises(HistoryError, match=r"are Kim \(5\), Zoë \(2\)"):
        list(meta_messages.read(Source(path), Options()))


def test_encrypted_chats_of_messenger(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.json",
        {
            "participants": ["Ana", "Kim"],
            "threadName": "Ana_1",
            "messages": [
                {"senderName": "Kim", "text": "zwei", "timestamp": 1767607320000, "media": []},
                {"senderName": "Ana", "text": "eins", "timestamp": 1767607200000, "media": []},
            ],
        },
    )
    assert Result(meta_messages, path, "Kim").kept == [("Reply to Ana: eins", "zwei")]
