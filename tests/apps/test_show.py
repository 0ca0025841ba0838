"""`steerx-edge show`: what it prints and writes."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from llama_cpp import Llama

from models import TinyModel
from steerx_edge.apps.cli import main
from steerx_edge.llamacpp.models import identify
from steerx_edge.profile import LogitBias, Profile
from tests.support.entries import a_full_entry, a_learned_memory, a_logit_bias


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Profile((a_full_entry(memory=a_learned_memory()),)).save("me.json")
    return tmp_path


def show(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["show", *arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def test_the_terminal_shows_everything_and_needs_no_model() -> None:
    printed = show("me.json").stdout
    for part in ("Tiny Llama", "2025-01-31", "naïve 🙂 puns", "señor", "level shared", "layer 5"):
        assert part in printed


def test_json_is_all_that_is_printed() -> None:
    result = show("me.json", "--json", "--with", "me.json")
    facts = json.loads(result.stdout)
    assert facts["entries"][0]["words"][1]["word"] == "señor"
    assert facts["similarity"][0]["cosines"]["5"] == pytest.approx(1)
    assert facts["entries"][0]["trials"]["memory"][3]["mean"] == 0.05


def test_the_model_names_tokens(tiny_chat_llama: Llama, tiny_chat: TinyModel) -> None:
    model = identify(tiny_chat_llama)
    token = tiny_chat_llama.tokenize(b"honestly", add_bos=False)[0]
    piece = tiny_chat_llama.detokenize([token]).decode()
    bias = LogitBias(np.array([token]), np.array([2.0]), 1.0)
    entry = a_full_entry(model=model, layers=(1,), logit_bias=bias, memory=None, gate=None)
    Profile((entry,)).save("tiny.json")
    facts = json.loads(show("tiny.json", "--json", "-m", str(tiny_chat.path)).stdout)
    assert facts["entries"][0]["logit_bias"]["raised"] == [
        {"token": token, "value": 2.0, "text": piece}
    ]
    assert "This profile was made for" in show("me.json", "-m", str(tiny_chat.path), code=1).stderr


def test_a_model_may_be_named_as_models_lists_it(
    folder: Path, tiny_chat_llama: Llama, tiny_chat: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / ".lmstudio" / "models" / "org" / "tiny" / "tiny.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(tiny_chat.path.read_bytes())
    monkeypatch.setenv("HOME", str(folder))
    entry = a_full_entry(model=identify(tiny_chat_llama), layers=(1,), memory=None, gate=None)
    Profile((replace(entry, logit_bias=a_logit_bias(tokens=[5], values=[1])),)).save("tiny.json")
    result = show("tiny.json", "--json", "-m", "org/tiny/tiny")
    assert "Using org/tiny/tiny (LM Studio)" in result.stderr
    assert "text" in json.loads(result.stdout)["entries"][0]["logit_bias"]["raised"][0]


@pytest.mark.parametrize("before", [None, 0o644])
def test_the_page_is_private(folder: Path, before: int | None) -> None:
    page = folder / "me.html"
    if before:
        page.touch()
        page.chmod(before)
    result = show("me.json", "--html", "me.html")
    assert result.stdout == ""
    assert result.stderr == (
        "Wrote me.html. It holds your words and is readable only by you (mode 0600).\n"
    )
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert page.read_text("utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["you.json"], "you.json: cannot be read: No such file or directory"),
        (["me.json", "--with", "me.memory.gguf"], "me.memory.gguf: "),
        (["me.json", "--html", "no/me.html"], "there is no folder"),
        (["me.json", "--html", "."], "not a file"),
    ],
)
def test_mistakes_are_one_sentence(arguments: list[str], sentence: str) -> None:
    error = show(*arguments, code=1).stderr
    assert error.count("\n") == 1
    assert error.startswith("Error: ")
    assert sentence in error


def test_the_profile_is_not_overwritten_by_its_page(folder: Path) -> None:
    before = (folder / "me.json").read_bytes()
    error = show("me.json", "--html", "me.json", code=2).stderr
    assert error.endswith(
        "Error: 'me.json' is read, and would be overwritten. Choose another name.\n"
    )
    assert (folder / "me.json").read_bytes() == before
