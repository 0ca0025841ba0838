"""Chats that Telegram Desktop exports as JSON: one chat, or all of an account."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
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
    moment,
    text_at,
    unwrapped,
)
from steerx_edge.history.readers.json_stream import Path, json_values
from steerx_edge.history.readers.people import authors_who_are, who_is_the_person
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Found

NAME = "a Telegram export"

_FENCE = "```"
_GROUPS = {"private_group", "private_supergroup", "public_group", "public_supergroup"}
_FIELDS = {("name",), ("type",), ("id",)}
_OPENED: set[Path] = {(), ("messages",)} | {
    opened
    for of_account in ("chats", "left_chats")
    for opened in (
        (of_account,),
        (of_account, "list"),
        (of_account, "list", ""),
        (of_account, "list", "", "messages"),
    )
}
"""What is read value by value; a number in an array is empty here."""


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
    """Yield the person's texts; see `steerx_edge.history.readers.Reader`.

    The file is read twice: first for who wrote how much, then for the texts.
    """
    if source.is_folder:
        source = unwrapped(source).child("result.json") or source
    chats, own = _surveyed(source)
    person = frozenset({f"user{own}"}) if own else _person(source, chats, options)
    messages = (found for found in json_values(source, _is_opened) if _is_message(found[0]))
    for place, group in groupby(messages, key=lambda found: found[0][:-2]):
        chat = chats[place]
        where = f"{source}: {chat.name}"
        yield from texts_of((_message(where, chat, each, person) for _, each in group), chat.whom)


def _is_opened(place: Path) -> bool:
    """Whether a value holds messages, and so may be large."""
    return tuple("" if isinstance(step, int) else step for step in place) in _OPENED


def _is_message(place: Path) -> bool:
    return place[-2:-1] == ("messages",)


def _surveyed(source: Source) -> tuple[dict[Path, _Chat], str]:
    """The chats by their places, in order; and the id of the person, if the export says it."""
    chats: dict[Path, _Chat] = {}
    own = ""
    for place, value in json_values(source, _is_opened):
        if _is_message(place):
            chats.setdefault(place[:-2], _Chat()).count(value)
        elif place == ("personal_information",):
            own = text_at(value, "user_id")
        elif place[-1:] in _FIELDS:
            chats.setdefault(place[:-1], _Chat()).fields[place[-1]] = value
    return chats, own


@dataclass
class _Chat:
    """What is known of a chat without its texts."""

    fields: dict[str | int, Any] = field(default_factory=dict)
    names: dict[str, set[str]] = field(default_factory=dict)
    n_messages: Counter[str] = field(default_factory=Counter)

    def count(self, message: Any) -> None:
        if author := text_at(message, "from_id"):
            self.names.setdefault(author, set()).add(text_at(message, "from") or author)
            self.n_messages[author] += 1

    @property
    def kind(self) -> str:
        return text_at(self.fields, "type")

    @property
    def name(self) -> str:
        return text_at(self.fields, "name")

    @property
    def whom(self) -> str:
        if self.kind == "saved_messages":
            return "yourself"
        return f"the group {self.name}" if self.kind in _GROUPS and self.name else self.name


def _person(source: Source, chats: Mapping[Path, _Chat], options: Options) -> frozenset[str]:
    """The ids of the person: who is named, or, of a chat with one other, not the other's."""
    names: dict[str, set[str]] = {}
    for chat in chats.values():
        for author, known in chat.names.items():
            names.setdefault(author, set()).update(known)
    if options.me and (found := authors_who_are(options.me, names, _with_ids(names))):
        return found
    first = next(iter(chats.values()), _Chat())
    other = f"user{text_at(first.fields, 'id')}"
    if first.kind == "personal_chat" and len(names) == 2 and other in names:
        return frozenset(set(names) - {other})
    # The error names people, not ids.
    counts = [
        Counter({min(names[author]): n for author, n in chat.n_messages.items()})
        for chat in chats.values()
    ]
    chosen = who_is_the_person(source, NAME, counts, options.me)
    return frozenset(author for author, known in names.items() if known & chosen)


def _with_ids(names: dict[str, set[str]]) -> dict[str, set[str]]:
    return {author: known | {author.removeprefix("user")} for author, known in names.items()}


def _message(where: str, chat: _Chat, message: Any, person: frozenset[str]) -> Message:
    mine = text_at(message, "from_id") in person
    left_out = _left_out(message)
    if not left_out and mine and chat.kind == "bot_chat":
        left_out = COMMAND
    return Message(
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
