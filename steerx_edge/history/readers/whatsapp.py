"""Chats that WhatsApp exports as text, alone or with media in a ZIP archive."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from steerx_edge.history.readers.conversations import DELETED, MEDIA, Message, texts_of
from steerx_edge.history.readers.exports import decoded_beginning
from steerx_edge.history.readers.people import who_is_the_person
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Found

NAME = "a WhatsApp chat"

_MARK = "[\u200e\u200f\u202a-\u202e\ufeff]*"
_DAY = "(\\d{1,4})\u200f?([./-]) ?(\\d{1,2})\u200f?[./-] ?(\\d{1,4})\\.?"
_TIME = r"(\D{1,12}?)(\d{1,2})[:.](\d{2})(?:[:.](\d{2}))?([^\d\n\]-]{0,8})"
_STAMP = rf"{_MARK}(?:\[{_DAY}{_TIME}\]|{_DAY}{_TIME} -) "
_LINE = re.compile(_STAMP)
_AUTHOR = re.compile(r"([^\n:]{1,60}): ?")
# Two of these lines follow each other; a diary has blank lines between its days.
_CHAT = re.compile(rf"{_STAMP}(?s:.*)(?<=[^\n]\n){_STAMP}")
_MESSAGE = re.compile(rf"^{_STAMP}[^\n:]{{1,60}}: ", re.MULTILINE)
_LOOKED_AT = 2000

_YEAR_FIRST, _MONTH_FIRST, _DAY_FIRST = (0, 1, 2), (2, 0, 1), (2, 1, 0)

# WhatsApp's own words, in any language: marked by U+200E, or in angle brackets.
_MARKED = re.compile("[\u200e\u200f]")
_BRACKETED = re.compile(r"<[^<>\n]+>")
_EDITED = re.compile("(?<!\\s)\\s*(?:\u200e?<[^<>/=\\n]+ [^<>/=\\n]+>|\u200e<[^<>\\n]+>)\\Z")
_FILE = re.compile("(?:\u200e.*|.*-WA\\d{4})\\.\\w{2,5} \\([^()\\n]+\\)(?:\\n|\\Z)")
# Android does not mark these; only the person's own are of interest.
_DELETED = re.compile(
    r"(?:You deleted this message|Du hast diese Nachricht gelöscht|Eliminaste este mensaje|"
    r"Vous avez supprimé ce message|Hai eliminato questo messaggio|"
    r"(?:Você apagou|Apagou|Apagaste) esta mensagem|Je hebt dit bericht verwijderd|"
    r"Вы удалили это сообщение)\.?",
    re.IGNORECASE,
)
_ISOLATES = re.compile("[\u2066-\u2069]")
_AFTERNOON = re.compile("p|下午|午後|오후|م|μ", re.IGNORECASE)


class _Line(NamedTuple):
    """A message as it stands in the file: its stamp, its author (empty: none), its text."""

    day: tuple[str, str, str]
    clock: tuple[int, int, int]
    author: str
    text: str
    separator: str
    with_noon: bool


def recognize(source: Source) -> str:
    """Return what shows that it is a chat of WhatsApp, or a folder or archive of some."""
    if not source.is_folder:
        return "its lines begin with a date, a time and a name" if _is_chat(source) else ""
    chats = _chats_in(source)
    return f"{chats[0].name} has lines with a date, a time and a name" if chats else ""


def read(source: Source, options: Options) -> Found:
    """Yield the person's texts; see `steerx_edge.history.readers.Reader`.

    Each chat is read twice: first for its authors and dates, then for the texts.
    """
    chats = [(chat, *_surveyed(chat)) for chat in (_chats_in(source) or [source])]
    person = who_is_the_person(source, NAME, [count for _, count, _ in chats], options.me)
    for chat, count, order in chats:
        others = [author for author in count if author not in person]
        whom = others[0] if len(others) == 1 else ""
        yield from texts_of(_messages(chat, order, person), whom)


def _surveyed(chat: Source) -> tuple[Counter[str], tuple[int, int, int]]:
    """The number of messages by each author of a chat, and the order of its dates."""
    authors = Counter[str]()
    days = _Days()
    for line in _lines(chat):
        days.add(line)
        if line.author:
            authors[line.author] += 1
    return authors, days.order


def _is_chat(source: Source) -> bool:
    text = decoded_beginning(source.beginning).replace("\r\n", "\n")
    beginning = text.lstrip("\u200e\ufeff \t\n")[:_LOOKED_AT]
    return bool(_CHAT.match(beginning) and _MESSAGE.search(beginning))


def _chats_in(source: Source, inside: bool = False) -> list[Source]:
    """The chats of a folder, and of the folders and archives in it.

    Other files may lie beside a chat that has WhatsApp's name for it, in any language: they were
    sent in it. Elsewhere they may be of another kind, and a folder with any is not one of chats.
    """
    if not source.is_folder:
        return []
    chats, others = [], 0
    for child in source.children():
        below = not inside and (child.suffix == ".zip" or child.path.is_dir())
        inner = _chats_in(child, inside=True) if below else []
        if inner:
            chats += inner
        elif child.suffix == ".txt" and child.can_be_read and _is_chat(child):
            chats.append(child)
        else:
            others += 1
    exported = any("whatsapp" in chat.name.lower() or chat.name == "_chat.txt" for chat in chats)
    return chats if exported or not others else []


def _lines(chat: Source) -> Iterator[_Line]:
    """The messages of a chat. A line without a date continues the message before it."""
    begun: re.Match[str] | None = None
    content: list[str] = []
    for line in chat.lines():
        if stamp := _LINE.match(line):
            if begun:
                yield _line(begun, "".join(content))
            begun, content = stamp, [line[stamp.end() :]]
        else:
            content.append(line)
    if begun:
        yield _line(begun, "".join(content))


def _line(stamp: re.Match[str], content: str) -> _Line:
    first, separator, second, third, before, hour, minute, seconds, after = (
        stamp.groups()[:9] if stamp[1] else stamp.groups()[9:]
    )
    content = content.rstrip("\n")
    author = _AUTHOR.match(content)
    if author and not _are_balanced(author[1]):
        author = None  # a subject that was changed, and has a colon
    return _Line(
        (first, second, third),
        (_hour(int(hour), before + after), int(minute), int(seconds or 0)),
        _name(author[1]) if author else "",
        content[author.end() :] if author else content,
        separator,
        any(character.isalpha() for character in after),
    )


def _name(author: str) -> str:
    return re.sub("[\u200e\u200f\u202a-\u202e\u2066-\u2069]", "", author).strip().lstrip("~\u202f ")


def _are_balanced(text: str) -> bool:
    """Whether quotation marks that are opened are closed."""
    return text.count('"') % 2 == 0 and all(
        text.count(left) == text.count(right) for left, right in ("“”", "«»")
    )


def _hour(hour: int, noon: str) -> int:
    letters = "".join(character for character in noon if character.isalpha())
    if not letters or hour > 12:
        return hour
    return hour % 12 + (12 if _AFTERNOON.search(letters) else 0)


def _messages(
    chat: Source, order: tuple[int, int, int], person: frozenset[str]
) -> Iterator[Message]:
    for number, line in enumerate(_lines(chat), start=1):
        text, left_out = _own_words(line.text)
        yield Message(
            line.author,
            text,
            f"{chat}: message {number}",
            _written(line, order),
            line.author in person,
            left_out,
        )


def _own_words(text: str) -> tuple[str, str]:
    """The text without what WhatsApp adds to it; and why it is left out, if it is."""
    attached = _FILE.match(text)
    if _DELETED.fullmatch(text):
        return "", DELETED
    if attached:
        text = text[attached.end() :]  # what is left is the caption
    else:
        text = _EDITED.sub("", text)
        if _MARKED.match(text) or _BRACKETED.fullmatch(text) or text == "null":
            return "", MEDIA
    text = _ISOLATES.sub("", text).strip()
    return text, "" if text else MEDIA


class _Days:
    """The days of a chat, in order, to find the places of year, month and day in its dates."""

    def __init__(self) -> None:
        self._last: tuple[str, str, str] | None = None
        self._costs = {order: _Cost() for order in (_DAY_FIRST, _MONTH_FIRST, _YEAR_FIRST)}
        self._is_american = self._is_year_first = False

    def add(self, line: _Line) -> None:
        self._is_american |= line.separator == "/" and line.with_noon
        if line.day == self._last:
            return
        self._last = line.day
        self._is_year_first |= len(line.day[0]) == 4
        for order, cost in self._costs.items():
            cost.add(_date(line.day, order))

    @property
    def order(self) -> tuple[int, int, int]:
        """The places of year, month and day, decided over the whole chat.

        A part of four digits is the year. Of the orders that are left it is the one with the fewest
        dates that are none, then the fewest steps back in time, then the shortest time in all. If
        that is the same, the month is first where hours count to twelve and dates have slashes,
        else the day.
        """
        if self._is_year_first:
            return _YEAR_FIRST
        orders = [_MONTH_FIRST, _DAY_FIRST] if self._is_american else [_DAY_FIRST, _MONTH_FIRST]
        return min((*orders, _YEAR_FIRST), key=lambda order: self._costs[order].total)


class _Cost:
    """What speaks against an order of day, month and year."""

    def __init__(self) -> None:
        self._n_none = self._n_back = 0
        self._first = self._last = self._before = datetime.max

    def add(self, date: datetime | None) -> None:
        if date is None:
            self._n_none += 1
            return
        if self._before is datetime.max:
            self._first = self._last = date
        else:
            self._n_back += date < self._before
        self._first, self._last = min(self._first, date), max(self._last, date)
        self._before = date

    @property
    def total(self) -> tuple[int, int, timedelta]:
        return self._n_none, self._n_back, self._last - self._first


def _date(day: tuple[str, str, str], order: tuple[int, int, int]) -> datetime | None:
    year, month, number = (int(day[place]) for place in order)
    try:
        return datetime(year + 2000 * (year < 100), month, number)
    except (ValueError, OverflowError):
        return None


def _written(line: _Line, order: tuple[int, int, int]) -> datetime | None:
    """When it was written, by the clock of this computer: the file has no time zone."""
    hour, minute, second = line.clock
    try:
        date = _date(line.day, order)
        return date and date.replace(hour=hour, minute=minute, second=second).astimezone()
    except (ValueError, OverflowError):
        return None
