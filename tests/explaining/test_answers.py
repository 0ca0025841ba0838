"""What each part of a profile adds to the tokens of an answer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from itertools import islice

import numpy as np
import pytest
from llama_cpp import Llama

from models import TinyModel
from models.operations import log_softmax
from steerx_edge.errors import ModelError
from steerx_edge.explaining.answers import Attribution, answer, answers_to, room_for
from steerx_edge.live import steer
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.profile import Profile
from steerx_edge.steering.gate import Gate
from tests.support.steered_llama import (
    EXACT,
    TEXT,
    Recorder,
    a_profile,
    bias_of,
    dense,
    from_row,
    knowing,
    processors,
    reference_logits,
)

N = 12


@pytest.fixture
def prompt(tiny_llama: Llama) -> list[int]:
    return tiny_llama.tokenize(TEXT.encode())


@pytest.fixture
def profile(tiny_llama: Llama) -> Profile:
    """With every part, each strong enough to change the answer."""
    bias = bias_of(dict.fromkeys(range(300, 340), 2.0), 0.5)
    return knowing(tiny_llama, strength=0.1, memory=0.6, logit_bias=bias)


def explained(llama: Llama, profile: Profile, prompt: list[int], **how: float) -> Attribution:
    return answers_to(Engine(llama), profile, prompt, max_tokens=N, **how).steered  # type: ignore[arg-type]


def test_contributions_sum_exactly_to_the_total(
    tiny_llama: Llama, profile: Profile, prompt: list[int]
) -> None:
    found = explained(tiny_llama, profile, prompt)
    parts = found.model + found.directions + found.logit_bias + found.memory
    np.testing.assert_array_equal(parts, found.total)
    assert all(np.abs(each).max() > 0.1 for each in (found.directions, found.logit_bias))
    assert np.abs(found.memory).max() > 0.1


def test_each_step_is_the_reference_with_one_part_more(
    tiny_llama: Llama, tiny_f32: TinyModel, profile: Profile, prompt: list[int]
) -> None:
    found = explained(tiny_llama, profile, prompt)
    (entry,) = profile.entries
    tokens = [*prompt, *found.tokens]
    every = np.arange(len(found.tokens))

    def logits(strength: float) -> np.ndarray:
        strengths = from_row(len(prompt) - 1, strength, len(tokens))
        return reference_logits(tiny_f32, tokens, profile, strengths)[len(prompt) - 1 : -1]

    def scores(of: np.ndarray) -> np.ndarray:
        return log_softmax(of)[every, found.tokens]

    assert entry.logit_bias is not None
    bare = scores(logits(0))
    guided = scores(logits(1))
    biased = scores(logits(1) + dense(tiny_llama, entry.logit_bias.at()))
    np.testing.assert_allclose(found.model, bare, atol=EXACT)
    np.testing.assert_allclose(found.directions, guided - bare, atol=EXACT)
    np.testing.assert_allclose(found.logit_bias, biased - guided, atol=EXACT)


@pytest.mark.parametrize("temperature", [0.0, 1.5])
@pytest.mark.parametrize("positions", ["generated", "all"])
def test_the_total_is_that_of_the_generation_itself(
    tiny_llama: Llama, prompt: list[int], temperature: float, positions: str
) -> None:
    bias = bias_of(dict.fromkeys(range(300, 340), 2.0), 0.5)
    profile = knowing(tiny_llama, strength=0.1, memory=0.6, logit_bias=bias, positions=positions)
    found = explained(tiny_llama, profile, prompt, temperature=temperature, seed=3)
    live = generated_log_probs(tiny_llama, profile, prompt, found, temperature)
    np.testing.assert_allclose(found.total, live, atol=EXACT)


@pytest.mark.slow
def test_the_total_is_close_to_that_of_the_generation_with_quantized_weights(
    smollm2: Llama,
) -> None:
    prompt = smollm2.tokenize(TEXT.encode())
    bias = bias_of(dict.fromkeys(smollm2.tokenize(b" Alice was late again"), 2.0), 0.5)
    profile = knowing(smollm2, strength=0.5, memory=0.6, logit_bias=bias, norm=5.0)
    found = answers_to(Engine(smollm2), profile, prompt, max_tokens=N).steered
    live = generated_log_probs(smollm2, profile, prompt, found, 0.0)
    assert np.abs(found.total - live).max() < 0.2  # as docs/explain.md says
    assert np.abs(found.total - found.model).max() > 0.5


def generated_log_probs(
    llama: Llama, profile: Profile, prompt: list[int], found: Attribution, temperature: float
) -> list[float]:
    """Of the tokens of an answer, which must be generated again, as they are sampled."""
    with steer(llama, profile):
        recorder = Recorder(llama)
        llama.reset()  # type: ignore[no-untyped-call]
        llama.set_seed(3)
        each = processors(recorder)
        with closing(llama.generate(prompt, temp=temperature, logits_processor=each)) as stream:
            tokens = list(islice(stream, len(found.tokens)))
    assert tokens == found.tokens
    return [
        float(log_softmax(given.astype(np.float64))[token])
        for given, token in zip(recorder.given, tokens, strict=True)
    ]


def test_nothing_is_added_behind_a_closed_gate(tiny_llama: Llama, prompt: list[int]) -> None:
    n_embd = Engine(tiny_llama).model_id.n_embd
    closed = Gate(np.zeros(n_embd, np.float32), 1.0)
    profile = knowing(tiny_llama, strength=0.1, gate=closed)
    answers = answers_to(Engine(tiny_llama), profile, prompt, max_tokens=N)
    assert not answers.steered.is_steered
    assert answers.steered.has_steering
    off = answers_to(Engine(tiny_llama), profile, prompt, max_tokens=N, strength=0)
    assert not off.steered.has_steering
    assert answers.memory is None
    assert answers.steered.tokens == answers.unsteered.tokens
    np.testing.assert_array_equal(answers.steered.total, answers.steered.model)


def test_the_unsteered_answer_is_the_models_own(tiny_llama: Llama, prompt: list[int]) -> None:
    engine = Engine(tiny_llama)
    own = answer(engine, prompt, max_tokens=N, temperature=0, seed=0)
    answers = answers_to(engine, a_profile(tiny_llama, norm=2.0), prompt, max_tokens=N)
    assert answers.unsteered.tokens == own
    np.testing.assert_allclose(answers.unsteered.total, engine.score(prompt, own), atol=EXACT)
    assert answers.steered.tokens != own


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_an_answer_is_sampled_as_by_generate(
    tiny_llama: Llama, prompt: list[int], temperature: float
) -> None:
    engine = Engine(tiny_llama)
    tokens = answer(engine, prompt, max_tokens=N, temperature=temperature, seed=5)
    text = b"".join(engine.pieces(tokens)).decode(errors="ignore")
    streamed = engine.generate(prompt, max_tokens=N, temperature=temperature, seed=5)
    assert text.startswith(streamed.rstrip("\ufffd"))
    assert len(tokens) == N or tokens[-1] in engine.end_tokens


def test_an_answer_ends_with_its_end(tiny_llama: Llama, prompt: list[int]) -> None:
    engine = Engine(tiny_llama)
    end = engine.end_tokens[0]
    forced = a_profile(tiny_llama, strength=0.0, logit_bias=bias_of({end: 50.0}))
    found = answers_to(engine, forced, prompt, max_tokens=N).steered
    assert (found.tokens, found.pieces) == ([end], [b""])
    assert found.logit_bias[0] > 1


def test_a_far_too_large_bias_is_refused(tiny_llama: Llama, prompt: list[int]) -> None:
    profile = a_profile(tiny_llama, strength=0.0, logit_bias=bias_of({300: 2.0}))
    with pytest.raises(ModelError, match="A logit bias of 200 nats is too large"):
        answers_to(Engine(tiny_llama), profile, prompt, strength=100, max_tokens=1)


def test_what_does_not_fit_is_refused(
    open_llama: Callable[..., Llama], tiny_f32: TinyModel
) -> None:
    engine = Engine(open_llama(tiny_f32, n_ctx=64))
    assert room_for(engine, [1] * 60, -1) == 4
    assert room_for(engine, [1] * 60, 2) == 2
    with pytest.raises(ModelError, match="at most 63 can be explained"):
        room_for(engine, [1] * 64, 2)
    with pytest.raises(ModelError, match="empty"):
        room_for(engine, [], 2)
