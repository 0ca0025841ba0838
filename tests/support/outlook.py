"""Files of Outlook (.msg), after [MS-OXMSG]: compound files with a stream for each text."""

from __future__ import annotations

import struct
from pathlib import Path

from extract_msg import OleWriter

_UNICODE, _TIME, _LONG = 0x001F, 0x0040, 0x0003
_MESSAGE_CLASS, _SUBJECT, _BODY = 0x001A, 0x0037, 0x1000
_SENDER_NAME, _SENDER_ADDRESS = 0x0C1A, 0x5D01
_NAME, _ADDRESS, _SMTP, _RECIPIENT_TYPE = 0x3001, 0x3003, 0x39FE, 0x0C15
_DISPLAY_TO, _SENT = 0x0E04, 0x0039
_EPOCH = 116444736000000000  # of Unix, in units of 100 ns since 1601


def write_msg(
    path: Path,
    *,
    body: str,
    subject: str,
    sender: tuple[str, str],
    to: tuple[str, str],
    sent: int,
    kind: str = "IPM.Note",
) -> None:
    """Write a mail as Outlook saves one that was sent.

    Args:
        path: The file.
        body: The text.
        subject: The subject.
        sender: Name and address.
        to: Name and address of the recipient.
        sent: When it was sent, in seconds since 1970.
        kind: The class of the message.
    """
    writer = OleWriter()
    writer.addEntry(["__nameid_version1.0"], storage=True)
    for stream in ("00020102", "00030102", "00040102"):
        writer.addEntry(["__nameid_version1.0", f"__substg1.0_{stream}"], b"")
    texts = {
        _MESSAGE_CLASS: kind,
        _SUBJECT: subject,
        _BODY: body,
        _SENDER_NAME: sender[0],
        _SENDER_ADDRESS: sender[1],
        _DISPLAY_TO: to[0],
    }
    date = _property(_SENT, _TIME, struct.pack("<Q", _EPOCH + sent * 10_000_000))
    header = struct.pack("<8xIIII8x", 1, 0, 1, 0)
    _add(writer, [], header, texts, date)
    recipient = "__recip_version1.0_#00000000"
    writer.addEntry([recipient], storage=True)
    kind_of = _property(_RECIPIENT_TYPE, _LONG, struct.pack("<II", 1, 0))
    _add(writer, [recipient], bytes(8), {_NAME: to[0], _ADDRESS: to[1], _SMTP: to[1]}, kind_of)
    writer.write(str(path))


def _add(
    writer: OleWriter, at: list[str], header: bytes, texts: dict[int, str], further: bytes
) -> None:
    """Write the texts of an object, and the stream that lists its properties."""
    properties = header + further
    for tag, text in texts.items():
        data = text.encode("utf-16-le")
        writer.addEntry([*at, f"__substg1.0_{tag:04X}{_UNICODE:04X}"], data)
        properties += _property(tag, _UNICODE, struct.pack("<II", len(data) + 2, 0))
    writer.addEntry([*at, "__properties_version1.0"], properties)


def _property(tag: int, kind: int, value: bytes) -> bytes:
    return struct.pack("<HHI", kind, tag, 6) + value
