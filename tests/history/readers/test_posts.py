"""Posts: Mastodon, X and Bluesky."""

from __future__ import annotations

import hashlib
import json
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers import bluesky, mastodon, x_archive
from steerx_edge.history.readers.source import Options, Source
from tests.support.exports import Result, write, zipped

WRITTEN = datetime(2026, 1, 5, 10, 0, 0, tzinfo=timezone.utc)


def toot(html: str, **fields: Any) -> Any:
    note = {"type": "Note", "content": html, "published": "2026-01-05T10:00:00Z", **fields}
    return {"type": "Create", "published": "2026-01-05T10:00:00Z", "object": note}


OUTBOX = {
    "@context": "https://www.w3.org/ns/activitystreams",
    "id": "outbox.json",
    "type": "OrderedCollection",
    "orderedItems": [
        toot(
            "<p>Tea &amp; <b>cake</b><br />at five:</p><p>"
            '<a href="https://example.org/long"><span class="invisible">https://</span>'
            '<span class="ellipsis">example.org/lo</span><span class="invisible">ng</span></a></p>'
        ),
        {"type": "Announce", "object": "https://example.social/users/ana/statuses/1"},
        toot(
            '<p><span class="h-card"><a href="https://example.social/@ana" class="u-url mention">@'
            "<span>ana</span></a></span> yes, of course</p>",
            inReplyTo="https://example.social/users/ana/statuses/1",
            tag=[{"type": "Mention", "name": "@ana@example.social"}],
        ),
        toot(
            "<p>@ben hello</p>", inReplyTo="https://other.social/9", tag=[{"name": "@ben@o.social"}]
        ),
        toot('<p><a href="https://example.org">https://example.org</a></p>'),
        toot("<p>@ana I write first</p>"),
        {"type": "Create", "object": None},
    ],
}


@pytest.mark.parametrize("archived", [False, True])
def test_mastodon(tmp_path: Path, archived: bool) -> None:
    files = {"outbox.json": OUTBOX, "actor.json": {"name": "Kim"}, "likes.json": {"a": 1}}
    folder = write(tmp_path / "archive", files)
    result = Result(mastodon, zipped(folder, "archive-1/") if archived else folder)
    assert result.kept == [
        ("Write a post.", "Tea & cake\nat five:\n\nhttps://example.org/long"),
        ("Write a reply to @ana.", "yes, of course"),
        ("Write a reply to @ben@o.social.", "hello"),
        ("Write a post.", "@ana I write first"),
    ]
    assert result.dropped == {"post by somebody else that was shared": 2, "link alone": 1}
    assert result.texts[0].written == WRITTEN


def tweet(text: str, **fields: Any) -> Any:
    return {"tweet": {"full_text": text, "created_at": "Mon Jan 05 10:00:00 +0000 2026", **fields}}


LONG = "A very long post about tea & cake, and about all that can be said of them, " * 5
TWEETS = [
    tweet(
        "Tea &amp; cake: https://t.co/abc https://t.co/pic",
        entities={
            "urls": [{"url": "https://t.co/abc", "expanded_url": "https://example.org"}],
            "media": [{"url": "https://t.co/pic"}],
        },
    ),
    tweet("RT @ana: not mine"),
    tweet("@ana @ben_2 sure, @cleo too", in_reply_to_screen_name="ana"),
    tweet("https://t.co/pic", extended_entities={"media": [{"url": "https://t.co/pic"}]}),
    tweet(LONG[:270].replace("&", "&amp;") + "… https://t.co/xyz"),
    {"full_text": "from an old archive", "created_at": "2010-01-05 10:00:00 +0000"},
]
NOTES = [
    {"noteTweet": {"createdAt": "2026-01-05T10:00:00.000Z", "core": {"text": LONG}}},
    {
        "noteTweet": {
            "createdAt": "2026-01-06T10:00:00.000Z",
            "core": {
                "text": "alone https://t.co/n",
                "urls": [{"shortUrl": "https://t.co/n", "expandedUrl": "https://n.example.org"}],
            },
        }
    },
]
POSTS = [
    ("Write a post.", "Tea & cake: https://example.org"),
    ("Write a reply to @ana.", "sure, @cleo too"),
    ("Write a post.", LONG.strip()),
    ("Write a post.", "from an old archive"),
]


