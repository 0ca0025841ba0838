"""OpenDocument texts (.odt), as LibreOffice writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from xml.etree import ElementTree  # expat limits how entities grow

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers.archives import open_document, parts_in
from steerx_edge.history.readers.sections import Block, texts_of, title_in_name
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Dropped, Found

NAME = "an OpenDocument text"

_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
_STYLE = "{urn:oasis:names:tc:opendocument:xmlns:style:1.0}"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}table"
_FRAME = "{urn:oasis:names:tc:opendocument:xmlns:drawing:1.0}frame"
_DATE = "{http://purl.org/dc/elements/1.1/}date"
_SKIPPED = {
    *(f"{_TEXT}{name}" for name in ("tracked-changes", "table-of-content", "note", "index-title")),
    _FRAME,
}
_CHARACTERS = {f"{_TEXT}tab": "\t", f"{_TEXT}line-break": "\n"}


def recognize(source: Source) -> str:
    """Return what shows that a file is an OpenDocument text."""
    if not {"mimetype", "content.xml"} <= parts_in(source):
        return ""
    kind = open_document(source).read("mimetype").decode("ascii", "replace").strip()
    is_text = kind == "application/vnd.oasis.opendocument.text"
    return f"its type is {kind}" if is_text else ""


def read(source: Source, _options: Options) -> Found:
    """Yield the sections of the document; its tables, quotations and comments are left out.

    Changes that are tracked count as accepted.

    Raises:
        HistoryError: The file is damaged.
    """
    archive = open_document(source)
    try:
        content = ElementTree.fromstring(archive.read("content.xml"))  # noqa: S314
        meta = ElementTree.fromstring(archive.read("meta.xml"))  # noqa: S314
        found = list(_found_in(content, str(source)))
    except (ElementTree.ParseError, KeyError, RuntimeError, ValueError) as error:
        raise HistoryError(f"{source} is a damaged or encrypted document.") from error
    yield from (each for each in found if isinstance(each, Dropped))
    blocks = [each for each in found if isinstance(each, Block)]
    date = meta.findtext(f".//{_DATE}") or ""
    yield from texts_of(blocks, str(source), title_in_name(source.name), _date_of(date))


def _found_in(content: ElementTree.Element, where: str) -> Iterator[Block | Dropped]:
    styles = {
        style.get(f"{_STYLE}name", ""): style.get(f"{_STYLE}parent-style-name", "")
        for style in content.iter(f"{_STYLE}style")
    }
    for body in content.iterfind(f"{_OFFICE}body/{_OFFICE}text"):
        yield from _contents(body, styles, where)
    for comment in content.iter(f"{_OFFICE}annotation"):
        yield Dropped("comment", where, "".join(comment.itertext()))


def _contents(
    parent: ElementTree.Element, styles: Mapping[str, str], where: str, marker: str = ""
) -> Iterator[Block | Dropped]:
    """The blocks below an element; those of a list begin with a marker."""
    for element in parent:
        style = element.get(f"{_TEXT}style-name", "")
        style = styles.get(style) or style
        text = "".join(_text_in(element))
        if element.tag == f"{_TEXT}h":
            yield Block(text, 1 + int(element.get(f"{_TEXT}outline-level", "1")))
        elif element.tag == f"{_TEXT}p" and style == "Title":
            yield Block(text, 1)
        elif element.tag == f"{_TEXT}p" and style == "Quotations":
            yield Dropped("quotation", where, text)
        elif element.tag == f"{_TEXT}p":
            yield Block(marker + text, is_item=bool(marker))
        elif element.tag == _TABLE:
            yield Dropped("table", where, text)
        elif element.tag == f"{_TEXT}list":
            yield from _contents(element, styles, where, "- ")
        elif element.tag not in _SKIPPED:  # sections, list items
            yield from _contents(element, styles, where, marker)


def _text_in(element: ElementTree.Element) -> Iterator[str]:
    yield element.text or ""
    for child in element:
        if child.tag == f"{_TEXT}s":
            yield " " * min(int(child.get(f"{_TEXT}c", "1")), 100)
        elif child.tag in _CHARACTERS:
            yield _CHARACTERS[child.tag]
        elif child.tag not in _SKIPPED and child.tag != f"{_OFFICE}annotation":
            yield from _text_in(child)
        yield child.tail or ""


def _date_of(text: str) -> datetime | None:
    try:
        date = datetime.fromisoformat(text[:19])
    except ValueError:
        return None
    return date.replace(tzinfo=timezone.utc)
