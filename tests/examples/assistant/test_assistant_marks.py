from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from examples.assistant.origins import Word

if TYPE_CHECKING:
    from PySide6.QtGui import QTextDocument
    from PySide6.QtWidgets import QApplication

    from examples.assistant.panes import ReplyPane

TEXT = "right 🙂 then,\nthe lamp"


def a_word(text: str, origin: str) -> Word:
    return Word(TEXT.index(text), text, origin, {"directions": 0, "logit_bias": 0, "memory": 2})


@pytest.fixture
def pane(app: QApplication) -> ReplyPane:
    from examples.assistant.panes import ReplyPane
    from examples.assistant.style import LIGHT

    assert app
    pane = ReplyPane("", LIGHT)
    pane.begin()
    pane.add(TEXT)
    pane.finish()
    pane.marks.show(
        [a_word("right", "memory"), a_word("then", "directions"), a_word("lamp", "logit_bias")]
    )
    return pane


def marked(document: QTextDocument) -> dict[str, str]:
    """The texts that look marked, and how their line looks."""
    found = {}
    block = document.begin()
    while block.isValid():
        data = block.text().encode("utf-16-le")
        for each in block.layout().formats():
            text = data[2 * each.start : 2 * (each.start + each.length)].decode("utf-16-le")
            found[text] = each.format.underlineStyle().name
        block = block.next()
    return found


ALL = {"right": "SingleUnderline", "then": "DotLine", "lamp": "DashUnderline"}


def edit(pane: ReplyPane, begin: int, end: int, text: str) -> None:
    cursor = pane.textCursor()
    cursor.setPosition(begin)
    cursor.setPosition(end, cursor.MoveMode.KeepAnchor)
    cursor.insertText(text)


def test_each_origin_has_a_line_of_its_own(pane: ReplyPane) -> None:
    assert marked(pane.document()) == ALL


def test_marks_follow_what_is_written_before_them(pane: ReplyPane) -> None:
    edit(pane, 0, 0, "all 🙂 ")
    assert marked(pane.document()) == ALL
    edit(pane, 0, len("all 🙂 ") + 1, "")
    assert marked(pane.document()) == ALL


def test_a_word_that_is_changed_loses_its_mark(pane: ReplyPane) -> None:
    at = len("right 🙂 th") + 1
    edit(pane, at, at + 1, "a")
    assert marked(pane.document()) == {name: ALL[name] for name in ("right", "lamp")}


def test_marks_are_not_part_of_the_text(pane: ReplyPane) -> None:
    assert not pane.document().isUndoAvailable()
    assert not pane.document().isModified()


def test_where_the_word_at_the_cursor_comes_from_is_said(pane: ReplyPane) -> None:
    said: list[str] = []
    pane.pointed.connect(said.append)
    cursor = pane.textCursor()
    for place in (TEXT.index("lamp") + 2, TEXT.index(",") + 1):
        cursor.setPosition(place)
        pane.setTextCursor(cursor)
    assert said == [
        "“lamp”, from your logit bias: ×7.4 as probable with your profile "
        "(direction ×1, logit bias ×1, memory ×7.4).",
        "",
    ]