def ytd(name: str, value: Any, end: str = "") -> str:
    return f"window.YTD.{name} = {json.dumps(value, indent=2)}{end}"


@pytest.mark.parametrize("archived", [False, True])
def test_x(tmp_path: Path, archived: bool) -> None:
    folder = write(
        tmp_path / "twitter-2026",
        {
            "data/tweets.js": ytd("tweets.part0", TWEETS),
            "data/tweets-part1.js": ytd("tweets.part1", [tweet("one more")], ";\n"),
            "data/tweets-part2.js": "window.YTD.tweets.part2 = [",
            "data/note-tweet.js": ytd("note_tweet.part0", NOTES),
            "data/like.js": ytd("like.part0", [{"like": {"fullText": "not mine"}}]),
            "data/direct-messages.js": ytd("direct_messages.part0", []),
            "Your archive.html": "<html></html>",
        },
    )
    result = Result(x_archive, zipped(folder) if archived else folder)
    note = ("Write a post.", "alone https://n.example.org")
    # By name, tweets-part1.js is before tweets.js.
    assert result.kept == [("Write a post.", "one more"), *POSTS, note]
    assert result.dropped == {
        "post by somebody else that was shared": 1,
        "picture, file or call without text": 1,
        "file that could not be read": 1,
    }
    assert [text.written for text in result.texts[:2]] == [WRITTEN, WRITTEN]
    assert result.texts[-1].written == WRITTEN.replace(day=6)


def test_a_file_of_x_alone(tmp_path: Path) -> None:
    result = Result(x_archive, write(tmp_path / "a.txt", ytd("tweet.part0", TWEETS[:3])))
    assert result.kept == POSTS[:2]


def varint(number: int) -> bytes:
    if number < 128:
        return bytes([number])
    return bytes([number % 128 + 128]) + varint(number // 128)


def car(*records: Any) -> bytes:
    """A CAR file with the records: a header, then blocks, each a hash and DAG-CBOR."""
    libipld = pytest.importorskip("libipld")
    blocks = []
    for record in records:
        data = libipld.encode_dag_cbor(record)
        identity = b"\x01\x71\x12\x20" + hashlib.sha256(data).digest()
        blocks.append((identity, data))
    header = b"\xa2eroots\x81\xd8\x2a\x58\x25\x00" + blocks[0][0] + b"gversion\x01"
    return varint(len(header)) + header + b"".join(
        varint(len(identity) + len(data)) + identity + data for identity, data in blocks
    )  # fmt: skip


def test_bluesky(tmp_path: Path) -> None:
    def record(kind: str, text: str, day: int, **fields: Any) -> Any:
        return {"$type": kind, "text": text, "createdAt": f"2026-01-0{day}T10:00:00.000Z", **fields}

    data = car(
        record("app.bsky.feed.post", "and cake", 6, reply={"parent": {"uri": "at://x"}}),
        record("app.bsky.feed.post", "tea", 5),
        record("app.bsky.feed.like", "not a post", 5),
        {"e": [], "l": None},
    )
    path = write(tmp_path / "repo", data)
    result = Result(bluesky, path)
    assert result.kept == [("Write a post.", "tea"), ("Write a reply to @somebody.", "and cake")]
    assert result.texts[0].written == WRITTEN
    with pytest.raises(HistoryError, match="is a damaged CAR file"):
        list(bluesky.read(Source(write(tmp_path / "cut", data[:-9])), Options()))


def test_without_libipld_the_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "repo", b"\x3a\xa2eroots\x81gversion\x01")
    monkeypatch.setitem(sys.modules, "libipld", None)
    with pytest.raises(HistoryError, match=r"\(libipld\).* pip install 'steerx-edge\[bluesky\]'"):
        list(bluesky.read(Source(path), Options()))
