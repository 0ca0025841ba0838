"""Conversations that ChatGPT exports: one file, or numbered ones with a manifest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from steerx_edge.history.readers.branches import branch_to
from steerx_edge.history.readers.conversations import Message, read_conversations
from steerx_edge.history.readers.exports import (
    at,
    first_keys,
    list_at,
    moment,
    text_at,
    unwrapped,
)
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Found

NAME = "a ChatGPT export"

_FILE = re.compile(r"conversations(?:-\d+)?\.json")


def recognize(source: Source) -> str:
    """Return what shows that it is an export of ChatGPT."""
    if source.is_folder:
        files = _files(source)
        return f"{files[0].name} has conversations with a mapping" if files else ""
    keys = first_keys(source)
    known = {"create_time", "current_node", "conversation_id", "title"} & keys
    return "it has conversations with a mapping" if "mapping" in keys and known else ""


def read(source: Source, _options: Options) -> Found:
    """Yield the prompts that the person wrote; see `steerx_edge.history.readers.Reader`."""
    for file in _files(source) if source.is_folder else [source]:
        yield from read_conversations(file, _messages, "ChatGPT", is_all=file is source)


def _files(source: Source) -> list[Source]:
    return [
        child
        for child in unwrapped(source).children()
        if _FILE.fullmatch(child.name) and recognize(child)
    ]


def _messages(where: str, conversation: Any) -> Iterator[Message]:
    """Yield the messages on the branch that was last looked at."""
    mapping = at(conversation, "mapping")
    nodes = mapping if isinstance(mapping, dict) else {}
    parents = {key: text_at(node, "parent") for key, node in nodes.items()}
    branch = branch_to(text_at(conversation, "current_node"), parents)
    for number, key in enumerate(branch, start=1):
        message = at(nodes[key], "message")
        role = text_at(message, "author", "role")
        hidden = at(message, "metadata", "is_visually_hidden_from_conversation")
        if role not in {"user", "assistant"} or hidden:
            continue
        text = _text(message)
        if role == "assistant" and not text.strip():
            continue  # a tool is called
        yield Message(
            "ChatGPT",
            text,
            f"{where}, message {number}",
            moment(at(message, "create_time")),
            role == "user",
        )


def _text(message: Any) -> str:
    """What was typed: pictures, and what was said aloud, are left out."""
    if text_at(message, "content", "content_type") not in {"text", "multimodal_text"}:
        return ""
    parts = ({"part": part} for part in list_at(message, "content", "parts"))
    return "\n\n".join(text for part in parts if (text := text_at(part, "part")).strip())
