"""A server of the tiny chat model with three profiles, for all tests that do not change it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from llama_cpp import Llama

from models import TinyModel
from steerx_edge.llamacpp.engine import load_llama
from tests.apps.server.fuzz import save_profiles
from tests.support.server import Server


def fresh_llama(model: TinyModel) -> Llama:
    """As the server opens it."""
    return load_llama(model.path, n_ctx=512, n_threads=1, n_gpu_layers=0, seed=1)


@pytest.fixture(scope="session")
def profiles(tiny_chat: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As of `save_profiles`."""
    folder = tmp_path_factory.mktemp("profiles")
    save_profiles(tiny_chat.path, folder)
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
