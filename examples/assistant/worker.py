"""The thread that does the model's work, so that the window never waits for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from PySide6.QtCore import QObject, Signal

from examples.assistant.mails import request_for
from examples.assistant.session import Options, Reply, Session
from steerx_edge.errors import ModelError, SteerxError
from steerx_edge.profile import feedback, read_drafts
from steerx_edge.profile.drafts_file import drafts_path

_LOG = logging.getLogger(__name__)


class Worker(QObject):
    """Does one job after the other in a thread of its own, and tells by signals how it goes."""

    doing = Signal(str)  # what is being done
    failed = Signal(str)  # why a job was not done, a sentence
    done = Signal()  # a job has ended, one way or the other
    opened = Signal(object)  # Opened
    piece = Signal(str)  # of the reply
    written = Signal(object)  # Reply
    explained = Signal(object)  # Origins of the words of this reply
    plain_piece = Signal(str)  # of the answer without the profile
    kept = Signal(str)  # feedback, a sentence
    ended = Signal()  # the thread, and the model is freed

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._session = Session(options)
        self._is_ending = False
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="model")
        self._thread.start()

    def open(self, profile: Path) -> None:
        """Read a profile and load its model."""
        self._jobs.put(partial(self._open, profile))

    def reply(self, profile: Path, mail: str, *, compare: bool) -> None:
        """Answer a mail; with `compare` then also without the profile."""
        self._session.allow()
        self._jobs.put(partial(self._reply, profile, mail, compare))

    def keep(self, reply: Reply, final: str) -> None:
        """Keep what the user made of a reply as feedback."""
        self._jobs.put(partial(self._keep, reply, final))

    def stop(self) -> None:
        """End the text that is being written."""
        self._session.stop()

    def set_strength(self, strength: float) -> None:
        """Steer by this strength, from the next token on."""
        self._session.strength = strength

    def end(self) -> None:
        """Stop, keep the feedback that still waits, and then free the model: see `ended`."""
        self._is_ending = True
        self._session.stop()
        self._jobs.put(None)

    def wait(self) -> None:
        """Wait for the end of the thread, after `end`."""
        self._thread.join()

    def _run(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                self._do(job)
            self._session.close()
        finally:
            self.ended.emit()

    def _do(self, job: Callable[[], None]) -> None:
        try:
            job()
        except SteerxError as error:
            self.failed.emit(str(error))
        except Exception as error:  # a mistake in this program ends one job, not all
            _LOG.exception("The model's thread goes on after this.")
            self.failed.emit(f"This should not happen: {type(error).__name__}: {error}")
        self.done.emit()

    def _open(self, profile: Path) -> None:
        if not self._is_ending:
            self.doing.emit("Loading the model …")
            self.opened.emit(self._session.open(profile))

    def _reply(self, profile: Path, mail: str, compare: bool) -> None:
        if self._is_ending:
            return
        self.doing.emit("Writing with your profile …")
        reply = self._session.write(profile, request_for(mail), self.piece.emit)
        self.written.emit(reply)
        if reply.tokens and not self._is_ending:
            self.doing.emit("Looking where the words come from …")
            self._explain(reply)
        if compare and not self._session.is_stopped:
            self.doing.emit("Writing without your profile …")
            self._session.write_plainly(reply, self.plain_piece.emit)

    def _explain(self, reply: Reply) -> None:
        try:
            self.explained.emit(self._session.explain(reply))
        except ModelError as error:  # the reply itself is there
            self.failed.emit(f"The words are not marked: {error}")

    def _keep(self, reply: Reply, final: str) -> None:
        profile = reply.opened.path
        draft = feedback(profile, proposed=reply.text, final=final, request=reply.request)
        name = drafts_path(profile).name
        n_edited = len(read_drafts(profile).edited)
        how = "your version" if draft.is_edited else "the reply as it is"
        self.kept.emit(
            f"Kept {how if draft.final else 'that you rejected it'} in {name}, which holds "
            f"{n_edited} edited {'reply' if n_edited == 1 else 'replies'}. To learn from them: "
            f"steerx-edge feedback {profile.name} --apply"
        )
