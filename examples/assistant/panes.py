"""The text fields of the window."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import cast

from PySide6.QtCore import QEvent, QMimeData, Qt, Signal
from PySide6.QtGui import QHelpEvent, QTextBlockFormat, QTextCursor
from PySide6.QtWidgets import QFrame, QPlainTextEdit, QTextEdit, QToolTip, QWidget

from examples.assistant.mails import SHOWN
from examples.assistant.marks import Marks
from examples.assistant.origins import NAMES, Origins, Word
from examples.assistant.style import Theme

_LINE_HEIGHT = 118  # percent, so that the marks of two lines stay apart
_MARGIN = 10


class MailPane(QPlainTextEdit):
    """The mail that is to be answered; a file that is dropped here is asked for."""

    dropped = Signal(Path)

    def __init__(self) -> None:
        super().__init__()
        self.setTabChangesFocus(True)
        self.document().setDocumentMargin(_MARGIN)
        self.setPlaceholderText("Paste the mail here, or drop a file on it.")

    def canInsertFromMimeData(self, source: QMimeData) -> bool:
        """Take text and files."""
        return source.hasUrls() or super().canInsertFromMimeData(source)

    def insertFromMimeData(self, source: QMimeData) -> None:
        """Take the first file, or the beginning of a text."""
        paths = [url.toLocalFile() for url in source.urls() if url.isLocalFile()]
        if paths:
            self.dropped.emit(Path(paths[0]))
        else:
            self.textCursor().insertText(source.text()[:SHOWN])


class ReplyPane(QTextEdit):
    """A text that is written piece by piece, and then may be edited."""

    pointed = Signal(str)
    """Where the word at the cursor comes from; empty where there is no word."""

    def __init__(self, placeholder: str, theme: Theme) -> None:
        super().__init__()
        self.setAcceptRichText(False)
        self.setTabChangesFocus(True)
        self._lock()
        self.setPlaceholderText(placeholder)
        self.document().setDocumentMargin(_MARGIN)
        self.marks = Marks(self.document(), theme)
        self.cursorPositionChanged.connect(self._point)

    def begin(self) -> None:
        """Begin a new text, which nobody may edit yet."""
        self.marks.show([])
        self._lock()
        self.setUndoRedoEnabled(False)
        self.clear()
        spacing = QTextBlockFormat()
        spacing.setLineHeight(
            _LINE_HEIGHT, QTextBlockFormat.LineHeightTypes.ProportionalHeight.value
        )
        self.textCursor().setBlockFormat(spacing)

    def add(self, piece: str) -> None:
        """Add a piece at the end, and stay there if that is what is seen."""
        bar = self.verticalScrollBar()
        follows = bar.value() == bar.maximum()
        cursor = QTextCursor(self.document())
        cursor.movePosition(QTextCursor.MoveOperation.End)
        cursor.insertText(piece)
        if follows:
            bar.setValue(bar.maximum())

    def finish(self) -> None:
        """Let the user edit the text."""
        self.setUndoRedoEnabled(True)
        self.setReadOnly(False)
        self.document().setModified(False)

    def explain(self, origins: Origins) -> None:
        """Mark where the words come from."""
        self.marks.show(origins.words)
        self._point()

    def viewportEvent(self, event: QEvent) -> bool:
        """Say where the word under the mouse comes from."""
        if event.type() != QEvent.Type.ToolTip:
            return super().viewportEvent(event)
        at = cast(QHelpEvent, event)
        word = self.marks.word_at(self.cursorForPosition(at.pos()).position())
        QToolTip.showText(at.globalPos(), word.sentence if word else "", self)
        return True

    def _lock(self) -> None:
        """Let nobody edit the text; it can still be read and selected, by keys too."""
        self.setReadOnly(True)
        by_keys = Qt.TextInteractionFlag.TextSelectableByKeyboard
        self.setTextInteractionFlags(self.textInteractionFlags() | by_keys)

    def _point(self) -> None:
        word = self.marks.word_at(self.textCursor().position())
        self.pointed.emit(word.sentence if word else "")


class Legend(QTextEdit):
    """The marks and how many words have them, marked as the words are."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setReadOnly(True)
        self.setObjectName("legend")
        self.setAccessibleName("Where the words come from")
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setLineWrapMode(QTextEdit.LineWrapMode.NoWrap)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.marks = Marks(self.document(), theme)
        self.setFixedHeight(self.fontMetrics().height() + 2 * int(self.document().documentMargin()))
        self.count(Counter())

    def count(self, counts: Counter[str]) -> None:
        """Say how many words come from where."""
        words: list[Word] = []
        text = "Words from your "
        for origin, name in NAMES.items():
            label = f"{name} {counts[origin]}" if counts else name
            words.append(Word(len(text), label, origin, {}))
            text += f"{label}   "
        self.setPlainText(text + (f"from the model {counts['model']}" if counts else ""))
        self.marks.show(words)
