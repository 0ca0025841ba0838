"""Mails saved by Outlook (.msg), by the library extract-msg."""

from __future__ import annotations

from steerx_edge.history.readers.extras import needed
from steerx_edge.history.readers.mail_files import Kind, folder_above, holds_mails, read_files
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Found

NAME = "mail of Outlook (.msg)"

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_PROPERTIES = "__properties_version1.0".encode("utf-16-le")


def _is_one(source: Source) -> bool:
    beginning = source.beginning
    return beginning.startswith(_OLE) and (source.suffix == ".msg" or _PROPERTIES in beginning)


def _unwrap(source: Source) -> bytes:
    from extract_msg import openMsg
    from extract_msg.msg_classes import MessageBase

    with source.open() as file:
        data = file.read()
    with openMsg(data, delayAttachments=True) as message:
        is_mail = str(message.classType).lower().startswith("ipm.note")
        if not is_mail or not isinstance(message, MessageBase):
            return b""  # a contact, a task, an appointment
        mail = message.asEmailMessage()
        if not mail["Subject"]:  # of a mail that was sent, and has no headers of a server
            mail["Subject"] = message.subject
        return bytes(mail)


_KIND = Kind(_is_one, _unwrap, folder_above)


def recognize(source: Source) -> str:
    """Return what shows that it is a mail of Outlook, or a folder of them."""
    if not source.is_folder:
        return "it is a file of Outlook with the properties of a mail" if _is_one(source) else ""
    return "its files are mails of Outlook" if holds_mails(source, _KIND) else ""


def read(source: Source, options: Options) -> Found:
    """Yield the texts of the user.

    Raises:
        HistoryError: extract-msg is missing.
    """
    needed("extract_msg", extra="outlook", to=f"read {source}, {NAME}")
    yield from read_files(source, options, _KIND)
