"""Each export is recognized by its content, by one reader, whatever its name and wrapping."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from steerx_edge.history.opening import open_history
from steerx_edge.history.readers import (
    READERS,
    Reader,
    bluesky,
    chatgpt,
    claude,
    discord,
    discord_exporter,
    llama_web,
    mastodon,
    meta_messages,
    signal_export,
    slack,
    telegram,
    whatsapp,
    x_archive,
)
from steerx_edge.history.readers.exports import first_keys, moment
from steerx_edge.history.readers.source import Source
from steerx_edge.history.reading import has_users
from tests.support.exports import jsonl, write, zipped

LONG = "x" * 70_000
FILES: dict[str, tuple[Reader, Any]] = {
    "whatsapp": (whatsapp, "[1.2.25, 10:00:00] Ana: a\n[1.2.25, 10:00:01] Kim: b\n"),
    "telegram chat": (telegram, {"name": "A", "type": "x", "id": 1, "messages": [{"text": LONG}]}),
    "telegram account": (telegram, {"about": "x", "personal_information": {}, "contacts": LONG}),
    "telegram chats": (telegram, {"about": "x", "chats": {"list": []}}),
    "signal": (
        signal_export,
        jsonl({"version": "1", "backupTimeMs": "1"}, {"account": {"givenName": "K"}}),
    ),
    "slack": (slack, [{"user": "U", "type": "message", "ts": "1.0", "text": LONG}]),
    "discord": (discord, [{"ID": 1, "Timestamp": "x", "Contents": LONG}]),
    "discord table": (discord, "ID,Timestamp,Contents,Attachments\r\n1,x,hi,\r\n"),
    "discord exporter": (discord_exporter, {"guild": {}, "channel": {}, "messages": []}),
    "facebook": (meta_messages, {"participants": [], "messages": [{"content": LONG}]}),
    "mastodon": (mastodon, {"@context": "x", "orderedItems": []}),
    "x": (x_archive, "window.YTD.tweets.part0 = [ ]"),
    "bluesky": (bluesky, b"\x3a\xa2eroots\x81\xd8gversion\x01"),
    "chatgpt": (chatgpt, [{"title": "a", "mapping": {"a": {"text": LONG}}, "current_node": "a"}]),
    "claude": (claude, [{"uuid": "a", "chat_messages": [{"text": LONG}]}]),
    "llama": (llama_web, jsonl({"harness": "llama.cpp", "type": "session", "currNode": "a"})),
    "llama before": (llama_web, [{"conv": {"id": "a"}, "messages": []}]),
}


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize(("reader", "content"), FILES.values(), ids=FILES.keys())
def test_a_file_is_recognized_by_one_reader(
    tmp_path: Path, reader: Reader, content: Any, marked: bool
) -> None:
    path = write(tmp_path / "a", content)
    if marked and not isinstance(content, bytes):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [each for each in READERS if each.recognize(Source(path))] == [reader]
    opened = open_history(path)
    assert opened.format == reader.NAME
    assert opened.why == reader.recognize(Source(path))


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "a", "ts": "b", "text": "c", "response": "d"}],
        [{"user_id": "a", "profile": [{"text": "b"}], "queries": []}],
        {"text": "{\"mapping\": 1, \"title\": 2}"},
        [{"text": "a"}, {"mapping": {}, "title": "b"}],
        {"data": {"mapping": {}, "title": "b"}},
        "On 1/2/25, 10:00 - Ana: said she.\nOn 1/2/25, 10:00 - Ana: said she.\n",
        "window.YTD.like.part0 = [ ]",
        "",
    ],
)  # fmt: skip
def test_other_files_are_not(tmp_path: Path, content: Any) -> None:
    path = write(tmp_path / "a", content)
    assert [each for each in READERS if each.recognize(Source(path))] == []


def test_an_empty_folder_is_no_export(tmp_path: Path) -> None:
    assert [each for each in READERS if each.recognize(Source(tmp_path))] == []


@pytest.mark.parametrize("indent", [None, 2])
def test_keys_of_a_file_that_goes_on(tmp_path: Path, indent: int | None) -> None:
    value = {"a": {"b": [1]}, 'c"{': "d\\", "e": LONG, "f": 1}
    path = write(tmp_path / "a", json.dumps([value], indent=indent))
    assert first_keys(Source(path)) == {"a", 'c\\"{', "e"}


@pytest.mark.parametrize("archived", [False, True])
def test_exports_side_by_side_are_each_read_as_a_whole(tmp_path: Path, archived: bool) -> None:
    chat = {"name": "Ana", "type": "personal_chat", "id": 7, "messages": MESSAGES}
    telegram_folder = write(
        tmp_path / "all" / "telegram", {"result.json": chat, "files/b.txt": "Text by Ana, sent."}
    )
    if archived:
        zipped(telegram_folder)
        for file in sorted(telegram_folder.rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        telegram_folder.rmdir()
    write(tmp_path / "all" / "own.jsonl", jsonl({"text": "A text of my own, by itself."}))
    assert not has_users(tmp_path / "all")
    found = list(open_history(tmp_path / "all").found)
    texts = sorted(each.item.response for each in found if hasattr(each, "item"))
    assert texts == ["A text of my own, by itself.", "I will be there at five then"]


MESSAGES = [
    {"id": n, "type": "message", "date": f"2026-01-05T10:0{n}:00", "from": name, "from_id": key,
     "text": text}
    for n, (name, key, text) in enumerate(
        [("Ana", "user7", "Tea?"), ("Kim", "user9", "I will be there at five then")]
    )
]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "iso"),
    [
        ("2026-01-05T10:00:00.1Z", "2026-01-05T10:00:00.100000+00:00"),
        ("2026-01-05 10:00:00", "2026-01-05T10:00:00+00:00"),
        ("2026-01-05T10:00:00.1234567+02:00", "2026-01-05T10:00:00.123456+02:00"),
        (1767607200, "2026-01-05T10:00:00+00:00"),
        ("1767607200000", "2026-01-05T10:00:00+00:00"),
        ("1767607200.5", "2026-01-05T10:00:00.500000+00:00"),
        ("soon", None),
        (1e300, None),
        (None, None),
        ([], None),
    ],
)
def test_times(value: object, iso: str | None) -> None:
    found = moment(value)
    assert (found and found.isoformat()) == iso
