"""Conversations that llama.cpp's web interface exports: JSON lines, or JSON as it was before."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from steerx_edge.history.readers.branches import branch_to
from steerx_edge.history.readers.conversations import Message, texts_of
from steerx_edge.history.readers.exports import (
    at,
    decoded_beginning,
    first_keys,
    json_lines,
    json_of,
    list_at,
    moment,
    text_at,
)
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import DAMAGED, Dropped, Found

NAME = "an export of llama.cpp's web interface"

_SESSION = re.compile(r'"type" *: *"session"')


def recognize(source: Source) -> str:
    """Return what shows that llama.cpp's web interface wrote it."""
    keys = first_keys(source)
    if {"conv", "messages"} <= keys:
        return "it has conversations, each a conv and messages"
    if {"type", "currNode"} <= keys:
        first = decoded_beginning(source.beginning).lstrip().partition("\n")[0]
        return "its first line is a session" if _SESSION.search(first) else ""
    return ""


def read(source: Source, _options: Options) -> Found:
    """Yield the prompts that the person wrote; see `steerx_edge.history.readers.Reader`."""
    if {"conv", "messages"} <= first_keys(source):
        value = json_of(source)
        for session in value if isinstance(value, list) else [value]:
            conv, messages = at(session, "conv"), list_at(session, "messages")
            yield from texts_of(_messages(str(source), conv, messages), "the assistant")
        return
    conv, messages = None, []
    for where, record in json_lines(source):
        if record is None:
            yield Dropped(DAMAGED, where)
        elif text_at(record, "type") == "session":
            yield from texts_of(_messages(str(source), conv, messages), "the assistant")
            conv, messages = record, []
        elif isinstance(at(record, "message"), dict):
            messages.append(record["message"])
    yield from texts_of(_messages(str(source), conv, messages), "the assistant")


def _messages(where: str, conv: Any, messages: list[Any]) -> Iterator[Message]:
    """Yield the messages on the branch that was last looked at."""
    by_id = {text_at(message, "id"): message for message in messages}
    parents = {key: text_at(message, "parent") for key, message in by_id.items()}
    for key in branch_to(text_at(conv, "currNode"), parents):
        message = by_id[key]
        role = text_at(message, "role")
        if role not in {"user", "assistant"}:
            continue
        yield Message(
            "the assistant",
            text_at(message, "content"),
            f"{where}: message {key}",
            moment(at(message, "timestamp")),
            role == "user",
        )
