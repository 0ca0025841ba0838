"""Channels of Discord, as DiscordChatExporter writes them in JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from steerx_edge.history.readers.conversations import Message, texts_of
from steerx_edge.history.readers.exports import at, first_keys, json_of, list_at, moment, text_at
from steerx_edge.history.readers.people import who_is_the_person
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Found

NAME = "a Discord export"

_OWN_TYPES = {"Default", "Reply", "0", "19"}


def recognize(source: Source) -> str:
    """Return what shows that DiscordChatExporter wrote it."""
    if {"guild", "channel", "messages"} <= first_keys(source):
        return "it has a guild, a channel and messages"
    return ""


def read(source: Source, options: Options) -> Found:
    """Yield the person's texts; see `steerx_edge.history.readers.Reader`."""
    export = json_of(source)
    messages = list_at(export, "messages")
    counts: Counter[str] = Counter()
    aliases: dict[str, set[str]] = {}
    for message in messages:
        name = text_at(message, "author", "name")
        if name and at(message, "author", "isBot") is not True:
            counts[name] += 1
            others = {text_at(message, "author", key) for key in ("id", "nickname")}
            aliases.setdefault(name, set()).update(others - {""})
    person = who_is_the_person(source, NAME, [counts], options.me, aliases)
    yield from texts_of(_messages(source, messages, person), _whom(export, counts, person))


def _whom(export: Any, counts: Counter[str], person: frozenset[str]) -> str:
    name = text_at(export, "channel", "name")
    if "Direct" in text_at(export, "channel", "type"):
        others = [author for author in counts if author not in person]
        return others[0] if len(others) == 1 else name
    guild = text_at(export, "guild", "name")
    return f"#{name} of {guild}" if guild else f"#{name}"


def _messages(source: Source, messages: list[Any], person: frozenset[str]) -> Iterator[Message]:
    for message in messages:
        name = text_at(message, "author", "name")
        own_type = text_at(message, "type") in _OWN_TYPES
        yield Message(
            (text_at(message, "author", "nickname") or name) if own_type else "",
            text_at(message, "content"),
            f"{source}: message {text_at(message, 'id')}",
            moment(at(message, "timestamp")),
            own_type and name in person,
        )
