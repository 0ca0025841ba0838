"""The package that Discord sends on request: the person's own messages, a folder a channel."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import Any

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers.conversations import Message, texts_of
from steerx_edge.history.readers.exports import (
    at,
    first_keys,
    json_of,
    moment,
    text_at,
    unwrapped,
)
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import UNREADABLE, Dropped, Found

NAME = "a Discord package"

_CHANNEL = re.compile(r"c?\d{5,}")
_HEADER = b"ID,Timestamp,Contents"
_EMOJI = re.compile(r"<a?(:\w+:)\d+>")
_TOKEN = re.compile(r"<(?:@[!&]?|#|t:|/[\w -]+:|id:)[\w:]+> ?")


def recognize(source: Source) -> str:
    """Return what shows that it is a package of Discord, or a file of one."""
    if source.is_folder:
        return "it has folders of channels with channel.json" if _folder(source) else ""
    if {"ID", "Timestamp", "Contents"} <= first_keys(source):
        return "its messages have an ID, a Timestamp and Contents"
    is_csv = source.beginning.removeprefix(b"\xef\xbb\xbf").startswith(_HEADER)
    return "it has the columns ID, Timestamp, Contents" if is_csv else ""


def read(source: Source, _options: Options) -> Found:
    """Yield the texts, all of which are the person's; see `steerx_edge.history.readers.Reader`."""
    folder = _folder(source)
    if folder is None:
        yield from texts_of(_messages(source))
        return
    index = folder.child("index.json")
    titles = json_of(index) if index else {}
    for channel in folder.children():
        if not (channel.is_folder and _CHANNEL.fullmatch(channel.name)):
            continue
        file = channel.child("messages.json") or channel.child("messages.csv")
        if file is None:
            continue
        about = channel.child("channel.json")
        try:
            whom = _whom(json_of(about) if about else {}, titles)
            yield from texts_of(_messages(file), whom)
        except HistoryError as error:
            yield Dropped(UNREADABLE, str(file), str(error))


def _folder(source: Source) -> Source | None:
    """The folder of the channels; its name is in the language of the account."""
    if not source.is_folder:
        return None
    root = unwrapped(source)
    for folder in (root, *(child for child in root.children() if child.path.is_dir())):
        for channel in folder.children():
            if _CHANNEL.fullmatch(channel.name) and channel.child("channel.json"):
                return folder
    return None


def _whom(channel: Any, titles: Any) -> str:
    """To whom a channel is: its name, or who is on the other side, as the index names them."""
    name = text_at(channel, "name")
    if guild := text_at(channel, "guild", "name"):
        return f"#{name} of {guild}" if name else guild
    title = text_at(titles, text_at(channel, "id"))
    # "Direct Message with ana#0", in the language of the account.
    handle = re.search(r"(\S+?)#\d+\Z", title)
    if handle:
        return handle[1]
    return f"the group {name}" if name else ""


def _messages(file: Source) -> Iterator[Message]:
    records = [(moment(at(record, "Timestamp")), record) for record in _records(file)]
    # The newest is first; ids are ordered in time, for those without one.
    records.sort(key=lambda pair: text_at(pair[1], "ID").zfill(20))
    for written, record in records:
        text = _TOKEN.sub("", _EMOJI.sub(r"\1", text_at(record, "Contents")))
        yield Message("me", text, f"{file}: message {text_at(record, 'ID')}", written, mine=True)


def _records(file: Source) -> list[Any]:
    if file.beginning.removeprefix(b"\xef\xbb\xbf").startswith(_HEADER):
        return list(csv.DictReader(io.StringIO(file.text, newline="")))
    value = json_of(file)
    return value if isinstance(value, list) else []
