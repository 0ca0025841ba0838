"""Mails saved as they are sent (.eml): a file, or a folder of them."""

from __future__ import annotations

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers.mail_files import (
    Kind,
    beginning_of,
    folder_above,
    holds_mails,
    is_mail,
    read_files,
)
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Found

NAME = "mail (.eml)"


def _is_one(source: Source) -> bool:
    return is_mail(source.beginning)


_KIND = Kind(_is_one, beginning_of, folder_above)


def recognize(source: Source) -> str:
    """Return what shows that it is a mail, or a folder of mails.

    Raises:
        HistoryError: It is called one and is none.
    """
    if _is_one(source):
        return "it begins with the headers of a mail"
    if source.suffix == ".eml" and not source.is_folder:
        raise HistoryError(
            f"{source} is no mail, whatever its name says: it does not begin with the headers From "
            "and Date. Export the mail again."
        )
    return "its files begin with the headers of mails" if holds_mails(source, _KIND) else ""


def read(source: Source, options: Options) -> Found:
    """Yield the texts of the user."""
    yield from read_files(source, options, _KIND)
