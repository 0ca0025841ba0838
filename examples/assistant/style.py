"""How the window looks, in light and in dark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QPalette


@dataclass(frozen=True)
class Theme:
    """Colors.

    Attributes:
        marks: of words that come from a part of the profile.
    """

    window: str
    base: str
    text: str
    quiet: str
    border: str
    accent: str
    on_accent: str
    error: str
    marks: Mapping[str, str]


LIGHT = Theme(
    window="#f3f4f7",
    base="#ffffff",
    text="#1b1f27",
    quiet="#5a6272",
    border="#d3d8e0",
    accent="#0b5fc0",
    on_accent="#ffffff",
    error="#b3261e",
    marks={"directions": "#1f8a4c", "logit_bias": "#c05a00", "memory": "#0b63c4"},
)
DARK = Theme(
    window="#16181d",
    base="#1f2229",
    text="#e8eaf0",
    quiet="#a2a9b8",
    border="#3a404c",
    accent="#6fb0ff",
    on_accent="#0d1a2b",
    error="#ff8a80",
    marks={"directions": "#4fce86", "logit_bias": "#ffa04d", "memory": "#6fb0ff"},
)


def theme_for(scheme: Qt.ColorScheme) -> Theme:
    """The theme of the system's setting."""
    return DARK if scheme == Qt.ColorScheme.Dark else LIGHT


def palette_of(theme: Theme) -> QPalette:
    """The colors for what is drawn by Qt's own style."""
    palette = QPalette()
    role = QPalette.ColorRole
    for roles, color in (
        ((role.Window, role.Button), theme.window),
        ((role.Base, role.AlternateBase, role.ToolTipBase), theme.base),
        ((role.WindowText, role.Text, role.ButtonText, role.ToolTipText), theme.text),
        ((role.Highlight, role.Accent, role.Link), theme.accent),
        ((role.HighlightedText,), theme.on_accent),
        ((role.PlaceholderText,), theme.quiet),
    ):
        for each in roles:
            palette.setColor(each, QColor(color))
    for each in (role.WindowText, role.Text, role.ButtonText):
        palette.setColor(QPalette.ColorGroup.Disabled, each, QColor(theme.quiet))
    return palette


def sheet_of(theme: Theme) -> str:
    """The style sheet of the window."""
    return f"""
    QPlainTextEdit, QTextEdit {{ background: {theme.base}; border: 1px solid {theme.border};
        border-radius: 8px; selection-background-color: {theme.accent};
        selection-color: {theme.on_accent}; }}
    QPlainTextEdit:focus, QTextEdit:focus {{ border-color: {theme.accent}; }}
    QPushButton {{ background: {theme.base}; border: 1px solid {theme.border};
        border-radius: 6px; padding: 5px 12px; }}
    QPushButton:hover {{ border-color: {theme.accent}; }}
    QPushButton:focus {{ border: 2px solid {theme.accent}; padding: 4px 11px; }}
    QPushButton:disabled {{ color: {theme.quiet}; background: {theme.window}; }}
    QPushButton:checked {{ border: 2px solid {theme.accent}; padding: 4px 11px; }}
    QPushButton#primary {{ background: {theme.accent}; color: {theme.on_accent};
        border-color: {theme.accent}; font-weight: 600; padding: 5px 20px; }}
    QPushButton#primary:focus {{ border: 2px solid {theme.text}; padding: 4px 19px; }}
    QPushButton#primary:disabled {{ background: {theme.window}; color: {theme.quiet};
        border-color: {theme.border}; }}
    QLabel#heading {{ font-weight: 600; }}
    QLabel#quiet {{ color: {theme.quiet}; }}
    QLabel#status[error="true"] {{ color: {theme.error}; font-weight: 600; }}
    QTextEdit#legend {{ background: transparent; border: none; }}
    QSplitter::handle {{ background: transparent; }}
    QScrollBar:vertical {{ background: transparent; width: 10px; margin: 4px 2px; }}
    QScrollBar::handle:vertical {{ background: {theme.border}; border-radius: 3px;
        min-height: 24px; }}
    QScrollBar::handle:vertical:hover {{ background: {theme.quiet}; }}
    QScrollBar::add-line, QScrollBar::sub-line {{ height: 0; }}
    QSlider::groove {{ background: {theme.border}; height: 4px; border-radius: 2px; }}
    QSlider::sub-page {{ background: {theme.accent}; border-radius: 2px; }}
    QSlider::handle {{ background: {theme.base}; border: 2px solid {theme.accent}; width: 12px;
        margin: -6px 0; border-radius: 8px; }}
    QSlider::handle:focus {{ background: {theme.accent}; }}
    """
