"""Mailboxes of Outlook (.pst, .ost), by the library libpff.

Their mails are not kept as they were sent, but as properties, which are put together again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timezone
from email.parser import HeaderParser
from email.utils import format_datetime, formataddr
from typing import Any

from steerx_edge.errors import HistoryError
from steerx_edge.history.mail.decoding import decoded_bytes
from steerx_edge.history.readers.extras import needed
from steerx_edge.history.readers.mailboxes import LARGEST, read_boxes
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Found

NAME = "a mailbox of Outlook (.pst)"

_BEGINNING = b"!BDN"
# Properties, by their numbers in MS-OXPROPS.
_CLASS = 0x001A
_SENDER_NAME, _SENDER, _SENDER_LOCAL = 0x0C1A, 0x5D01, 0x0C1F  # the last one may be of Exchange
_NAME, _ADDRESS, _ADDRESS_LOCAL = 0x3001, 0x39FE, 0x3003  # of a recipient
_IDS = {"Message-ID": 0x1035, "In-Reply-To": 0x1042, "References": 0x1039}
_OF_BODY = ("content-", "mime-")  # headers, of a text that is not kept
_TEXT = {0x001E, 0x001F}  # kinds of values
_CHARSET = re.compile(rb"charset=[\"']?([\w-]+)", re.IGNORECASE)


def recognize(source: Source) -> str:
    """Return what shows that a file is a mailbox of Outlook."""
    return "it begins with '!BDN'" if source.beginning.startswith(_BEGINNING) else ""


def read(source: Source, options: Options) -> Found:
    """Yield the texts of the user in all folders.

    Raises:
        HistoryError: The file is damaged, or libpff is missing.
    """
    pypff = needed("pypff", extra="outlook", to=f"read {NAME}")
    with source.open() as data:
        file = pypff.file()
        try:
            file.open_file_object(data)
            boxes = [_Folder(*found) for found in folders_below(file.get_root_folder())]
        except OSError as error:
            raise HistoryError(f"{source} is a damaged mailbox of Outlook.") from error
        yield from read_boxes(boxes, options.me, str(source))


def folders_below(folder: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each folder below one of libpff, with its path."""
    for number in range(folder.number_of_sub_folders):
        below = folder.get_sub_folder(number)
        name = f"{path}/{below.name or number}".lstrip("/")
        yield name, below
        yield from folders_below(below, name)


class _Folder:
    """A folder of mails; a place is the number of a message."""

    def __init__(self, name: str, folder: Any) -> None:
        self.name = name
        self._folder = folder

    def places(self) -> Iterator[int]:
        """The numbers of the messages."""
        return iter(range(self._folder.number_of_sub_messages))

    def head(self, place: int) -> bytes:
        """The headers of a mail; empty if it cannot be read, or is none."""
        try:
            return headers_of(self._folder.get_sub_message(place))
        except (OSError, ValueError):  # it is named when the mail is read
            return b""

    def mail(self, place: int) -> bytes:
        """A mail, with the first `LARGEST` bytes of its text."""
        message = self._folder.get_sub_message(place)
        html = (message.get_html_body() or b"")[:LARGEST]
        plain = (message.get_plain_text_body() or b"")[:LARGEST]
        charset = _CHARSET.search(html)
        text = decoded_bytes(html or plain, charset[1].decode() if charset else None)
        kind = f"text/{'html' if html else 'plain'}; charset=utf-8"
        body = {"Content-Type": kind, "Content-Transfer-Encoding": "8bit"}
        return headers_of(message) + _encoded(body) + b"\n" + text.encode()

    def close(self) -> None:
        """No file is kept open."""


def headers_of(message: Any) -> bytes:
    """Return the headers of a mail: as it came, or, of one that was sent, from its properties."""
    records = list(message.record_sets)
    properties = _texts_in(records[0]) if records else {}
    if not properties.get(_CLASS, "").startswith("IPM.Note"):
        return b""  # a contact, a task, an appointment
    sender = properties.get(_SENDER) or properties.get(_SENDER_LOCAL, "")
    sent = message.get_client_submit_time()
    came = HeaderParser().parsestr(message.get_transport_headers() or "").items()
    fields = {
        "From": formataddr((properties.get(_SENDER_NAME, ""), sender)),
        "To": ", ".join(_recipients(message)),
        "Subject": message.get_subject() or "",
        "Date": format_datetime(sent.replace(tzinfo=timezone.utc)) if sent else "",
        **{name: properties.get(number, "") for name, number in _IDS.items()},
        **{name: value for name, value in came if not name.lower().startswith(_OF_BODY)},
    }
    return _encoded(fields)


def _recipients(message: Any) -> Iterator[str]:
    for record in message.recipients.record_sets if message.recipients else ():
        properties = _texts_in(record)
        address = properties.get(_ADDRESS) or properties.get(_ADDRESS_LOCAL, "")
        yield formataddr((properties.get(_NAME, ""), address))


def _texts_in(record: Any) -> dict[int, str]:
    """The properties of a message or a recipient that are text, by their numbers."""
    return {
        entry.entry_type: entry.get_data_as_string() or ""
        for entry in record.entries
        if entry.value_type in _TEXT
    }


def _encoded(fields: dict[str, str]) -> bytes:
    lines = (f"{name}: {' '.join(value.split())}\n" for name, value in fields.items() if value)
    return "".join(lines).encode(errors="replace")
