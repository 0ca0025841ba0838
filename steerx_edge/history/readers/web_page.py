"""Documents saved as web pages (.html), by word processors, notebooks and browsers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

from selectolax.lexbor import LexborHTMLParser

from steerx_edge.errors import HistoryError
from steerx_edge.history.mail.decoding import decoded_bytes
from steerx_edge.history.mail.html import Page, parsed, read_page
from steerx_edge.history.readers import known
from steerx_edge.history.readers.exports import decoded_beginning, moment
from steerx_edge.history.readers.sections import Block, texts_of, title_in_name
from steerx_edge.history.readers.source import Options, Source, encoding_of
from steerx_edge.history.readers.texts import Dropped, Found
from steerx_edge.history.words import with_line_feeds

NAME = "a web page (HTML)"

_BEFORE = r"(?:\s|\ufeff|<\?xml\b[^>]*>|<!--(?s:.*?)-->)*"
_PAGE = re.compile(rf"{_BEFORE}<(?:!doctype html|html|head|body)\b", re.IGNORECASE)
_PART = re.compile(rf"{_BEFORE}<[a-z][^<>]*>", re.IGNORECASE)  # of a page, as its name says
_CHARSET = re.compile(rb"<meta\b[^>]*charset=[\"']?([\w-]+)", re.IGNORECASE)
# What stands around a text on the pages of a site.
_SKIPPED = {"nav", "aside", "form", "button", "select", "textarea", "footer", "figcaption"}
_DATES = ("changed", "created", "article:modified_time", "article:published_time")
# By other people too: these programs also write JSON, which says by whom each message is.
_CHATS = (
    ("body > div.page_wrap div.message", "a chat that Telegram exported"),
    ("div.chatlog__message-group", "a chat that DiscordChatExporter wrote"),
    ("div._a6-g, section._a6-g", "a part of an export of Facebook or Instagram"),
)


def recognize(source: Source) -> str:
    """Return what shows that a file is a web page."""
    if source.is_folder:
        return ""
    text = decoded_beginning(source.beginning)
    if _PAGE.match(text):
        return "it begins as a web page does"
    is_named = source.suffix in {".html", ".htm", ".xhtml"}
    return "it is called a web page and begins with a tag" if is_named and _PART.match(text) else ""


def read(source: Source, _options: Options) -> Found:
    """Yield the sections of the page; its quotations are left out.

    On the page of a site, only what is marked as its content is read: `main`, or the first
    `article`.

    Raises:
        HistoryError: The file cannot be read, or is a chat or a mail that was saved as a page.
    """
    where = str(source)
    tree = parsed(_html_of(source))
    for selector, kind in _CHATS:
        if tree.css_first(selector):
            raise HistoryError(f"{source} is {kind} as a web page. Export it again as JSON.")
    content = tree.css_first("main") or tree.css_first("article") or tree.body
    page = read_page([content] if content else [], _SKIPPED)
    if known.is_mail("\n".join(line.text for line in page.lines).lstrip()):
        raise HistoryError(f"{source} is an email as a web page. Save it as .eml instead.")
    blocks = list(_blocks_of(page, where))
    yield from (each for each in blocks if isinstance(each, Dropped))
    title = tree.css_first("title")
    named = " ".join(title.text().replace("/", " ").split()) if title else ""
    yield from texts_of(
        (each for each in blocks if isinstance(each, Block)),
        where,
        title_in_name(f"{named}.") or title_in_name(source.name),
        _date_of(tree),
    )


def _html_of(source: Source) -> str:
    with source.open() as file:
        data = file.read()
    unicode = encoding_of(data)
    if unicode != "utf-8-sig":
        return with_line_feeds(data.decode(unicode, "replace"))
    named = _CHARSET.search(source.beginning)
    return with_line_feeds(decoded_bytes(data, named[1].decode() if named else None))


def _blocks_of(page: Page, where: str) -> Iterator[Block | Dropped]:
    """The paragraphs and headings of a page, which blank lines separate; and its quotations."""
    begun: list[str] = []
    kind = (0, False)  # the level of a heading, and whether it is quoted
    for number, line in enumerate(page.lines):
        this = (page.headings.get(number, 0), line.depth > 0)
        if begun and (this != kind or not line.text.strip()):
            yield _block(begun, *kind, where)
            begun = []
        kind = this
        if line.text.strip():
            begun.append(line.text)
    if begun:
        yield _block(begun, *kind, where)


def _block(lines: list[str], level: int, is_quoted: bool, where: str) -> Block | Dropped:
    text = "\n".join(lines)
    return Dropped("quotation", where, text) if is_quoted else Block(text, level)


def _date_of(tree: LexborHTMLParser) -> datetime | None:
    """When the page says that it was changed or written last."""
    fields = {
        meta.attributes.get("name") or meta.attributes.get("property"): meta.attributes.get(
            "content"
        )
        for meta in tree.css("meta")
    }
    return next((date for name in _DATES if (date := moment(fields.get(name)))), None)
