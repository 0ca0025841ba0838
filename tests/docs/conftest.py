"""A folder like that of a reader who has learned a profile."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from docs.tools.run_console import prepare
from models import TinyModel
from steerx_edge.apps.cli import main
from steerx_edge.history.item import HistoryItem
from steerx_edge.llamacpp.models import MODEL_VARIABLE


def with_few_neutral_texts(patch: pytest.MonkeyPatch) -> None:
    """Learning from ten texts spends most of its time on neutral ones."""
    items = [HistoryItem(f"It rained {when}.", "Was it dry?") for when in ("now", "then", "here")]
    for user in ("learning.calibration.score", "evaluation.prompts"):
        patch.setattr(f"steerx_edge.{user}.neutral_items", lambda _: items)


@pytest.fixture(autouse=True)
def _few_neutral_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    with_few_neutral_texts(monkeypatch)


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory, tiny_chat: TinyModel) -> Path:
    """With a model, texts, and the profile and the prefix that the model has learned from them."""
    folder = tmp_path_factory.mktemp("learned")
    prepare(folder)
    shutil.copy(tiny_chat.path, folder / "model.gguf")
    words = ["learn", f"{folder}/sent.jsonl", "-o", f"{folder}/me.json", "--prefix", "256"]
    words += ["-m", f"{folder}/model.gguf", "-t", "1"]
    with pytest.MonkeyPatch.context() as patch:
        with_few_neutral_texts(patch)
        result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def work(
    learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_chat: TinyModel
) -> Path:
    """A copy of that folder to work in, with a home folder in it."""
    folder = tmp_path / "work"
    shutil.copytree(learned, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv(MODEL_VARIABLE, str(tiny_chat.path))
    monkeypatch.setenv("LLAMA_ARG_THREADS", "1")
    return folder
