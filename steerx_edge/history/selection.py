"""Which of a person's texts are learned from, by rules that are the same for all formats.

They hold for what programs write, such as mailboxes and documents. Files that are made for this
library are read to the letter. docs/history.md states the rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import regex

from steerx_edge.history.item import HistoryItem
from steerx_edge.history.language import language_of
from steerx_edge.history.near_duplicates import NearDuplicates
from steerx_edge.history.pasted import PASTED, without_code
from steerx_edge.history.readers.mojibake import mended
from steerx_edge.history.readers.texts import Dropped, Found, Text
from steerx_edge.history.splitting import parts_of
from steerx_edge.history.words import letter_words

ONE_WORD = "a word or less"
LINKS = "mostly links or numbers"
NEAR_DUPLICATE = "nearly the same as another text"

_EXCERPT = 300  # characters
_DIGIT = regex.compile(r"\p{N}")


class Selection:
    """The rules, and what they need to remember of the texts before: at most 34 MB."""

    def __init__(self) -> None:
        self._kept = NearDuplicates()

    def selected(self, found: Iterable[Text | Dropped]) -> Found:
        """Pass on the texts that are kept, in order, with their language; and drop the others.

        Code and logs are cut out of a text, and a text that is too long is passed on in parts.
        Selected texts, selected again, are the same.
        """
        for each in found:
            if isinstance(each, Dropped):
                yield each
                continue
            own, cut = without_code(_clean(each.item.response))
            yield from (_dropped(PASTED, each, code) for code in cut)
            if not own.strip():
                if not cut:
                    yield _dropped(ONE_WORD, each, own)
                continue
            parts = parts_of(own)
            for number, part in enumerate(parts, start=1):
                yield from self._judged(_part(each, part, number, len(parts)))

    def _judged(self, text: Text) -> Found:
        """A text that is short enough."""
        response, cut = without_code(text.item.response)  # of which a part may consist
        yield from (_dropped(PASTED, text, code) for code in cut)
        response = _clean(response)
        if not response.strip():
            return
        if len(letter_words(response[:_EXCERPT])) < 2 and len(letter_words(response)) < 2:
            yield _dropped(ONE_WORD, text, response)
        elif _is_mostly_links(response):
            yield _dropped(LINKS, text, response)
        elif self._kept.add(response):
            yield _dropped(NEAR_DUPLICATE, text, response)
        else:
            yield replace(
                text,
                item=HistoryItem(response, text.item.request),
                language=language_of(response),
            )


def _part(text: Text, part: str, number: int, of: int) -> Text:
    """One of the parts of a text. The further ones answer the same request, continued."""
    request = _clean(text.item.request)
    if of == 1:
        return replace(text, item=HistoryItem(part, request))
    if number > 1 and request:
        request = f"{request} (continued)"
    return replace(text, item=HistoryItem(part, request), where=f"{text.where}, part {number}")


def _clean(text: str) -> str:
    """A text without traces of wrong decoding, as far as they can be mended."""
    return mended(text.encode(errors="replace").decode())


def _is_mostly_links(text: str) -> bool:
    """Whether addresses and what has digits take more than half of what is visible."""
    pieces = text.split()
    n_links = sum(len(piece) for piece in pieces if _is_link_or_number(piece))
    return 2 * n_links > sum(map(len, pieces))


def _is_link_or_number(piece: str) -> bool:
    is_address = 0 < piece.find("@") < piece.rfind(".")
    return is_address or "://" in piece or "www." in piece or bool(_DIGIT.search(piece))


def _dropped(reason: str, text: Text, excerpt: str) -> Dropped:
    return Dropped(reason, text.where, excerpt.strip()[:_EXCERPT])
