"""What is in the window, and where."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QKeySequence
from PySide6.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QSlider,
    QSplitter,
    QVBoxLayout,
    QWidget,
)

from examples.assistant.panes import Legend, MailPane, ReplyPane
from examples.assistant.style import Theme, sheet_of

STRONGEST = 200  # percent
HINT = "Point at a word, or move the cursor to it, to see where it comes from."


class Form(QWidget):
    """The fields and buttons. Every one is reached by Tab, most by an Alt key, some by another."""

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self.setWindowTitle("Reply in your own voice")
        self.profiles = QComboBox()
        self.profiles.setMinimumContentsLength(12)
        self.profiles.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        self.about = _quiet("")
        self.about.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.open_button = _button("&Open a mail …", QKeySequence(QKeySequence.StandardKey.Open))
        self.mail = MailPane()
        self.reply_button = _button("&Reply", QKeySequence("Ctrl+Return"))
        self.reply_button.setObjectName("primary")
        self.stop_button = _button("&Stop", QKeySequence("Esc"))
        self.strength = _slider()
        self.percent = QLabel("100 %")
        self.percent.setMinimumWidth(self.fontMetrics().horizontalAdvance("200 %") + 4)
        self.compare = _button("&Compare", QKeySequence())
        self.compare.setCheckable(True)
        self.draft = ReplyPane("The reply is written here. You can edit it.", theme)
        self.plain = ReplyPane("What the model writes without your profile.", theme)
        self.legend = Legend(theme)
        self.detail = _quiet(HINT)
        self.detail.setWordWrap(True)
        self.copy_button = _button("Cop&y", QKeySequence())
        self.keep_button = _button("&Keep my version", QKeySequence("Ctrl+K"))
        self.status = QLabel()
        self.status.setObjectName("status")
        self.status.setWordWrap(True)
        self.status.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._explain_buttons()
        self._lay_out()
        self.set_theme(theme)

    def set_theme(self, theme: Theme) -> None:
        """Use the colors of a theme."""
        self.setStyleSheet(sheet_of(theme))
        for pane in (self.draft, self.plain, self.legend):
            pane.marks.set_theme(theme)

    def _explain_buttons(self) -> None:
        for widget, text in (
            (self.open_button, "Open a mail (.eml) or a text"),
            (self.reply_button, "Write a reply with your profile"),
            (self.stop_button, "End the text that is being written"),
            (self.compare, "Also write each reply without your profile, beside it"),
            (self.copy_button, "Copy your version of the reply"),
            (self.keep_button, "Keep your version beside the profile, which can learn from it"),
        ):
            key = widget.shortcut().toString(QKeySequence.SequenceFormat.NativeText)
            widget.setToolTip(f"{text} ({key})" if key and "Alt" not in key else text)
        self.strength.setToolTip("How strongly to steer; it acts at once, also in mid-sentence")

    def _lay_out(self) -> None:
        top = _row(_label("&Profile", self.profiles), self.profiles)
        top.addWidget(self.about, 1)
        top.addWidget(self.open_button)
        controls = _row(self.reply_button, self.stop_button)
        controls.addSpacing(16)
        controls.addWidget(_label("S&trength", self.strength))
        controls.addWidget(self.strength, 1)
        controls.addWidget(self.percent)
        controls.addStretch(1)
        controls.addWidget(self.compare)
        self.beside = _column(_label("&Without your profile", self.plain), self.plain)
        self.beside.hide()
        answers = _split(
            Qt.Orientation.Horizontal,
            (1, 1),
            _column(_label("Your rep&ly", self.draft), self.draft),
            self.beside,
        )
        lower = QWidget()
        below = QVBoxLayout(lower)
        below.setContentsMargins(0, 4, 0, 0)
        below.addLayout(controls)
        below.addWidget(answers, 1)
        mail = _column(_label("&Mail", self.mail), self.mail)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 12, 16, 10)
        layout.setSpacing(8)
        layout.addLayout(top)
        layout.addWidget(_split(Qt.Orientation.Vertical, (2, 3), mail, lower), 1)
        layout.addLayout(_row(self.legend, self.copy_button, self.keep_button))
        layout.addWidget(self.detail)
        layout.addWidget(self.status)


def _button(text: str, key: QKeySequence) -> QPushButton:
    """A button with a key beside the one that its text names."""
    button = QPushButton(text)
    if not key.isEmpty():
        button.setShortcut(key)
    return button


def _slider() -> QSlider:
    slider = QSlider(Qt.Orientation.Horizontal)
    slider.setRange(0, STRONGEST)
    slider.setSingleStep(5)
    slider.setPageStep(25)
    slider.setValue(100)
    slider.setMinimumSize(110, 24)
    return slider


def _label(text: str, field: QWidget) -> QLabel:
    label = QLabel(text)
    label.setObjectName("heading")
    label.setBuddy(field)
    field.setAccessibleName(text.replace("&", ""))
    return label


def _quiet(text: str) -> QLabel:
    label = QLabel(text)
    label.setObjectName("quiet")
    return label


def _row(*widgets: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    row.setSpacing(8)
    for widget in widgets:
        row.addWidget(widget)
    return row


def _column(*widgets: QWidget) -> QWidget:
    column = QWidget()
    layout = QVBoxLayout(column)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    for widget in widgets:
        layout.addWidget(widget)
    return column


def _split(orientation: Qt.Orientation, shares: tuple[int, ...], *widgets: QWidget) -> QSplitter:
    """Widgets that share the room, until the user moves the border."""
    splitter = QSplitter(orientation)
    splitter.setChildrenCollapsible(False)
    splitter.setHandleWidth(8)
    for place, (widget, share) in enumerate(zip(widgets, shares, strict=True)):
        widget.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Ignored)
        splitter.addWidget(widget)
        splitter.setStretchFactor(place, share)
    return splitter
