"""`steerx-edge doctor`: what it finds out about llama.cpp and a model, and its exit status."""

from __future__ import annotations

import json
from pathlib import Path

import llama_cpp
import pytest
from click.testing import CliRunner, Result

from models import TinyModel, make_tiny
from steerx_edge.apps.cli import main
from steerx_edge.llamacpp import compat
from steerx_edge.llamacpp.models import MODEL_VARIABLE
from tests.support.exports import WHATSAPP_CHAT


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(MODEL_VARIABLE, raising=False)
    return tmp_path


def run(*arguments: str | Path, code: int = 0) -> Result:
    given = ["doctor", "-t", "1", *map(str, arguments)]
    result = CliRunner().invoke(main, given, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def test_what_llama_cpp_is_like_is_reported(tiny_chat: TinyModel) -> None:
    system = json.loads(run("-m", tiny_chat.path, "--json").stdout)["system"]
    assert system["llama_cpp_python"] == llama_cpp.__version__
    info = llama_cpp.llama_print_system_info().decode()
    assert system["features"]
    assert all(f"{feature} = " in info for feature in system["features"])
    assert system["devices"] == compat.devices()
    assert system["gpu_offload"] == llama_cpp.llama_supports_gpu_offload()


@pytest.mark.parametrize(
    ("architecture", "recurrent", "window"),
    [("llama", False, False), ("gemma3", False, True), ("mamba2", True, False)],
)
def test_what_kind_of_model_it_is(
    model_folder: Path, architecture: str, recurrent: bool, window: bool
) -> None:
    tiny = make_tiny(model_folder / f"doctor-{architecture}.gguf", architecture)
    found = json.loads(run("-m", tiny.path, "--json").stdout)
    model = found["model"]
    assert found["ok"]
    assert (model["architecture"], model["recurrent"]) == (architecture, recurrent)
    assert (model["sliding_window"] > 0) == window
    assert model["steerable"]
    assert model["reason"] == "given with -m or -hf"
    assert model["read_per_second"] > 0
    assert model["written_per_second"] > 0
    assert found["learn_seconds"] is None
    (note,) = found["problems"]
    assert not note["stops"]
    assert "no chat template" in note["text"]


def test_with_a_history_it_says_how_long_learning_takes(
    folder: Path, tiny_chat: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODEL_VARIABLE, str(tiny_chat.path))
    texts = [f"Text {i}: Alice was late, and the watch said so." for i in range(8)]
    (folder / "sent.txt").write_text("\n\n".join(texts))
    result = run("sent.txt")
    assert "learning          about 1 min. for 8 texts\n" in result.stdout
    assert f"{tiny_chat.path} (from {MODEL_VARIABLE})\n" in result.stdout
    assert result.stdout.endswith("No problems were found.\n")
    found = json.loads(run("sent.txt", "--json").stdout)
    assert found["learn_seconds"] > 0


def test_it_is_said_who_of_a_chat_is_meant(folder: Path, tiny_chat: TinyModel) -> None:
    (folder / "chat.txt").write_text(WHATSAPP_CHAT)
    assert "(me, --me)" in run("chat.txt", "-m", tiny_chat.path, code=1).stdout
    assert "for 8 texts" in run("chat.txt", "--me", "Kim", "-m", tiny_chat.path).stdout


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["-m", "none"], "There is no file 'none', and no model of that name."),
        (["-m", "cut.gguf"], "llama.cpp could not load 'cut.gguf'"),
        (["-m", "tiny.gguf", "none.jsonl"], "none.jsonl"),
        (["-m", "one.gguf"], "has no block that can be steered"),
    ],
)
def test_what_will_not_work_is_a_problem_and_exit_status_1(
    folder: Path, tiny_chat: TinyModel, arguments: list[str], problem: str
) -> None:
    (folder / "tiny.gguf").symlink_to(tiny_chat.path)
    (folder / "cut.gguf").write_bytes(tiny_chat.path.read_bytes()[:5000])
    if "one.gguf" in arguments:
        make_tiny(folder / "one.gguf", "llama", n_layer=1)
    result = run(*arguments, code=1)
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("Problem: ")]
    assert problem in line
    found = json.loads(run(*arguments, "--json", code=1).stdout)
    assert not found["ok"]


def test_too_many_threads_are_noted(tiny_chat: TinyModel) -> None:
    assert "threads on" in run("-t", "512", "-m", tiny_chat.path).stdout
