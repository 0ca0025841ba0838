"""Models that many tests share: tiny ones known exactly, and a real small one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from llama_cpp import Llama

from models import TinyModel, make_tiny_llama
from steerx_edge.errors import ModelError
from steerx_edge.learning.checkpoint import USER_PATH_VARIABLE
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.models import DEFAULT_PACKAGE, MODEL_VARIABLE, find_model

GGML_TYPE_F32 = 0  # of the KV cache, so that it agrees with the reference

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|{{ message.role }}|>\n{{ message.content }}\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def open_tiny(model: TinyModel | Path, *, n_ctx: int = 512) -> Llama:
    """Open a tiny model on one thread, with a float32 KV cache."""
    path = model.path if isinstance(model, TinyModel) else model
    return Llama(
        str(path),
        n_ctx=n_ctx,
        n_threads=1,
        n_threads_batch=1,
        type_k=GGML_TYPE_F32,
        type_v=GGML_TYPE_F32,
        seed=1,
        verbose=False,
    )


@pytest.fixture(scope="session", autouse=True)
def _own_user_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is written where a person's own data lies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(USER_PATH_VARIABLE, str(tmp_path_factory.mktemp("user")))
        yield


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def tiny_f32(model_folder: Path) -> TinyModel:
    return make_tiny_llama(model_folder / "tiny-f32.gguf")


@pytest.fixture(scope="session")
def tiny_q8(model_folder: Path) -> TinyModel:
    return make_tiny_llama(model_folder / "tiny-q8.gguf", quantization="Q8_0")


@pytest.fixture(scope="session")
def tiny_chat(model_folder: Path) -> TinyModel:
    """Like `tiny_f32`, with a chat template."""
    return make_tiny_llama(
        model_folder / "tiny-chat.gguf", chat_template=CHAT_TEMPLATE, name="tiny-chat"
    )


@pytest.fixture
def open_llama() -> Iterator[Callable[..., Llama]]:
    """`open_tiny`, with what it opened closed after the test."""
    opened: list[Llama] = []

    def open_one(model: TinyModel | Path, *, n_ctx: int = 512) -> Llama:
        opened.append(open_tiny(model, n_ctx=n_ctx))
        return opened[-1]

    yield open_one
    for llama in opened:
        llama.close()


@pytest.fixture
def tiny_llama(open_llama: Callable[..., Llama], tiny_f32: TinyModel) -> Llama:
    """The F32 model, without a chat template; a new one for each test."""
    return open_llama(tiny_f32)


@pytest.fixture
def tiny_engine(tiny_llama: Llama) -> Engine:
    return Engine(tiny_llama)


@pytest.fixture
def tiny_chat_llama(open_llama: Callable[..., Llama], tiny_chat: TinyModel) -> Llama:
    """The same weights with a chat template; a new one for each test."""
    return open_llama(tiny_chat)


@pytest.fixture
def tiny_chat_engine(tiny_chat_llama: Llama) -> Engine:
    return Engine(tiny_chat_llama)


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct of the installed default package, whatever the environment says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(MODEL_VARIABLE, raising=False)
        try:
            return find_model()
        except ModelError:
            pytest.skip(f"{DEFAULT_PACKAGE} is not installed")


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Path) -> Iterator[Llama]:
    """One for the whole session: leave it unsteered.

    One thread: llama.cpp's threads spin at each node, which on a busy machine takes seconds.
    """
    llama = Llama(
        str(smollm2_path),
        n_ctx=1024,
        n_threads=1,
        n_threads_batch=1,
        seed=1,
        verbose=False,
    )
    yield llama
    llama.close()


@pytest.fixture(scope="session")
def smollm2_engine(smollm2: Llama) -> Engine:
    return Engine(smollm2)
