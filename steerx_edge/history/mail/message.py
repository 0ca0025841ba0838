"""A mail, read: its text as lines, or why it is not learned from."""

from __future__ import annotations

from dataclasses import dataclass
from email import message_from_bytes

from steerx_edge.history.mail.bodies import body_of
from steerx_edge.history.mail.kinds import CALENDAR, ENCRYPTED
from steerx_edge.history.mail.lines import Line
from steerx_edge.history.mail.own_words import Parts, parted

WITHOUT_TEXT = "mail without a text"


@dataclass(frozen=True)
class Mail:
    """What a mail says.

    Attributes:
        lines: Its text; empty if it has none.
        reason: Why its content is not learned from; empty if nothing speaks against it.
        is_wrapped: Whether a program may have broken the lines.
    """

    lines: list[Line]
    reason: str = ""
    is_wrapped: bool = False

    def parted(self) -> Parts:
        """Take it apart."""
        return parted(self.lines, is_wrapped=self.is_wrapped)


def read_mail(data: bytes) -> Mail:
    """Read a mail; `email` may raise any exception for a broken one.

    The headers are read by `Head`, so `email` only finds the parts, by its older policy: the newer
    one parses all headers by a grammar, takes several times as long, and fails more often.
    """
    message = message_from_bytes(data)
    if any(part.get_content_type() == "text/calendar" for part in message.walk()):
        return Mail([], CALENDAR)
    body = body_of(message)
    if body.is_encrypted:
        return Mail([], ENCRYPTED)
    return Mail(body.lines, "" if body else WITHOUT_TEXT, body.is_wrapped)
