"""Texts generated side by side: what llama-cpp-python generates alone, steered each its own way."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pytest
from llama_cpp import Llama

from models import ARCHITECTURES, TinyModel, make_tiny
from models.operations import log_softmax
from steerx_edge.errors import ModelError
from steerx_edge.llamacpp.analysis import MAX_SEQUENCES, GenerateRequest
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.interventions import Add, Intervention, SetComponent
from steerx_edge.steering.memory import ActiveMemory
from tests.support.memory_reference import memory_of, mixture, normed
from tests.support.steered_reference import steered_forward, unit

N_EMBD, N_VOCAB = 64, 448


def tokens(seed: int, n: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(5, N_VOCAB, n)]


def vector(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, N_EMBD)).astype(np.float32)


def greedy_reference(
    model: TinyModel, context: list[int], n: int, interventions: tuple[Intervention, ...] = ()
) -> list[int]:
    """By whole NumPy passes, one a token."""
    text = list(context)
    for _ in range(n):
        begin = {"all": 0, "generated": len(context) - 1}
        changes = [(each, np.arange(len(text)) >= begin[each.positions]) for each in interventions]
        text.append(int(steered_forward(model, text, changes).logits[-1].argmax()))
    return text[len(context) :]


CHANGES: list[tuple[Intervention, ...]] = [
    (),
    (Add((1,), 3 * vector(1)),),
    (Add((0, 2), 2 * np.vstack([vector(2), vector(3)])),),
    (SetComponent((2,), unit(vector(4)).astype(np.float32), [5.0], positions="all"),),
    (),
]


def test_against_the_reference(tiny_engine: Engine, tiny_f32: TinyModel) -> None:
    jobs = [
        GenerateRequest(tokens(seed, 3 + 2 * seed), 6 + seed, interventions=changes)
        for seed, changes in enumerate(CHANGES)
    ]
    together = tiny_engine.analysis.generate_many(jobs)
    for job, got in zip(jobs, together, strict=True):
        wanted = greedy_reference(tiny_f32, list(job.context), job.max_tokens, job.interventions)
        assert got == wanted[: len(got)]
        assert len(got) == job.max_tokens or wanted[len(got)] == tiny_engine.llama.token_eos()
    assert len({tuple(each) for each in together}) > 3


def test_a_shared_context_steered_in_different_ways(
    tiny_engine: Engine, tiny_f32: TinyModel
) -> None:
    context = tokens(7, 20)
    jobs = [GenerateRequest(context, 8, interventions=changes) for changes in CHANGES]
    for job, got in zip(jobs, tiny_engine.analysis.generate_many(jobs), strict=True):
        wanted = greedy_reference(tiny_f32, context, 8, job.interventions)
        assert got == wanted[: len(got)]


@pytest.mark.parametrize("n_jobs", [0, 1, MAX_SEQUENCES, MAX_SEQUENCES + 3])
@pytest.mark.parametrize("in_graph", [True, False])
def test_any_number_of_texts(tiny_engine: Engine, n_jobs: int, in_graph: bool) -> None:
    context = tiny_engine.analysis
    context.in_graph = in_graph
    added = (Add((2,), 2 * vector(9)),)
    jobs = [
        GenerateRequest(tokens(seed, 4), 1 + seed % 7, interventions=added if seed % 3 else ())
        for seed in range(n_jobs)
    ]
    together = context.generate_many(jobs)
    assert together == [context.generate_many([job])[0] for job in jobs]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_text_is_llama_cpp_pythons(
    open_llama: Callable[..., Llama], tmp_path: Any, architecture: str
) -> None:
    engine = Engine(open_llama(make_tiny(tmp_path / "tiny.gguf", architecture=architecture)))
    prompts = [tokens(1, 5), tokens(2, 9)]
    together = engine.analysis.generate_many([GenerateRequest(prompt, 8) for prompt in prompts])
    for prompt, got in zip(prompts, together, strict=True):
        alone = list(islice(engine.llama.generate(prompt, temp=0), len(got)))
        assert got == alone
        assert len(got) == 8 or engine.llama.token_eos() not in got


def test_a_bias_and_a_seed(tiny_engine: Engine) -> None:
    context = tokens(3, 6)
    generate = tiny_engine.analysis.generate_many
    (only,) = generate([GenerateRequest(context, 4, logit_bias={301: 1e4})])
    assert only == [301] * 4
    one, same, other = generate(
        [GenerateRequest(context, 12, temperature=2.0, seed=seed) for seed in (1, 1, 2)]
    )
    assert one == same != other


BIAS = {300: -1.5, 302: 2.0, 305: 3.0, 17: -4.0}


def remembered_reference(model: TinyModel, job: GenerateRequest) -> list[int]:
    """By the formulas over the whole vocabulary, one NumPy pass a token."""
    said: list[int] = []
    begin = {"all": 0, "generated": len(job.context) - 1}
    for _ in range(job.max_tokens):
        text = [*job.context, *said]
        changes = [
            (each, np.arange(len(text)) >= begin[each.positions]) for each in job.interventions
        ]
        trace = steered_forward(model, text, changes)
        logits = trace.logits[-1]
        for token, bias in job.logit_bias.items():
            logits[token] += bias
        p = np.exp(log_softmax(logits))
        if isinstance(job.memory, ActiveMemory):
            row = normed(model, trace.residual[-1, -1:])[0]
            p = mixture(job.memory.memory, job.memory.strength, row, said, p)
        said.append(int(p.argmax()))
    return said


@pytest.mark.parametrize("bias", [{}, BIAS], ids=["no bias", "bias"])
def test_each_text_has_a_memory_of_its_own_after_the_bias(
    tiny_engine: Engine, tiny_f32: TinyModel, bias: dict[int, float]
) -> None:
    """Side by side with one that has none, and steered in different ways."""
    jobs = []
    for seed, changes in enumerate(CHANGES):
        context = tokens(seed, 3 + 2 * seed)
        first = 320 + 10 * seed
        known = memory_of(
            tiny_engine.llama,
            [(context, [first, first + 1, first, first + 1, first + 2]), (context[:2], [300, 301])],
        )
        memory = None if seed == 1 else ActiveMemory(known, 0.4 + 0.1 * seed)
        jobs.append(GenerateRequest(context, 9, changes, logit_bias=bias, memory=memory))
    together = tiny_engine.analysis.generate_many(jobs)
    assert together == [tiny_engine.analysis.generate_many([job])[0] for job in jobs]
    eos = tiny_engine.llama.token_eos()
    for job, got in zip(jobs, together, strict=True):
        wanted = remembered_reference(tiny_f32, job)
        assert got == (wanted[: wanted.index(eos)] if eos in wanted else wanted)
    assert together[0][:3] == [320, 321, 320]
    assert 330 not in together[1]
    assert together[4][:3] == [360, 361, 360]


def test_sampling_follows_a_memory(tiny_engine: Engine) -> None:
    """Of two beginnings that are made all but certain."""
    n, context = 300, tokens(3, 6)
    known = memory_of(tiny_engine.llama, [(context, [token]) for token in (301, 301, 301, 302)])
    memory = ActiveMemory(known, 1e6)
    written = tiny_engine.analysis.generate_many(
        [
            GenerateRequest(context, 1, temperature=1.0, seed=seed, memory=memory)
            for seed in range(n)
        ]
    )
    said = [token for each in written for token in each]
    share = 0.75 * 0.95
    assert abs(said.count(301) / n - share) < 4 * np.sqrt(share * (1 - share) / n)
    assert said.count(301) + said.count(302) > 0.88 * n


def test_what_does_not_fit(tiny_engine: Engine) -> None:
    n_ctx = tiny_engine.analysis.n_ctx
    generate = tiny_engine.analysis.generate_many
    nearly = tokens(4, n_ctx - 3)
    full, short, none = generate(
        [
            GenerateRequest(nearly, 50),
            GenerateRequest(nearly[:5], 2),
            GenerateRequest(nearly[:5], 0),
        ]
    )
    assert (len(full), len(short), len(none)) == (3, 2, 0)
    with pytest.raises(ModelError, match="does not fit"):
        generate([GenerateRequest(tokens(4, n_ctx + 1), 1)])
    with pytest.raises(ModelError, match="not in the vocabulary"):
        generate([GenerateRequest([5], 1, logit_bias={448: 1.0})])
    for rows in ("prompt", 1, np.ones(1, np.bool_)):
        with pytest.raises(ModelError, match='"all" or "generated"'):
            generate(
                [GenerateRequest([5], 1, interventions=(Add((1,), vector(1), positions=rows),))]
            )


def test_generating_spoils_no_pass_and_no_llama(tiny_engine: Engine) -> None:
    text = tokens(5, 20)
    scores = tiny_engine.score(text[:9], text[9:])
    written = tiny_engine.generate(text, max_tokens=5, temperature=0)
    jobs = [GenerateRequest(text, 5, interventions=changes) for changes in CHANGES]
    tiny_engine.generate_many(jobs)
    np.testing.assert_array_equal(tiny_engine.score(text[:9], text[9:]), scores)
    assert tiny_engine.generate(text, max_tokens=5, temperature=0) == written
