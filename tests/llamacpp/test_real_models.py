"""Real models: identities, and llama.cpp's own logits.

SmolLM2 (llama, Q4_1) comes with the development packages. STEERX_EDGE_TEST_MODELS names the files
of others, separated as in PATH.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from llama_cpp import Llama, LogitsProcessorList
from numpy.typing import NDArray

from models.operations import log_softmax
from steerx_edge.live import steer
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.interventions import Add, Intervention, Rotate, SetComponent
from steerx_edge.llamacpp.models import identify
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import ScoreRequest, ScoreResult
from steerx_edge.profile import MemoryPart, Profile
from steerx_edge.steering.gate import Gate
from steerx_edge.steering.requests import steered
from tests.support.entries import an_entry
from tests.support.gate_reference import gate_for
from tests.support.memory_reference import memory_of
from tests.support.steered_llama import bias_of, chat, last_logits, reset
from tests.support.steered_reference import unit

ROUNDING = 0.15
"""Nats of a token: each row is rounded beside other rows. See docs/evaluation.md on rounding."""

OTHERS = [path for path in os.environ.get("STEERX_EDGE_TEST_MODELS", "").split(os.pathsep) if path]


class Real:
    """A real model, and a sentence that it finds likely."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.context = engine.raw_prompt("The capital of France is")
        self.response = engine.tokenize(" Paris, and the capital of Italy is Rome.")
        self.layers = tuple(range(engine.analysis.n_layer))
        self.middle = len(self.layers) // 2
        self.plain = self.run(top_k=1)
        rng = np.random.default_rng(0)
        self.direction = unit(rng.standard_normal((1, engine.analysis.n_embd))).astype(np.float32)

    def run(self, *interventions: Intervention, **options: Any) -> ScoreResult:
        options = {"layers": self.layers} | options
        return self.engine.run(
            ScoreRequest(self.context, self.response, interventions=interventions, **options)
        )


@pytest.fixture(scope="module", params=["SmolLM2", *OTHERS])
def real(request: pytest.FixtureRequest) -> Iterator[Real]:
    if request.param == "SmolLM2":
        yield Real(request.getfixturevalue("smollm2_engine"))
        return
    llama = Llama(request.param, n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False)
    yield Real(Engine(llama))
    llama.close()


def test_scores_are_those_of_llama_cpp(real: Real) -> None:
    """But for rounding, since llama.cpp evaluates other rows beside them."""
    llama = real.engine.llama
    reset(llama)
    llama.eval(real.context)
    log_p = log_softmax(last_logits(llama).astype(float))
    reset(llama)
    np.testing.assert_allclose(real.plain.scored[0], log_p[real.response[0]], atol=0.02)
    assert real.plain.top_token is not None
    assert real.plain.top_token[0] == log_p.argmax()
    assert real.plain.scored.mean() > -2
    np.testing.assert_array_equal(real.engine.score(real.context, real.response), real.plain.scored)


def test_an_early_exit_reads_what_the_whole_pass_does(real: Real) -> None:
    for layer in real.layers:
        early = real.engine.capture(real.context, real.response, (layer,))
        np.testing.assert_array_equal(early[0], real.plain.captured[layer])
    np.testing.assert_array_equal(real.run().captured, real.plain.captured)


def test_an_addition_is_exact_and_is_the_control_vector(
    monkeypatch: pytest.MonkeyPatch, real: Real
) -> None:
    before = real.plain.captured[real.middle]
    norm = np.median(np.linalg.norm(before, axis=-1))
    change = Add((real.middle,), (0.5 * norm * real.direction).astype(np.float32))
    by_hook = real.run(change)
    np.testing.assert_array_equal(
        by_hook.captured[: real.middle], real.plain.captured[: real.middle]
    )
    np.testing.assert_array_equal(by_hook.captured[real.middle], before + change.vectors[0])
    monkeypatch.setattr(real.engine.analysis, "in_graph", True)
    in_graph = real.run(change)
    np.testing.assert_allclose(by_hook.scored, in_graph.scored, rtol=1e-4, atol=1e-4)
    assert np.abs(by_hook.scored - real.plain.scored).max() > 0.1


def test_what_is_projected_out_is_gone(real: Real) -> None:
    u = real.direction
    rows = real.run(SetComponent((real.middle,), u, [0])).captured[real.middle]
    assert (np.abs(rows @ u[0]) / np.linalg.norm(rows, axis=-1)).max() < 1e-6


def test_rotation_keeps_lengths(real: Real) -> None:
    rows = real.run(Rotate((real.middle,), real.direction, 0.4)).captured[real.middle]
    before = real.plain.captured[real.middle]
    lengths, lengths_before = (np.linalg.norm(each, axis=-1) for each in (rows, before))
    np.testing.assert_allclose(lengths, lengths_before, rtol=1e-5)
    assert np.abs(rows - before).max() > 0.01 * np.abs(before).max()


def profile_of(real: Real, part: MemoryPart, gate: Gate) -> Profile:
    entry = an_entry(
        identify(real.engine.llama),
        (real.middle,),
        real.direction,
        norms=np.linalg.norm(real.plain.captured[real.middle], axis=1).mean(keepdims=True),
        strengths=np.full(1, 0.1, np.float32),
        logit_bias=bias_of({300 + i: i / 25 - 2 for i in range(100)}),
        memory=part,
        gate=gate,
    )
    return Profile((entry,))


MESSAGES = messages_for("Name two capitals.")


def test_a_chat_has_the_probabilities_of_a_pass_with_a_memory(real: Real) -> None:
    engine, text = real.engine, real.response
    context = engine.prompt(MESSAGES)
    memory = memory_of(engine.llama, [(context, text), (context[:5], text[::-1])])
    part = MemoryPart.of(memory, strength=0.5, level="all")
    profile = profile_of(real, part, gate_for(engine.llama, context))
    given: list[float] = []

    def force(_: NDArray[np.intc], scores: NDArray[np.single]) -> NDArray[np.single]:
        token = text[len(given)]
        given.append(log_softmax(scores.astype(float))[token])
        scores[token] = 1e9
        return scores

    with steer(engine.llama, profile):
        chat(engine.llama, MESSAGES, len(text), logits_processor=LogitsProcessorList([force]))
    job = steered(ScoreRequest(context, text), profile.entries[0].steering())
    scored = engine.run(job).scored
    plain = engine.run(ScoreRequest(context, text)).scored
    np.testing.assert_allclose(given, scored, rtol=0, atol=ROUNDING)
    assert scored.mean() > plain.mean() + 1


def test_a_chat_unlike_the_persons_is_left_alone(real: Real) -> None:
    llama = real.engine.llama
    context = real.engine.prompt(MESSAGES)
    memory = memory_of(llama, [(context, real.response)])
    part = MemoryPart.of(memory, strength=0.5, level="all")
    answers = [chat(llama, MESSAGES, 8)]
    for is_open in (False, True):
        gate = gate_for(llama, context, is_open=is_open)
        reset(llama)
        with steer(llama, profile_of(real, part, gate)):
            answers.append(chat(llama, MESSAGES, 8))
    plain, alone, steered_one = answers
    assert alone == plain != steered_one
