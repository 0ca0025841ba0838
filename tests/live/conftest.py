"""A tiny model with any options of `Llama`, and what it generates unsteered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_cpp import Llama

from models import TinyModel
from tests.conftest import GGML_TYPE_F32
from tests.support.steered_llama import TEXT, greedy


@pytest.fixture
def open_with(tiny_f32: TinyModel) -> Iterator[Callable[..., Llama]]:
    """Opens the tiny F32 model, or another, with any options of `Llama`."""
    opened: list[Llama] = []

    def open_one(model: TinyModel = tiny_f32, **options: Any) -> Llama:
        defaults: dict[str, Any] = {
            "n_ctx": 256,
            "n_threads": 1,
            "n_threads_batch": 1,
            "type_k": GGML_TYPE_F32,
            "type_v": GGML_TYPE_F32,
            "verbose": False,
        }
        opened.append(Llama(str(model.path), **{**defaults, **options}))
        return opened[-1]

    yield open_one
    for llama in opened:
        llama.close()


@pytest.fixture
def llama(open_with: Callable[..., Llama]) -> Llama:
    return open_with()


@pytest.fixture
def prompt(llama: Llama) -> list[int]:
    return llama.tokenize(TEXT.encode())


@pytest.fixture
def unsteered(open_with: Callable[..., Llama], prompt: list[int]) -> list[int]:
    """What a model that was never steered generates."""
    return greedy(open_with(), prompt)


@pytest.fixture
def evaluated(llama: Llama, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """First position and number of tokens of each batch that is evaluated from here on."""
    batches: list[tuple[int, int]] = []
    from llama_cpp.llama_cpp import llama_decode

    def recorded(ctx: Any, batch: Any) -> int:
        if ctx == llama.ctx:
            batches.append((batch.pos[0], batch.n_tokens))
        return int(llama_decode(ctx, batch))

    monkeypatch.setattr("llama_cpp.llama_cpp.llama_decode", recorded)
    return batches
