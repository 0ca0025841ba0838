"""What all commands share: --quiet, --json, and the completion of a shell."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from models import TinyModel
from steerx_edge.apps.cli import COMMANDS, main
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.models import MODEL_VARIABLE, identify
from steerx_edge.profile import Description, Profile
from steerx_edge.profile.json_format import encode
from tests.conftest import open_tiny
from tests.support.entries import a_missing_memory, an_entry

LEARN = ("learn", "sent.txt", "-o", "me.json", "--layers", "1,3", "--strength", "0.1", "-t", "1")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_chat: TinyModel) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(MODEL_VARIABLE, str(tiny_chat.path))
    monkeypatch.setenv("HOME", str(tmp_path))
    texts = [f"Text {i}: Alice was late, and the watch said so." for i in range(6)]
    (tmp_path / "sent.txt").write_text("\n\n".join([*texts, texts[0]]))
    return tmp_path


@pytest.fixture
def engine(tiny_chat: TinyModel) -> Iterator[Engine]:
    with closing(open_tiny(tiny_chat)) as llama:
        yield Engine(llama)


def run(*arguments: str, code: int = 0, given: str = "") -> Result:
    result = CliRunner().invoke(main, list(arguments), given, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


# ---------------------------------------------------------------- quiet


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_be_quiet(command: str) -> None:
    help_text = run(command, "--help").stdout
    assert "-q, --quiet" in help_text
    assert help_text.count("--quiet") == 1  # however often it is asked for


def test_quiet_learning_prints_nothing() -> None:
    assert run(*LEARN).stderr
    quiet = run(*LEARN, "--quiet")
    assert quiet.output == ""


def test_quiet_holds_for_warnings_and_ends_with_the_command(folder: Path, engine: Engine) -> None:
    n_embd = engine.model_id.n_embd
    entry = an_entry(engine.model_id, (1,), np.eye(1, n_embd), memory=a_missing_memory())
    (folder / "me.json").write_bytes(encode([entry]))
    arguments = ("generate", "--profile", "me.json", "-p", "hi", "-n", "3", "--temp", "0")
    loud = run(*arguments)
    assert loud.stderr.startswith("Warning: The memory is not used")
    quiet = run(*arguments, "-q")
    assert (quiet.stdout, quiet.stderr) == (loud.stdout, "")
    assert run(*arguments).stderr == loud.stderr
    assert logging.root.manager.disable == logging.NOTSET
    assert warnings.filters[0][0] == "error"  # that of the tests


def test_errors_are_printed_all_the_same() -> None:
    assert run("generate", "--profile", "none.json", "-p", "hi", "-q", code=1).stderr.startswith(
        "Error: none.json"
    )
    run(*LEARN, "-q")
    answer = run("chat", "--profile", "me.json", "-q", "-n", "2", given="/strength x\n/help\n")
    assert answer.stderr.startswith("Error: 'x' is not a number")
    assert "/reset" in answer.stderr  # which was asked for


# ---------------------------------------------------------------- JSON


def test_the_report_of_learn_is_the_entry_without_its_vectors(engine: Engine) -> None:
    found = json.loads(run(*LEARN, "--json").stdout)
    (entry,) = json.loads(Path("me.json").read_text())["entries"]
    vectors = {"directions", "norms", "gate"}
    assert found == {name: value for name, value in entry.items() if name not in vectors}
    assert found["model"]["fingerprint"] == engine.model_id.fingerprint
    assert found["counts"]["items"] == 6


# ---------------------------------------------------------------- edits and learning


def test_learning_again_and_with_another_model_keeps_edits(tiny_f32: TinyModel) -> None:
    run(*LEARN)
    run("edit", "me.json", "--drop", "watch", "--never", "oh dear", "--description", "I am brief.")
    (before,) = Profile.load("me.json").entries
    run(*LEARN)
    run(*LEARN, "-m", str(tiny_f32.path))
    first, second = Profile.load("me.json").entries
    assert first.edits == before.edits
    with closing(open_tiny(tiny_f32)) as llama:
        assert second.model == identify(llama)
    assert [(edit.action, edit.word) for edit in second.edits] == [
        ("drop", "watch"),
        ("never", "oh dear"),
    ]
    assert second.edits[0].tokens == first.edits[0].tokens  # their vocabularies are the same
    assert {first.description, second.description} == {Description("I am brief.", "user")}
    for entry in (first, second):
        assert "watch" not in {word.word for word in entry.words}


# ---------------------------------------------------------------- completion


def completed(arguments: list[str], incomplete: str) -> list[tuple[str, str]]:
    shell = ShellComplete(main, {}, "steerx-edge", "_STEERX_EDGE_COMPLETE")
    return [(item.type, item.value) for item in shell.get_completions(arguments, incomplete)]


def test_commands_and_options_are_completed() -> None:
    assert [value for _, value in completed([], "d")] == ["diff", "doctor"]
    assert ("plain", "--profile") in completed(["generate"], "--pro")
    assert ("plain", "--quiet") in completed(["edit"], "--q")


@pytest.mark.parametrize(
    "arguments",
    [
        ["learn"],
        ["learn", "-o"],
        ["generate", "--profile"],
        ["chat", "--history"],
        ["evaluate"],
        ["forget", "--text"],
        ["edit"],
        ["diff", "a.json"],
        ["doctor"],
    ],
)
def test_paths_are_completed(arguments: list[str]) -> None:
    assert completed(arguments, "m") == [("file", "m")]


@pytest.mark.parametrize("command", ["learn", "generate", "forget", "edit", "doctor", "evaluate"])
def test_models_are_completed_by_name_and_path(
    folder: Path, tiny_chat: TinyModel, command: str
) -> None:
    path = folder / ".lmstudio/models/org/tiny/tiny.gguf"
    path.parent.mkdir(parents=True)
    path.symlink_to(tiny_chat.path)
    os.environ.pop(MODEL_VARIABLE)
    assert completed([command, "-m"], "or") == [("plain", "org/tiny/tiny"), ("file", "or")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_documented_line_prints_a_script(shell: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "steerx_edge"],
        env=os.environ | {"_STEERX_EDGE_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert f"{shell}_complete" in result.stdout
