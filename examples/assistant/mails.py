"""The mail that is to be answered: read from a file, and as a request to the model."""

from __future__ import annotations

import os
from pathlib import Path

from steerx_edge.errors import HistoryError
from steerx_edge.history.mail.decoding import decoded_bytes
from steerx_edge.history.mail.head import Head
from steerx_edge.history.mail.lines import fixed_lines
from steerx_edge.history.mail.message import read_mail
from steerx_edge.history.mail.own_words import parted
from steerx_edge.history.mail.request import request_of
from steerx_edge.history.readers.mail_files import is_mail
from steerx_edge.history.readers.mailboxes import LARGEST
from steerx_edge.history.words import with_line_feeds

SHOWN = 1 << 16
"""Characters of a mail that the window takes: a field with much more is slow."""


def mail_in(path: str | os.PathLike[str]) -> str:
    """Read a mail (.eml) as its subject and what its sender wrote; any other file as text.

    Of a long text, the first `SHOWN` characters are returned.

    Raises:
        HistoryError: the file cannot be read, or holds no text.
    """
    name = Path(path).name
    try:
        with Path(path).open("rb") as file:
            data = file.read(LARGEST)
    except OSError as error:
        raise HistoryError(f"'{name}' cannot be read: {error.strerror}.") from error
    if is_mail(data):
        subject = Head(data).subject
        text = _written(data, name)
        return (f"Subject: {subject}\n\n{text}" if subject else text)[:SHOWN]
    if b"\0" in data:
        raise HistoryError(f"'{name}' is neither a mail nor text. Save the mail as .eml or .txt.")
    text = with_line_feeds(decoded_bytes(data, None)).lstrip("\ufeff")
    if not text.strip():
        raise HistoryError(f"'{name}' is empty.")
    return text[:SHOWN]


def request_for(mail: str) -> str:
    """What the model is asked, in the words that profiles are learned with.

    Quotes and signatures are left out, and the end of a long mail.

    Args:
        mail: as `mail_in` gives it, or pasted, with headers or without; not empty.

    Raises:
        HistoryError: the mail has headers and no text.
    """
    mail = mail.strip()
    data = mail.encode(errors="replace")
    if is_mail(data):
        return request_of(Head(data), _written(data, "The mail"))
    head, text = Head(b""), mail
    if mail.lower().startswith("subject:"):
        first, _, text = mail.partition("\n")
        head = Head(first.encode(errors="replace"))
    own = parted(fixed_lines(text), is_wrapped=False).text()
    return request_of(head, own or text.strip() or head.subject)


def _written(data: bytes, name: str) -> str:
    """What the sender wrote; of a mail that only passes another one on, all of it."""
    try:
        mail = read_mail(data)
    except Exception as error:  # `email` raises many, for mails that break its rules
        raise HistoryError(f"'{name}' is damaged and cannot be read.") from error
    if mail.reason:
        raise HistoryError(f"'{name}' cannot be answered: {mail.reason}.")
    return mail.parted().text() or "\n".join(line.text for line in mail.lines).strip()
