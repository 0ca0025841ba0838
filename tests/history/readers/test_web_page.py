"""Documents that were saved as web pages."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers import web_page
from steerx_edge.history.readers.source import Options, Source
from tests.support.exports import Result, write

WRITER = """<!DOCTYPE html>
<html><head><meta http-equiv="content-type" content="text/html; charset=windows-1252"/>
<title>Norway by train</title><meta name="generator" content="LibreOffice 24.2"/>
<meta name="created" content="2026-01-04T10:00:00"/>
<meta name="changed" content="2026-01-05T10:00:00"/>
<style>p { line-height: 115% }</style></head><body lang="en-US" dir="ltr">
<p style="margin-bottom: 0.1in">We went
by train. It was caf\xe9 time.</p>
<h2 class="western">Day one</h2><p>Rain,<br/>
and fog.</p><blockquote>Take the bus, said Ana.</blockquote><p>We did not.</p>
<ul><li><p>tea</p></li><li><p>cake</p></li></ul>
<h2>Day two</h2><pre>one  line
and another</pre></body></html>
"""
DOCS = """<html><head><meta content="text/html; charset=UTF-8" http-equiv="content-type"><style>
.c1{}</style></head><body class="c2 doc-content"><p class="c0 title" id="h.1"><span class="c3">Tea
</span></p><h1 class="c4"><span>Of cups</span></h1><p class="c0"><span>They are </span><span
class="c5">warm</span><span>, and mine.</span></p><hr><p class="c0"><span></span></p>
</body></html>"""
SITE = """<!-- saved from url=(0020)https://example.org -->
<!doctype html><html><head><title>Untitled</title></head><body><nav><a href="/">Home</a></nav>
<header>My site</header><main><article><h1>On trains</h1><p>They are late.</p><form>Subscribe
</form><aside>By the same author</aside></article></main><footer>All mine, 2026</footer></body>"""


def test_a_document_of_a_word_processor(tmp_path: Path) -> None:
    result = Result(web_page, write(tmp_path / "a.html", WRITER.encode("cp1252")))
    assert result.kept == [
        ("Write about Norway by train", "We went by train. It was café time."),
        ("Write about Norway by train: Day one", "Rain,\nand fog.\n\nWe did not.\n\n- tea\n- cake"),
        ("Write about Norway by train: Day two", "one  line\nand another"),
    ]
    assert result.excerpts("quotation") == ["Take the bus, said Ana."]
    assert {text.written for text in result.texts} == {
        datetime(2026, 1, 5, 10, tzinfo=timezone.utc)
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_document_of_google(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "A cup of tea.html", DOCS.encode(encoding))
    assert Result(web_page, path).kept == [
        ("Write about A cup of tea", "Tea"),
        ("Write about Of cups", "They are warm, and mine."),
    ]


def test_of_a_page_of_a_site_the_content_is_read(tmp_path: Path) -> None:
    result = Result(web_page, write(tmp_path / "a", SITE))
    assert result.kept == [("Write about On trains", "They are late.")]


def test_a_part_of_a_page_is_one_by_its_name(tmp_path: Path) -> None:
    part = "<div><h1>Cups</h1><p>They are warm.</p></div>"
    assert Result(web_page, write(tmp_path / "a.htm", part)).kept == [
        ("Write about Cups", "They are warm.")
    ]
    assert not web_page.recognize(Source(write(tmp_path / "a.md", part)))


CHAT = "<!DOCTYPE html><html><body>{}</body></html>"
OTHERS = {
    "Telegram": (
        '<div class="page_wrap"><div class="message default clearfix" id="message1">Hi</div></div>',
        "a chat that Telegram exported as a web page. Export it again as JSON.",
    ),
    "Discord": (
        '<div class="chatlog"><div class="chatlog__message-group">Hi</div></div>',
        "a chat that DiscordChatExporter wrote as a web page.",
    ),
    "Facebook": (
        '<div class="pam _3-95 _2ph- _a6-g uiBoxWhite noborder"><div>Hi</div></div>',
        "a part of an export of Facebook or Instagram as a web page.",
    ),
    "a mail of Outlook": (
        '<p class=MsoNormal><b>From:</b> Ana Lee &lt;ana@example.org&gt;<br><b>Sent:</b> Monday'
        "<br><b>To:</b> Mo<br><b>Subject:</b> Tea</p><p class=MsoNormal>Tea?</p>",
        "an email as a web page. Save it as .eml instead.",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "message"), OTHERS.values(), ids=OTHERS.keys())
def test_pages_with_the_words_of_others_are_refused(
    tmp_path: Path, body: str, message: str
) -> None:
    path = write(tmp_path / "a.html", CHAT.format(body))
    with pytest.raises(HistoryError) as caught:
        list(web_page.read(Source(path), Options()))
    assert message in str(caught.value)
