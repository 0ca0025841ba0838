"""Conversations that Claude exports as ``conversations.json``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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

NAME = "a Claude export"


def recognize(source: Source) -> str:
    """Return what shows that it is an export of Claude."""
    if source.is_folder:
        file = unwrapped(source).child("conversations.json")
        return recognize(file) if file else ""
    return (
        "it has conversations with chat_messages" if "chat_messages" in first_keys(source) else ""
    )


def read(source: Source, _options: Options) -> Found:
    """Yield the prompts that the person wrote; see `steerx_edge.history.readers.Reader`."""
    if source.is_folder:
        source = unwrapped(source).child("conversations.json") or source
    yield from read_conversations(source, _messages, "Claude")


def _messages(where: str, conversation: Any) -> Iterator[Message]:
    for number, message in enumerate(list_at(conversation, "chat_messages"), start=1):
        yield Message(
            "Claude",
            _text(message),
            f"{where}, message {number}",
            moment(at(message, "created_at")),
            text_at(message, "sender") == "human",
        )


def _text(message: Any) -> str:
    """What was typed, without attached files."""
    content = list_at(message, "content")
    if not content:
        return text_at(message, "text")
    typed = (text_at(each, "text") for each in content if text_at(each, "type") == "text")
    return "\n\n".join(text for text in typed if text.strip())
