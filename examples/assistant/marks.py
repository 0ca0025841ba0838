"""Words marked by where they come from, by color and by line, until somebody changes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PySide6.QtCore import QObject
from PySide6.QtGui import (
    QColor,
    QSyntaxHighlighter,
    QTextCharFormat,
    QTextCursor,
    QTextDocument,
)

from examples.assistant.origins import Word
from examples.assistant.style import Theme

_LINES = {
    "directions": QTextCharFormat.UnderlineStyle.DotLine,
    "logit_bias": QTextCharFormat.UnderlineStyle.DashUnderline,
    "memory": QTextCharFormat.UnderlineStyle.SingleUnderline,
}


class _Span(NamedTuple):
    """A word in the document, by Qt's positions: characters beyond 16 bits count twice."""

    begin: int
    end: int
    word: Word


class Marks(QSyntaxHighlighter):
    """Marks the words of a document.

    They are no part of the document: they are not undone, and not copied.
    """

    def __init__(self, document: QTextDocument, theme: Theme) -> None:
        super().__init__(QObject(document))
        self._spans: list[_Span] = []
        self._theme = theme
        document.contentsChange.connect(self._follow)  # before the highlighter's own
        self.setDocument(document)

    def show(self, words: Sequence[Word]) -> None:
        """Mark words whose places are those in the text of the document; none for an empty list."""
        text = self.document().toPlainText()
        self._spans = []
        read = place = 0
        for word in words:
            if text[word.begin : word.begin + len(word.text)] != word.text:
                continue  # it was edited meanwhile
            place += _units(text[read : word.begin])
            read = word.begin
            self._spans.append(_Span(place, place + _units(word.text), word))
        self.rehighlight()

    def set_theme(self, theme: Theme) -> None:
        """Use other colors."""
        self._theme = theme
        self.rehighlight()

    def word_at(self, position: int) -> Word | None:
        """The marked word around a place in the document."""
        return next((span.word for span in self._spans if span.begin <= position < span.end), None)

    def highlightBlock(self, text: str) -> None:
        """Mark what lies in a paragraph."""
        first = self.currentBlock().position()
        last = first + _units(text)
        for span in self._spans:
            if span.word.origin in _LINES and span.begin < last and span.end > first:
                begin = max(span.begin, first)
                mark = mark_of(span.word.origin, self._theme)
                self.setFormat(begin - first, min(span.end, last) - begin, mark)

    def _follow(self, position: int, removed: int, added: int) -> None:
        """Move along what comes after a change, and leave out what it touched."""
        shift = added - removed
        kept = []
        for span in self._spans:
            if span.end <= position:
                kept.append(span)
            elif span.begin >= position + removed:
                kept.append(_Span(span.begin + shift, span.end + shift, span.word))
            elif shift == 0 and self._reads(span):  # only its format has changed
                kept.append(span)
        self._spans = kept

    def _reads(self, span: _Span) -> bool:
        cursor = QTextCursor(self.document())
        cursor.setPosition(span.begin)
        cursor.setPosition(span.end, QTextCursor.MoveMode.KeepAnchor)
        return cursor.selectedText() == span.word.text


def mark_of(origin: str, theme: Theme) -> QTextCharFormat:
    """How words of an origin look."""
    color = QColor(theme.marks[origin])
    mark = QTextCharFormat()
    mark.setUnderlineStyle(_LINES[origin])
    mark.setUnderlineColor(color)
    color.setAlphaF(0.22)
    mark.setBackground(color)
    return mark


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
