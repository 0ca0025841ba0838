"""`steerx-edge models`, and names of models in other commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from models import TinyModel
from steerx_edge.apps.cli import main
from steerx_edge.llamacpp.models import MODEL_VARIABLE


@pytest.fixture(autouse=True)
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_chat: TinyModel) -> Path:
    """A model of LM Studio."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(MODEL_VARIABLE, str(tiny_chat.path))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ".lmstudio/models/org/tiny/tiny.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(tiny_chat.path.read_bytes())
    return path


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_models_are_listed_for_people_and_for_programs(model: Path, tiny_chat: TinyModel) -> None:
    lines = run("models").stdout.splitlines()
    assert lines[0].startswith(f"* {tiny_chat.path} ")
    (line,) = [line for line in lines if str(model) in line]
    assert line.split() == ["org/tiny/tiny", "1", "MB", "llama", "LM", "Studio", str(model)]
    found = json.loads(run("models", "--json").stdout)["models"]
    (entry,) = [each for each in found if each["path"] == str(model)]
    assert entry == {
        "name": "org/tiny/tiny",
        "path": str(model),
        "bytes": model.stat().st_size,
        "architecture": "llama",
        "place": "LM Studio",
        "is_default": False,
    }


def test_notes_go_to_standard_error(model: Path) -> None:
    broken = model.with_name("broken.gguf")
    broken.write_bytes(b"GGUF")
    result = run("models", "--json")
    note = f"Skipped {broken} (LM Studio): a damaged GGUF file: it ends early."
    assert result.stderr.splitlines() == [note]
    assert json.loads(result.stdout)["notes"] == [note]


def test_a_name_takes_one_line(model: Path) -> None:
    path = model.with_name("a\nb.gguf")
    path.write_bytes(model.read_bytes())
    lines = run("models").stdout.splitlines()
    assert len(lines) == len(json.loads(run("models", "--json").stdout)["models"])
    assert any(line.startswith("  org/tiny/a\\nb ") for line in lines)
