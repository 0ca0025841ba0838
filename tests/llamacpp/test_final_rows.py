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
from steerx_edge.llamacpp.analysis import AnalysisContext
from steerx_edge.llamacpp.interventions import Add, Intervention, SetComponent
from steerx_edge.llamacpp.requests import GenerateRequest, ScoreRequest, asked_for
from tests.llamacpp.conftest import (
    N_EMBD,
    TOKENS,
    N,
    assert_close,
    directions,
    masked,
    split,
    vectors,
)
from tests.support.memory_reference import normed
from tests.support.steered_reference import steered_forward

LAST, N_CONTEXT = 3, 10
CHANGES: list[tuple[Intervention, ...]] = [
    (),
    (Add((1,), 3 * vectors(seed=1)),),
    (SetComponent((LAST,), directions(seed=4), [5.0], positions="all"),),
    (Add((2,), 2 * vectors(seed=2), positions="all"),),
]


class Recorder:
    """A memory that notes what it is given, and makes tokens of a text less and less probable."""

    def __init__(self) -> None:
        self.rows: list[NDArray[np.float32]] = []
        self.before: list[list[int]] = []

    def shift(
        self, row: NDArray[np.float32], before: Sequence[int], logits: NDArray[np.float32]
    ) -> None:
        assert logits.ndim == 1
        self.rows.append(row)
        self.before.append(list(before))

    def log_prob(
        self, rows: NDArray[np.float32], text: Sequence[int], log_prob: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        self.rows += list(rows)
        return (log_prob - np.arange(1, len(text) + 1)).astype(np.float32)


@pytest.fixture
def context(tiny_llama: Llama) -> AnalysisContext:
    return AnalysisContext(tiny_llama, 512)


def embeddings_of(llama: Llama, tokens: Sequence[int]) -> NDArray[np.float32]:
    """What llama.cpp gives as embeddings, token by token: (token, n_embd)."""
    llama_cpp.llama_set_embeddings(llama.ctx, True)
    rows = []
    for token in tokens:
        llama.eval([token])
        pointer = llama_cpp.llama_get_embeddings_ith(llama.ctx, -1)
        rows.append(np.ctypeslib.as_array(pointer, (N_EMBD,)).copy())
    return np.stack(rows)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_they_are_llama_cpps_embeddings_alone_and_side_by_side(
    open_llama: Callable[..., Llama], tmp_path: Any, architecture: str
) -> None:
    llama = open_llama(make_tiny(tmp_path / "tiny.gguf", architecture))
    context = AnalysisContext(llama, 512)
    requests = [split(*changes, final=True) for changes in CHANGES]
    requests += [split(n_context=N, final=True), split(), split(score=False, layers=(1,))]
    alone = [context.run(request).final for request in requests]
    together = [each.final for each in context.run_many(requests)]
    assert_close(alone[0], embeddings_of(llama, TOKENS)[N_CONTEXT - 1 :])
    assert [each is None for each in together] == [not request.final for request in requests]
    for got, expected in zip(together[:-2], alone[:-2], strict=True):
        assert_close(got, asked_for(expected))
    for one, other in pairwise(together[: len(CHANGES)]):
        assert np.abs(asked_for(one) - asked_for(other)).max() > 0.1


@pytest.mark.parametrize(
    ("changes", "in_graph"),
    [*((each, False) for each in CHANGES[1:]), (CHANGES[1], True), (CHANGES[3], True)],
)
def test_they_are_the_steered_rows(
    context: AnalysisContext,
    tiny_f32: TinyModel,
    changes: tuple[Intervention, ...],
    in_graph: bool,
) -> None:
    context.in_graph = in_graph
    steered = steered_forward(tiny_f32, TOKENS, masked(changes, N_CONTEXT, N)).residual[LAST]
    got = context.run(split(*changes, final=True))
    assert_close(got.final, normed(tiny_f32, steered[N_CONTEXT - 1 :]))


# With a memory


def test_a_memory_changes_the_log_probability_and_nothing_else(context: AnalysisContext) -> None:
    bias = dict.fromkeys(TOKENS[20:], 2.0)
    plain = context.run(split(logit_bias=bias, entropy=True, final=True))
    memory = Recorder()
    _, mixed = context.run_many(
        [split(n_context=20), split(logit_bias=bias, entropy=True, memory=memory)]
    )
    assert_close(mixed.scored, plain.scored - np.arange(1, N - N_CONTEXT + 1, dtype=np.float32))
    assert_close(np.stack(memory.rows), asked_for(plain.final)[:-1])
    assert_close(mixed.entropy, asked_for(plain.entropy))
    assert mixed.final is None
    with pytest.raises(ModelError, match="need scores: set `score`"):
        context.run(split(score=False, memory=Recorder()))


@pytest.mark.parametrize("in_graph", [True, False])
def test_rows_while_generating_are_those_of_a_pass(
    context: AnalysisContext, in_graph: bool
) -> None:
    """Texts of different lengths, side by side with one that has no memory."""
    context.in_graph = in_graph
    memories = [Recorder() for _ in CHANGES]
    requests = [
        GenerateRequest(TOKENS[: 5 + 3 * i], 4 + 3 * i, interventions=changes, memory=memory)
        for i, (changes, memory) in enumerate(zip(CHANGES, memories, strict=True))
    ]
    texts = context.generate_many([*requests, GenerateRequest(TOKENS[:12], 6)])
    for request, memory, text in zip(requests, memories, texts, strict=False):
        assert_rows_are_of_a_pass(context, request, memory, text)


@pytest.mark.parametrize("architecture", ["lfm2", "mamba2"])
def test_rows_while_a_recurrent_model_generates(
    open_llama: Callable[..., Llama], tmp_path: Any, architecture: str
) -> None:
    context = AnalysisContext(open_llama(make_tiny(tmp_path / "tiny.gguf", architecture)), 512)
    memories = [Recorder(), Recorder()]
    requests = [GenerateRequest(TOKENS[: 9 + i], 5, memory=each) for i, each in enumerate(memories)]
    texts = context.generate_many(requests)
    for request, memory, text in zip(requests, memories, texts, strict=True):
        assert_rows_are_of_a_pass(context, request, memory, text)


def assert_rows_are_of_a_pass(
    context: AnalysisContext, request: GenerateRequest, memory: Recorder, text: list[int]
) -> None:
    result = context.run(
        ScoreRequest(request.context, text, final=True, interventions=request.interventions)
    )
    n_steps = len(memory.rows)  # with one more where the end was sampled
    assert n_steps == len(text) + (len(text) < request.max_tokens)
    assert memory.before == [text[:step] for step in range(n_steps)]
    assert_close(np.stack(memory.rows), asked_for(result.final)[:n_steps])


class OneAfterAnother(Recorder):
    """Makes tokens 300, 301, 302, ... certain."""

    def shift(
        self, row: NDArray[np.float32], before: Sequence[int], logits: NDArray[np.float32]
    ) -> None:
        super().shift(row, before, logits)
        logits[300 + len(before)] = 1e6


def test_a_memory_comes_after_the_logit_bias(context: AnalysisContext) -> None:
    request = GenerateRequest(TOKENS[:9], 4, logit_bias={17: 1e5}, memory=OneAfterAnother())
    assert context.generate_many([request]) == [[300, 301, 302, 303]]
