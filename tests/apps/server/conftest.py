"""A server of the tiny chat model with three profiles, for all tests that do not change it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from llama_cpp import Llama

from models import TinyModel
from steerx_edge.llamacpp.engine import load_llama
from tests.support.server import Server
from tests.support.steered_llama import a_profile, insisting, knowing

SECRET = (305, 310, 311, 320)
"""What the memory of `eve` insists on."""


def fresh_llama(model: TinyModel) -> Llama:
    """As the server opens it."""
    return load_llama(model.path, n_ctx=512, n_threads=1, n_gpu_layers=0, seed=1)


@pytest.fixture(scope="session")
def profiles(tiny_chat: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A direction (ann); one with a memory and a bias (bob); a memory that knows a secret (eve)."""
    folder = tmp_path_factory.mktemp("profiles")
    with closing(fresh_llama(tiny_chat)) as llama:
        a_profile(llama, seed=1).save(folder / "ann.json")
        knowing(llama, strength=1.0).save(folder / "bob.json")
        insisting(llama, SECRET).save(folder / "eve.json")
    return folder


@pytest.fixture(scope="session")
def start(
    tiny_chat: TinyModel, profiles: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Server]]:
    """Starts a server with further options."""
    started: list[Server] = []

    def start_one(*options: str, folder: Path = profiles, n_ctx: int = 512) -> Server:
        log = tmp_path_factory.mktemp("server") / "log"
        started.append(Server(tiny_chat.path, folder, log, *options, n_ctx=n_ctx))
        return started[-1]

    yield start_one
    for server in started:
        server.close()


@pytest.fixture(scope="session")
def server(start: Callable[..., Server]) -> Server:
    return start()
