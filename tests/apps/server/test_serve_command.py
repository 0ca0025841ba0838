"""`steerx-edge serve` where it does not come to serve: one sentence, and the exit status."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from models import TinyModel
from steerx_edge.apps.cli import main


def refused(arguments: Sequence[str], status: int) -> str:
    """The sentence on standard error."""
    result = CliRunner().invoke(main, ["serve", *arguments])
    assert result.exit_code == status, result.output
    return result.stderr.splitlines()[-1].removeprefix("Error: ")


def test_other_machines_need_a_key(tmp_path: Path) -> None:
    said = refused(["--profiles", str(tmp_path), "--host", "0.0.0.0"], 2)  # noqa: S104
    assert said == "--host 0.0.0.0 lets other machines in, so it needs --api-key."


def test_the_profiles_are_in_a_folder(tmp_path: Path) -> None:
    assert "is not a folder" in refused(["--profiles", str(tmp_path / "me.json")], 2)


@pytest.mark.parametrize("alias", ["", "a@b", "a\nb"])
def test_an_alias_is_a_name(tmp_path: Path, alias: str) -> None:
    assert "--alias" in refused(["--profiles", str(tmp_path), "--alias", alias], 2)


def test_the_model_is_one(tmp_path: Path) -> None:
    arguments = ["--profiles", str(tmp_path), "--port", "0", "-m", str(tmp_path / "no.gguf")]
    assert "cannot be read" in refused(arguments, 1)


def test_the_address_is_free(tmp_path: Path, tiny_chat: TinyModel) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = ["--profiles", str(tmp_path), "--port", port, "-m", str(tiny_chat.path)]
        assert f"127.0.0.1:{port}: Address already in use" in refused(arguments, 1)


def test_the_extra_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "steerx_edge.apps.server.serving", raising=False)
    said = refused(["--profiles", str(tmp_path)], 1)
    assert said == "The server needs the package 'uvicorn': pip install 'steerx-edge[server]'."
