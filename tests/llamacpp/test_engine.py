"""One loaded model: opening, tokens, generation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_cpp import Llama
from numpy.typing import NDArray

from models import TinyModel
from steerx_edge.errors import ModelError
from steerx_edge.llamacpp import engine as engine_module
from steerx_edge.llamacpp.engine import Engine, llama_seed
from steerx_edge.llamacpp.interventions import Add
from steerx_edge.llamacpp.requests import ScoreRequest

TOKENS = [int(token) for token in np.random.default_rng(1).integers(3, 448, size=30)]

TEXTS = [
    "Alice was late again.",
    "na\u00efve caf\u00e9, \u6570\u5b66, \u05e9\u05dc\u05d5\u05dd",
    "\N{RABBIT}\N{RABBIT FACE} and \U0001f3f3\ufe0f\u200d\U0001f308!",
    "tabs\tand\r\nnew\n\n\nlines, a \x00 in between",
    "   spaces   everywhere  ",
    "<s> </s> <|im_start|>user <|im_end|> <|endoftext|> <unk> <0x0A>",
    "=" * 300 + " " * 300,
]


# Opening


@pytest.mark.parametrize("kind", [str, Path])
def test_a_model_is_opened_from_its_path(
    tiny_f32: TinyModel, kind: Callable[[Path], str | Path]
) -> None:
    engine = Engine(kind(tiny_f32.path), n_ctx=256, n_threads=1, seed=3)
    assert engine.llama.n_ctx() == 256
    assert (engine.llama.n_threads, engine.llama.n_threads_batch) == (1, 1)
    scores = engine.score(TOKENS[:10], TOKENS[10:])
    expected = tiny_f32.log_probabilities(TOKENS)[9:]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=0.02)  # the KV cache is float16
    engine.llama.close()


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"", "is not a GGUF file"),
        (b"PK\3\4", "is not a GGUF file"),
        (b"GGUF", "llama.cpp could not load .*damaged"),
        (b"GGUF" + bytes(100), "llama.cpp could not load .*damaged"),
    ],
)
def test_a_file_that_is_no_model_is_a_model_error(
    tmp_path: Path, contents: bytes | None, message: str
) -> None:
    path = tmp_path / "broken.gguf"
    if contents is not None:
        path.write_bytes(contents)
    with pytest.raises(ModelError, match=message):
        Engine(path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_truncated_model_is_a_model_error(
    tmp_path: Path, tiny_f32: TinyModel, share: float
) -> None:
    contents = tiny_f32.path.read_bytes()
    path = tmp_path / "truncated.gguf"
    path.write_bytes(contents[: int(share * len(contents))])
    with pytest.raises(ModelError, match=r"could not load .*damaged"):
        Engine(path)


def test_an_open_llama_is_shared(tiny_llama: Llama) -> None:
    assert Engine(tiny_llama).llama is tiny_llama


def test_the_analysis_is_made_when_first_needed(tiny_engine: Engine) -> None:
    assert tiny_engine._analysis is None
    analysis = tiny_engine.analysis
    assert tiny_engine.analysis is analysis


def test_the_analysis_fits_what_the_model_was_trained_for(tiny_engine: Engine) -> None:
    assert tiny_engine.analysis.n_ctx == 512


def test_the_analysis_is_bounded(monkeypatch: pytest.MonkeyPatch, tiny_engine: Engine) -> None:
    monkeypatch.setattr(engine_module, "ANALYSIS_CONTEXT", 100)
    assert tiny_engine.analysis.n_ctx == 100


def test_the_generation_context_does_not_bound_the_analysis(
    open_llama: Callable[..., Llama], tiny_f32: TinyModel
) -> None:
    tokens = TOKENS * 10
    llama = open_llama(tiny_f32, n_ctx=256)
    assert llama.n_ctx() < len(tokens)
    expected = tiny_f32.log_probabilities(tokens)[9:]
    scores = Engine(llama).score(tokens[:10], tokens[10:])
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4)


def test_scores_and_rows_are_those_of_a_pass(tiny_engine: Engine) -> None:
    added = (Add((1, 2), np.ones((2, 64), np.float32)),)
    weights = np.full((1, 21), 0.5, np.float32)
    context, response = TOKENS[:10], TOKENS[10:]

    def assert_equal(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        np.testing.assert_array_equal(actual, expected)

    steered = tiny_engine.run(ScoreRequest(context, response, interventions=added)).scored
    assert_equal(tiny_engine.score(context, response, interventions=added), steered)
    unsteered = tiny_engine.run(ScoreRequest(context, response)).scored
    assert_equal(tiny_engine.score(context, response), unsteered)
    assert np.abs(steered - unsteered).max() > 0.1

    rows = tiny_engine.run(ScoreRequest(context, response, layers=(1, 2))).captured
    assert_equal(tiny_engine.capture(context, response, [1, 2]), rows)
    pooled = tiny_engine.run(
        ScoreRequest(context, response, layers=(1, 2), weights=weights)
    ).captured
    assert_equal(tiny_engine.capture(context, response, [1, 2], weights=weights), pooled)


# Tokens


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_make_up_the_text(tiny_engine: Engine, text: str) -> None:
    pieces = tiny_engine.pieces(tiny_engine.tokenize(text))
    # This vocabulary, like llama's, puts a space before every text.
    assert b"".join(pieces) == b" " + text.encode()


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_make_up_the_text_of_a_real_model(smollm2_engine: Engine, text: str) -> None:
    tokens = smollm2_engine.tokenize(text)
    pieces = smollm2_engine.pieces(tokens)
    assert len(pieces) == len(tokens)
    assert b"".join(pieces) == text.encode()


def test_a_character_may_be_spread_over_pieces(smollm2_engine: Engine) -> None:
    pieces = smollm2_engine.pieces(smollm2_engine.tokenize("\N{RABBIT}"))
    assert len(pieces) > 1
    assert b"".join(pieces) == "\N{RABBIT}".encode()


def test_long_pieces_are_whole(smollm2_engine: Engine) -> None:
    """Some tokens are longer than the buffer that is tried first."""
    pieces = smollm2_engine.pieces(range(smollm2_engine.llama.n_vocab()))
    assert max(map(len, pieces)) > 64
    lines = [piece for piece in pieces if len(piece) > 64]
    assert all(smollm2_engine.tokenize(line.decode()) for line in lines)


def test_control_tokens_have_no_text(tiny_engine: Engine) -> None:
    llama = tiny_engine.llama
    assert tiny_engine.pieces([llama.token_bos(), llama.token_eos()]) == [b"", b""]


def test_no_text_has_no_tokens(tiny_engine: Engine) -> None:
    assert tiny_engine.tokenize("") == []
    assert tiny_engine.pieces([]) == []


def test_control_tokens_in_a_users_text_stay_text(tiny_engine: Engine) -> None:
    llama = tiny_engine.llama
    assert not {llama.token_bos(), llama.token_eos()} & set(tiny_engine.tokenize("<s>a</s>"))
    assert tiny_engine.raw_prompt("</s>") == [llama.token_bos(), llama.token_eos()]


def test_control_tokens_in_a_users_text_stay_text_in_a_real_model(smollm2_engine: Engine) -> None:
    engine = smollm2_engine
    (end,) = engine.raw_prompt("<|im_end|>")
    assert end not in engine.tokenize("Hi<|im_end|>")


@pytest.mark.parametrize("token", [448, 100_000, -1])
def test_a_token_that_is_not_in_the_vocabulary_is_a_model_error(
    tiny_engine: Engine, token: int
) -> None:
    with pytest.raises(ModelError, match=f"Token {token} is not in the model's vocabulary"):
        tiny_engine.pieces([5, token])


# Generation


def count(engine: Engine, prompt: list[int], **options: Any) -> int:
    """Tokens that are generated."""
    generated = 0
    real = engine.llama.generate

    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal generated
        for token in real(*args, **kwargs):
            generated += 1
            yield token

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.llama, "generate", counting)
        engine.generate(prompt, temperature=0, **options)
    return generated


def greedy(model: TinyModel, prompt: list[int], n: int) -> list[int]:
    """What the reference generates."""
    tokens = list(prompt)
    for _ in range(n):
        tokens.append(int(model.forward(tokens).logits[-1].argmax()))
    return tokens[len(prompt) :]


def test_greedy_generation_is_that_of_the_reference(
    tiny_engine: Engine, tiny_f32: TinyModel
) -> None:
    expected = b"".join(tiny_engine.pieces(greedy(tiny_f32, TOKENS, 12)))
    text = tiny_engine.generate(TOKENS, max_tokens=12, temperature=0)
    assert text == expected.decode(errors="ignore")
    assert len(text) > 8


def test_greedy_generation_is_the_same_each_time(
    tiny_engine: Engine, open_llama: Callable[..., Llama], tiny_f32: TinyModel
) -> None:
    options = {"max_tokens": 20, "temperature": 0}
    first = tiny_engine.generate(TOKENS, **options)
    assert tiny_engine.generate(TOKENS, seed=5, **options) == first
    assert Engine(open_llama(tiny_f32)).generate(TOKENS, seed=6, **options) == first


def test_sampling_follows_its_seed(tiny_engine: Engine) -> None:
    def sample(seed: int) -> str:
        return tiny_engine.generate(TOKENS, max_tokens=20, temperature=1.0, seed=seed)

    texts = [sample(seed) for seed in range(5)]
    assert [sample(seed) for seed in range(5)] == texts
    assert len(set(texts)) == 5


def test_sampling_follows_the_seed_of_the_engine(tiny_f32: TinyModel) -> None:
    def sample(seed: int) -> str:
        engine = Engine(tiny_f32.path, n_ctx=64, n_threads=1, seed=seed)
        return engine.generate(TOKENS, max_tokens=20, temperature=1.0)

    texts = [sample(seed) for seed in (1, 2, 3)]
    assert [sample(seed) for seed in (1, 2, 3)] == texts
    assert len(set(texts)) == 3


def test_without_a_seed_sampling_is_random(tiny_f32: TinyModel) -> None:
    texts = {
        Engine(tiny_f32.path, n_ctx=64, n_threads=1).generate(
            TOKENS, max_tokens=30, temperature=1.0
        )
        for _ in range(3)
    }
    assert len(texts) > 1


@pytest.mark.parametrize(
    ("seed", "expected"),
    [(0, 0), (7, 7), (-1, 0xFFFFFFFE), (0xFFFFFFFF, 0), (2**40 + 3, (2**40 + 3) % 0xFFFFFFFF)],
)
def test_seeds_as_llama_cpp_takes_them(seed: int, expected: int) -> None:
    assert llama_seed(seed) == expected


def test_no_seed_draws_one() -> None:
    seeds = {llama_seed(None) for _ in range(5)}
    assert len(seeds) == 5
    assert all(0 <= seed < 0xFFFFFFFF for seed in seeds)


def test_the_stream_is_the_text_in_pieces(tiny_engine: Engine) -> None:
    options = {"max_tokens": 20, "temperature": 0}
    pieces = list(tiny_engine.stream(TOKENS, **options))
    assert len(pieces) > 5
    assert "".join(pieces) == tiny_engine.generate(TOKENS, **options)


@pytest.mark.parametrize("max_tokens", [1, 2, 7])
def test_max_tokens_is_respected(tiny_engine: Engine, max_tokens: int) -> None:
    assert count(tiny_engine, TOKENS, max_tokens=max_tokens) == max_tokens


def test_no_tokens_may_be_asked_for(open_llama: Callable[..., Llama], tiny_f32: TinyModel) -> None:
    engine = Engine(open_llama(tiny_f32, n_ctx=256))
    assert count(engine, TOKENS * 8, max_tokens=0) == 0


@pytest.mark.parametrize("max_tokens", [-1, 100])
def test_generation_ends_where_the_context_does(
    open_llama: Callable[..., Llama], tiny_f32: TinyModel, max_tokens: int
) -> None:
    engine = Engine(open_llama(tiny_f32, n_ctx=256))
    full = engine.llama.n_ctx()
    prompt = TOKENS * 8
    assert count(engine, prompt, max_tokens=max_tokens) == full - len(prompt)


def test_a_prompt_may_leave_room_for_one_token(
    open_llama: Callable[..., Llama], tiny_f32: TinyModel
) -> None:
    engine = Engine(open_llama(tiny_f32, n_ctx=256))
    prompt = (TOKENS * 9)[: engine.llama.n_ctx() - 1]
    assert count(engine, prompt, max_tokens=-1) == 1


def test_a_context_that_is_no_multiple_of_256(
    open_llama: Callable[..., Llama], tiny_f32: TinyModel
) -> None:
    """llama.cpp rounds it up, llama-cpp-python's buffers stay as they were asked for."""
    engine = Engine(open_llama(tiny_f32, n_ctx=100))
    assert count(engine, TOKENS * 3, max_tokens=-1) == 10
    with pytest.raises(ModelError, match="120 tokens and the context 100"):
        engine.generate(TOKENS * 4)


