"""Slack's export of a workspace."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers import slack
from steerx_edge.history.readers.source import Options, Source
from tests.support.exports import Result, write, zipped


def user(key: str, name: str, **fields: Any) -> dict[str, Any]:
    profile = {"display_name": name, "real_name": f"{name} Lee", "email": f"{name}@example.org"}
    return {"id": key, "name": name.lower(), "is_bot": False, "profile": profile, **fields}


def message(user: str, minute: int, text: str, **fields: Any) -> dict[str, Any]:
    return {"type": "message", "user": user, "ts": ts(minute), "text": text, **fields}


def ts(minute: int) -> str:
    return f"{1767607200 + 60 * minute}.000100"


USERS = [user("U1", "Kim"), user("U2", "Ana"), user("B1", "Robo", is_bot=True)]
EXPORT = {
    "users.json": USERS,
    "channels.json": [{"id": "C1", "name": "general", "members": ["U1", "U2"]}],
    "dms.json": [{"id": "D1", "members": ["U1", "U2"]}],
    "integration_logs.json": [],
    "general/2026-01-05.json": [
        message("U2", 1, "<@U1> can you &lt;look&gt;?", thread_ts=ts(1), reply_count=2),
        message("U2", 2, "has joined", subtype="channel_join"),
        message("U1", 3, "Lunch <!here>? <https://example.org|menu> in <#C1|general>"),
        message("B1", 4, "beep", bot_id="B01"),
        message("U1", 5, "looking", thread_ts=ts(1)),
    ],
    "general/2026-01-06.json": [
        message("U1", 1500, "", files=[{"id": "F1"}]),
        message("U1", 1441, "done &amp; dusted", thread_ts=ts(1)),
        message("U1", 1502, "waves", subtype="me_message"),
    ],
    "D1/2026-01-05.json": [message("U1", 2, "yes?"), message("U2", 1, "psst")],
}
KEPT = [
    ("Reply to Ana: psst", "yes?"),
    ("Write a message to #general.", "Lunch @here? menu in #general"),
    ("Write a message to #general.", "waves"),
    ("Reply to Ana: @Kim can you <look>?", "looking"),
    ("Write a message to #general.", "done & dusted"),
]


@pytest.mark.parametrize("me", ["Kim", "kim lee", "U1", "kim@example.org"])
@pytest.mark.parametrize("archived", [False, True])
def test_channels_threads_and_direct_messages(tmp_path: Path, me: str, archived: bool) -> None:
    folder = write(tmp_path / "Tea Slack export", EXPORT)
    result = Result(slack, zipped(folder) if archived else folder, me)
    assert sorted(result.kept) == sorted(KEPT)
    assert result.dropped == {
        "written by others": 2,
        "written by the program": 2,
        "picture, file or call without text": 1,
    }


def test_times_are_those_of_the_messages(tmp_path: Path) -> None:
    result = Result(slack, write(tmp_path / "a", EXPORT), "Kim")
    written = {text.item.response: text.written for text in result.texts}
    assert written["yes?"] == datetime(2026, 1, 5, 10, 2, 0, 100, tzinfo=timezone.utc)


def test_who_the_person_is_is_asked_with_names(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"a Slack export, .* are Kim \(6\), Ana \(3\)\."):
        list(slack.read(Source(write(tmp_path / "a", EXPORT)), Options()))
    with pytest.raises(HistoryError, match="none of its authors is 'Ben'"):
        list(slack.read(Source(tmp_path / "a"), Options(me=("Ben",))))


def test_a_day_alone_is_read_by_ids(tmp_path: Path) -> None:
    path = write(tmp_path / "day.json", EXPORT["D1/2026-01-05.json"])
    assert Result(slack, path, "U1").kept == [("Reply to U2: psst", "yes?")]


def test_a_damaged_day_costs_only_itself(tmp_path: Path) -> None:
    path = write(tmp_path / "a", {**EXPORT, "general/2026-01-05.json": "[{"})
    result = Result(slack, path, "Kim")
    assert result.dropped["file that could not be read"] == 1
    assert ("Reply to Ana: psst", "yes?") in result.kept
