"""Chats that Signal exports as plain text: ``main.jsonl``, with ``metadata.json`` beside it."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from steerx_edge.history.readers.conversations import (
    BY_PROGRAM,
    DELETED,
    MEDIA,
    Conversation,
    Message,
)
from steerx_edge.history.readers.exports import (
    at,
    decoded_beginning,
    json_lines,
    list_at,
    moment,
    text_at,
    unwrapped,
)
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import DAMAGED, Dropped, Found

NAME = "a Signal export"

_FRAME = re.compile(r'^\{ *"(?:account|recipient|chat|chatItem)" *: *\{', re.MULTILINE)
_HEADER = re.compile(r'\s*\{[^\n]*"backupTimeMs"[^\n]*\}')
_PLACEHOLDER = "\ufffc"  # of a mention


class _Recipient(NamedTuple):
    name: str
    is_group: bool = False
    is_self: bool = False
    account: str = ""


def recognize(source: Source) -> str:
    """Return what shows that it is an export of Signal."""
    if source.is_folder:
        main = unwrapped(source).child("main.jsonl")
        return recognize(main) if main else ""
    beginning = decoded_beginning(source.beginning)
    if _HEADER.match(beginning) and _FRAME.search(beginning):
        return "its lines are the account, the recipients and the items of chats"
    return ""


def read(source: Source, _options: Options) -> Found:
    """Yield the person's texts, line by line; see `steerx_edge.history.readers.Reader`.

    The export says who the person is. Messages of all chats are in order of time.
    """
    if source.is_folder:
        source = unwrapped(source).child("main.jsonl") or source
    recipients: dict[str, _Recipient] = {}
    chats: dict[str, Conversation] = {}
    for where, frame in json_lines(source):
        if frame is None:
            yield Dropped(DAMAGED, where)
        elif recipient := at(frame, "recipient"):
            recipients[text_at(recipient, "id")] = _recipient(recipient)
        elif chat := at(frame, "chat"):
            other = recipients.get(text_at(chat, "recipientId"), _Recipient(""))
            name = f"the group {other.name}" if other.is_group and other.name else other.name
            chats[text_at(chat, "id")] = Conversation("yourself" if other.is_self else name)
        elif item := at(frame, "chatItem"):
            message = _message(where, item, recipients)
            conversation = chats.setdefault(text_at(item, "chatId"), Conversation())
            yield from conversation.add(message)
    for conversation in chats.values():
        yield from conversation.close()


def _recipient(recipient: Any) -> _Recipient:
    if "self" in recipient:
        return _Recipient("", is_self=True)
    if "group" in recipient:
        return _Recipient(text_at(recipient, "group", "snapshot", "title", "title"), is_group=True)
    contact = at(recipient, "contact")
    names = (
        f"{text_at(contact, 'nickname', 'given')} {text_at(contact, 'nickname', 'family')}",
        f"{text_at(contact, 'systemGivenName')} {text_at(contact, 'systemFamilyName')}",
        f"{text_at(contact, 'profileGivenName')} {text_at(contact, 'profileFamilyName')}",
        text_at(contact, "username"),
        text_at(contact, "e164"),
    )
    name = next((name.strip() for name in names if name.strip()), "")
    return _Recipient(name, account=text_at(contact, "aci"))


def _message(where: str, item: Any, recipients: dict[str, _Recipient]) -> Message:
    author = recipients.get(text_at(item, "authorId"), _Recipient(""))
    left_out = ""
    if "updateMessage" in item or "directionless" in item:
        left_out = BY_PROGRAM
    elif "remoteDeletedMessage" in item or "adminDeletedMessage" in item:
        left_out = DELETED
    elif "standardMessage" not in item:
        left_out = MEDIA
    standard = at(item, "standardMessage", "text")
    return Message(
        "" if left_out == BY_PROGRAM else author.name or "somebody",
        _with_mentions(standard, recipients),
        where,
        moment(at(item, "dateSent")),
        left_out != BY_PROGRAM and (author.is_self or "outgoing" in item),
        left_out,
    )


def _with_mentions(text: Any, recipients: dict[str, _Recipient]) -> str:
    """The body, with names in place of mentions."""
    body = text_at(text, "body")
    if _PLACEHOLDER not in body:
        return body
    names = {each.account: each.name for each in recipients.values() if each.account}
    mentions = sorted(
        (mention.get("start") or 0, text_at(mention, "mentionAci"))
        for mention in list_at(text, "bodyRanges")
        if text_at(mention, "mentionAci")
    )
    for _, account in mentions:
        name = names.get(account)
        body = body.replace(_PLACEHOLDER, f"@{name}" if name else "", 1)
    return body.replace(_PLACEHOLDER, "")