@pytest.mark.parametrize("excess", [0, 1, 100])
def test_a_prompt_that_is_too_long_is_a_model_error(
    open_llama: Callable[..., Llama], tiny_f32: TinyModel, excess: int
) -> None:
    engine = Engine(open_llama(tiny_f32, n_ctx=256))
    prompt = (TOKENS * 20)[: engine.llama.n_ctx() + excess]
    with pytest.raises(ModelError, match=f"{len(prompt)} tokens and the context 256.* -c"):
        engine.generate(prompt)


def test_an_empty_prompt_is_a_model_error(tiny_engine: Engine) -> None:
    with pytest.raises(ModelError, match="prompt is empty"):
        tiny_engine.generate([], max_tokens=2)


def test_further_sampling_options_reach_llama_cpp_python(tiny_engine: Engine) -> None:
    token = 300
    text = tiny_engine.generate(TOKENS, max_tokens=3, temperature=0, logit_bias={token: 100})
    assert text.encode() == 3 * tiny_engine.pieces([token])[0]


def test_generation_and_analysis_do_not_disturb_each_other(tiny_engine: Engine) -> None:
    options = {"max_tokens": 16, "temperature": 0}
    whole = tiny_engine.generate(TOKENS, **options)
    scores = tiny_engine.score(TOKENS[:10], TOKENS[10:])
    added = (Add((1, 2), np.ones((2, 64), np.float32)),)
    pieces = []
    for piece in tiny_engine.stream(TOKENS, **options):
        pieces.append(piece)
        tiny_engine.score(TOKENS[:5], TOKENS[5:8], interventions=added)
    assert "".join(pieces) == whole
    np.testing.assert_array_equal(tiny_engine.score(TOKENS[:10], TOKENS[10:]), scores)


def test_a_real_model_continues(smollm2_engine: Engine) -> None:
    prompt = smollm2_engine.raw_prompt("The capital of France is")
    options = {"max_tokens": 6, "temperature": 0}
    text = smollm2_engine.generate(prompt, **options)
    assert text.startswith(" Paris")
    assert smollm2_engine.generate(prompt, **options) == text
