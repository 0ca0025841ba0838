"""Word documents (.docx)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers.archives import open_document, parts_in
from steerx_edge.history.readers.extras import needed
from steerx_edge.history.readers.sections import Block, texts_of, title_in_name
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Dropped, Found

NAME = "a Word document"

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
# What is not text of the paragraph: deletions, text boxes, and the second form of a drawing.
_SKIPPED = {
    f"{_W}{name}" for name in ("del", "moveFrom", "drawing", "pict", "object", "rPr", "pPr")
}
_SKIPPED.add("{http://schemas.openxmlformats.org/markup-compatibility/2006}AlternateContent")
_CHARACTERS = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "\u2011"}
_HEADING = re.compile(r"heading (\d)", re.IGNORECASE)
_NOT_OWN = {"Quote": "quotation", "Intense Quote": "quotation", "Caption": "caption"}


def recognize(source: Source) -> str:
    """Return what shows that a file is a Word document."""
    return "it holds word/document.xml" if "word/document.xml" in parts_in(source) else ""


def read(source: Source, options: Options) -> Found:
    """Yield the sections of the document; its tables, quotations and comments are left out.

    Changes that are tracked count as accepted; but what others than `options.me` inserted is left
    out, where they are given.

    Raises:
        HistoryError: The file is damaged, or the package that reads it is missing.
    """
    docx = needed("docx", extra="documents", to="read Word documents")
    archive = open_document(source)
    try:
        document = docx.Document(archive.fp)
        found = list(_contents(document, str(source), set(options.me)))
        comments = [comment.text for comment in document.comments]
        written = document.core_properties.modified
    except Exception as error:  # python-docx lets those of lxml, zipfile and its own through
        raise HistoryError(f"{source} is a damaged Word document.") from error
    yield from (each for each in found if isinstance(each, Dropped))
    yield from (Dropped("comment", str(source), text) for text in comments)
    blocks = [each for each in found if isinstance(each, Block)]
    yield from texts_of(blocks, str(source), title_in_name(source.name), _in_utc(written))


def _contents(document: Any, where: str, me: set[str]) -> Iterator[Block | Dropped]:
    for element in _elements(document.element.body):
        if element.tag == f"{_W}tbl":
            yield Dropped("table", where, " ".join(_text_in(element, me)))
            continue
        style, is_item = _style_of(document, element)
        text = "".join(_text_in(element, me))
        if style in _NOT_OWN:
            yield Dropped(_NOT_OWN[style], where, text)
        elif style == "Title":
            yield Block(text, 1)
        elif heading := _HEADING.fullmatch(style):
            yield Block(text, 1 + int(heading[1]))
        elif text.strip() and not style.lower().startswith("toc "):
            yield Block(f"- {text}" if is_item else text, is_item=is_item)


def _elements(parent: Any) -> Iterator[Any]:
    """The paragraphs and tables, also those in content controls; without the table of contents."""
    for element in parent.iterchildren():
        if element.tag in (f"{_W}p", f"{_W}tbl"):
            yield element
        elif element.tag == f"{_W}sdt":
            galleries = element.iter(f"{_W}docPartGallery")
            if any(gallery.get(f"{_W}val") == "Table of Contents" for gallery in galleries):
                continue
            for content in element.iterchildren(f"{_W}sdtContent"):
                yield from _elements(content)


def _style_of(document: Any, element: Any) -> tuple[str, bool]:
    """The name of a paragraph's style, or of a known one that it is based on; is it a list's?"""
    properties = element.pPr
    is_list = properties is not None and properties.numPr is not None
    style = document.styles.get_by_id(element.style, 1)  # of paragraphs
    name = str(style.name)
    for _ in range(10):  # a damaged file may have a circle
        if style is None or _HEADING.fullmatch(str(style.name)) or style.name in _NOT_OWN:
            break
        style = style.base_style
    return str(style.name) if style is not None else name, is_list or name.startswith("List ")


def _text_in(element: Any, me: set[str]) -> Iterator[str]:
    for child in element.iterchildren():
        if child.tag == f"{_W}t":
            yield child.text or ""
        elif child.tag in _CHARACTERS:
            yield _CHARACTERS[child.tag]
        elif child.tag == f"{_W}ins" and me and child.get(f"{_W}author") not in me:
            continue
        elif child.tag not in _SKIPPED:
            yield from _text_in(child, me)


def _in_utc(written: datetime | None) -> datetime | None:
    return None if written is None else written.replace(tzinfo=written.tzinfo or timezone.utc)
