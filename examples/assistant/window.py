"""What the window does: its fields and buttons tied to the worker."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from PySide6.QtCore import Signal
from PySide6.QtGui import QCloseEvent, QGuiApplication
from PySide6.QtWidgets import QFileDialog, QMessageBox

from examples.assistant.form import HINT, Form
from examples.assistant.mails import mail_in
from examples.assistant.origins import Origins
from examples.assistant.session import Opened, Reply
from examples.assistant.style import Theme
from examples.assistant.worker import Worker
from steerx_edge.errors import SteerxError


class Window(Form):
    """The assistant.

    Args:
        worker: does the work, and is ended with the window.
        folder: of the profiles.
        theme: its colors.
    """

    closed = Signal()

    def __init__(self, worker: Worker, folder: Path, theme: Theme) -> None:
        super().__init__(theme)
        self.worker = worker
        self._reply: Reply | None = None
        self._n_jobs = 0
        self._is_writing = False
        self._doing = ""
        self._note = ""
        self._is_ending = self._has_ended = False
        self._connect()
        self._list_profiles(folder)
        self._show_state()
        self.mail.setFocus()

    def _connect(self) -> None:
        worker = self.worker
        self.profiles.currentIndexChanged.connect(self.open_profile)
        self.open_button.clicked.connect(self.choose_mail)
        self.mail.dropped.connect(self.open_mail)
        self.reply_button.clicked.connect(self.reply)
        self.stop_button.clicked.connect(worker.stop)
        self.strength.valueChanged.connect(self._set_strength)
        self.compare.toggled.connect(self.beside.setVisible)
        self.copy_button.clicked.connect(self.copy)
        self.keep_button.clicked.connect(self.keep)
        self.draft.pointed.connect(lambda sentence: self.detail.setText(sentence or HINT))
        worker.doing.connect(self._say_doing)
        worker.failed.connect(self.say_problem)
        worker.done.connect(self._end_job)
        worker.opened.connect(self._show_opened)
        worker.piece.connect(self.draft.add)
        worker.written.connect(self._show_reply)
        worker.explained.connect(self._show_origins)
        worker.plain_piece.connect(self.plain.add)
        worker.kept.connect(self.say)
        worker.ended.connect(self._close_at_last)

    # ------------------------------------------------------------ what the user asks for

    def open_profile(self) -> None:
        """Read the chosen profile and load its model."""
        self._begin_job()
        self.worker.open(self.profiles.currentData())

    def choose_mail(self) -> None:
        """Let the user choose the file of a mail."""
        kinds = "Mail and text (*.eml *.txt *.md);;All files (*)"
        path, _ = QFileDialog.getOpenFileName(self, "Open a mail", "", kinds)
        if path:
            self.open_mail(Path(path))

    def open_mail(self, path: Path) -> None:
        """Show the mail in a file."""
        try:
            self.mail.setPlainText(mail_in(path))
            self.say("")
        except SteerxError as error:
            self.say_problem(str(error))

    def reply(self) -> None:
        """Write a reply to the mail."""
        mail = self.mail.toPlainText()
        if not mail.strip():
            self.say_problem("There is no mail to answer. Paste one, or open its file.")
            self.mail.setFocus()
            return
        if not self._may_replace("Replace it by a new reply?"):
            return
        self._reply = None
        self._note = ""
        self.legend.count(Counter())
        self.draft.begin()
        self.plain.begin()
        self.draft.setFocus()
        self._is_writing = True
        self._begin_job()
        self.worker.reply(self.profiles.currentData(), mail, compare=self.compare.isChecked())

    def copy(self) -> None:
        """Copy the reply as it is now."""
        QGuiApplication.clipboard().setText(self.draft.toPlainText())
        self.draft.document().setModified(False)
        self.say("Copied.")

    def keep(self) -> None:
        """Keep the reply as it is now as feedback on what was written."""
        if self._reply is not None:
            self._begin_job()
            self.worker.keep(self._reply, self.draft.toPlainText())
            self.draft.document().setModified(False)

    def closeEvent(self, event: QCloseEvent) -> None:
        """Hide at once, and close when the worker has ended, which may still evaluate a prompt."""
        if self._has_ended:
            event.accept()
            return
        event.ignore()
        if not self._is_ending and self._may_replace("Close the window anyway?"):
            self._is_ending = True
            self.hide()
            self.worker.end()

    # ------------------------------------------------------------ what is shown

    def say(self, sentence: str) -> None:
        """Show what is going on."""
        self._show_status(sentence, is_problem=False)

    def say_problem(self, sentence: str) -> None:
        """Show what went wrong."""
        self._show_status(sentence, is_problem=True)

    def _say_doing(self, what: str) -> None:
        self._doing = what
        self.say(what)

    def _show_status(self, sentence: str, *, is_problem: bool) -> None:
        self.status.setProperty("error", is_problem)
        self.status.style().polish(self.status)
        self.status.setText(sentence)

    def _show_state(self) -> None:
        is_busy = self._n_jobs > 0
        has_profile = self.profiles.count() > 0
        self.reply_button.setEnabled(has_profile and not is_busy)
        self.stop_button.setEnabled(self._is_writing)
        self.profiles.setEnabled(has_profile and not is_busy)
        for button in (self.copy_button, self.keep_button):
            button.setEnabled(self._reply is not None)

    def _show_opened(self, opened: Opened) -> None:
        model = opened.entry.model
        n_items = opened.entry.counts.get("items")
        self.about.setText(f"{f'{n_items} texts · ' if n_items else ''}{model.name}")
        self.about.setToolTip(opened.entry.description.text)
        if opened.problems:
            self.say_problem(" ".join(opened.problems))

    def _show_reply(self, reply: Reply) -> None:
        self._reply = reply
        self.draft.finish()
        self._show_state()

    def _show_origins(self, origins: Origins) -> None:
        self.draft.explain(origins)
        self.legend.count(origins.counts)
        self._note = origins.note

    def _begin_job(self) -> None:
        self._n_jobs += 1
        self._show_state()

    def _end_job(self) -> None:
        self._n_jobs -= 1
        self._is_writing &= self._n_jobs > 0
        self._show_state()
        if self.status.text() == self._doing:  # no problem was shown since
            self.say(self._note)

    def _set_strength(self, percent: int) -> None:
        self.percent.setText(f"{percent} %")
        self.worker.set_strength(percent / 100)

    def _list_profiles(self, folder: Path) -> None:
        for path in sorted(folder.glob("*.json")):
            self.profiles.addItem(path.stem, path)
        if not self.profiles.count():
            self.say_problem(
                f"There is no profile in {folder}. Learn one: steerx-edge learn ~/Mail/Sent -o "
                f"{folder / 'me.json'}"
            )

    def _may_replace(self, question: str) -> bool:
        """Ask, if the reply was edited and neither kept nor copied."""
        if not self.draft.document().isModified() or self._reply is None:
            return True
        asked = QMessageBox.question(
            self, self.windowTitle(), f"You edited the reply and did not keep it. {question}"
        )
        return asked == QMessageBox.StandardButton.Yes

    def _close_at_last(self) -> None:
        self._has_ended = True
        self.close()
        self.closed.emit()
