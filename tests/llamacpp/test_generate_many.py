"""Texts generated side by side: what llama-cpp-python generates alone, steered each its own way."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from llama_cpp import Llama

from models import ARCHITECTURES, TinyModel, make_tiny
from models.operations import log_softmax
from steerx_edge.errors import ModelError
from steerx_edge.llamacpp.context import MAX_SEQUENCES
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.interventions import Add, Intervention, SetComponent
from steerx_edge.llamacpp.requests import GenerateRequest
from steerx_edge.steering.memory import ActiveMemory
from tests.llamacpp.conftest import directions, masked, tokens_of, vectors
from tests.support.memory_reference import memory_of, mixture, normed
from tests.support.steered_reference import steered_forward

CHANGES: list[tuple[Intervention, ...]] = [
    (),
    (Add((1,), 3 * vectors(seed=1)),),
    (Add((0, 2), 2 * vectors(2, seed=2)),),
    (SetComponent((2,), directions(seed=4), [5.0], positions="all"),),
    (),
]
BIAS = {300: -1.5, 302: 2.0, 305: 3.0, 17: -4.0}


def reference(model: TinyModel, request: GenerateRequest, end: int) -> list[int]:
    """By the formulas over the whole vocabulary, one NumPy pass a token."""
    said: list[int] = []
    while len(said) < request.max_tokens:
        text, n_context = [*request.context, *said], len(request.context)
        trace = steered_forward(model, text, masked(request.interventions, n_context, len(text)))
        logits = trace.logits[-1]
        for token, bias in request.logit_bias.items():
            logits[token] += bias
        p = np.exp(log_softmax(logits))
        if isinstance(request.memory, ActiveMemory):
            row = normed(model, trace.residual[-1, -1:])[0]
            p = mixture(request.memory.memory, request.memory.strength, row, said, p)
        token = int(p.argmax())
        if token == end:
            break
        said.append(token)
    return said


@pytest.mark.parametrize("bias", [{}, BIAS], ids=["no bias", "bias"])
@pytest.mark.parametrize("shared", [True, False])
def test_each_text_is_steered_and_biased_in_its_own_way(
    tiny_engine: Engine, tiny_f32: TinyModel, bias: dict[int, float], shared: bool
) -> None:
    requests = [
        GenerateRequest(
            tokens_of(7, 20) if shared else tokens_of(seed, 3 + 2 * seed),
            6 + seed,
            changes,
            logit_bias=bias,
        )
        for seed, changes in enumerate(CHANGES)
    ]
    together = tiny_engine.analysis.generate_many(requests)
    end = tiny_engine.llama.token_eos()
    assert together == [reference(tiny_f32, request, end) for request in requests]
    assert len({tuple(text) for text in together}) > 3


@pytest.mark.parametrize("bias", [{}, BIAS], ids=["no bias", "bias"])
def test_each_text_has_a_memory_of_its_own_after_the_bias(
    tiny_engine: Engine, tiny_f32: TinyModel, bias: dict[int, float]
) -> None:
    """Side by side with one that has none, and steered in different ways."""
    requests = []
    for seed, changes in enumerate(CHANGES):
        context, first = tokens_of(seed, 3 + 2 * seed), 320 + 10 * seed
        known = memory_of(
            tiny_engine.llama,
            [(context, [first, first + 1, first, first + 1, first + 2]), (context[:2], [300, 301])],
        )
        memory = None if seed == 1 else ActiveMemory(known, 0.4 + 0.1 * seed)
        requests.append(GenerateRequest(context, 9, changes, logit_bias=bias, memory=memory))
    together = tiny_engine.analysis.generate_many(requests)
    end = tiny_engine.llama.token_eos()
    assert together == [reference(tiny_f32, request, end) for request in requests]
    assert together[0][:3] == [320, 321, 320]
    assert 330 not in together[1]
    assert together[4][:3] == [360, 361, 360]


@pytest.mark.parametrize(
    ("n", "in_graph"), [(0, False), (1, True), (MAX_SEQUENCES + 3, True), (MAX_SEQUENCES, False)]
)
def test_any_number_of_texts(tiny_engine: Engine, n: int, in_graph: bool) -> None:
    context = tiny_engine.analysis
    context.in_graph = in_graph
    added = (Add((2,), 2 * vectors(seed=9)),)
    requests = [
        GenerateRequest(tokens_of(seed, 4), 1 + seed % 7, interventions=added if seed % 3 else ())
        for seed in range(n)
    ]
    together = context.generate_many(requests)
    assert together == [context.generate_many([request])[0] for request in requests]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_text_is_llama_cpp_pythons(
    open_llama: Callable[..., Llama], tmp_path: Path, architecture: str
) -> None:
    engine = Engine(open_llama(make_tiny(tmp_path / "tiny.gguf", architecture=architecture)))
    prompts = [tokens_of(1, 5), tokens_of(2, 9)]
    together = engine.analysis.generate_many([GenerateRequest(prompt, 8) for prompt in prompts])
    for prompt, got in zip(prompts, together, strict=True):
        alone = list(islice(engine.llama.generate(prompt, temp=0), len(got)))
        assert got == alone
        assert len(got) == 8 or engine.llama.token_eos() not in got


def test_sampling_follows_its_seed_and_its_temperature(tiny_engine: Engine) -> None:
    context, generate = tokens_of(3, 6), tiny_engine.analysis.generate_many
    one, same, other = generate(
        [GenerateRequest(context, 12, temperature=2.0, seed=seed) for seed in (1, 1, 2)]
    )
    assert one == same != other
    greedy, cold = generate([GenerateRequest(context, 12, temperature=t) for t in (0.0, 1e-3)])
    assert cold == greedy != one


def test_sampling_follows_a_memory(tiny_engine: Engine) -> None:
    """Of two beginnings that are made all but certain."""
    n, context = 300, tokens_of(3, 6)
    known = memory_of(tiny_engine.llama, [(context, [token]) for token in (301, 301, 301, 302)])
    memory = ActiveMemory(known, 1e6)
    texts = tiny_engine.analysis.generate_many(
        [
            GenerateRequest(context, 1, temperature=1.0, seed=seed, memory=memory)
            for seed in range(n)
        ]
    )
    said = [token for text in texts for token in text]
    share = 0.75 * 0.95
    assert abs(said.count(301) / n - share) < 4 * np.sqrt(share * (1 - share) / n)
    assert said.count(301) + said.count(302) > 0.88 * n


def test_what_does_not_fit(tiny_engine: Engine) -> None:
    n_ctx = tiny_engine.analysis.n_ctx
    generate = tiny_engine.analysis.generate_many
    nearly = tokens_of(4, n_ctx - 3)
    requests = [
        GenerateRequest(nearly, 50),
        GenerateRequest(nearly[:5], 2),
        GenerateRequest(nearly[:5], 0),
    ]
    assert [len(text) for text in generate(requests)] == [3, 2, 0]
    with pytest.raises(ModelError, match="does not fit"):
        generate([GenerateRequest(tokens_of(4, n_ctx + 1), 1)])
    with pytest.raises(ModelError, match="not in the vocabulary"):
        generate([GenerateRequest([5], 1, logit_bias={448: 1.0})])
    for positions in ("prompt", 1, np.ones(1, np.bool_)):
        added = (Add((1,), vectors(), positions=positions),)
        with pytest.raises(ModelError, match='"all" or "generated"'):
            generate([GenerateRequest([5], 1, interventions=added)])


def test_generating_spoils_no_pass_and_no_llama(tiny_engine: Engine) -> None:
    text = tokens_of(5, 20)
    scores = tiny_engine.score(text[:9], text[9:])
    written = tiny_engine.generate(text, max_tokens=5, temperature=0)
    requests = [GenerateRequest(text, 5, interventions=changes) for changes in CHANGES]
    tiny_engine.generate_many(requests)
    np.testing.assert_array_equal(tiny_engine.score(text[:9], text[9:]), scores)
    assert tiny_engine.generate(text, max_tokens=5, temperature=0) == written
