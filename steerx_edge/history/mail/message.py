"""A mail, read: its headers, and its text as lines."""

from __future__ import annotations

from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from typing import cast

from steerx_edge.history.mail.decoding import decoded_bytes
from steerx_edge.history.mail.head import Head
from steerx_edge.history.mail.kinds import CALENDAR, ENCRYPTED
from steerx_edge.history.mail.lines import Line, fixed_lines, flowed_lines
from steerx_edge.history.mail.machines import is_encrypted, without_armor
from steerx_edge.history.mail.own_words import Parts, parted
from steerx_edge.history.words import with_line_feeds

WITHOUT_TEXT = "mail without a text"


@dataclass(frozen=True)
class Mail:
    """A mail.

    Attributes:
        head: Its headers.
        lines: Its text; empty if it has none.
        reason: Why its content is not learned from; empty if nothing speaks against it.
        is_wrapped: Whether a program may have broken the lines.
    """

    head: Head
    lines: list[Line]
    reason: str = ""
    is_wrapped: bool = False

    def parted(self) -> Parts:
        """Take it apart."""
        return parted(self.lines, is_wrapped=self.is_wrapped)


def read_mail(data: bytes) -> Mail:
    """Read a mail; `email` may raise any exception for a broken one.

    Its headers are our own, so `email` finds the parts, by its older policy: the newer one parses
    the headers of each part by a grammar, takes several times as long, and fails more often.

    Of a mail with both, HTML is read rather than plain text, unless that is `format=flowed`: what
    programs make plain text of has line ends that nobody wrote.
    """
    head = Head(data)
    message = message_from_bytes(data)
    if any(part.get_content_type() == "text/calendar" for part in message.walk()):
        return Mail(head, [], CALENDAR)
    plain, html = (_body(message, kind) for kind in ("plain", "html"))
    if html is not None and (plain is None or not _is_flowed(plain)):
        from steerx_edge.history.mail.html import html_lines  # it loads a library

        lines = html_lines(_text(html))
        if any(line.text.strip() for line in lines):
            return Mail(head, lines)
    if plain is None:
        return Mail(head, [], WITHOUT_TEXT)
    text = _text(plain)
    if is_encrypted(text):
        return Mail(head, [], ENCRYPTED)
    text = without_armor(text)
    if _is_flowed(plain):
        return Mail(head, flowed_lines(text, delete_space=_parameter(plain, "delsp") == "yes"))
    return Mail(head, fixed_lines(text), is_wrapped=True)


def _body(message: Message, kind: str) -> Message | None:
    """The first text of a kind that is no attachment, nor in a mail that is attached."""
    if message.get_content_disposition() == "attachment":
        return None
    if message.get_content_maintype() == "multipart" and message.is_multipart():
        parts = cast("list[Message]", message.get_payload())
        return next(filter(None, (_body(part, kind) for part in parts)), None)
    return message if message.get_content_type() == f"text/{kind}" else None


def _text(part: Message) -> str:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return ""
    return with_line_feeds(decoded_bytes(data, _parameter(part, "charset"))).replace("\0", "")


def _is_flowed(part: Message) -> bool:
    return _parameter(part, "format") == "flowed"


def _parameter(part: Message, name: str) -> str:
    return str(part.get_param(name) or "").lower()
