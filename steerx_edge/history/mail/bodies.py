"""The text of a mail among its parts, as lines."""

from __future__ import annotations

from collections.abc import Sequence
from email.message import Message
from typing import NamedTuple, cast

from steerx_edge.history.mail.decoding import decoded_bytes
from steerx_edge.history.mail.lines import Line, fixed_lines, flowed_lines
from steerx_edge.history.mail.pgp import is_encrypted, without_armor
from steerx_edge.history.words import with_line_feeds


class Body(NamedTuple):
    """The text of a mail.

    Attributes:
        lines: Its lines.
        is_wrapped: Whether a program may have broken them.
        is_encrypted: Whether only its recipients can read it.
    """

    lines: list[Line]
    is_wrapped: bool = False
    is_encrypted: bool = False

    def __bool__(self) -> bool:
        return self.is_encrypted or any(line.text.strip() for line in self.lines)


def body_of(part: Message) -> Body:
    """Read the text of a mail, or of one of its parts; empty if it has none.

    Of the same text in two forms, HTML is read, unless the plain one is `format=flowed`: what
    programs make plain text of has line ends that nobody wrote. Other parts follow each other.
    Attachments, and mails that are attached, are no text.
    """
    if part.get_content_disposition() == "attachment":
        return Body([])
    if part.get_content_maintype() == "multipart":
        parts = part.get_payload()
        parts = cast("list[Message]", parts) if isinstance(parts, list) else []
        if part.get_content_subtype() == "alternative":
            return _best(parts)
        is_related = part.get_content_subtype() == "related"
        return _joined([body_of(each) for each in (parts[:1] if is_related else parts)])
    kind = part.get_content_type()
    if kind not in {"text/plain", "text/html"} or part.get_filename():
        return Body([])
    return _of_html(part) if kind == "text/html" else _of_plain(part)


def _best(parts: Sequence[Message]) -> Body:
    """One of several forms of a text."""
    flowed = next((each for each in parts if _parameter(each, "format") == "flowed"), None)
    # The form that is closest to what was written comes last.
    order = [flowed, *reversed(parts)] if flowed is not None else reversed(parts)
    return next(filter(None, (body_of(each) for each in order if each is not None)), Body([]))


def _joined(bodies: Sequence[Body]) -> Body:
    found = [body for body in bodies if body]
    return Body(
        [line for body in found for line in (*body.lines, Line(""))],
        any(body.is_wrapped for body in found),
        any(body.is_encrypted for body in found),
    )


def _of_html(part: Message) -> Body:
    from steerx_edge.history.mail.html import html_lines  # it loads a library

    return Body(html_lines(_text(part)))


def _of_plain(part: Message) -> Body:
    text = _text(part)
    if is_encrypted(text):
        return Body([], is_encrypted=True)
    text = without_armor(text)
    if _parameter(part, "format") == "flowed":
        return Body(flowed_lines(text, delete_space=_parameter(part, "delsp") == "yes"))
    return Body(fixed_lines(text), is_wrapped=True)


def _text(part: Message) -> str:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return ""
    return with_line_feeds(decoded_bytes(data, _parameter(part, "charset"))).replace("\0", "")


def _parameter(part: Message, name: str) -> str:
    return str(part.get_param(name) or "").lower()
