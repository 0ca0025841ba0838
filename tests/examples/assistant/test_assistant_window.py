"""The window as a person uses it. What is done in mid-stream waits in the model's thread for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from llama_cpp import Llama

from examples.assistant.mails import request_for
from examples.assistant.session import Options, Reply
from steerx_edge.profile import read_drafts
from tests.support.assistant import MAIL, wait_for
from tests.support.steered_llama import biased

if TYPE_CHECKING:
    from examples.assistant.window import Window


def write_reply(window: Window) -> str:
    """What is written in answer to the mail."""
    window.reply_button.click()
    wait_for(window.reply_button.isEnabled)
    return window.draft.toPlainText()


class HeldReply:
    """A reply that is held by its thread when its first piece is there, until it is told to go on.

    The rest is written as fast as the model can.
    """

    def __init__(self, window: Window) -> None:
        from PySide6.QtCore import Qt

        self.thread = 0
        self._may_go_on = threading.Event()
        window.worker.piece.connect(self._hold, Qt.ConnectionType.DirectConnection)
        window.reply_button.click()
        wait_for(lambda: bool(window.draft.toPlainText()))

    def _hold(self, _piece: str) -> None:
        self.thread = threading.get_ident()
        assert self._may_go_on.wait(60)

    def go_on(self) -> None:
        self._may_go_on.set()


# ---------------------------------------------------------------- writing


def test_a_reply_is_written_marked_and_may_be_edited(window: Window) -> None:
    assert write_reply(window)
    assert window.legend.toPlainText().count(" 0") < 3
    assert "from the model" in window.legend.toPlainText()
    assert not window.draft.isReadOnly()
    assert window.status.text() == ""


def test_two_replies_in_a_row_are_each_written_anew(window: Window) -> None:
    first = write_reply(window)
    assert write_reply(window) == first  # at temperature 0


def test_beside_it_the_model_writes_without_the_profile(window: Window) -> None:
    assert not window.plain.isVisible()
    window.compare.click()
    own = write_reply(window)
    assert window.plain.isVisible()
    assert window.plain.toPlainText() not in ("", own)
    window.strength.setValue(0)
    assert write_reply(window) == window.plain.toPlainText()


def test_stop_ends_the_reply_where_it_is(window: Window) -> None:
    window.compare.click()
    held = HeldReply(window)
    begun = window.draft.toPlainText()
    window.stop_button.click()
    held.go_on()
    wait_for(window.reply_button.isEnabled)
    assert window.draft.toPlainText() == begun
    assert window.plain.toPlainText() == ""


def test_the_slider_steers_the_reply_that_is_being_written(window: Window) -> None:
    replies: list[Reply] = []
    window.worker.written.connect(replies.append)
    held = HeldReply(window)
    window.strength.setValue(150)
    held.go_on()
    wait_for(window.reply_button.isEnabled)
    strengths = replies[0].strengths
    assert strengths[0] == 1.0
    assert strengths[-1] == 1.5
    assert window.status.text().startswith("You moved the strength")


# ---------------------------------------------------------------- it stays responsive


def test_the_event_loop_runs_while_the_model_is_loaded_and_writes(
    open_window: Callable[..., Window], options: Options
) -> None:
    """A timer of the window fires all the time: what takes time is in another thread."""
    from PySide6.QtCore import QTimer

    ticks: list[str] = []
    window = open_window(replace(options, max_tokens=200))
    beats = QTimer()
    beats.timeout.connect(lambda: ticks.append(window.status.text()))
    beats.start(0)
    wait_for(window.reply_button.isEnabled)
    held = HeldReply(window)
    threads = {held.thread, threading.get_ident()}
    wait_for(lambda: ticks.count("Writing with your profile …") > 10)  # its thread waits
    held.go_on()
    wait_for(window.reply_button.isEnabled)
    assert ticks.count("Loading the model …") > 0
    assert len(threads) == 2


@pytest.mark.parametrize("begin", ["loading", "writing"])
def test_it_closes_in_the_middle_of_its_work(
    begin: str, open_window: Callable[..., Window]
) -> None:
    window = open_window()
    closed: list[bool] = []
    window.closed.connect(lambda: closed.append(True))
    replies: list[Reply] = []
    window.worker.written.connect(replies.append)
    held = None
    if begin == "writing":
        wait_for(window.reply_button.isEnabled)
        held = HeldReply(window)
    window.close()
    assert not window.isVisible()  # at once
    assert not closed
    if held is not None:
        held.go_on()
    wait_for(lambda: bool(closed))
    window.worker.wait()
    assert [len(reply.tokens) < 40 for reply in replies] == [True] * (held is not None)


# ---------------------------------------------------------------- feedback


def test_an_edited_reply_goes_to_feedback(window: Window, folder: Path) -> None:
    proposed = write_reply(window)
    window.draft.setPlainText("right then, Tuesday it is")
    window.keep_button.click()
    wait_for(lambda: "Kept" in window.status.text())
    (draft,) = read_drafts(folder / "me.json").kept
    assert draft.request == request_for(MAIL).strip()
    assert draft.final == "right then, Tuesday it is"
    assert draft.proposed.split() == proposed.split()
    assert window.status.text() == (
        "Kept your version in me.drafts.jsonl, which holds 1 edited reply. To learn from them: "
        "steerx-edge feedback me.json --apply"
    )


@pytest.mark.parametrize(("final", "sentence"), [(None, "the reply as it is"), ("", "rejected")])
def test_what_was_not_edited_is_kept_as_such(
    final: str | None, sentence: str, window: Window, folder: Path
) -> None:
    write_reply(window)
    if final is not None:
        window.draft.setPlainText(final)
    window.keep_button.click()
    wait_for(lambda: sentence in window.status.text())
    assert not read_drafts(folder / "me.json").edited


def test_feedback_that_waits_is_kept_when_the_window_closes(window: Window, folder: Path) -> None:
    write_reply(window)
    window.draft.setPlainText("right then")
    window.keep_button.click()
    window.close()
    wait_for(lambda: bool(read_drafts(folder / "me.json").edited))


@pytest.mark.parametrize(("answer", "is_replaced"), [("No", False), ("Yes", True)])
def test_before_an_edited_reply_is_replaced_it_asks(
    answer: str, is_replaced: bool, window: Window
) -> None:
    from PySide6.QtCore import QTimer
    from PySide6.QtWidgets import QApplication, QMessageBox

    def press() -> None:
        box = QApplication.activeModalWidget()
        assert isinstance(box, QMessageBox)
        box.button(QMessageBox.StandardButton[answer]).click()

    write_reply(window)
    window.draft.textCursor().insertText("my own ")
    QTimer.singleShot(0, press)
    assert ("my own " in write_reply(window)) != is_replaced


# ---------------------------------------------------------------- what goes wrong


def test_a_damaged_profile_is_named_and_another_one_can_be_chosen(window: Window) -> None:
    window.profiles.setCurrentText("spoilt")
    wait_for(window.reply_button.isEnabled)
    assert "spoilt.json" in window.status.text()
    assert window.status.property("error")
    window.profiles.setCurrentText("me")
    wait_for(window.reply_button.isEnabled)
    assert write_reply(window)


def test_a_profile_that_is_gone_is_named(window: Window, folder: Path) -> None:
    (folder / "me.json").unlink()
    assert write_reply(window) == ""
    assert "me.json" in window.status.text()
    assert not window.keep_button.isEnabled()


def test_a_memory_that_is_missing_is_said(open_window: Callable[..., Window], folder: Path) -> None:
    (folder / "me.memory.gguf").unlink()
    window = open_window()
    wait_for(window.reply_button.isEnabled)
    assert "me.memory.gguf" in window.status.text()
    assert write_reply(window)


def test_a_folder_without_profiles_says_how_to_learn_one(
    open_window: Callable[..., Window], tmp_path: Path
) -> None:
    window = open_window(folder=tmp_path)
    assert window.status.text().startswith(f"There is no profile in {tmp_path}.")
    assert not window.reply_button.isEnabled()


def test_without_a_mail_nothing_is_written(window: Window) -> None:
    window.mail.clear()
    assert write_reply(window) == ""
    assert window.status.text() == "There is no mail to answer. Paste one, or open its file."


def test_a_file_that_is_dropped_is_opened(window: Window, tmp_path: Path) -> None:
    from PySide6.QtCore import QMimeData, QUrl

    path = tmp_path / "mail.txt"
    path.write_text("is Friday fine?", "utf-8")
    for name, text in (("mail.txt", "is Friday fine?"), ("none.eml", "is Friday fine?")):
        dropped = QMimeData()
        dropped.setUrls([QUrl.fromLocalFile(str(tmp_path / name))])
        window.mail.insertFromMimeData(dropped)
        assert window.mail.toPlainText() == text
    assert window.status.text() == "'none.eml' cannot be read: No such file or directory."


def test_a_megabyte_of_pasted_text_is_answered_by_its_beginning(
    open_window: Callable[..., Window], options: Options
) -> None:
    from PySide6.QtCore import QMimeData

    window = open_window(replace(options, n_ctx=2048))
    wait_for(window.reply_button.isEnabled)
    pasted = QMimeData()
    pasted.setText("It rained all day. " * 60_000)
    window.mail.clear()
    window.mail.insertFromMimeData(pasted)
    assert write_reply(window)
    assert window.keep_button.isEnabled()


def test_a_mail_longer_than_the_context_is_not_answered(window: Window) -> None:
    window.mail.setPlainText("It rained all day. " * 60)
    assert write_reply(window) == ""
    assert window.status.text().startswith("The mail takes ")
    window.mail.setPlainText(MAIL)
    assert write_reply(window)


# ---------------------------------------------------------------- a real model


@pytest.mark.slow
def test_a_real_model_answers(
    open_window: Callable[..., Window],
    tmp_path: Path,
    smollm2: Llama,
    smollm2_path: Path,
    options: Options,
) -> None:
    biased(smollm2).save(tmp_path / "me.json")
    window = open_window(replace(options, model=str(smollm2_path), max_tokens=12), tmp_path)
    wait_for(window.reply_button.isEnabled)
    assert len(write_reply(window).split()) > 2
