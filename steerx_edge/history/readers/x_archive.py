"""Posts in the archive of an X (Twitter) account: ``tweets.js``, ``note-tweet.js``."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime
from html import unescape
from typing import Any, NamedTuple

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers.exports import (
    at,
    decoded_beginning,
    list_at,
    moment,
    parsed,
    text_at,
    unwrapped,
)
from steerx_edge.history.readers.posts import SHARED, post
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import UNREADABLE, Dropped, Found, Text

NAME = "an X (Twitter) archive"

_FILE = re.compile(r"\s*window\.YTD\.(?:tweets?|community_tweet|note_tweet)\.part\d+\s*=\s*")
_NOTES = re.compile(r"\s*window\.YTD\.note_tweet\.")
_SHORT_LINK = re.compile(r"https://t\.co/\w+")
_DATE = "%a %b %d %H:%M:%S %z %Y"
_FEWEST_IN_COMMON = 40  # characters of a post and of its long form


class _Note(NamedTuple):
    """A post in its long form."""

    where: str
    text: str
    written: datetime | None


def recognize(source: Source) -> str:
    """Return what shows that it is an archive of X, or a file with posts of one."""
    if source.is_folder:
        return f"{files[0].name} has posts" if (files := _files(source)) else ""
    if _FILE.match(decoded_beginning(source.beginning[:200])):
        return "it begins with window.YTD and the name of its posts"
    return ""


def read(source: Source, _options: Options) -> Found:
    """Yield the posts, all of which are the person's; see `steerx_edge.history.readers.Reader`."""
    files = _files(source) if source.is_folder else [source]
    notes: list[_Note] = []
    posts: list[Source] = []
    for file in files:
        if not _NOTES.match(decoded_beginning(file.beginning[:200])):
            posts.append(file)
            continue
        for number, record in enumerate(_records(file), start=1):
            note = at(record, "noteTweet")
            text = unescape(_expanded(text_at(note, "core", "text"), list_at(note, "core", "urls")))
            where = f"{file}: post {number}"
            notes.append(_Note(where, text, moment(at(note, "createdAt"))))
    used: set[str] = set()
    for file in posts:
        try:
            records = _records(file)
        except HistoryError as error:
            if file is source:
                raise
            yield Dropped(UNREADABLE, str(file), str(error))
            continue
        for number, record in enumerate(records, start=1):
            yield _post(f"{file}: post {number}", at(record, "tweet") or record, notes, used)
    for long in notes:
        if long.where not in used:
            yield post(long.text, "", long.where, long.written)


def _files(source: Source) -> list[Source]:
    root = unwrapped(source)
    folder = root.child("data") or root
    if not folder.is_folder:
        return []
    return [each for each in folder.children() if each.suffix == ".js" and recognize(each)]


def _records(file: Source) -> list[Any]:
    text = file.text
    beginning = _FILE.match(text)
    value = parsed(file, text[beginning.end() if beginning else 0 :].rstrip().rstrip(";"))
    return value if isinstance(value, list) else []


def _post(where: str, tweet: Any, notes: list[_Note], used: set[str]) -> Text | Dropped:
    raw = text_at(tweet, "full_text") or text_at(tweet, "text")
    if raw.startswith("RT @") or at(tweet, "retweeted_status"):
        return Dropped(SHARED, where)
    long = _long_form(unescape(_SHORT_LINK.sub("", raw)), notes)
    if long:
        used.add(long.where)
        text = long.text
    else:
        urls = list_at(tweet, "entities", "urls")
        media = (
            *list_at(tweet, "entities", "media"),
            *list_at(tweet, "extended_entities", "media"),
        )
        for each in media:
            raw = raw.replace(text_at(each, "url") or "\0", "")
        text = unescape(_expanded(raw, urls))
    written: datetime | None = None
    with suppress(ValueError):
        written = datetime.strptime(text_at(tweet, "created_at"), _DATE)
    answered = text_at(tweet, "in_reply_to_screen_name")
    return post(text, f"@{answered}" if answered else "", where, written)


def _long_form(text: str, notes: list[_Note]) -> _Note | None:
    """The long form of a post that ends in an ellipsis: it begins like it."""
    text = text.strip()
    if not text.endswith("…"):
        return None
    begun = text.rstrip("… ")[:200]
    if len(begun) < _FEWEST_IN_COMMON:
        return None
    return next((note for note in notes if note.text.startswith(begun)), None)


def _expanded(text: str, urls: list[Any]) -> str:
    """The text with the addresses that the short links stand for."""
    for url in urls:
        short = text_at(url, "url") or text_at(url, "shortUrl")
        long = text_at(url, "expanded_url") or text_at(url, "expandedUrl")
        if short and long:
            text = text.replace(short, long)
    return text
