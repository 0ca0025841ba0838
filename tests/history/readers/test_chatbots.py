"""ChatGPT, Claude and llama.cpp's web interface: what a person wrote to an assistant."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers import chatgpt, claude, exports, json_stream, llama_web
from steerx_edge.history.readers.branches import branch_to
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.reading import survey
from tests.support.exports import Result, jsonl, write, zipped

DAY = datetime(2026, 1, 5, 10, tzinfo=timezone.utc)
SECONDS = DAY.timestamp()


def node(key: str, parent: str | None, role: str | None, *parts: Any, **content: Any) -> Any:
    message = role and {
        "id": key,
        "author": {"role": role},
        "create_time": SECONDS,
        "content": {"content_type": "text", "parts": list(parts), **content},
        "metadata": {},
    }
    return {"id": key, "message": message, "parent": parent, "children": []}


def conversation(*nodes: Any, current: str | None) -> Any:
    return {
        "title": "Tea",
        "create_time": SECONDS,
        "mapping": {node["id"]: node for node in nodes},
        "moderation_results": [],
        "current_node": current,
    }


HIDDEN = node("hidden", "root", "user", "About me: I drink tea.")
HIDDEN["message"]["metadata"]["is_visually_hidden_from_conversation"] = True
CHATGPT = [
    conversation(
        node("root", None, None),
        HIDDEN,
        node("system", "hidden", "system", ""),
        node("first", "system", "user", "How do I make tea?"),
        node("call", "first", "assistant", content_type="code", text="search('tea')"),
        node("tool", "call", "tool", "results"),
        node("answer", "tool", "assistant", "Boil water."),
        node("picture", "answer", "user", {"asset_pointer": "x"}, content_type="multimodal_text"),
        node("poured", "picture", "assistant", "That is coffee."),
        node(
            "second",
            "poured",
            "user",
            {"asset_pointer": "x", "content_type": "image_asset_pointer"},
            "And this?",
            content_type="multimodal_text",
        ),
        node("draft", "system", "user", "How do I make tee?"),
        node("misread", "draft", "assistant", "A T?"),
        current="second",
    )
]
KEPT = [
    ("Write a message to {}.", "How do I make tea?"),
    ("Reply to {}: That is coffee.", "And this?"),
]


def kept(name: str) -> list[tuple[str, str]]:
    return [(request.format(name), text) for request, text in KEPT]


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("name", ["conversations.json", "conversations-000.json"])
def test_chatgpt(tmp_path: Path, name: str, archived: bool) -> None:
    other = conversation(node("a", None, "user", "Once more"), current=None)
    folder = write(
        tmp_path / "export",
        {
            name: CHATGPT,
            "conversations-001.json": [other, None, {"mapping": 5, "title": "", "create_time": 1}],
            "export_manifest.json": {"files": []},
            "chat.html": "<html>all of it again</html>",
            "user.json": {"id": "user-1"},
        },
    )
    result = Result(chatgpt, zipped(folder) if archived else folder)
    expected = [*kept("ChatGPT"), ("Write a message to ChatGPT.", "Once more")]
    assert sorted(result.kept) == sorted(expected)
    assert result.dropped == {"written by others": 2, "picture, file or call without text": 1}
    assert {text.written for text in result.texts} == {DAY}


def test_chatgpt_file_under_another_name(tmp_path: Path) -> None:
    text = "\ufeff" + json.dumps(CHATGPT, indent=2)
    assert Result(chatgpt, write(tmp_path / "a.txt", text)).kept == kept("ChatGPT")


def test_a_damaged_file_of_several_costs_only_itself(tmp_path: Path) -> None:
    first = write(tmp_path / "conversations-000.json", CHATGPT)
    text = first.read_text()
    write(tmp_path / "conversations-001.json", text[:-20])
    result = Result(chatgpt, tmp_path)
    assert (result.kept, result.dropped["file that could not be read"]) == (kept("ChatGPT"), 1)


def test_conversations_before_a_damage_are_read(tmp_path: Path) -> None:
    text = json.dumps([*CHATGPT, *CHATGPT])
    path = write(tmp_path / "a.json", text[:-20])
    result = Result(chatgpt, path)
    assert result.kept == kept("ChatGPT")
    assert result.excerpts("file that could not be read") == [
        f"{path} is damaged after 1 records. Export it again."
    ]
    with pytest.raises(HistoryError, match="is damaged after 0 records"):
        list(chatgpt.read(Source(write(path, text[:900])), Options()))


def test_claude(tmp_path: Path) -> None:
    def message(sender: str, text: str, *content: Any, **fields: Any) -> Any:
        return {
            "uuid": "m",
            "text": text,
            "content": list(content),
            "sender": sender,
            "created_at": "2026-01-05T10:00:00.123456Z",
            "attachments": [],
            **fields,
        }

    def typed(text: str) -> Any:
        return {"type": "text", "text": text}

    conversations = [
        {
            "uuid": "c",
            "name": "Tea",
            "chat_messages": [
                message(
                    "human",
                    "How do I make tea?\n\nBy Ana",
                    typed("How do I make tea?"),
                    {"type": "voice_note", "text": "Said aloud"},
                    attachments=[{"file_name": "a.txt", "extracted_content": "By Ana"}],
                ),
                message("assistant", "", {"type": "thinking", "thinking": "hm"}, typed("Boil.")),
                message("human", "", attachments=[{"extracted_content": "By Ana"}]),
                message("assistant", "That is coffee."),
                message("human", "And this?"),
            ],
        }
    ]
    folder = write(
        tmp_path / "data",
        {"conversations.json": conversations, "users.json": [{"uuid": "u"}], "projects.json": []},
    )
    result = Result(claude, zipped(folder))
    assert result.kept == kept("Claude")
    assert result.dropped == {"written by others": 2, "picture, file or call without text": 1}
    assert result.texts[0].written == DAY.replace(microsecond=123456)


def llama(key: str, parent: str | None, role: str, text: str, kind: str = "text") -> Any:
    return {
        "id": key,
        "convId": "c",
        "type": kind,
        "timestamp": int(SECONDS * 1000),
        "role": role,
        "content": text,
        "parent": parent,
        "children": [],
    }


LLAMA = [
    llama("r", None, "system", "", "root"),
    llama("s", "r", "system", "Be brief.", "system"),
    llama("1", "s", "user", "How do I make tea?"),
    llama("2", "1", "assistant", "Boil."),
    llama("3", "1", "assistant", "That is coffee."),
    llama("4", "3", "user", "And this?"),
]
CONV = {"id": "c", "name": "Tea", "lastModified": 1, "currNode": "4"}


@pytest.mark.parametrize("legacy", [False, True])
def test_llama_web(tmp_path: Path, legacy: bool) -> None:
    records = [{"type": "message", "message": each} for each in LLAMA]
    session = {"harness": "llama.cpp", "type": "session", **CONV}
    content = (
        json.dumps([{"conv": CONV, "messages": LLAMA}], indent=2)
        if legacy
        else jsonl(session, *records, {"type": "later"}, session, *records) + "{broken\n"
    )
    result = Result(llama_web, write(tmp_path / "a", content))
    assert result.kept == kept("the assistant") * (1 if legacy else 2)
    assert result.dropped["damaged record"] == (0 if legacy else 1)
    assert {text.written for text in result.texts} == {DAY}


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_an_array_is_read_piece_by_piece(
    tmp_path: Path, chunk: int, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    values = [{"a": ["“é”, ]", 1.5]}, {}, [], "x, y", {"b": {"c": None}}]
    for indent in (None, 2):
        path = write(tmp_path / "a", json.dumps(values, indent=indent).encode(encoding))
        assert list(exports.json_array(Source(path))) == values


def test_a_branch_that_is_not_named_is_the_last_one() -> None:
    parents = {"a": "", "b": "a", "c": "a"}
    assert branch_to("b", parents) == ["a", "b"]
    assert branch_to("", parents) == ["a", "c"]
    assert branch_to("b", {"a": "b", "b": "a"}) == ["a", "b"]  # a circle, in a damaged file
    assert branch_to("x", {}) == []


def test_prompts_alone_are_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "conversations.json", CHATGPT)
    assert survey(path).items
    assert caplog.messages == [
        f"{path} holds what you wrote to an assistant. That is a poor example of your style: give "
        "emails, messages or posts if you can."
    ]


@pytest.mark.parametrize("others", [False, True])
def test_beside_other_texts_prompts_are_left_out(
    tmp_path: Path, others: bool, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "chatgpt" / "conversations.json", CHATGPT)
    write(tmp_path / "a.bin", b"\x89PNG\0")
    if others:
        write(tmp_path / "z.jsonl", jsonl({"text": "A long walk by the sea, and then tea."}))
    found = survey(tmp_path)
    assert any("walk" in item.response for item in found.items) == others
    assert any("tea?" in item.response for item in found.items) == (not others)
    assert found.dropped["prompt to an assistant"] == (2 if others else 0)
    assert len(caplog.messages) == (0 if others else 1)
