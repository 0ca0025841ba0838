"""Formats that are recognized by their content, but not read.

Read as prose they would teach headers, names and markup. The error names the format.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers.source import ADVICE, Source

_HEADER = r"[A-Za-z][A-Za-z0-9-]*:.*\n(?:[ \t].*\n)*"
_HEADERS = re.compile(rf"(?:{_HEADER}){{2,}}")
_TO = (
    "Date|Sent|To|Subject|Gesendet|Datum|An|Betreff|Envoyé|À|Objet|Enviado|Para|Asunto|Inviato|"
    "Oggetto|Verzonden|Aan|Onderwerp"
)
_MAIL = re.compile(
    r"^(?:MIME-Version|Message-ID|Received|Return-Path|Delivered-To|X-Mozilla-Status):"
    rf"|^(?:From|De|Von|Da|Van) ?:.*\n(?s:.*)^(?:{_TO}) ?:"
    r"|^(?:Date|To|Subject):.*\n(?s:.*)^From:"
    # In any language: the address of the sender, in the first of three lines.
    r"|\A[^\n<>]+<\S+@\S+>\n.*\n.*\n",
    re.MULTILINE | re.IGNORECASE,
)
_LOOKED_AT = 10_000  # characters of headers
_LABEL = r"[^\W\d_]+(?: [^\W\d_]+)?[ \xa0]?:"
_LOCAL_HEADERS = re.compile(rf"(?:{_LABEL}[ \xa0].*\n){{3,}}")
_COMMENT = r"(?:<!--(?s:.*?)-->\s*)?"
_BEGINNINGS = (
    (r"\x01{4}\n", "a mailbox (MMDF)"),
    (r"BABYL OPTIONS:", "a mailbox (Babyl)"),
    (r"-----BEGIN [A-Z ]+-----", "a message or a key of PGP"),
    (r"(?:\[?\d\d:\d\d(?::\d\d)?\]? <[^>\n]+> .*\n){2}", "a log of IRC"),
    (r"\[LINE\] .*\n.*\d{1,2}:\d\d", "a chat of LINE"),
    (r".*\n(?:저장한 날짜|Date Saved|Saved Date) ?: ?\d.*\n", "a chat of KakaoTalk"),
    (r"window\.YTD\.[\w.]+ *=", "a file of an X (Twitter) archive"),
    (r"<\?xml\b", "an XML document"),
    (rf"{_COMMENT}<(?:div|p|table)\b[^>]*>", "a part of a web page (HTML)"),
    (r"<([a-z][\w:-]*)(?:\s[^<>]*)?>(?s:.*)</\1>", "a document with tags (HTML or XML)"),
    (r"(?:%.*\n\s*)*\\documentclass\b", "a LaTeX document"),
    (r"BEGIN:VCARD\b", "a file of contacts (vCard)"),
    (r"BEGIN:VCALENDAR\b", "a calendar (iCalendar)"),
    (r"WEBVTT\b|1\n\d\d:\d\d:\d\d,\d{3} -->", "a file of subtitles"),
)
_SAVED_MAIL = "an email, but not as a program keeps it"
_PART = "a part of a web page (HTML)"
_ADVICE = {
    _SAVED_MAIL: "Save it as .eml or .mbox, or give its text without the headers.",
    _PART: "Call it .html if it is a document of yours.",
}
_KNOWN_BEGINNINGS = tuple(
    (re.compile(pattern, re.IGNORECASE), name) for pattern, name in _BEGINNINGS
)
# By the fields of the only object, or of the first in an array; all of them must be there.
_OBJECTS = (
    ({"cells", "nbformat"}, "a Jupyter notebook"),
    ({"tweet"}, "a file of an X (Twitter) archive"),
    ({"role", "content"}, "a file of chat messages"),
    ({"messages"}, "a file of chat messages"),
    ({"conversations"}, "a file of chat messages"),
)


def refuse(source: Source) -> None:
    """Refuse a file in a known format that is not read.

    Raises:
        HistoryError: it is in one; names it.
    """
    if name := _name_of(source):
        raise HistoryError(f"{source} is {name}, which is not read. {_ADVICE.get(name, ADVICE)}")


def _name_of(source: Source) -> str | None:
    if source.is_json:
        return _name_of_object(source)
    text = source.rough_text.lstrip("\u200e\ufeff \t\n")
    beginning = text[:2000]
    for pattern, name in _KNOWN_BEGINNINGS:
        if pattern.match(beginning):
            return name
    if is_mail(text):
        return _SAVED_MAIL
    return None


def _name_of_object(source: Source) -> str | None:
    try:
        fields = source.records[0].fields
    except HistoryError:
        return None  # the reader of JSON says what is wrong
    if _is_own(fields):
        return None
    return next((name for keys, name in _OBJECTS if keys <= fields.keys()), None)


def _is_own(fields: Mapping[str, object]) -> bool:
    """Return whether an object is one of ours: an author, or an item."""
    return isinstance(fields.get("profile"), list) or isinstance(fields.get("response"), str)


def is_mail(text: str) -> bool:
    """Return whether a text begins with the headers of an email, or has full ones in it."""
    for match in (_HEADERS.match(text), _LOCAL_HEADERS.match(text)):
        if match and _MAIL.search(match.group()[:_LOOKED_AT]):
            # Two lines may be those of a memo.
            return match.group().count("\n") > 2 or "@" in match.group()
    return any(
        re.search(r"^(?:MIME-Version|Message-ID): ", match.group(), re.MULTILINE | re.IGNORECASE)
        for match in re.finditer(rf"(?<=\n\n){_HEADERS.pattern}", text)
    )
