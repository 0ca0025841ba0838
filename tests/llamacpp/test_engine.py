"""One loaded model: opening, tokens, generation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from llama_cpp import Llama

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
        (b"PK\3\4", "is not a GGUF file"),
        (b"GGUF", "llama.cpp could not load .*damaged"),
        (b"GGUF" + bytes(100), "llama.cpp could not load .*damaged"),
        (0.01, "llama.cpp could not load .*damaged"),
        (0.99, "llama.cpp could not load .*damaged"),
    ],
    ids=str,
)
def test_a_file_that_is_no_model_is_a_model_error(
    tmp_path: Path, tiny_f32: TinyModel, contents: bytes | float | None, message: str
) -> None:
    """Nor is a share of one."""
    path = tmp_path / "broken.gguf"
    if isinstance(contents, float):
        whole = tiny_f32.path.read_bytes()
        contents = whole[: int(contents * len(whole))]
    if contents is not None:
        path.write_bytes(contents)
    with pytest.raises(ModelError, match=message):
        Engine(path)


def test_an_open_llama_is_shared(tiny_llama: Llama) -> None:
    assert Engine(tiny_llama).llama is tiny_llama


def test_the_analysis_is_made_when_first_needed(
    monkeypatch: pytest.MonkeyPatch, tiny_llama: Llama
) -> None:
    engine = Engine(tiny_llama)
    monkeypatch.setattr(engine_module, "ANALYSIS_CONTEXT", 100)
    assert engine.analysis is engine.analysis
    assert engine.analysis.n_ctx == 100


def test_the_analysis_fits_what_the_model_was_trained_for(tiny_engine: Engine) -> None:
    assert tiny_engine.analysis.n_ctx == 512 < engine_module.ANALYSIS_CONTEXT


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

    request = ScoreRequest(context, response, layers=(1, 2), interventions=added)
    steered, plain = tiny_engine.run(request), tiny_engine.run(replace(request, interventions=()))
    pooled = tiny_engine.run(replace(request, interventions=(), weights=weights)).captured
    assert np.abs(steered.scored - plain.scored).max() > 0.1
    for actual, expected in [
        (tiny_engine.score(context, response, interventions=added), steered.scored),
        (tiny_engine.score(context, response), plain.scored),
        (tiny_engine.capture(context, response, [1, 2]), plain.captured),
        (tiny_engine.capture(context, response, [1, 2], weights=weights), pooled),
    ]:
        np.testing.assert_array_equal(actual, expected)


# Tokens


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_make_up_the_text(tiny_engine: Engine, smollm2_engine: Engine, text: str) -> None:
    # The tiny vocabulary, like llama's, puts a space before every text.
    for engine, written in [(tiny_engine, " " + text), (smollm2_engine, text)]:
        tokens = engine.tokenize(text)
        pieces = engine.pieces(tokens)
        assert len(pieces) == len(tokens)
        assert b"".join(pieces) == written.encode()


def test_long_pieces_are_whole(smollm2_engine: Engine) -> None:
    """Some tokens are longer than the buffer that is tried first."""
    pieces = smollm2_engine.pieces(range(smollm2_engine.llama.n_vocab()))
    assert max(map(len, pieces)) > 64
    lines = [piece for piece in pieces if len(piece) > 64]
    assert all(smollm2_engine.tokenize(line.decode()) for line in lines)


def test_neither_control_tokens_nor_no_text_have_text(tiny_engine: Engine) -> None:
    llama = tiny_engine.llama
    assert tiny_engine.pieces([llama.token_bos(), llama.token_eos()]) == [b"", b""]
    assert tiny_engine.tokenize("") == []
    assert tiny_engine.pieces([]) == []


def test_control_tokens_in_a_users_text_stay_text(
    tiny_engine: Engine, smollm2_engine: Engine
) -> None:
    for engine, name in [(tiny_engine, "</s>"), (smollm2_engine, "<|im_end|>")]:
        token = engine.raw_prompt(name)[-1]
        assert engine.pieces([token]) == [b""]
        assert token not in engine.tokenize(f"Hi{name}")


@pytest.mark.parametrize("token", [448, -1])
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


def test_greedy_generation_is_that_of_the_reference_each_time(
    tiny_engine: Engine, tiny_f32: TinyModel
) -> None:
    tokens = list(TOKENS)
    for _ in range(12):
        tokens.append(int(tiny_f32.forward(tokens).logits[-1].argmax()))
    expected = b"".join(tiny_engine.pieces(tokens[len(TOKENS) :])).decode(errors="ignore")
    assert len(expected) > 8
    for seed in (None, 5):
        options = {"max_tokens": 12, "temperature": 0, "seed": seed}
        assert tiny_engine.generate(TOKENS, **options) == expected


def test_sampling_follows_its_seed_or_that_of_the_engine(tiny_f32: TinyModel) -> None:
    def texts(of_engine: int, seed: int | None) -> list[str]:
        engine = Engine(tiny_f32.path, n_ctx=128, n_threads=1, seed=of_engine)
        options = {"max_tokens": 20, "temperature": 1.0, "seed": seed}
        return [engine.generate(TOKENS, **options) for _ in range(1 if seed is None else 2)]

    assert texts(1, 7) == texts(2, 7) == 2 * texts(1, 7)[:1] != texts(1, 8)
    assert texts(1, None) == texts(1, None) != texts(2, None)


def test_without_a_seed_sampling_is_random(tiny_f32: TinyModel) -> None:
    texts = {
        Engine(tiny_f32.path, n_ctx=64, n_threads=1).generate(
            TOKENS, max_tokens=30, temperature=1.0
        )
        for _ in range(3)
    }
    assert len(texts) > 1


def test_seeds_as_llama_cpp_takes_them() -> None:
    assert [llama_seed(seed) for seed in (0, 7, 2**32 - 2)] == [0, 7, 2**32 - 2]
    for random in (None, -1, 2**32 - 1):
        drawn = {llama_seed(random) for _ in range(5)}
        assert len(drawn) > 1
        assert all(0 <= seed < 2**32 - 1 for seed in drawn)


@pytest.mark.parametrize("seed", [-2, 2**32, 2**40])
def test_a_seed_of_more_than_32_bits_is_refused(tiny_engine: Engine, seed: int) -> None:
    message = rf"The seed {seed} has more than 32 bits\. Give one from 0 to 4294967294, or -1"
    with pytest.raises(ModelError, match=message):
        llama_seed(seed)
    with pytest.raises(ModelError, match=message):
        tiny_engine.generate(TOKENS, max_tokens=1, seed=seed)


@pytest.mark.parametrize("n_threads", [-1, 0])
def test_less_than_one_thread_and_context_0_are_defaults(
    tiny_f32: TinyModel, n_threads: int
) -> None:
    engine = Engine(tiny_f32.path, n_ctx=0, n_threads=n_threads)
    assert engine.llama.n_threads >= 1
    assert engine.llama.n_ctx() == llama_cpp.llama_model_n_ctx_train(engine.llama.model)
    engine.llama.close()


def test_the_stream_is_the_text_in_pieces(tiny_engine: Engine) -> None:
    options = {"max_tokens": 20, "temperature": 0}
    pieces = list(tiny_engine.stream(TOKENS, **options))
    assert len(pieces) > 5
    assert "".join(pieces) == tiny_engine.generate(TOKENS, **options)


@pytest.mark.parametrize(
    ("n_ctx", "n_prompt", "max_tokens", "n_generated"),
    [
        (256, 30, 1, 1),
        (256, 30, 7, 7),
        (256, 200, 0, 0),
        (256, 200, -1, 56),
        (256, 200, 100, 56),
        (256, 255, -1, 1),
        (100, 90, 50, 10),  # llama.cpp rounds it up to 256, llama-cpp-python's buffers stay
    ],
)
def test_as_many_tokens_are_generated_as_asked_and_as_fit(
    open_llama: Callable[..., Llama],
    tiny_f32: TinyModel,
    n_ctx: int,
    n_prompt: int,
    max_tokens: int,
    n_generated: int,
) -> None:
    engine = Engine(open_llama(tiny_f32, n_ctx=n_ctx))
    assert count(engine, (TOKENS * 9)[:n_prompt], max_tokens=max_tokens) == n_generated


@pytest.mark.parametrize("n_ctx", [100, 256])
def test_a_prompt_that_is_too_long_is_a_model_error(
    open_llama: Callable[..., Llama], tiny_f32: TinyModel, n_ctx: int
) -> None:
    engine = Engine(open_llama(tiny_f32, n_ctx=n_ctx))
    for n in (n_ctx, n_ctx + 100):
        with pytest.raises(ModelError, match=f"{n} tokens and the context {n_ctx}.* -c"):
            engine.generate((TOKENS * 20)[:n])


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
