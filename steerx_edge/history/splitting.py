"""Texts that are too long to be read as one, in parts."""

from __future__ import annotations

from collections.abc import Iterator

import regex

from steerx_edge.history.words import SENTENCE_END, letter_words

MOST_WORDS = 300

# Where a text is split: after paragraphs; where one is too long, after lines, sentences, words.
_ENDS = (regex.compile(r"\n\s*\n"), regex.compile(r"\n"), SENTENCE_END, regex.compile(r"\s+"))


def parts_of(text: str) -> list[str]:
    """Split a text into parts of at most `MOST_WORDS` words, of about the same length.

    A character of a script without spaces is a word. Parts end with a paragraph; in a paragraph
    that is too long with a line, and so on with a sentence and a word.

    Returns:
        The parts, without white space around them; the text as it is if it is short enough.
    """
    total = _size(text) if len(text) > MOST_WORDS else 0
    if total <= MOST_WORDS:
        return [text]
    aim = total / -(-total // MOST_WORDS)
    parts: list[str] = []
    part, size = "", 0
    for unit in _units(text, 0):
        n = _size(unit)
        if part and (size + n > MOST_WORDS or size >= aim):
            parts.append(part)
            part, size = "", 0
        part += unit
        size += n
    return [part.strip() for part in (*parts, part) if part.strip()]


def _units(text: str, level: int) -> Iterator[str]:
    """Pieces that are short enough, or cannot be split; together they are the text."""
    if _size(text) <= MOST_WORDS:
        yield text
    elif level == len(_ENDS):
        for start in range(0, len(text), MOST_WORDS):
            yield text[start : start + MOST_WORDS]
    else:
        start = 0
        for end in (*(found.end() for found in _ENDS[level].finditer(text)), len(text)):
            yield from _units(text[start:end], level + 1)
            start = end


def _size(text: str) -> int:
    return len(letter_words(text))
