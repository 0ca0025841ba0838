"""A window on a virtual display, with a tiny model and a profile for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from llama_cpp import Llama

from examples.assistant.session import Options
from models import TinyModel
from tests.support.assistant import MAIL, wait_for
from tests.support.steered_llama import knowing

if TYPE_CHECKING:
    from PySide6.QtWidgets import QApplication

    from examples.assistant.window import Window


@pytest.fixture
def folder(tmp_path: Path, tiny_chat: TinyModel, open_llama: Callable[..., Llama]) -> Path:
    """The profile `me` for the tiny model, and `spoilt`, which is cut off."""
    folder = tmp_path / "profiles"
    folder.mkdir()
    knowing(open_llama(tiny_chat), strength=1.0, memory=0.3).save(folder / "me.json")
    (folder / "spoilt.json").write_text('{"format": "steerx-edge-profile", "schema"', "utf-8")
    return folder


@pytest.fixture
def options(tiny_chat: TinyModel) -> Options:
    return Options(
        str(tiny_chat.path), n_ctx=512, n_threads=1, max_tokens=40, temperature=0.0, seed=1
    )


@pytest.fixture(scope="module")
def app() -> Iterator[QApplication]:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    try:
        from PySide6.QtWidgets import QApplication
    except ImportError as error:  # the package, or a library of the system
        pytest.skip(f"PySide6 cannot be loaded: {error}")
    app = QApplication(["test"])
    app.setQuitOnLastWindowClosed(False)
    yield app
    app.shutdown()


@pytest.fixture
def open_window(
    app: QApplication, folder: Path, options: Options
) -> Iterator[Callable[..., Window]]:
    """Open windows with a mail; their workers are ended after the test."""
    from examples.assistant.style import LIGHT
    from examples.assistant.window import Window
    from examples.assistant.worker import Worker

    workers: list[Worker] = []
    windows: list[Window] = []

    def open_one(options: Options = options, folder: Path = folder) -> Window:
        workers.append(Worker(options))
        windows.append(Window(workers[-1], folder, LIGHT))
        windows[-1].show()
        windows[-1].mail.setPlainText(MAIL)
        return windows[-1]

    yield open_one
    for worker in workers:
        worker.end()
        worker.wait()
    app.processEvents()
    for window in windows:
        window.deleteLater()


@pytest.fixture
def window(open_window: Callable[..., Window]) -> Window:
    """One that has loaded the model of its first profile."""
    window = open_window()
    wait_for(window.reply_button.isEnabled)
    return window
