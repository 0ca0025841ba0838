"""What is built on in llama-cpp-python and llama.cpp without being public API: a test for each."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from llama_cpp import Llama

from models import ARCHITECTURES, TinyModel, make_tiny
from steerx_edge.llamacpp import compat
from tests.conftest import CHAT_TEMPLATE, open_tiny
from tests.support.steered_llama import last_logits, reset

TOKENS = [5, 9, 17, 33, 65]


@pytest.fixture
def evaluated(tiny_llama: Llama) -> list[list[int]]:
    """What the model evaluates from now on."""
    calls: list[list[int]] = []
    own = tiny_llama.eval

    def evaluate(tokens: Sequence[int]) -> None:
        calls.append(list(tokens))
        own(tokens)

    compat.replace_methods(tiny_llama, eval=evaluate)
    return calls


def first_of(llama: Llama, tokens: Sequence[int]) -> int:
    with closing(llama.generate(tokens, temp=0.0)) as stream:
        return next(stream)


def test_a_llama_has_what_is_read_of_it(tiny_llama: Llama) -> None:
    names = {"cache", "context_params", "ctx", "draft_model", "input_ids", "metadata", "model"}
    names |= {"model_params", "model_path", "n_threads_batch", "n_tokens"}
    assert {name for name in names if not hasattr(tiny_llama, name)} == set()
    assert hasattr(tiny_llama.model_params, "n_gpu_layers")


def test_context_params_have_what_is_set(tiny_llama: Llama) -> None:
    names = {"cb_eval", "cb_eval_user_data", "embeddings", "kv_unified", "n_batch", "n_ctx"}
    names |= {"n_outputs_max", "n_outputs_max_per_seq", "n_seq_max", "n_threads", "n_ubatch"}
    names |= {"n_threads_batch", "pooling_type", "swa_full"}
    assert names - dict(tiny_llama.context_params._fields_).keys() == set()


def test_context_params_are_a_copy(tiny_llama: Llama) -> None:
    params = compat.context_params(tiny_llama)
    n_ctx, params.n_ctx = params.n_ctx, 1
    assert tiny_llama.context_params.n_ctx == n_ctx != 1


def test_find_functions() -> None:
    library = ctypes.CDLL(None, handle=llama_cpp.llama_cpp._lib._handle)
    assert library.llama_decode
    compat.find_functions()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in /proc")
def test_end_openmp_threads(tiny_f32: TinyModel) -> None:
    if not hasattr(llama_cpp.llama_cpp._lib, "omp_pause_resource_all"):
        pytest.skip("this llama.cpp was built without OpenMP 5")

    def n_threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    with closing(
        Llama(str(tiny_f32.path), n_ctx=64, n_threads=3, n_threads_batch=3, verbose=False)
    ) as llama:
        llama.eval(TOKENS)
        at_work = n_threads()
        compat.end_openmp_threads()
        assert n_threads() <= at_work - 2
        llama.eval(TOKENS)
        assert n_threads() == at_work


def test_before_model_is_freed(tiny_f32: TinyModel) -> None:
    llama, found = open_tiny(tiny_f32), []
    address = llama.model
    compat.before_model_is_freed(llama, lambda: found.append("first"))
    compat.before_model_is_freed(
        llama, lambda: found.append(llama_cpp.llama_model_n_layer(address))
    )
    llama.close()
    assert found == [tiny_f32.n_layer, "first"]
    assert llama.model is None


@pytest.mark.parametrize("n_ctx", [200, 512])
def test_most_tokens(open_llama: Callable[..., Llama], tiny_f32: TinyModel, n_ctx: int) -> None:
    llama = open_llama(tiny_f32, n_ctx=n_ctx)
    assert llama.n_ctx() % 256 == 0
    assert compat.most_tokens(llama) == n_ctx
    llama.eval(np.resize(TOKENS, n_ctx).tolist())
    assert llama.n_tokens == n_ctx


@pytest.mark.parametrize("quantization", ["F32", "Q8_0"])
def test_kind_of_model(tmp_path: Path, smollm2: Llama, quantization: Any) -> None:
    path = tmp_path / "tiny.gguf"
    with closing(open_tiny(make_tiny(path, "qwen3", quantization=quantization))) as llama:
        assert compat.kind_of_model(llama) == ("qwen3", quantization)
    architecture, mixture = compat.kind_of_model(smollm2)
    assert architecture == "llama"
    assert mixture.startswith("Q4_")


def test_chat_formatter() -> None:
    template = CHAT_TEMPLATE + "{{ bos_token }}{{ eos_token }}"
    form = compat.chat_formatter(template, bos="<b>", eos="<e>")
    said = form(messages=[{"role": "user", "content": "Hello"}])
    assert said.prompt == "<|user|>\nHello\n<|assistant|>\n<b><e>"


@pytest.mark.parametrize("architecture", ["qwen3", "qwen3moe"])
def test_may_stop_early(tmp_path: Path, architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_tiny(make_tiny(tmp_path / "tiny.gguf", architecture))) as llama:
        for offloads in (False, True):
            monkeypatch.setattr(llama_cpp, "llama_supports_gpu_offload", lambda of=offloads: of)
            assert compat.may_stop_early(llama) == (not offloads or architecture == "qwen3")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_logits_with_rows(tmp_path: Path, architecture: str) -> None:
    with closing(open_tiny(make_tiny(tmp_path / "tiny.gguf", architecture))) as llama:
        llama.eval(TOKENS)
        usual = last_logits(llama)
        reset(llama)
        llama_cpp.llama_set_embeddings(llama.ctx, True)
        try:
            llama.eval(TOKENS)
            has_logits = np.allclose(last_logits(llama), usual, atol=1e-3)
        except (RuntimeError, ValueError):
            has_logits = False
    assert has_logits == (architecture not in compat.NO_LOGITS_WITH_ROWS)


def test_generate_options(tiny_llama: Llama, evaluated: list[list[int]]) -> None:
    values: dict[str, Any] = {"reset": False, "temp": 0.0}
    tiny_llama.eval(TOKENS[:2])
    usual = {"top_k": 40, "top_p": 0.95, "min_p": 0.05, "typical_p": 1.0, "repeat_penalty": 1.0}
    n_given = max(map(compat.GENERATE_OPTIONS.index, values)) + 1
    given = [{**usual, **values}[name] for name in compat.GENERATE_OPTIONS[:n_given]]
    with closing(tiny_llama.generate(TOKENS[2:], *given)) as stream:
        next(stream)
    assert evaluated == [TOKENS[:2], TOKENS[2:]]  # it was not reset
    assert "logits_processor" in compat.GENERATE_OPTIONS


def test_replace_methods(tiny_llama: Llama) -> None:
    calls: list[str] = []
    own_generate, own_eval = tiny_llama.generate, tiny_llama.eval

    def generate(tokens: Sequence[int], **options: Any) -> Iterator[int]:
        calls.append(f"generate {len(tokens)}")
        return own_generate(tokens, **options)

    def evaluate(tokens: Sequence[int]) -> None:
        calls.append(f"eval {len(tokens)}")
        own_eval(tokens)

    replaced = compat.replace_methods(tiny_llama, generate=generate, eval=evaluate)
    tiny_llama.create_completion(TOKENS, max_tokens=2, temperature=0.0)
    assert calls == ["generate 5", "eval 5", "eval 1"]
    compat.restore_methods(tiny_llama, replaced)
    tiny_llama.create_completion(TOKENS[:3], max_tokens=2, temperature=0.0)
    assert len(calls) == 3
    assert not {"generate", "eval"} & vars(tiny_llama).keys()


def test_evaluate_anew(tiny_llama: Llama, evaluated: list[list[int]]) -> None:
    token = first_of(tiny_llama, TOKENS)
    evaluated.clear()
    assert first_of(tiny_llama, TOKENS) == token
    assert evaluated == [[]]  # it is sampled from the logits that are there
    evaluated.clear()
    compat.evaluate_anew(tiny_llama)
    assert first_of(tiny_llama, TOKENS) == token
    assert evaluated == [TOKENS[-1:]]


def test_forget_from(tiny_llama: Llama) -> None:
    tiny_llama.eval(TOKENS)
    expected = last_logits(tiny_llama)
    tiny_llama.eval([7, 8, 9])
    compat.forget_from(tiny_llama, 2)
    tiny_llama.eval(TOKENS[2:])
    np.testing.assert_allclose(last_logits(tiny_llama), expected, atol=1e-4)
    memory = llama_cpp.llama_get_memory(tiny_llama.ctx)
    assert llama_cpp.llama_memory_seq_pos_max(memory, 0) == len(TOKENS) - 1


def test_hide_from(tiny_llama: Llama, evaluated: list[list[int]]) -> None:
    token = first_of(tiny_llama, TOKENS)
    evaluated.clear()
    compat.hide_from(tiny_llama, 2)
    assert first_of(tiny_llama, TOKENS) == token
    assert evaluated == [TOKENS[2:]]


def test_installed_version() -> None:
    assert compat.installed_version() == llama_cpp.__version__


def test_devices_have_a_name_and_memory() -> None:
    devices = compat.devices()
    assert devices
    assert any(device.startswith("CPU: ") for device in devices)
    assert all(int(device.split()[-2]) > 0 and device.endswith(" GB") for device in devices)


def test_the_installed_version_is_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compat.is_tested_version()
    monkeypatch.setattr(llama_cpp, "__version__", "0.2.99")
    assert not compat.is_tested_version()
