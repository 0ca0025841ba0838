from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from examples.assistant.__main__ import main, parser
from models import TinyModel

ROOT = Path(__file__).parents[3]


def test_a_folder_that_is_none_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--profiles", str(tmp_path / "none")])
    assert caught.value.code == 2
    assert "is not a folder." in capsys.readouterr().err


def test_without_pyside_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("PySide6", "PySide6.QtCore", "PySide6.QtWidgets"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["--profiles", str(tmp_path)]) == 1
    assert "pip install PySide6" in capsys.readouterr().err


def test_the_commands_of_its_page_are_accepted() -> None:
    page = (ROOT / "docs/assistant.md").read_text("utf-8")
    commands = re.findall(r"^python -m examples\.assistant (.*)$", page, re.MULTILINE)
    assert len(commands) > 1
    for command in commands:
        parser().parse_args(shlex.split(command))


INTERRUPTED = """
import os, signal, sys, threading, time
from examples.assistant.__main__ import main

def interrupt():
    while signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt).start()
sys.exit(main())
"""


def test_ctrl_c_closes_the_window(folder: Path, tiny_chat: TinyModel) -> None:
    pytest.importorskip("PySide6.QtWidgets", exc_type=ImportError)
    words = ["--profiles", str(folder), "-m", str(tiny_chat.path), "-t", "1"]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *words],
        cwd=ROOT,
        env=os.environ | {"QT_QPA_PLATFORM": "offscreen"},
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
