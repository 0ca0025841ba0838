"""Posts in the repository of a Bluesky account: a CAR file."""

from __future__ import annotations

from typing import Any

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers.exports import at, moment, text_at
from steerx_edge.history.readers.extras import needed
from steerx_edge.history.readers.posts import post
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Found

NAME = "a Bluesky repository (CAR)"

_POST = "app.bsky.feed.post"
_HEADER = (b"eroots", b"gversion")  # keys in CBOR, with their lengths before them
_LOOKED_AT = 200


def recognize(source: Source) -> str:
    """Return what shows that it is a repository."""
    beginning = source.beginning[:_LOOKED_AT]
    return (
        "it begins with the header of a CAR file"
        if all(key in beginning for key in _HEADER)
        else ""
    )


def read(source: Source, _options: Options) -> Found:
    """Yield the posts, all of which are the person's; see `steerx_edge.history.readers.Reader`."""
    records = [block for block in _blocks(source) if text_at(block, "$type") == _POST]
    records.sort(key=lambda record: text_at(record, "createdAt"))
    for number, record in enumerate(records, start=1):
        answered = "@somebody" if at(record, "reply") else ""
        where = f"{source}: post {number}"
        yield post(text_at(record, "text"), answered, where, moment(at(record, "createdAt")))


def _blocks(source: Source) -> list[Any]:
    libipld = needed("libipld", extra="bluesky", to=f"read {source}, {NAME}")
    with source.open() as file:
        data = file.read()
    try:
        return list(libipld.decode_car(data)[1].values())
    except ValueError as error:
        raise HistoryError(
            f"{source} is a damaged CAR file ({error}). Export the repository again."
        ) from error
