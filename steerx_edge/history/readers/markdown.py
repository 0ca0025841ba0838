"""Markdown: documents, and notes of Obsidian and other programs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timezone

from steerx_edge.errors import HistoryError
from steerx_edge.history.pasted import PASTED
from steerx_edge.history.readers.encoding import decoded
from steerx_edge.history.readers.plain_text import FRONT_MATTER
from steerx_edge.history.readers.sections import Block, texts_of, title_in_name
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Dropped, Found

NAME = "Markdown"

_SUFFIXES = {".md", ".markdown", ".mdown"}
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*")
_FENCE = re.compile(r" {0,3}(```+|~~~+)")
_RULE = re.compile(r" {0,3}(?:(?:\* *){3,}|(?:- *){3,}|(?:_ *){3,})")
_ITEM = re.compile(
    r"\A([ \t]*(?:[-*+]|\d+[.)])[ \t]+)(?:\[[ xX]\][ \t]+)?"
)  # with the box of a task
_TAGS = re.compile(r"\s*(?:#[\w/-]+\s*)+")
# What opens anew ends the search, here and below: the time must not grow with its square.
_HIDDEN = re.compile(r"(?:<!--(?:(?!<!--).)*?-->|%%.*?%%)[ \t]*", re.DOTALL)
_TARGET = r"\([^()\n]*(?:\([^()\n]*\)[^()\n]*)*\)"
# What is shown of links, marks of emphasis, and code within a line.
_INLINE = tuple(
    (re.compile(pattern), shown)
    for pattern, shown in (
        (rf"!\[\[[^\[\]\n]*\]\]|!\[[^\[\]\n]*\]{_TARGET}|\[\^[^\[\]\n]+\]", ""),
        (r"\[\[(?:[^\[\]|\n]*\|)?([^\[\]\n]*)\]\]", r"\1"),
        (rf"\[([^\[\]\n]+)\]{_TARGET}", r"\1"),
        (r"(\*\*|__)(?=\S)(.{1,300}?)(?<=\S)\1", r"\2"),
        (r"(?<![\w*])\*(?=[^\s*])(.{1,300}?)(?<=[^\s*])\*(?![\w*])", r"\1"),
        (r"(?<![\w_])_(?=[^\s_])(.{1,300}?)(?<=[^\s_])_(?![\w_])", r"\1"),
        (r"~~(?=\S)(.{1,300}?)(?<=\S)~~|==(?=\S)(.{1,300}?)(?<=\S)==", r"\1\2"),
        (r"(`+)(.{1,300}?)\1", r"\2"),
        (r"\\([\\`*_{}\[\]()#+.!|~-])", r"\1"),
    )
)


def recognize(source: Source) -> str:
    """Return what shows that a file is Markdown: headings, and its name or where they are."""
    if source.is_folder or source.beginning[:1] in (b"{", b"["):
        return ""
    text = source.beginning.decode("utf-8", "replace")
    front = FRONT_MATTER.match(text)
    lines = text[front.end() if front else 0 :].replace("\r\n", "\n").strip().split("\n")
    if source.suffix in _SUFFIXES and any(_HEADING.fullmatch(line) for line in lines):
        return f"its name ends in {source.suffix}, and it has headings"
    if _HEADING.fullmatch(lines[0]) and len(lines) > 1 and not lines[1].strip():
        return "it begins with a heading"
    return ""


def read(source: Source, options: Options) -> Found:
    """Yield the sections; code, quotations, tables and front matter are left out.

    Raises:
        HistoryError: The file cannot be read, or has no fields.
    """
    if options.response or options.prompt or options.user:
        raise HistoryError(f"{source} is Markdown and has no fields or users.")
    text, where = decoded(source), str(source)
    title, written = title_in_name(source.name), None
    if front := FRONT_MATTER.match(text):
        yield Dropped("front matter", where, front.group().strip())
        title, written = _field(front.group(), "title") or title, _date_in(front.group())
        text = text[front.end() :]
    found = list(_contents(_HIDDEN.sub("", text), where))
    yield from (each for each in found if isinstance(each, Dropped))
    blocks = (each for each in found if isinstance(each, Block))
    yield from texts_of(blocks, where, title, written)


def _contents(text: str, where: str) -> Iterator[Block | Dropped]:
    """Blocks of adjacent lines of the same kind."""
    kind, lines, fence = "", list[str](), ""
    for line in (*text.split("\n"), ""):
        found = _FENCE.match(line)
        if fence:
            lines.append(line)
            if found and found[1].startswith(fence):
                fence = ""
            continue
        is_underline = kind == "prose" and _UNDERLINE.fullmatch(line)
        if is_underline and len(lines) == 1:
            yield Block(_shown(lines[0]), 1 if "=" in line else 2)
            kind, lines = "", []
            continue
        now = "code" if found else _kind_of(line)
        if now != kind and not (kind in ("prose", "list") and now == "prose" and lines):
            yield from _block(kind, lines, where)
            lines = []
            kind = now
        fence = found[1] if found else ""
        lines.append(line)
    yield from _block(kind, lines, where)


def _kind_of(line: str) -> str:
    if not line.strip() or _RULE.fullmatch(line):
        return ""
    if _HEADING.fullmatch(line):
        return "heading"
    if line.lstrip().startswith(">"):
        return "quotation"
    if line.lstrip().startswith("|"):
        return "table"
    if _TAGS.fullmatch(line):
        return "tags"
    return "list" if _ITEM.match(line) else "prose"


def _block(kind: str, lines: list[str], where: str) -> Iterator[Block | Dropped]:
    text = "\n".join(lines).strip("\n")
    if kind in ("quotation", "table", "tags", "code"):
        yield Dropped(PASTED if kind == "code" else kind, where, text)
    elif kind == "heading":
        for line in lines:
            if heading := _HEADING.fullmatch(line):
                yield Block(_shown(heading[2]), len(heading[1]))
    elif kind == "list":
        yield Block("\n".join(_ITEM.sub(r"\1", _shown(line), count=1) for line in lines))
    elif kind:
        yield Block(_shown(text))


def _shown(text: str) -> str:
    for pattern, shown in _INLINE:
        text = pattern.sub(shown, text)
    return "\n".join(line.rstrip().removesuffix("\\") for line in text.split("\n"))


def _field(front: str, name: str) -> str:
    found = re.search(rf"^{name}[ ]*[:=][ ]*(.+)$", front, re.MULTILINE | re.IGNORECASE)
    return found[1].strip().strip("\"'") if found else ""


def _date_in(front: str) -> datetime | None:
    for name in ("date", "created"):
        try:
            date = datetime.fromisoformat(_field(front, name)[:10])
        except ValueError:
            continue
        return date.replace(tzinfo=timezone.utc)
    return None
