"""-hf: which file of a repository is taken, and that it is downloaded once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from models import TinyModel
from steerx_edge.errors import ModelError
from steerx_edge.llamacpp.hub import chosen_file
from tests.support.hub_server import serving

FILES = ["README.md", "a-Q8_0.gguf", "a-Q4_K_M.gguf", "mmproj-a-Q4_K_M.gguf"]
PARTS = ["UD/b-Q2_K-00002-of-00002.gguf", "UD/b-Q2_K-00001-of-00002.gguf"]


@pytest.mark.parametrize(
    ("files", "quantization", "file"),
    [
        (FILES, "", "a-Q4_K_M.gguf"),
        (FILES, "q8_0", "a-Q8_0.gguf"),
        (["b-Q6_K.gguf", "a-Q8_0.gguf"], "", "a-Q8_0.gguf"),
        (["plain.gguf"], "", "plain.gguf"),
        (PARTS, "Q2_K", PARTS[1]),
    ],
)
def test_the_file_that_is_taken(files: Sequence[str], quantization: str, file: str) -> None:
    assert chosen_file(files, quantization, "a/b") == file


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (FILES, "'a/b:Q5' has no such GGUF file. It has Q4_K_M, Q8_0."),
        (["x.safetensors"], "no such GGUF file. It has no GGUF files that name"),
    ],
)
def test_a_file_that_is_not_there(files: Sequence[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        chosen_file(files, "Q5", "a/b:Q5")


def run(folder: Path, address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "steerx_edge", *arguments],
        env=os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(folder)},
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )


def test_it_is_downloaded_once_and_found_afterwards(tmp_path: Path, tiny_f32: TinyModel) -> None:
    data = tiny_f32.path.read_bytes()
    files = {"a-Q8_0.gguf": data, "a-Q4_K_M.gguf": data + bytes(64), "README.md": b"x"}
    with serving("org/a-GGUF", files) as (address, asked):
        first = run(tmp_path, address, "models", "-hf", "org/a-GGUF:Q8_0")
        assert first.returncode == 0, first.stderr
        assert "Using org/a-GGUF/a-Q8_0.gguf." in first.stderr
        (line,) = [line for line in first.stdout.splitlines() if line.startswith("*")]
        path = Path(line.split()[-1])
        assert path.read_bytes() == data
        again = run(tmp_path, address, "models", "-hf", "org/a-GGUF:Q8_0")
        assert again.stdout == first.stdout
    assert asked.count("GET /org/a-GGUF/resolve/main/a-Q8_0.gguf") == 1
    assert not [each for each in asked if "Q4_K_M" in each]
    # The server is gone now.
    offline = run(tmp_path, address, "models", "-hf", "org/a-GGUF")
    assert f"Hugging Face cannot be reached; using {path}." in offline.stderr
    assert "org/a-GGUF:Q8_0" in run(tmp_path, address, "models").stdout
    missing = run(tmp_path, address, "models", "-hf", "org/other")
    assert missing.returncode == 1
    assert "Error: 'org/other' cannot be downloaded from Hugging Face:" in missing.stderr
    assert "Traceback" not in missing.stderr


def test_a_repository_that_does_not_exist(tmp_path: Path) -> None:
    with serving("org/a", {}) as (address, _):
        result = run(tmp_path, address, "models", "-hf", "org/b")
    assert result.returncode == 1
    assert "Error: 'org/b' cannot be downloaded from Hugging Face: 404" in result.stderr


def test_without_huggingface_hub_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "huggingface_hub.py").write_text("raise ImportError")
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    result = run(tmp_path, "", "generate", "--profile", "me.json", "-p", "hi", "-hf", "org/a")
    assert (result.returncode, result.stderr) == (
        1,
        "Error: -hf needs the package huggingface-hub: pip install 'steerx-edge[hub]'.\n",
    )


@pytest.mark.parametrize("repository", ["a", "a/b/c", "a/b:", "https://huggingface.co/a/b", "ä/b"])
def test_the_form_of_a_repository(tmp_path: Path, repository: str) -> None:
    result = run(tmp_path, "", "models", "-hf", repository)
    assert result.returncode == 2
    assert "is not of the form user/repo or user/repo:Q4_K_M." in result.stderr
