"""Words and sentences of a text in any script.

The classes of characters are Unicode's, from the package `regex`. As in Unicode's own segmentation
(UAX #29), marks and joiners belong to the character before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from unicodedata import normalize

import regex

# Chinese, Japanese and South-East Asian scripts, which put no spaces between words.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{WB=Katakana}\p{LB=SA}\p{Tibetan}]"
_TONES = r"\u055b\u055c\u055e"  # of Armenian: they stand within the word that is stressed
_LETTER = rf"[\p{{L}}\p{{N}}_{_TONES}]"
_MARKS = r"[\p{WB=Extend}\p{WB=ZWJ}\p{WB=Format}]*+"
_CHARACTER = rf"(?={_LETTER}){_UNSPACED}{_MARKS}"
_SPACED = rf"(?:(?!{_UNSPACED}){_LETTER}{_MARKS})++"
_KATAKANA = rf"(?:(?={_LETTER})\p{{WB=Katakana}}{_MARKS})++"
# Apostrophes and hyphens; the middle dot of Catalan; quotation marks inside Hebrew abbreviations.
_HEBREW_JOINT = r"""(?<=\p{Hebrew}\p{M}*)"(?=\p{Hebrew})"""
_JOINT = rf"(?:['‘’‐‑·׳״-]|{_HEBREW_JOINT})"

WORD = regex.compile(
    rf"{_KATAKANA}|{_CHARACTER}|{_SPACED}(?:{_JOINT}{_SPACED})*+"
    rf"|(?!\p{{WB=Format}}+(?:{_LETTER}|\s|\Z))(?:(?!{_LETTER})[^\s\ud800-\udfff])+"
)
"""A word with its apostrophes and hyphens, a character of a script without spaces, a run of
katakana, or a run of punctuation and emoji. So no word is a whole sentence."""

_FORMAT = regex.compile(r"\p{WB=Format}+")
_LETTERS = rf"(?:(?!{_UNSPACED})[\p{{L}}\p{{Nl}}\p{{No}}{_TONES}]{_MARKS})++"
_LETTER_WORD = regex.compile(
    rf"{_CHARACTER}|{_LETTERS}(?:(?:['‘’׳״·]|{_HEBREW_JOINT}){_LETTERS})*+"
)
_BARE_WORD = regex.compile(rf"{_CHARACTER}|(?:(?!{_UNSPACED}|_){_LETTER}{_MARKS})++")
_RUN = regex.compile(rf"(?:{_CHARACTER})++|{_SPACED}")
_PIECE = regex.compile(rf"{_CHARACTER}|(?:(?!(?={_LETTER}){_UNSPACED})\S)++")
_UNSPACED_CHARACTER = regex.compile(_CHARACTER)
# Some scripts put no space after the end of a sentence, or not always. In Greek, a semicolon asks.
# Where a run of marks is no end, neither is a part of it, so none is looked at twice.
SENTENCE_END = regex.compile(
    r"""(?<![\p{SB=STerm}\p{SB=ATerm}…])[\p{SB=STerm}\p{SB=ATerm}…]+[\p{Pf}\p{Pe}"'”’)]*\s+|(?<=\p{Greek}\p{M}*);\s+|[。！？｡།༎।॥።។။]+[\p{Pf}\p{Pe}"']*|\n\s*\n"""
)
_UNENDED = regex.compile(r"[\p{Thai}\p{Lao}]")
_ANY_LETTER = regex.compile(r"\p{L}")


def with_line_feeds(text: str) -> str:
    """Return a text with line feeds as line ends."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def normalized(text: str) -> str:
    """Return a text with line feeds as line ends and composed characters (NFC).

    The same text is otherwise other tokens in another file.
    """
    return normalize("NFC", with_line_feeds(text))


def without_format(word: str) -> str:
    """Return a word without invisible characters of format, such as soft hyphens."""
    bare: str = _FORMAT.sub("", word)
    return bare


def letter_words(text: str) -> list[str]:
    """The words of letters, with apostrophes; characters where a script puts no spaces."""
    words: list[str] = _LETTER_WORD.findall(text)
    return words


def bare_words(text: str) -> list[str]:
    """Runs of letters and digits; characters where a script puts no spaces."""
    words: list[str] = _BARE_WORD.findall(text)
    return words


def pieces(text: str) -> list[str]:
    """What white space separates; characters where a script puts no spaces."""
    words: list[str] = _PIECE.findall(text)
    return words


def runs(text: str) -> list[str | list[str]]:
    """Runs of letters, digits and underscores; the characters of a run without spaces as a list."""
    return [
        _UNSPACED_CHARACTER.findall(run) if is_unspaced(run) else run for run in _RUN.findall(text)
    ]


def is_unspaced(word: str) -> bool:
    """Return whether a word is a character, or begins with one, of a script without spaces."""
    return _UNSPACED_CHARACTER.match(word) is not None


def is_character(word: str) -> bool:
    """Return whether a word is one character of a script without spaces."""
    return _UNSPACED_CHARACTER.fullmatch(word) is not None


def sentences(texts: Sequence[str]) -> list[str]:
    """The sentences of texts, without those that have no word. A text ends a sentence."""
    return [s for text in texts for s in SENTENCE_END.split(text) if _LETTER_WORD.search(s)]


def marks_sentences(text: str) -> bool:
    """Return whether the script of a text marks where sentences end, as Thai and Lao do not."""
    return len(_UNENDED.findall(text)) < 0.5 * len(_ANY_LETTER.findall(text))


def without_spaces(text: str) -> float:
    """The share of its letters that are of scripts without spaces, from 0 to 1."""
    return len(_UNSPACED_CHARACTER.findall(text)) / max(1, len(_ANY_LETTER.findall(text)))
