"""Discord: the package with one's own messages, and DiscordChatExporter's JSON."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers import discord, discord_exporter
from steerx_edge.history.readers.source import Options, Source
from tests.support.exports import Result, write, zipped

PACKAGE = {
    "README.txt": "This is a package.",
    "account/user.json": {"id": "1", "username": "kim"},
    "messages/index.json": {"10001": "Direct Message with ana#0", "10002": "general in Tea"},
    "messages/c10001/channel.json": {"id": "10001", "type": "DM", "recipients": ["1", "2"]},
    "messages/c10001/messages.json": [
        {"ID": 1003, "Timestamp": "2026-01-05 10:02:00", "Contents": "ok?", "Attachments": ""},
        {"ID": 1002, "Timestamp": "2026-01-05 10:01:00", "Contents": "<@2> see", "Attachments": ""},
        {"ID": 1001, "Timestamp": "2026-01-04 10:00:00", "Contents": "", "Attachments": "http://a"},
    ],
    "messages/c10002/channel.json": {
        "id": "10002",
        "type": "GUILD_TEXT",
        "name": "general",
        "guild": {"id": "9", "name": "Tea"},
    },
    "messages/c10002/messages.csv": "ID,Timestamp,Contents,Attachments\r\n"
    '1101,2026-01-05 11:00:00.123000+00:00,"Hot, <a:tea:5>\r\nor cold?",\r\n'
    "1102,2026-01-05 12:00:00+00:00,!play tea,\r\n",
}
KEPT = [
    ("Write a message to ana.", "see\nok?"),
    ("Write a message to #general of Tea.", "Hot, :tea:\nor cold?"),
]


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("folder", ["messages", "Nachrichten"])
def test_a_package(tmp_path: Path, archived: bool, folder: str) -> None:
    files = {name.replace("messages/", f"{folder}/"): each for name, each in PACKAGE.items()}
    path = write(tmp_path / "package", files)
    result = Result(discord, zipped(path) if archived else path)
    assert result.kept == KEPT
    assert result.dropped == {"picture, file or call without text": 1, "command for a bot": 1}
    assert result.texts[0].written == datetime(2026, 1, 5, 10, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize("name", ["messages/c10001/messages.json", "messages/c10002/messages.csv"])
def test_a_file_alone(tmp_path: Path, name: str) -> None:
    result = Result(discord, write(tmp_path / "a.txt", PACKAGE[name]))
    assert len(result.kept) == 1
    assert result.kept[0][0] == "Write a message."


def test_a_damaged_channel_costs_only_itself(tmp_path: Path) -> None:
    path = write(tmp_path / "a", {**PACKAGE, "messages/c10001/messages.json": "[{"})
    result = Result(discord, path)
    assert (result.kept, result.dropped["file that could not be read"]) == (KEPT[1:], 1)


def author(name: str, **fields: object) -> dict[str, object]:
    return {"id": f"id-{name}", "name": name, "nickname": name.title(), "isBot": False, **fields}


def exported(*messages: tuple[str, str, dict[str, object]]) -> dict[str, object]:
    return {
        "guild": {"id": "0", "name": "Direct Messages"},
        "channel": {"id": "5", "type": "DirectTextChat", "name": "ana"},
        "messages": [
            {
                "id": str(number),
                "type": kind,
                "timestamp": f"2026-01-05T10:{number:02}:00.1234567+00:00",
                "content": content,
                "author": by,
            }
            for number, (kind, content, by) in enumerate(messages)
        ],
        "messageCount": len(messages),
    }


def test_discord_chat_exporter(tmp_path: Path) -> None:
    path = write(
        tmp_path / "ana.txt",
        exported(
            ("ChannelPinnedMessage", "Pinned a message.", author("ana")),
            ("Default", "tea?", author("ana")),
            ("Reply", "yes", author("kim")),
            ("Default", "", author("kim")),
            ("Default", "beep", author("robo", isBot=True)),
        ),
    )
    for me in ("kim", "Kim", "id-kim"):
        result = Result(discord_exporter, path, me)
        assert result.kept == [("Reply to Ana: tea?", "yes")]
    assert result.dropped == {
        "written by the program": 1,
        "written by others": 2,
        "picture, file or call without text": 1,
    }
    assert result.texts[0].written == datetime(2026, 1, 5, 10, 2, 0, 123456, timezone.utc)
    with pytest.raises(HistoryError, match=r"are ana \(2\), kim \(2\)\."):
        list(discord_exporter.read(Source(path), Options()))
