"""The NumPy reference of the tiny models says what llama.cpp computes."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt
import pytest
from llama_cpp._ggml import libggml

from models import ARCHITECTURES, QUANTIZATIONS, REFERENCED, TinyModel, make_tiny, make_tiny_llama
from models.gemma3 import Gemma3
from models.gguf_file import Quantization

TEXT = (
    "Alice was late again, and the White Rabbit's watch said so: "
    '"Oh dear!" (it was 7 o\'clock, é🐇)\nShe ran on.'
) * 3

# float64 here against float32 there: 6e-5 at most over 8 seeds, and logits deviate by 2.
F32_MAX = 1e-4
# llama.cpp rounds activations before each product, as it rounds the matrices' weights, and the
# reference does not. Over 8 seeds and all architectures that moves the median logit by 0.003 at
# most in F16 files and by 0.067 in the others. (Rounding the reference's activations too takes the
# difference to 1e-7 where no value falls on the other side of a rounding boundary.)
QUANTIZED_MEDIAN = {"F16": 0.004, "Q8_0": 0.08, "Q4_0": 0.08, "Q4_K": 0.08}
# The farthest logit or residual component was off by 0.025 in F16 files, by 0.75 in the others.
# There is no such bound where experts are mixed: a token may go to another one, and all is changed.
QUANTIZED_MAX = {"F16": 0.04, "Q8_0": 1.0, "Q4_0": 1.0, "Q4_K": 1.0}

# Half of all combinations: neighbours in the lists take turns.
QUANTIZED = [
    (architecture, quantization)
    for i, architecture in enumerate(REFERENCED)
    for j, quantization in enumerate(QUANTIZED_MEDIAN)
    if (i + j) % 2 == 0
]
FILES = [
    (architecture, quantization)
    for i, architecture in enumerate(ARCHITECTURES)
    for j, quantization in enumerate(QUANTIZATIONS)
    if (i + j) % 2 == 0
]


def shape_for(quantization: Quantization) -> dict[str, Any]:
    """The default, or one that holds blocks of 256 and keeps the file small."""
    return {"n_layer": 2, "n_embd": 256} if quantization == "Q4_K" else {}


def load(model: TinyModel) -> llama_cpp.Llama:
    return llama_cpp.Llama(
        str(model.path),
        n_ctx=256,
        logits_all=True,
        verbose=False,
        n_threads=1,
        n_threads_batch=1,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        flash_attn=False,
    )


def llama_logits(llama: llama_cpp.Llama, tokens: list[int]) -> npt.NDArray[np.float32]:
    llama.reset()  # type: ignore[no-untyped-call]
    llama.eval(tokens)
    return llama.scores[: len(tokens)]


def llama_residual(
    llama: llama_cpp.Llama, model: TinyModel, tokens: list[int]
) -> npt.NDArray[np.float32]:
    """Read `l_out-<layer>` of every layer out of a context of its own."""
    libggml.ggml_get_name.argtypes = [ctypes.c_void_p]
    libggml.ggml_get_name.restype = ctypes.c_char_p
    libggml.ggml_backend_tensor_get.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_size_t] * 2
    libggml.ggml_backend_tensor_get.restype = None
    residual = np.full((model.n_layer, len(tokens), model.n_embd), np.nan, dtype=np.float32)

    @llama_cpp.ggml_backend_sched_eval_callback  # type: ignore[untyped-decorator]
    def read(tensor: int, ask: bool, _: int | None) -> bool:
        name, _, layer = libggml.ggml_get_name(tensor).decode().rpartition("-")
        if name == "l_out" and not ask:
            rows = residual[int(layer)]
            libggml.ggml_backend_tensor_get(tensor, rows.ctypes.data, 0, rows.nbytes)
        return name == "l_out" or not ask

    parameters = type(llama.context_params).from_buffer_copy(llama.context_params)
    parameters.cb_eval = read
    context = llama_cpp.llama_init_from_model(llama.model, parameters)
    batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
    try:
        batch.n_tokens = len(tokens)
        for position, token in enumerate(tokens):
            batch.token[position] = token
            batch.pos[position] = position
            batch.n_seq_id[position] = 1
            batch.seq_id[position][0] = 0
            batch.logits[position] = True
        assert llama_cpp.llama_decode(context, batch) == 0
    finally:
        llama_cpp.llama_batch_free(batch)
        llama_cpp.llama_free(context)
    return residual


def set_control_vector(
    llama: llama_cpp.Llama, model: TinyModel, steering: dict[int, npt.NDArray[np.float32]]
) -> None:
    directions = np.zeros((model.n_layer - 1, model.n_embd), dtype=np.float32)
    for layer, vector in steering.items():
        directions[layer - 1] = vector
    status = llama_cpp.llama_set_adapter_cvec(
        llama.ctx,
        directions.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
        directions.size,
        model.n_embd,
        1,
        model.n_layer - 1,
    )
    assert status == 0


@pytest.fixture(scope="module", params=REFERENCED)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return make_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf", request.param)


@pytest.fixture(scope="module")
def llama(model: TinyModel) -> llama_cpp.Llama:
    return load(model)


@pytest.fixture(scope="module")
def tokens(llama: llama_cpp.Llama) -> list[int]:
    return llama.tokenize(TEXT.encode())


def test_any_text_survives_tokenization(llama: llama_cpp.Llama, tokens: list[int]) -> None:
    starts_with_bos = tokens[0] == llama.token_bos()
    assert llama.metadata["tokenizer.ggml.add_bos_token"] == str(starts_with_bos).lower()
    assert llama.detokenize(tokens).decode() == TEXT
    assert len(tokens) < len(TEXT)


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_frequent_words_are_one_token(tmp_path: Path, architecture: str) -> None:
    llama = load(make_tiny(tmp_path / "tiny.gguf", architecture))
    tokens = llama.tokenize(b"Alice was to her")
    assert [llama.detokenize([token], tokens[:1]) for token in tokens[-3:]] == [
        b" was",
        b" to",
        b" her",
    ]


def test_logits_and_residual(model: TinyModel, llama: llama_cpp.Llama, tokens: list[int]) -> None:
    expected = model.forward(tokens)
    assert expected.logits.shape == (len(tokens), model.n_vocab)
    assert expected.residual.shape == (model.n_layer, len(tokens), model.n_embd)
    actual = llama_logits(llama, tokens), llama_residual(llama, model, tokens)
    np.testing.assert_allclose(actual[0], expected.logits, rtol=0, atol=F32_MAX)
    np.testing.assert_allclose(actual[1], expected.residual, rtol=0, atol=F32_MAX)


def test_log_probabilities(model: TinyModel, llama: llama_cpp.Llama, tokens: list[int]) -> None:
    logits = llama_logits(llama, tokens)
    expected = [
        logits[t, token] - np.logaddexp.reduce(logits[t]) for t, token in enumerate(tokens[1:])
    ]
    np.testing.assert_allclose(model.log_probabilities(tokens), expected, rtol=0, atol=F32_MAX)


def test_other_shapes(model: TinyModel, tokens: list[int], tmp_path: Path) -> None:
    architecture = model.network.architecture
    other = make_tiny(tmp_path / "tiny.gguf", architecture, seed=1, n_layer=2, n_embd=96)
    logits = llama_logits(load(other), tokens)
    np.testing.assert_allclose(logits, other.forward(tokens).logits, rtol=0, atol=F32_MAX)


@pytest.mark.parametrize(("architecture", "quantization"), QUANTIZED)
def test_quantized(tmp_path: Path, architecture: str, quantization: Quantization) -> None:
    shape = shape_for(quantization)
    exact = make_tiny(tmp_path / "exact.gguf", architecture, **shape)
    quantized = make_tiny(tmp_path / "tiny.gguf", architecture, quantization=quantization, **shape)
    llama = load(quantized)
    tokens = llama.tokenize(TEXT.encode())
    logits = llama_logits(llama, tokens)

    expected = quantized.forward(tokens)
    error = np.abs(logits - expected.logits)
    assert np.median(error) < QUANTIZED_MEDIAN[quantization]
    assert np.median(error) < np.median(np.abs(logits - exact.forward(tokens).logits))
    if architecture != "qwen3moe":
        assert error.max() < QUANTIZED_MAX[quantization]
        residual = llama_residual(llama, quantized, tokens)
        assert np.abs(residual - expected.residual).max() < QUANTIZED_MAX[quantization]


@pytest.mark.parametrize("layers", [(1,), (2, 3)])
def test_control_vector(model: TinyModel, tokens: list[int], layers: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    steering = {layer: rng.standard_normal(model.n_embd, dtype=np.float32) for layer in layers}
    llama = load(model)
    set_control_vector(llama, model, steering)

    expected = model.forward(tokens, steering)
    unsteered = model.forward(tokens)

    np.testing.assert_allclose(llama_logits(llama, tokens), expected.logits, rtol=0, atol=F32_MAX)
    assert np.abs(expected.logits - unsteered.logits).max() > 1
    first = layers[0]
    np.testing.assert_array_equal(expected.residual[:first], unsteered.residual[:first])
    np.testing.assert_array_equal(
        expected.residual[first], unsteered.residual[first] + steering[first]
    )


def test_prompts_longer_than_the_sliding_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_tiny(tmp_path / "tiny.gguf", "gemma3")
    llama = load(model)
    tokens = llama.tokenize(TEXT.encode())
    window = Gemma3.window
    assert len(tokens) > 4 * window
    logits = llama_logits(llama, tokens)
    np.testing.assert_allclose(logits, model.forward(tokens).logits, rtol=0, atol=F32_MAX)

    monkeypatch.setattr(Gemma3, "window", len(tokens))
    without = model.forward(tokens).logits
    np.testing.assert_allclose(logits[:window], without[:window], rtol=0, atol=F32_MAX)
    assert np.abs(logits[window:] - without[window:]).max(axis=1).min() > 0.01


def test_steered_rows_reach_only_later_tokens(model: TinyModel, tokens: list[int]) -> None:
    rows = np.zeros((len(tokens), model.n_embd))
    rows[5] = 1.0
    steered, unsteered = model.forward(tokens, {1: rows}), model.forward(tokens)
    np.testing.assert_array_equal(steered.logits[:5], unsteered.logits[:5])
    assert np.abs(steered.logits[5:] - unsteered.logits[5:]).max(axis=1).min() > 0


def test_weights_are_lively(model: TinyModel, tokens: list[int]) -> None:
    trace = model.forward(tokens)
    assert 1 < trace.logits.std() < 3
    norms = np.median(np.linalg.norm(trace.residual, axis=-1), axis=1)
    assert np.all(np.diff(norms) > 1)


@pytest.mark.parametrize(("architecture", "quantization"), FILES)
def test_files_are_small_and_reproducible(
    tmp_path: Path, architecture: str, quantization: Quantization
) -> None:
    def contents(seed: int) -> bytes:
        path, shape = tmp_path / "tiny.gguf", shape_for(quantization)
        make_tiny(path, architecture, quantization=quantization, seed=seed, **shape)
        return path.read_bytes()

    first = contents(seed=0)
    assert len(first) < 2_000_000
    assert contents(seed=0) == first
    assert contents(seed=1) != first


@pytest.mark.parametrize(("architecture", "quantization"), FILES)
def test_every_file_evaluates(
    tmp_path: Path, architecture: str, quantization: Quantization
) -> None:
    shape = shape_for(quantization)
    model = make_tiny(tmp_path / "tiny.gguf", architecture, quantization=quantization, **shape)
    llama = load(model)
    tokens = llama.tokenize(b"Alice was beginning")
    assert llama.metadata["general.architecture"] == architecture
    assert llama.n_vocab() == model.n_vocab
    assert llama.n_embd() == model.n_embd
    assert 1 < llama_logits(llama, tokens).std() < 3
    residual = llama_residual(llama, model, tokens)
    norms = np.median(np.linalg.norm(residual, axis=-1), axis=1)
    assert np.all(np.diff(norms) > 0)


@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - set(REFERENCED)))
def test_a_model_without_a_reference_says_so(tmp_path: Path, architecture: str) -> None:
    model = make_tiny(tmp_path / "tiny.gguf", architecture)
    with pytest.raises(NotImplementedError, match=f"{architecture} has no reference"):
        model.forward([1, 2])


def test_make_tiny_llama_is_a_short_name(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"quantization": "Q8_0", "seed": 3, "n_layer": 2, "n_embd": 32}
    short = make_tiny_llama(tmp_path / "short.gguf", **arguments)
    long = make_tiny(tmp_path / "long.gguf", "llama", **arguments)
    assert short.path.read_bytes() == long.path.read_bytes()


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such architecture: 'gpt5'.*qwen3"):
        make_tiny(tmp_path / "tiny.gguf", "gpt5")
    assert not list(tmp_path.iterdir())


def test_metadata(tmp_path: Path) -> None:
    template = "{% for message in messages %}{{ message.content }}\n{% endfor %}"
    model = make_tiny_llama(tmp_path / "llama.gguf", chat_template=template, name="a name")
    metadata = load(model).metadata
    assert metadata["tokenizer.chat_template"] == template
    assert metadata["general.name"] == "a name"


@pytest.mark.parametrize("layer", [-1, 4])
def test_steering_a_layer_that_is_not_there_is_refused(model: TinyModel, layer: int) -> None:
    with pytest.raises(ValueError, match=f"no such layers.*{layer}"):
        model.forward([1], {layer: np.ones(model.n_embd)})


def test_a_width_that_cannot_be_quantized_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="multiple of 32: 48"):
        make_tiny_llama(tmp_path / "llama.gguf", n_embd=48)
    with pytest.raises(ValueError, match=r"64.* not a multiple of Q4_K block"):
        make_tiny_llama(tmp_path / "llama.gguf", quantization="Q4_K")
    assert not list(tmp_path.iterdir())
