"""Messages of Facebook, Messenger and Instagram, from their exports in JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from steerx_edge.history.readers.conversations import (
    BY_PROGRAM,
    DELETED,
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
from steerx_edge.history.readers.mojibake import mended
from steerx_edge.history.readers.people import who_is_the_person
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Found

NAME = "a Facebook or Instagram export"

_FOLDERS = (
    ("your_facebook_activity", "messages"),
    ("your_instagram_activity", "messages"),
    ("your_activity_across_facebook", "messages"),
    ("messages",),
)
_ATTACHMENTS = ("photos", "videos", "audio_files", "files", "gifs", "sticker", "share", "media")


def recognize(source: Source) -> str:
    """Return what shows that it is an export of Facebook or Instagram."""
    if source.is_folder:
        return "it has a folder messages/inbox" if _inbox(source) else ""
    if {"participants", "messages"} <= first_keys(source):
        return "it is a chat with participants and messages"
    return ""


def read(source: Source, options: Options) -> Found:
    """Yield the person's texts; see `steerx_edge.history.readers.Reader`."""
    inbox = _inbox(source)
    files = [source]
    if inbox is not None:
        files = [file for file in inbox.files() if recognize(file)]
    chats: dict[str, list[Any]] = {}  # their files: one has at most 10,000 messages
    for file in files:
        chats.setdefault(str(PurePosixPath(str(file)).parent), []).append(json_of(file))
    counts = []
    for parts in chats.values():
        messages = (message for part in parts for message in list_at(part, "messages"))
        counts.append(Counter(_author(message) for message in messages if _author(message)))
    person = who_is_the_person(source, NAME, counts, options.me)
    for (place, parts), count in zip(chats.items(), counts, strict=True):
        others = [author for author in count if author not in person]
        title = mended(text_at(parts[0], "title") or text_at(parts[0], "threadName"))
        whom = others[0] if len(others) == 1 else f"the group {title}" if title else ""
        yield from texts_of(_messages(place, parts, person), whom)


def _inbox(source: Source) -> Source | None:
    if not source.is_folder:
        return None
    root = unwrapped(source)
    for names in _FOLDERS:
        messages = root.child(*names)
        if messages and messages.child("inbox"):
            return messages
    return None


def _author(message: Any) -> str:
    return mended(text_at(message, "sender_name") or text_at(message, "senderName"))


def _messages(place: str, parts: list[Any], person: frozenset[str]) -> Iterator[Message]:
    """Yield the messages of one chat in order of time; the export has the newest first."""
    messages = [message for part in parts for message in list_at(part, "messages")]
    messages.sort(key=_time)
    for number, message in enumerate(messages, start=1):
        author = _author(message)
        text = mended(text_at(message, "content") or text_at(message, "text"))
        yield Message(
            author,
            text,
            f"{place}: message {number}",
            moment(_time(message)),
            author in person,
            _left_out(message, author, text),
        )


def _time(message: Any) -> float:
    time = at(message, "timestamp_ms") or at(message, "timestamp")
    return float(time) if isinstance(time, (int, float)) else 0.0


def _left_out(message: Any, author: str, text: str) -> str:
    if at(message, "is_unsent") or at(message, "isUnsent"):
        return DELETED
    if at(message, "call_duration") is not None:
        return BY_PROGRAM
    if not text:
        return MEDIA
    # "Ana sent an attachment.": the words of the program, in the language of the account.
    attached = any(at(message, field) for field in _ATTACHMENTS)
    if attached and text.startswith((author, "You ")):
        return MEDIA
    return ""
