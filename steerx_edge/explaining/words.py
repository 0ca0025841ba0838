"""The words of a text, as they stand in it, with their tokens."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Sequence
from typing import NamedTuple

from steerx_edge.learning.effects import words_of_tokens


class Segment(NamedTuple):
    """A word of a text and the white space before it, or white space alone.

    Args:
        text: as it stands in the text. The segments' texts together are the text.
        word: as profiles hold it; empty for white space.
        begin: its first token.
        end: the token after its last.
    """

    text: str
    word: str
    begin: int
    end: int


def segments(pieces: Sequence[bytes]) -> list[Segment]:
    """Divide a text at its words; a token belongs to one of them, as in `words_of_tokens`.

    A character that is cut by a border belongs to the segment with its last byte.

    Args:
        pieces: the bytes of each token.
    """
    words, owners = words_of_tokens(pieces)
    decoder = getincrementaldecoder("utf-8")("replace")
    found: list[Segment] = []
    begin = 0
    for end in range(1, len(pieces) + 1):
        if end < len(pieces) and owners[end] == owners[begin]:
            continue
        data = b"".join(pieces[begin:end])
        text = decoder.decode(data, final=end == len(pieces))
        found.append(Segment(text, words[owners[begin]] if owners[begin] >= 0 else "", begin, end))
        begin = end
    return found
