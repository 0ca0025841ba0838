"""`steerx-edge serve` where it does not come to serve: one sentence, and the exit status."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

import steerx_edge
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


CONNECTS = """
import os, pathlib, re, socket, sys
from steerx_edge.apps.server.serving import serve
from steerx_edge.apps.server.work import ModelOptions

def connect(said):
    if found := re.fullmatch(r"Listening on http://127.0.0.1:([0-9]+)", said):
        socket.create_connection(("127.0.0.1", int(found[1])), 10)
        os._exit(7)

if __name__ == "__main__":
    options = ModelOptions(sys.argv[1], pathlib.Path(sys.argv[2]), n_ctx=512, n_threads=1)
    serve(options, "127.0.0.1", 0, None, connect)
"""


def test_a_program_may_connect_as_soon_as_it_is_told(tmp_path: Path, tiny_chat: TinyModel) -> None:
    (tmp_path / "connects.py").write_text(CONNECTS, "utf-8")
    command = [sys.executable, *map(str, (tmp_path / "connects.py", tiny_chat.path, tmp_path))]
    root = Path(steerx_edge.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 7, done.stderr


def test_the_extra_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "steerx_edge.apps.server.serving", raising=False)
    said = refused(["--profiles", str(tmp_path)], 1)
    assert said == "The server needs the package 'uvicorn': pip install 'steerx-edge[server]'."
