"""Posts in the archive of a Mastodon account: ``outbox.json``."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

from steerx_edge.history.readers.exports import (
    at,
    first_keys,
    json_of,
    list_at,
    moment,
    text_at,
    unwrapped,
)
from steerx_edge.history.readers.posts import SHARED, post
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Dropped, Found

NAME = "a Mastodon export"


def recognize(source: Source) -> str:
    """Return what shows that it is an archive of Mastodon."""
    if source.is_folder:
        outbox = unwrapped(source).child("outbox.json")
        return recognize(outbox) if outbox else ""
    return "it is a collection of orderedItems" if "orderedItems" in first_keys(source) else ""


def read(source: Source, _options: Options) -> Found:
    """Yield the posts, all of which are the person's; see `steerx_edge.history.readers.Reader`."""
    if source.is_folder:
        source = unwrapped(source).child("outbox.json") or source
    for number, activity in enumerate(list_at(json_of(source), "orderedItems"), start=1):
        where = f"{source}: post {number}"
        note = at(activity, "object")
        if text_at(activity, "type") != "Create" or not isinstance(note, dict):
            yield Dropped(SHARED, where)
            continue
        text = _TextOf(text_at(note, "content")).text
        written = moment(at(note, "published") or at(activity, "published"))
        yield post(text, _answered(note), where, written)


def _answered(note: Any) -> str:
    """Who is answered: the handle in the address of the post, or the first one mentioned."""
    if not (parent := text_at(note, "inReplyTo")):
        return ""
    handle = re.search(r"/(?:@|users/)([\w.-]+)/", parent)
    mentioned = (text_at(tag, "name") for tag in list_at(note, "tag"))
    first = next((name for name in mentioned if name.startswith("@")), "@somebody")
    return f"@{handle[1]}" if handle else first


class _TextOf(HTMLParser):
    """The text of HTML as Mastodon writes it: paragraphs, line breaks, links."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self._pieces: list[str] = []
        self.feed(html)
        self.close()

    @property
    def text(self) -> str:
        """The text, with blank lines between paragraphs."""
        return "".join(self._pieces).strip()

    def handle_starttag(self, tag: str, _attributes: object) -> None:
        """Add what a tag stands for."""
        if tag in {"p", "blockquote", "ul", "ol", "pre"}:
            self._pieces.append("\n\n")
        elif tag in {"br", "li"}:
            self._pieces.append("\n")

    def handle_data(self, data: str) -> None:
        """Add text."""
        self._pieces.append(data)
