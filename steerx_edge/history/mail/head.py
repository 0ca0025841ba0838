"""The headers of a mail.

`email` raises on some broken headers, and answers nothing for a whole list of addresses if one of
them is malformed. Here each header, and each address, stands for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import cached_property, lru_cache
from typing import NamedTuple

from steerx_edge.history.mail.decoding import decoded_bytes, decoded_words

_END = re.compile(rb"\r?\n\r?\n")
_FIELD = re.compile(rb"(?m)^([!-9;-~]+)[ \t]*:[ \t]*([^\n]*(?:\n[ \t][^\n]*)*)")
_ADDRESS = re.compile(r"[^\s<>()\[\]\",;:]+@[^\s<>()\[\]\",;:]+")
_LISTED = re.compile(r"""(?:"(?:\\.|[^"\\])*"|<[^>]*>|\([^)]*\)|[^,;])+""")
_ID = re.compile(r"<([^<>\s]+)>")
# The prefixes of answers and forwards; of Outlook in other languages too.
_ANSWERED = r"re|aw|antw|antwort|sv|vs|ref|odp|rif|r|ynt|res|回复|答复|回覆|返信|отв"
_FORWARDED = r"fwd?|wg|tr|rv|vb|vl|vid|fs|enc|i|pd|doorst|trs|ilt|转发|轉寄|転送|пер"
_PREFIXES = re.compile(
    rf"\A\s*(?:(?:{_ANSWERED}|{_FORWARDED})\s*(?:\[\d+\]|\(\d+\)|\^\d+)?\s*[:：]\s*)+",
    re.IGNORECASE,
)
_FORWARD = re.compile(rf"\s*(?:{_FORWARDED})\s*[:：]", re.IGNORECASE)
_LONGEST = 1 << 14  # bytes of a header that are read
_OLDEST = 1971  # mail without a clock is from 1970


class Address(NamedTuple):
    """Somebody: the name, which may be empty, and the address in lower case."""

    name: str
    address: str


class Head:
    """The headers of a mail.

    Attributes:
        begins_at_once: Whether the data begins with a header.

    Args:
        data: The mail, or its beginning.
    """

    def __init__(self, data: bytes) -> None:
        data = data.lstrip(b"\xef\xbb\xbf\r\n")
        while data.startswith((b"From ", b">From ")):  # of the mailbox it lay in
            data = data.partition(b"\n")[2]
        end = _END.search(data)
        self.begins_at_once = bool(_FIELD.match(data))
        self._fields: dict[str, list[bytes]] = {}
        for match in _FIELD.finditer(data[: end.start() if end else len(data)]):
            name = match[1].decode("ascii").lower()
            self._fields.setdefault(name, []).append(match[2])

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def get(self, name: str) -> str:
        """The first header with a name, decoded; empty if there is none."""
        return decoded_words(self._raw(name)).strip()

    def addresses(self, name: str) -> list[Address]:
        """Those that a header names."""
        return list(addresses_in(self._raw(name)))

    @cached_property
    def sender(self) -> Address:
        """Who wrote it; with a name only in local mail, and in some of Outlook's."""
        named = _name(re.sub(r"<[^>]*>?", "", self._raw("from")))
        return next(iter(self.addresses("from")), Address(named, ""))

    @cached_property
    def subject(self) -> str:
        """The subject, without what marks answers and forwards."""
        return _PREFIXES.sub("", self._subject, count=1).strip()

    @property
    def is_forward(self) -> bool:
        """Whether the subject says that another mail is passed on."""
        return bool(_FORWARD.match(self._subject))

    @property
    def id(self) -> str:
        """Its Message-ID, without the brackets; empty if it has none."""
        found = _ID.search(self._raw("message-id"))
        return found[1] if found else self._raw("message-id").strip()

    @property
    def answered(self) -> str:
        """The Message-ID of the mail that it answers; empty if it answers none."""
        direct = _ID.findall(self._raw("in-reply-to"))
        thread = _ID.findall(self._raw("references"))
        return next(iter(direct[:1] + thread[-1:]), "")

    @property
    def written(self) -> datetime | None:
        """When it was written; None if the date is missing or broken."""
        try:
            date = parsedate_to_datetime(self._raw("date"))
            date = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
            date.timestamp()
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        return date if date.year >= _OLDEST else None

    @cached_property
    def _subject(self) -> str:
        return " ".join(self.get("subject").split())

    def _raw(self, name: str) -> str:
        values = self._fields.get(name)
        value = values[0][:_LONGEST] if values else b""
        return re.sub(r"\r?\n[ \t]", " ", decoded_bytes(value, None))


def addresses_in(text: str) -> Iterator[Address]:
    """The addresses in a list of them, such as the header To."""
    before = ""  # of a name with a comma that has no quotation marks
    for piece in _LISTED.findall(text):
        found = _ADDRESS.findall(piece)
        if not found:
            before = f"{before}{piece},"
            continue
        name = re.sub(r"<[^>]*>?", "", piece) if "<" in piece else _comment(piece)
        yield Address(_name(before + name), found[-1].lower().strip("'."))
        before = ""


def _comment(piece: str) -> str:
    found = re.search(r"\(([^)]*)\)", piece)
    return found[1] if found else ""


@lru_cache(4096)
def _name(text: str) -> str:
    name = " ".join(decoded_words(text).replace("\\", "").split()).strip("\"', ")
    last, comma, first = name.partition(", ")
    if comma and "," not in first and first[:1].isupper():
        name = f"{first} {last}"
    return "" if "@" in name else name
