"""The final rows, which the output matrix is applied to: read in passes and while generating."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import llama_cpp
import numpy as np
import pytest
from llama_cpp import Llama
from numpy.typing import NDArray

from models import ARCHITECTURES, TinyModel, make_tiny
from steerx_edge.errors import ModelError
from steerx_edge.llamacpp import analysis
from steerx_edge.llamacpp.analysis import AnalysisContext, GenerateRequest, ScoreRequest, asked_for
from steerx_edge.llamacpp.interventions import Add, Intervention, SetComponent, selected_positions
from tests.support.memory_reference import normed
from tests.support.steered_reference import scores_of, steered_forward, unit

N_EMBD, N_VOCAB, LAST = 64, 448, 3
# More tokens than two of gemma3's sliding windows.
TOKENS = [int(token) for token in np.random.default_rng(2).integers(5, 300, size=40)]
N, N_CONTEXT = len(TOKENS), 10

F32_MAX = 1e-4  # of tests/tiny_models/test_models_reference.py

# (tokens of a micro-batch, rows of logits held at a time), as in tests/llamacpp/test_analysis.py
CHUNKS = [(512, 4096), (7, 4096), (512, 3), (1, 1)]


def vector(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((1, N_EMBD)).astype(np.float32)


CHANGES: list[tuple[Intervention, ...]] = [
    (),
    (Add((1,), 3 * vector(1)),),
    (SetComponent((LAST,), unit(vector(4)).astype(np.float32), [5.0], positions="all"),),
    (Add((2,), 2 * vector(2), positions="all"),),
]


def split(n_context: int = N_CONTEXT, **options: Any) -> ScoreRequest:
    return ScoreRequest(TOKENS[:n_context], TOKENS[n_context:], **{"final": True} | options)


def assert_close(actual: NDArray[Any], expected: NDArray[Any]) -> None:
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=F32_MAX)


class Recorder:
    """A memory that notes what it is given, and changes nothing or what it is told."""

    def __init__(self) -> None:
        self.rows: list[NDArray[np.float32]] = []
        self.before: list[list[int]] = []
        self.logits: list[NDArray[np.float32]] = []

    def shift(
        self, row: NDArray[np.float32], before: Sequence[int], logits: NDArray[np.float32]
    ) -> None:
        self.rows.append(row)
        self.before.append(list(before))
        self.logits.append(logits.copy())

    def log_prob(
        self, rows: NDArray[np.float32], text: Sequence[int], log_prob: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        self.rows += list(rows)
        return log_prob - np.arange(1, len(text) + 1, dtype=np.float32)


@pytest.fixture
def context(tiny_llama: Llama) -> AnalysisContext:
    return AnalysisContext(tiny_llama, 512)


@pytest.fixture(params=ARCHITECTURES)
def any_llama(
    request: pytest.FixtureRequest, open_llama: Callable[..., Llama], tmp_path: Any
) -> Llama:
    return open_llama(make_tiny(tmp_path / "tiny.gguf", architecture=request.param))


def embeddings_of(llama: Llama, tokens: Sequence[int]) -> NDArray[np.float32]:
    """What llama.cpp gives as embeddings, token by token: (token, n_embd)."""
    address = llama.ctx
    llama_cpp.llama_set_embeddings(address, True)
    rows = []
    for token in tokens:
        llama.eval([token])
        pointer = llama_cpp.llama_get_embeddings_ith(address, -1)
        rows.append(np.ctypeslib.as_array(pointer, (N_EMBD,)).copy())
    return np.stack(rows)


def test_they_are_llama_cpps_embeddings(any_llama: Llama) -> None:
    got = AnalysisContext(any_llama, 512).run(split())
    assert_close(asked_for(got.final), embeddings_of(any_llama, TOKENS)[N_CONTEXT - 1 :])


def test_side_by_side_they_are_those_of_each_pass_alone(any_llama: Llama) -> None:
    context = AnalysisContext(any_llama, 512)
    jobs = [split(interventions=changes) for changes in CHANGES]
    jobs += [split(N), ScoreRequest(TOKENS[3:4], TOKENS[4:30], final=True), split(final=False)]
    jobs += [split(25, score=False), split(score=False, layers=(1,))]
    alone = [context.run(job).final for job in jobs]
    together = [each.final for each in context.run_many(jobs)]
    assert [each is None for each in together] == [not job.final for job in jobs]
    for got, expected in zip(together, alone, strict=True):
        if got is not None:
            assert_close(got, asked_for(expected))
    for one, other in pairwise(together[: len(CHANGES)]):
        assert np.abs(asked_for(one) - asked_for(other)).max() > 0.1


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("n_context", [1, 20, N])
def test_against_the_reference_beside_layers_and_scores(
    monkeypatch: pytest.MonkeyPatch,
    tiny_llama: Llama,
    tiny_f32: TinyModel,
    n_context: int,
    chunks: tuple[int, int],
) -> None:
    monkeypatch.setattr(analysis, "MICRO_BATCH", chunks[0])
    monkeypatch.setattr(analysis, "LOGITS_BYTES", 4 * N_VOCAB * chunks[1])
    trace = tiny_f32.forward(TOKENS)
    nothing = np.zeros((1, N_VOCAB), np.float32)
    got = AnalysisContext(tiny_llama, 512).run(split(n_context, layers=(1, LAST), biases=nothing))
    assert_close(asked_for(got.final), normed(tiny_f32, trace.residual[LAST, n_context - 1 :]))
    assert_close(got.captured, trace.residual[[1, LAST], n_context - 1 :])
    assert_close(got.scored, scores_of(trace, TOKENS, n_context))
    assert_close(asked_for(got.biased)[0], got.scored)


@pytest.mark.parametrize("in_graph", [True, False])
@pytest.mark.parametrize("changes", CHANGES[1:])
def test_they_are_the_steered_rows(
    context: AnalysisContext,
    tiny_f32: TinyModel,
    changes: tuple[Intervention, ...],
    in_graph: bool,
) -> None:
    context.in_graph = in_graph
    masked = [(each, selected_positions(each.positions, N_CONTEXT, N)) for each in changes]
    steered = steered_forward(tiny_f32, TOKENS, masked).residual[LAST, N_CONTEXT - 1 :]
    got = context.run(split(interventions=changes))
    assert_close(asked_for(got.final), normed(tiny_f32, steered))


def test_without_scores_the_pass_ends_at_them(
    monkeypatch: pytest.MonkeyPatch, context: AnalysisContext
) -> None:
    whole = context.run(split(layers=(1, LAST)))
    stops = []
    call_hooked = context._call_hooked
    monkeypatch.setattr(
        context,
        "_call_hooked",
        lambda *args, early: stops.append(early) or call_hooked(*args, early=early),
    )
    early = context.run(split(layers=(1, LAST), score=False))
    assert stops[-1]
    np.testing.assert_array_equal(asked_for(early.final), asked_for(whole.final))
    np.testing.assert_array_equal(early.captured, whole.captured)


# With a memory


def test_a_memory_changes_the_log_probability_and_nothing_else(context: AnalysisContext) -> None:
    bias = dict.fromkeys(TOKENS[20:], 2.0)
    plain = context.run(split(logit_bias=bias, entropy=True))
    memory = Recorder()
    job = split(logit_bias=bias, entropy=True, final=False, memory=memory)
    other, mixed = context.run_many([split(20), job])
    np.testing.assert_allclose(
        mixed.scored, plain.scored - np.arange(1, N - N_CONTEXT + 1), rtol=0, atol=F32_MAX
    )
    assert_close(np.stack(memory.rows), asked_for(plain.final)[:-1])
    assert_close(asked_for(mixed.entropy), asked_for(plain.entropy))
    assert mixed.final is None
    assert_close(other.scored, context.run(split(20)).scored)


def test_a_memory_without_scores_is_an_error(context: AnalysisContext) -> None:
    with pytest.raises(ModelError, match="come with scores: ask for `score` too"):
        context.run(split(score=False, memory=Recorder()))


@pytest.mark.parametrize("in_graph", [True, False])
def test_rows_while_generating_are_those_of_a_pass(
    context: AnalysisContext, in_graph: bool
) -> None:
    """Texts of different lengths, side by side with one that has no memory."""
    context.in_graph = in_graph
    memories = [Recorder() for _ in CHANGES]
    jobs = [
        GenerateRequest(TOKENS[: 5 + 3 * i], 4 + 3 * i, interventions=changes, memory=memory)
        for i, (changes, memory) in enumerate(zip(CHANGES, memories, strict=True))
    ]
    jobs.insert(1, GenerateRequest(TOKENS[:12], 6))
    written = context.generate_many(jobs)
    assert written == [context.generate_many([job])[0] for job in map(without_memory, jobs)]
    for job, text in zip(jobs, written, strict=True):
        if job.memory is None:
            continue
        memory = job.memory
        assert isinstance(memory, Recorder)
        result = context.run(
            ScoreRequest(job.context, text, final=True, interventions=job.interventions)
        )
        n_steps = len(memory.rows)  # with one more where the end was sampled
        assert n_steps == len(text) + (len(text) < job.max_tokens)
        assert memory.before == [text[:step] for step in range(n_steps)]
        assert_close(np.stack(memory.rows), asked_for(result.final)[:n_steps])


def without_memory(job: GenerateRequest) -> GenerateRequest:
    return GenerateRequest(job.context, job.max_tokens, interventions=job.interventions)


@pytest.mark.parametrize("name", ["lfm2", "mamba2"])
def test_rows_while_a_recurrent_model_generates(
    open_llama: Callable[..., Llama], tmp_path: Any, name: str
) -> None:
    context = AnalysisContext(open_llama(make_tiny(tmp_path / "tiny.gguf", name)), 512)
    memories = [Recorder(), Recorder()]
    jobs = [GenerateRequest(TOKENS[: 9 + i], 5, memory=each) for i, each in enumerate(memories)]
    for job, memory, text in zip(jobs, memories, context.generate_many(jobs), strict=True):
        final = asked_for(context.run(ScoreRequest(job.context, text, final=True)).final)
        assert_close(np.stack(memory.rows), final[: len(memory.rows)])


class OneAfterAnother(Recorder):
    """Makes tokens 300, 301, 302, ... certain."""

    def shift(
        self, row: NDArray[np.float32], before: Sequence[int], logits: NDArray[np.float32]
    ) -> None:
        super().shift(row, before, logits)
        logits[300 + len(before)] = 1e6


def test_a_memory_comes_after_the_logit_bias(context: AnalysisContext) -> None:
    memory = OneAfterAnother()
    [text] = context.generate_many(
        [GenerateRequest(TOKENS[:9], 4, logit_bias={17: 1e5}, memory=memory)]
    )
    assert text == [300, 301, 302, 303]
    assert [int(logits.argmax()) for logits in memory.logits] == [17] * 4
