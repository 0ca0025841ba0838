"""Workspaces that Slack exports: a folder for each channel, with a file of JSON for each day."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from html import unescape
from typing import Any, NamedTuple

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers.conversations import (
    BY_PROGRAM,
    MEDIA,
    Conversation,
    Message,
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
from steerx_edge.history.readers.texts import UNREADABLE, Dropped, Found

NAME = "a Slack export"

_OWN_SUBTYPES = {"", "thread_broadcast", "me_message", "file_share"}
_TOKEN = re.compile(r"<([@#!]?)([^<>|\n]*)(?:\|([^<>\n]*))?>")
_DAY = re.compile(r"\d{4}-\d\d-\d\d\.json")


class _Workspace(NamedTuple):
    names: dict[str, str]  # of users, by id
    aliases: dict[str, set[str]]
    channels: dict[str, str]  # whom the person writes to, by folder
    bots: set[str]


def recognize(source: Source) -> str:
    """Return what shows that it is an export of Slack."""
    if source.is_folder:
        root = unwrapped(source)
        users, channels = root.child("users.json"), root.child("channels.json")
        slack = users and channels and {"id", "profile"} <= first_keys(users)
        return "it has users.json, with profiles, and channels.json" if slack else ""
    if {"type", "ts", "text"} <= first_keys(source):
        return "its messages have a type, a ts and a text"
    return ""


def read(source: Source, options: Options) -> Found:
    """Yield the person's texts, file by file; see `steerx_edge.history.readers.Reader`."""
    root = unwrapped(source)
    workspace = _workspace(root)
    person = authors_who_are(options.me, workspace.aliases, workspace.aliases)
    if not person:
        counts: Counter[str] = Counter()
        for _, days in _channels(root):
            for day in days:
                counts.update(
                    workspace.names.get(user, user)
                    for user in (text_at(message, "user") for message in _messages_of(day)[0])
                    if user and user not in workspace.bots
                )
        chosen = who_is_the_person(source, NAME, [counts], options.me)
        person = frozenset(u for u in counts if u in chosen) | frozenset(
            user for user, name in workspace.names.items() if name in chosen
        )
    for channel, days in _channels(root):
        yield from _texts(channel, days, workspace, person)


def _workspace(root: Source) -> _Workspace:
    workspace = _Workspace({}, {}, {}, set())
    for user in _list(root, "users.json"):
        key = text_at(user, "id")
        names = [
            text_at(user, "profile", "display_name"),
            text_at(user, "real_name") or text_at(user, "profile", "real_name"),
            text_at(user, "name"),
        ]
        workspace.names[key] = next((name for name in names if name), key)
        email = text_at(user, "profile", "email")
        workspace.aliases[key] = {key, email, *names} - {""}
        if at(user, "is_bot") is True:
            workspace.bots.add(key)
    for channel in (*_list(root, "channels.json"), *_list(root, "groups.json")):
        workspace.channels[text_at(channel, "name")] = f"#{text_at(channel, 'name')}"
    return workspace


def _list(root: Source, name: str) -> list[Any]:
    file = root.child(name)
    value = json_of(file) if file else []
    return value if isinstance(value, list) else []


def _channels(root: Source) -> Iterator[tuple[str, list[Source]]]:
    if not root.is_folder:
        yield "", [root]
        return
    for folder in root.children():
        if folder.is_folder:
            days = [day for day in folder.children() if _DAY.fullmatch(day.name)]
            if days:
                yield folder.name, days


def _messages_of(day: Source) -> tuple[list[Any], str]:
    """The messages of a day, in order; or why they cannot be read."""
    try:
        value = json_of(day)
    except HistoryError as error:
        return [], str(error)
    messages = [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
    return sorted(messages, key=lambda message: text_at(message, "ts")), ""


def _texts(
    channel: str, days: list[Source], workspace: _Workspace, person: frozenset[str]
) -> Found:
    """Yield the texts of one channel. A thread is a conversation, which its first message opens."""
    whom = workspace.channels.get(channel, "")
    if not whom:  # a direct message, or one to several people
        whom = _partner(channel, days, workspace, person)
    conversation = Conversation(whom)
    threads: dict[str, Conversation] = {}
    openings: dict[str, Message] = {}
    for day in days:
        messages, error = _messages_of(day)
        if error:
            yield Dropped(UNREADABLE, str(day), error)
        for record in messages:
            message = _message(f"{day}: message {text_at(record, 'ts')}", record, workspace, person)
            thread = text_at(record, "thread_ts")
            if not thread or thread == text_at(record, "ts"):
                if thread:  # it is answered there, not in the channel
                    openings[thread] = message
                    message = message if message.mine else message._replace(text="")
                yield from conversation.add(message)
                continue
            if thread not in threads:
                threads[thread] = Conversation(whom)
                if thread in openings and not openings[thread].mine:
                    list(threads[thread].add(openings[thread]))  # it was counted in the channel
            yield from threads[thread].add(message)
    for each in (conversation, *threads.values()):
        yield from each.close()


def _partner(
    channel: str, days: list[Source], workspace: _Workspace, person: frozenset[str]
) -> str:
    users = {text_at(message, "user") for day in days for message in _messages_of(day)[0]}
    others = users - person - {""}
    if channel and len(others) == 1:
        (other,) = others
        return workspace.names.get(other, other)
    return ""


def _message(where: str, record: Any, workspace: _Workspace, person: frozenset[str]) -> Message:
    user = text_at(record, "user")
    text = _plain(text_at(record, "text"), workspace)
    by_bot = "bot_id" in record or user in workspace.bots
    if text_at(record, "subtype") not in _OWN_SUBTYPES or by_bot:
        return Message("", text, where)
    return Message(
        workspace.names.get(user, user) or "somebody",
        text,
        where,
        moment(text_at(record, "ts")),
        user in person,
        "" if text.strip() else MEDIA if list_at(record, "files") else BY_PROGRAM,
    )


def _plain(text: str, workspace: _Workspace) -> str:
    """The text with names in place of ids, links as they are, and without escapes."""

    def replaced(token: re.Match[str]) -> str:
        kind, value, label = token.groups()
        if kind == "@":
            return f"@{label or workspace.names.get(value, value)}"
        if kind == "#":
            return f"#{label or value}"
        if kind == "!":
            return label or f"@{value.partition('^')[0]}"
        return label or value.removeprefix("mailto:")

    return unescape(_TOKEN.sub(replaced, text))
