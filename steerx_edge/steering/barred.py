"""Words that an answer may not contain, whatever their tokens are.

A word can be spelled by many rows of tokens, so a logit bias on single tokens cannot bar it. It is
barred where it would be completed: at each step, no token may be chosen that ends it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_BEYOND = b"\xff"  # of no UTF-8 text
_APOSTROPHES = str.maketrans("’", "'"), str.maketrans("'", "’")


class Barred(NamedTuple):
    """A word, or a phrase.

    Args:
        text: as the user wrote it.
        whole: whether it is barred only where no letter or digit stands beside it. In scripts
            without spaces one always may.
    """

    text: str
    whole: bool


def spellings(text: str) -> list[str]:
    """A word as given, in small letters, capitalized and in capitals; with either apostrophe."""
    cases = [text, text.lower(), text.upper(), text[:1].upper() + text[1:], text.title()]
    cases.append(cases[1][:1].upper() + cases[1][1:])
    return sorted({*cases, *(case.translate(other) for case in cases for other in _APOSTROPHES)})


class Bar:
    """Which tokens would complete a barred word.

    A longer word that begins with it is not barred, unless its tokens are split right after it.

    Args:
        barred: the words.
        pieces: the bytes of each token of the vocabulary.
    """

    def __init__(self, barred: Sequence[Barred], pieces: Sequence[bytes]) -> None:
        self._ordered = sorted((piece, token) for token, piece in enumerate(pieces) if piece)
        inside: set[int] = set()
        after: dict[tuple[bytes, bool], set[int]] = {}
        for text, whole in barred:
            for spelling in {each.encode(errors="replace") for each in spellings(text)}:
                inside |= _holding(spelling, pieces, whole)
                for place in range(len(spelling)):
                    tokens = self._ending(spelling[place:], whole)
                    if tokens:
                        after.setdefault((spelling[:place], whole), set()).update(tokens)
        self._inside = np.array(sorted(inside), np.intp)
        self._after = [
            (begun, whole, np.array(sorted(tokens), np.intp))
            for (begun, whole), tokens in after.items()
        ]
        del self._ordered

    def tokens_after(self, text: bytes) -> NDArray[np.intp]:
        """The tokens that would complete a barred word, (m,); a token may be there twice.

        Args:
            text: the answer so far, or its end.
        """
        found = [self._inside]
        for begun, whole, tokens in self._after:
            if text.endswith(begun) and not (
                whole and _ends_in_letter(text[: len(text) - len(begun)])
            ):
                found.append(tokens)
        return np.concatenate(found)

    def _ending(self, rest: bytes, whole: bool) -> list[int]:
        """The tokens that begin with the rest of a word, and do not go on with a letter."""
        first = bisect_left(self._ordered, (rest, -1))
        last = bisect_left(self._ordered, (rest + _BEYOND, -1))
        return [
            token
            for piece, token in self._ordered[first:last]
            if not (whole and _begins_with_letter(piece[len(rest) :]))
        ]


def _holding(word: bytes, pieces: Sequence[bytes], whole: bool) -> set[int]:
    """The tokens that hold a word, but do not begin with it."""
    found = set()
    for token, piece in enumerate(pieces):
        place = piece.find(word, 1)
        while place > 0:
            beside = _ends_in_letter(piece[:place]) or _begins_with_letter(
                piece[place + len(word) :]
            )
            if not (whole and beside):
                found.add(token)
                break
            place = piece.find(word, place + 1)
    return found


def _ends_in_letter(text: bytes) -> bool:
    return text[-4:].decode(errors="ignore")[-1:].isalnum()


def _begins_with_letter(text: bytes) -> bool:
    return text[:4].decode(errors="ignore")[:1].isalnum()
