"""The lines of a mail in HTML, with the quotes that its elements mark."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator
from typing import NamedTuple

from selectolax.lexbor import LexborHTMLParser, LexborNode

from steerx_edge.history.mail.lines import Line, fixed_line

_SKIPPED = {"head", "style", "script", "title", "meta", "template", "noscript", "-comment", "svg"}
_BLOCKS = {
    *("div", "tr", "li", "dt", "dd", "section", "article", "header", "footer", "address", "center"),
    *("table", "tbody", "thead", "body", "html", "form", "hr"),
}
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_PARAGRAPHS = {"p", "ul", "ol", "dl", "blockquote", "pre", *_HEADINGS}
_DEEPEST = 512
_NESTED = re.compile(
    r"<(/?)(?:div|blockquote|[uod]l|center|section|article|main|header|footer|nav|aside|form"
    r"|fieldset|details|summary|figure|address|dir|menu|pre|button|dialog|search)\b",
    re.IGNORECASE,
)
_MARKER = "- "  # of an item of a list
_SIGNATURE = re.compile(r"gmail_signature|moz-signature|protonmail_signature_block")
_QUOTE = re.compile(r"yahoo_quoted")
# An indented paragraph of Gmail's editor is a quote without a border.
_INDENTED = re.compile(r"border:\s*(?:none|0)|border-left:\s*(?:none|0)")
_HIDDEN = re.compile(r"display:\s*none|mso-hide:\s*all")
# Outlook puts every line into a paragraph without a distance.
_CLOSE = re.compile(r"margin(?:-bottom)?:\s*0")
_INVISIBLE = re.compile("[\u200b\u200c\u200d\u2060\ufeff\u00ad]")


class Page(NamedTuple):
    """A page of HTML as lines.

    Attributes:
        lines: What it says.
        headings: The level, from 1, of each line that is a heading or a part of one, by its number.
    """

    lines: list[Line]
    headings: dict[int, int]


def html_lines(html: str) -> list[Line]:
    """Read HTML as lines; a quote's depth is that of its `blockquote` elements."""
    root = parsed(html).root
    return [] if root is None else read_page([root]).lines


def parsed(html: str) -> LexborHTMLParser:
    """Parse HTML; elements that nest more than 512 deep, as in Chromium, lose their kind.

    The time that the parser takes would otherwise grow with the square of the depth.
    """
    depth = 0

    def flattened(tag: re.Match[str]) -> str:
        nonlocal depth
        depth += 0 if tag[1] else 1
        is_deep = depth > _DEEPEST
        depth = max(0, depth - 1) if tag[1] else depth
        return f"<{tag[1]}span" if is_deep else tag[0]

    return LexborHTMLParser(_NESTED.sub(flattened, html))


def read_page(nodes: Iterable[LexborNode], skipped: Container[str | None] = ()) -> Page:
    """Read elements as lines.

    Args:
        nodes: The elements.
        skipped: Names of elements that are left out, beside those that are no text.
    """
    page = _Page()
    for root in nodes:
        for node, leaves in _walk(root, skipped):
            (page.leave if leaves else page.enter)(node)
        page.end_line()
    return Page(page.lines, page.headings)


def _walk(root: LexborNode, skipped: Container[str | None]) -> Iterator[tuple[LexborNode, bool]]:
    """Every node when it is entered and left; not recursive, because mails nest deeply."""
    waiting = [(root, False)]
    while waiting:
        node, leaves = waiting.pop()
        if not leaves and (node.tag in skipped or _is_skipped(node)):
            continue
        yield node, leaves
        if not leaves:
            waiting.append((node, True))
            waiting += [(child, False) for child in reversed(list(node.iter(include_text=True)))]


def _is_skipped(node: LexborNode) -> bool:
    if node.tag == "-text":
        return False
    return bool(
        node.tag in _SKIPPED
        or _SIGNATURE.search(f"{_of(node, 'class')} {_of(node, 'data-smartmail')}")
        or _of(node, "id") == "Signature"  # of Outlook on the web
        or _HIDDEN.search(_of(node, "style"))
    )


def _of(node: LexborNode, name: str) -> str:
    return node.attributes.get(name) or ""


def _is_quote(node: LexborNode) -> bool:
    if node.tag == "blockquote":
        is_cited = _of(node, "type") == "cite" or "gmail_quote" in _of(node, "class")
        return is_cited or not _INDENTED.search(_of(node, "style"))
    return node.tag == "div" and bool(_QUOTE.search(_of(node, "class")))


def _is_close(node: LexborNode) -> bool:
    return "MsoNormal" in _of(node, "class") or bool(_CLOSE.search(_of(node, "style")))


class _Page:
    """Lines that grow, as a browser would break them."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.headings: dict[int, int] = {}
        self._heading = 0
        self._line = ""
        self._depth = 0
        self._preformatted = 0
        self._items = 0

    def enter(self, node: LexborNode) -> None:
        tag = node.tag
        if tag == "-text":
            self._add(node.text_content or "")
        elif tag == "br":
            self._break()
        elif tag in _PARAGRAPHS or tag in _BLOCKS:
            self._space(node)
        self._depth += _is_quote(node)
        self._preformatted += tag == "pre"
        if tag in _HEADINGS:
            self._heading = _HEADINGS[tag]
        if tag in {"td", "th"} and self._line.strip():
            self._line += " "
        if tag == "li":
            self._items += 1
            self._line = _MARKER

    def leave(self, node: LexborNode) -> None:
        tag = node.tag
        if tag in _PARAGRAPHS or tag in _BLOCKS:
            self.end_line()
        self._depth -= _is_quote(node)
        self._preformatted -= tag == "pre"
        self._items -= tag == "li"
        if tag in _HEADINGS:
            self._heading = 0
        if tag in _PARAGRAPHS:
            self._space(node)

    def end_line(self) -> None:
        """End a line that has been begun."""
        if self._line.strip() or self._line == "\xa0":
            self._break()
        self._line = ""

    def _break(self) -> None:
        text = _INVISIBLE.sub("", self._line).replace("\xa0", " ").rstrip()
        if self._heading:
            self.headings[len(self.lines)] = self._heading
        self.lines.append(fixed_line(text, self._depth))
        self._line = ""

    def _space(self, node: LexborNode) -> None:
        """Leave a line free around a paragraph, but not in an item of a list."""
        if self._line == _MARKER:
            return
        self.end_line()
        is_free = not self.lines or not self.lines[-1].text or (node.tag == "p" and self._items)
        if node.tag in _PARAGRAPHS and not is_free and not _is_close(node):
            self.lines.append(Line("", self._depth))

    def _add(self, text: str) -> None:
        if self._preformatted:
            *whole, last = text.replace("\r\n", "\n").split("\n")
            for each in whole:
                self._line += each
                self._break()
            self._line += last
            return
        text = re.sub(r"[ \t\r\n\f]+", " ", text)
        at_start = not self._line or self._line.endswith(" ")
        self._line += text.removeprefix(" ") if at_start else text
