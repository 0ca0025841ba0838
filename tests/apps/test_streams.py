"""The command line's standard streams: of any encoding, closed, full; and what is shown on them."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models import TinyModel, make_tiny_llama
from steerx_edge.apps.cli.common import write_text
from steerx_edge.llamacpp.models import MODEL_VARIABLE
from steerx_edge.profile import Profile
from tests.apps.test_cli import TEXTS, a_profile, write_history
from tests.conftest import CHAT_TEMPLATE, open_tiny
from tests.support.steered_llama import bias_of

HOSTILE = "Tiny [/INST] [red]v2[/] :smile: \x1b[31mred\x9b0m\a\r\u202e end"
SHOWN = r"Tiny [/INST] [red]v2[/] :smile: \x1b[31mred\x9b0m\x07\r\u202e end"
"""As a terminal shows it."""

NAME = "Tiny [/INST] [red]v2[/] :smile:"
"""What begins the name of a model that is called so: its control characters become spaces."""

GENERATE = ["generate", "--profile", "me.json", "-p", "Hello", "-n", "8", "--temp", "0"]
CHAT = ["chat", "--profile", "me.json", "-n", "2", "--temp", "0"]


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_chat: TinyModel) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(MODEL_VARIABLE, str(tiny_chat.path))
    monkeypatch.setenv("LLAMA_ARG_THREADS", "1")
    a_profile(tiny_chat).save("me.json")
    return tmp_path


@pytest.fixture
def hostile_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_tiny_llama(tmp_path / "m.gguf", chat_template=CHAT_TEMPLATE, name=HOSTILE)
    monkeypatch.setenv(MODEL_VARIABLE, str(model.path))


def run(arguments: list[str], redirect: str = "", **options: Any) -> Any:
    """Run a command as a shell does, with redirections."""
    command = ["sh", "-c", f'"$0" -m steerx_edge "$@" {redirect}', sys.executable, *arguments]
    environment = {**os.environ, **options.pop("env", {})}
    return subprocess.run(command, capture_output=True, timeout=120, env=environment, **options)


# ---------------------------------------------------------------- encodings


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", "é 漢".encode()),
        ("cp1252", b"\xe9 ?"),
        ("latin-1", b"\xe9 ?"),
        ("ascii", "é 漢".encode()),  # for which click takes UTF-8
        ("ascii:surrogateescape", "é 漢".encode()),
    ],
)
def test_text_goes_to_a_stream_of_any_encoding(
    in_folder: Path, encoding: str, expected: bytes
) -> None:
    (in_folder / "me.json").rename(in_folder / "é 漢.json")
    done = run(
        [*GENERATE[:2], "é 漢.json", *GENERATE[3:], "--compare"], env={"PYTHONIOENCODING": encoding}
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"--- with " + expected + b".json, strength 1\n" in done.stdout


def test_a_name_that_no_encoding_takes_is_shown(in_folder: Path) -> None:
    name = os.fsdecode(b"m\xe9.json")
    (in_folder / "me.json").rename(in_folder / name)
    done = run([*GENERATE[:2], name, *GENERATE[3:], "--compare"])
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"--- with m\udce9.json, strength 1" in done.stdout


def test_tables_are_printed_in_ascii_if_need_be(in_folder: Path) -> None:
    write_history(in_folder / "é.jsonl", TEXTS)
    done = run(
        ["evaluate", "é.jsonl", "--min-items", "2", "--no-generate"],
        env={"PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"?.jsonl: 1 held-out texts")


def test_a_byte_order_mark_is_not_part_of_what_was_typed() -> None:
    mark = b"\xef\xbb\xbf"
    done = run(CHAT, input=mark + b"/exit\nHello\n")
    assert (done.returncode, done.stdout) == (0, b"")
    usual = run([*GENERATE[:4], "-", *GENERATE[5:]], input=b"Hello")
    marked = run([*GENERATE[:4], "-", *GENERATE[5:]], input=mark + b"Hello")
    assert usual.stdout == marked.stdout
    blank = run([*GENERATE[:4], "-", *GENERATE[5:]], input=mark)
    assert (blank.returncode, b"The prompt is empty" in blank.stderr) == (2, True)


# ---------------------------------------------------------------- closed and full


@pytest.mark.parametrize(
    ("arguments", "redirect", "code", "said"),
    [
        (CHAT, "<&-", 0, ""),
        ([*GENERATE[:4], "-"], "<&-", 2, "The prompt is empty."),
        (CHAT, "0>nothing", 1, "Error: Standard input or output failed: Bad file descriptor.\n"),
        (GENERATE, ">&-", 0, ""),
        (GENERATE, "2>&-", 0, ""),
        (GENERATE, "<&- >&- 2>&-", 0, ""),
        (["--help"], ">&-", 0, ""),
        (["generate"], "2>/dev/full", 1, ""),
        *(
            (
                each,
                ">/dev/full",
                1,
                "Error: Standard input or output failed: No space left on device.\n",
            )
            for each in (GENERATE, [*GENERATE, "--compare"], ["--help"], ["learn", "--help"])
        ),
    ],
)
def test_a_stream_that_is_closed_or_full_is_no_crash(
    in_folder: Path, arguments: list[str], redirect: str, code: int, said: str
) -> None:
    kept = (in_folder / "me.json").read_bytes()
    done = run(arguments, redirect, input=None if "<" in redirect else b"")
    errors = done.stderr.decode()
    assert done.returncode == code, errors
    assert errors == said or (code == 2 and errors.endswith(f"Error: {said}\n"))
    assert (in_folder / "me.json").read_bytes() == kept


def test_a_chat_and_an_evaluation_say_that_their_output_is_full(in_folder: Path) -> None:
    write_history(in_folder / "history.jsonl", TEXTS)
    for arguments in (CHAT, ["evaluate", "history.jsonl", "--min-items", "2", "--no-generate"]):
        done = run(arguments, ">/dev/full", input=b"Hello\n")
        assert done.returncode == 1
        assert b"No space left on device.\n" in done.stderr
        assert b"Traceback" not in done.stderr


# ---------------------------------------------------------------- shown, not obeyed


def at_terminal(arguments: list[str]) -> str:
    """What a terminal gets on both outputs."""
    keyboard, terminal = pty.openpty()
    command = [sys.executable, "-m", "steerx_edge", *arguments]
    environment = {**os.environ, "COLUMNS": "200", "TERM": "dumb"}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal, env=environment
    ) as running:
        os.close(terminal)
        printed = b""
        while True:
            try:
                piece = os.read(keyboard, 4096)
            except OSError:  # the other end was closed
                break
            if not piece:
                break
            printed += piece
    os.close(keyboard)
    assert running.returncode in (0, 1)
    return printed.decode().replace("\r\n", "\n")


@pytest.mark.usefixtures("hostile_model")
def test_a_models_name_is_printed_to_the_letter(in_folder: Path) -> None:
    write_history(in_folder / "history.jsonl", TEXTS)
    learn = ["learn", "history.jsonl", "-o", "new[b].json", "--strength", "0.1", "--memory", "none"]
    done = run(learn)
    assert done.returncode == 0, done.stderr
    assert f"Learning from 3 of 3 texts with {NAME}" in done.stderr.decode()
    assert "Saved new[b].json." in done.stderr.decode()

    done = run([*GENERATE[:2], "me.json", *GENERATE[3:]])
    assert done.returncode == 1
    assert f"this model is {NAME}" in done.stderr.decode()

    done = run(["evaluate", "history.jsonl", "--min-items", "2", "--no-generate"])
    assert done.returncode == 0, done.stderr
    assert f"Model: {NAME}" in done.stdout.decode()
    assert b"\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generate", "--profile", HOSTILE, "-p", "a"], SHOWN),
        (["learn", HOSTILE, "-o", "me.json"], SHOWN),
        (["generate", "--profile", "me.json", "-p", "a", "--temp", HOSTILE], SHOWN),
        ([HOSTILE], SHOWN),
    ],
)
def test_an_error_shows_what_was_given_and_obeys_nothing(arguments: list[str], said: str) -> None:
    done = run(arguments)
    assert done.returncode in (1, 2)
    assert said in done.stderr.decode()
    assert b"\x1b" not in done.stderr


def test_a_chat_shows_what_was_typed() -> None:
    done = run(CHAT, input=f"/strength {HOSTILE[:-5]}\n/profile {HOSTILE}\n".encode())
    assert done.returncode == 0
    assert b"\x1b" not in done.stderr
    assert SHOWN in done.stderr.decode()


def test_generated_control_characters_reach_a_pipe_and_not_a_terminal(
    tiny_chat: TinyModel,
) -> None:
    (entry,) = a_profile(tiny_chat, norm=1e-6).entries
    with closing(open_tiny(tiny_chat)) as llama:
        escape = llama.tokenize(b"\x1b", add_bos=False)[-1]
    Profile((replace(entry, logit_bias=bias_of({escape: 1e6})),)).save("me.json")
    assert run(GENERATE).stdout == b"\x1b" * 8 + b"\n"
    assert at_terminal(GENERATE) == r"\x1b" * 8 + "\n"


def test_a_pipe_gets_escape_sequences_to_the_letter(capsys: pytest.CaptureFixture[str]) -> None:
    write_text("\x1b[31m")
    assert capsys.readouterr().out == "\x1b[31m"
