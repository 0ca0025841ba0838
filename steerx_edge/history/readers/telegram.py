"""Chats that Telegram Desktop exports as JSON: one chat, or all of an account."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from steerx_edge.history.readers.conversations import (
    BY_PROGRAM,
    COMMAND,
    FORWARDED,
    MEDIA,
    Message,
    texts_of,
)
from steerx_edge.history.readers.exports import (
    at,
    first_keys,
    json_of,
    list_at,
    moment,
    text_at,
    unwrapped,
)
from steerx_edge.history.readers.people import authors_who_are, who_is_the_person
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Found

NAME = "a Telegram export"

_FENCE = "```"
_GROUPS = {"private_group", "private_supergroup", "public_group", "public_supergroup"}


def recognize(source: Source) -> str:
    """Return what shows that it is an export of Telegram."""
    if source.is_folder:
        result = unwrapped(source).child("result.json")
        return recognize(result) if result else ""
    keys = first_keys(source)
    if {"name", "type", "id", "messages"} <= keys:
        return "it is a chat with a name, a type, an id and messages"
    if "about" in keys and keys & {"personal_information", "chats"}:
        return "it has the chats of an account"
    return ""


def read(source: Source, options: Options) -> Found:
    """Yield the person's texts; see `steerx_edge.history.readers.Reader`."""
    if source.is_folder:
        source = unwrapped(source).child("result.json") or source
    export = json_of(source)
    chats = [chat for field in ("chats", "left_chats") for chat in list_at(export, field, "list")]
    chats = chats or [export]
    person = _person(source, export, chats, options)
    for chat in chats:
        kind = text_at(chat, "type")
        whom = text_at(chat, "name")
        if kind == "saved_messages":
            whom = "yourself"
        elif kind in _GROUPS and whom:
            whom = f"the group {whom}"
        yield from texts_of(_messages(f"{source}: {text_at(chat, 'name')}", chat, person), whom)


def _person(source: Source, export: Any, chats: list[Any], options: Options) -> frozenset[str]:
    """The ids of the person: as the export says, or, of a chat with one other, not the other's."""
    if own := text_at(export, "personal_information", "user_id"):
        return frozenset({f"user{own}"})
    names: dict[str, set[str]] = {}
    counts = [Counter[str]() for _ in chats]
    for chat, count in zip(chats, counts, strict=True):
        for message in list_at(chat, "messages"):
            if author := text_at(message, "from_id"):
                names.setdefault(author, set()).add(text_at(message, "from") or author)
                count[author] += 1
    if options.me and (found := authors_who_are(options.me, names, _with_ids(names))):
        return found
    other = f"user{text_at(chats[0], 'id')}"
    if text_at(chats[0], "type") == "personal_chat" and len(names) == 2 and other in names:
        return frozenset(set(names) - {other})
    # The error names people, not ids.
    named = [Counter({min(names[a]): n for a, n in count.items()}) for count in counts]
    chosen = who_is_the_person(source, NAME, named, options.me)
    return frozenset(author for author, known in names.items() if known & chosen)


def _with_ids(names: dict[str, set[str]]) -> dict[str, set[str]]:
    return {author: known | {author.removeprefix("user")} for author, known in names.items()}


def _messages(where: str, chat: Any, person: frozenset[str]) -> Iterator[Message]:
    to_bot = text_at(chat, "type") == "bot_chat"
    for message in list_at(chat, "messages"):
        mine = text_at(message, "from_id") in person
        left_out = _left_out(message)
        if not left_out and mine and to_bot:
            left_out = COMMAND
        yield Message(
            "" if left_out == BY_PROGRAM else text_at(message, "from") or "somebody",
            _text(at(message, "text")),
            f"{where}, message {text_at(message, 'id')}",
            moment(at(message, "date_unixtime") or at(message, "date")),
            mine and left_out != BY_PROGRAM,
            left_out,
        )


def _left_out(message: Any) -> str:
    if text_at(message, "type") != "message":
        return BY_PROGRAM
    if "forwarded_from" in message or "saved_from" in message:
        return FORWARDED
    if "via_bot" in message:
        return BY_PROGRAM
    return "" if _text(at(message, "text")).strip() else MEDIA


def _text(value: Any) -> str:
    """A text that may be in pieces. Code stands between fences; what is quoted is left out."""
    if not isinstance(value, list):
        return text_at({"text": value}, "text")
    pieces = []
    for piece in value:
        text = text_at({"text": piece}, "text") or text_at(piece, "text")
        kind = text_at(piece, "type")
        if kind == "pre":
            text = f"\n{_FENCE}\n{text}\n{_FENCE}\n"
        pieces.append("" if kind == "blockquote" else text)
    return "".join(pieces)
