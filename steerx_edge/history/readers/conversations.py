"""What is the same for all chats: messages become texts of the person, and their requests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem
from steerx_edge.history.readers.exports import json_array
from steerx_edge.history.readers.source import Source
from steerx_edge.history.readers.texts import UNREADABLE, Dropped, Found, Text

BY_OTHERS = "written by others"
BY_PROGRAM = "written by the program"
MEDIA = "picture, file or call without text"
DELETED = "deleted message"
FORWARDED = "forwarded message"
LINK = "link alone"
COMMAND = "command for a bot"

_BURST = timedelta(minutes=5)  # between two messages
_ANSWER = timedelta(days=1)  # between what is answered and the answer
_SHORTENED = 400  # characters
_EXCERPT = 200

_LINKS = re.compile(r"<?(?:https?://|www\.)\S+")
_COMMAND = re.compile(r"[/!][a-z][\w@-]*(?:[ ].*)?")


class Message(NamedTuple):
    """A message of a chat.

    Attributes:
        author: The name of its author, for requests; empty for lines that the program wrote.
        text: What they wrote.
        where: Its place, as in `steerx_edge.history.readers.texts.Text`.
        written: When, with a time zone; None if the file does not say.
        mine: Whether the author is the person.
        left_out: Why it is not learned from; empty if its text decides that.
    """

    author: str
    text: str
    where: str
    written: datetime | None = None
    mine: bool = False
    left_out: str = ""


class Conversation:
    """Joins messages of one chat, in order of time, to texts of the person.

    Messages by one author are joined if each follows the one before within 5 minutes and nobody
    else wrote in between. The request of the person's text is what the author before them wrote,
    up to a day earlier; else it is ``Write a message to Ana.``

    Args:
        whom: To whom the person writes: ``Ana``, ``the group Hikers``; empty if it is not known.
    """

    def __init__(self, whom: str = "") -> None:
        self._whom = one_line(whom)
        self._mine: list[Message] = []
        self._theirs: list[Message] = []
        self._last: Message | None = None

    def add(self, message: Message) -> Found:
        """Add the next message; yield what is finished and what is left out."""
        reason = message.left_out or reason_to_leave_out(message.text)
        if not message.author and not message.mine:
            yield Dropped(BY_PROGRAM, message.where)
            return
        follows = self._last is not None and _follows(self._last, message)
        self._last = message
        if not message.mine:
            yield from self.close()
            yield Dropped(BY_OTHERS, message.where)
            if not follows:
                self._theirs = []
            if not reason:
                self._theirs.append(message)
            return
        if not follows:
            yield from self.close()
        if reason:
            yield Dropped(reason, message.where, message.text[:_EXCERPT])
        else:
            self._mine.append(message)

    def close(self) -> Found:
        """Yield the text that was begun, if there is one."""
        if not self._mine:
            return
        first = self._mine[0]
        yield Text(HistoryItem(_joined(self._mine), self._request()), first.where, first.written)
        self._mine = []
        self._theirs = []

    def _request(self) -> str:
        if self._theirs and _within(_ANSWER, self._theirs[-1], self._mine[0]):
            author = one_line(self._theirs[0].author)
            return f"Reply to {author}: {shortened(_joined(self._theirs))}"
        return f"Write a message to {self._whom}." if self._whom else "Write a message."


def texts_of(messages: Iterable[Message], whom: str = "") -> Found:
    """Yield the person's texts of one chat, and what is left out."""
    conversation = Conversation(whom)
    for message in messages:
        yield from conversation.add(message)
    yield from conversation.close()


def read_conversations(
    file: Source,
    messages_of: Callable[[str, Any], Iterable[Message]],
    program: str,
    *,
    is_all: bool = True,
) -> Found:
    """Yield the person's texts in a JSON array of conversations with a program.

    Args:
        file: The array.
        messages_of: The messages of a conversation, given its place and its value.
        program: The name of the program.
        is_all: Whether there is no other file.

    Raises:
        HistoryError: Nothing of the only file can be read. Otherwise what cannot be is left out.
    """
    number = 0
    try:
        for number, conversation in enumerate(json_array(file), start=1):
            where = f"{file}: conversation {number}"
            yield from texts_of(messages_of(where, conversation), program)
    except HistoryError as error:
        if is_all and not number:
            raise
        yield Dropped(UNREADABLE, str(file), str(error))


def reason_to_leave_out(text: str) -> str:
    """Return why a message is no text of its own: a link alone, a command, nothing; or empty."""
    bare = text.strip()
    if not bare:
        return MEDIA
    if _COMMAND.fullmatch(bare):
        return COMMAND
    rest, n_links = _LINKS.subn("", bare)
    # Maps put a word and a colon before the link of a place.
    if n_links and re.fullmatch(r"(?:\w+:)?\W*", rest.strip()):
        return LINK
    return ""


def shortened(text: str) -> str:
    """Return the last 400 characters of a text, from the beginning of a word."""
    if len(text) <= _SHORTENED:
        return text
    end = text[-_SHORTENED:]
    return "… " + re.sub(r"\A\S{0,40}\s+", "", end)


def one_line(name: str) -> str:
    """Return a name on one line, without white space around it."""
    return " ".join(name.split())


def _joined(messages: list[Message]) -> str:
    """Join the texts of messages by line feeds; by blank lines around those of several lines."""
    texts = [message.text.strip() for message in messages]
    joined = texts[0]
    for before, text in pairwise(texts):
        joined += ("\n\n" if "\n" in before or "\n" in text else "\n") + text
    return joined


def _follows(before: Message, message: Message) -> bool:
    same = before.mine == message.mine and (message.mine or before.author == message.author)
    return same and _within(_BURST, before, message)


def _within(limit: timedelta, before: Message, message: Message) -> bool:
    """Whether two messages are close in time; so they are if the time of one is not known."""
    if before.written is None or message.written is None:
        return True
    return abs(message.written - before.written) <= limit
