"""Passes side by side: the same results as one by one, whatever runs next to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import llama_cpp
import numpy as np
import pytest
from llama_cpp import Llama
from numpy.typing import NDArray

from models import TinyModel
from models.operations import log_softmax
from steerx_edge.errors import ModelError
from steerx_edge.llamacpp import analysis
from steerx_edge.llamacpp.analysis import (
    INPUT_LAYER,
    MAX_SEQUENCES,
    AnalysisContext,
    ScoreRequest,
    ScoreResult,
    asked_for,
)
from steerx_edge.llamacpp.interventions import (
    Add,
    Clamp,
    Gate,
    Intervention,
    Rotate,
    SetComponent,
    selected_positions,
)
from steerx_edge.steering.memory import ActiveMemory
from tests.support.memory_reference import memory_of
from tests.support.steered_reference import scores_of, steered_forward, unit

N_EMBD, N_VOCAB = 64, 448
ALL_LAYERS = (0, 1, 2, 3)
F32_MAX = 1e-4  # of tests/tiny_models/test_models_reference.py
ALONE_MAX = 1e-5  # a batch of another size sums in another order
# (tokens of a micro-batch, rows of logits held at a time)
CHUNKS = [(512, 4096), (64, 64), (16, 4096), (19, 7), (512, 16), (512, 3)]


def vector(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((1, N_EMBD)).astype(np.float32)


def direction(seed: int) -> NDArray[np.float32]:
    return unit(vector(seed)).astype(np.float32)


def tokens(seed: int, n: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(100 + seed).integers(5, N_VOCAB, n)]


def one_pass(seed: int, n_context: int, n_response: int, **options: Any) -> ScoreRequest:
    drawn = tokens(seed, n_context + n_response)
    return ScoreRequest(drawn[:n_context], drawn[n_context:], **({"layers": ALL_LAYERS} | options))


def mean_of(n_response: int) -> NDArray[np.float32]:
    return np.full((1, n_response + 1), 1 / (n_response + 1), np.float32)


# Lengths, layers, sites, what is asked for, and changes all differ.
MIXED = [
    one_pass(0, 5, 9),
    one_pass(1, 1, 20, layers=(1, 3), interventions=(Add((1,), vector(1)),)),
    one_pass(2, 14, 3, score=False, layers=(2,)),
    one_pass(3, 7, 7, layers=(), entropy=True, top_k=3),
    one_pass(4, 30, 0, layers=(0,)),
    one_pass(
        5, 3, 12, interventions=(SetComponent((0, 2), np.vstack([direction(5)] * 2), [0, 2]),)
    ),
    one_pass(6, 8, 4, score=False, layers=(0, 1), weights=mean_of(4)),
    one_pass(7, 6, 6, interventions=(Rotate((3,), direction(7), 0.5, positions="all"),)),
    one_pass(8, 2, 10, layers=(3,), weights=mean_of(10), top_k=1),
    one_pass(9, 4, 4, hook_point="attn_out", layers=(0, 2)),
    one_pass(10, 4, 4, hook_point="ffn_out", layers=(2, 3), score=False),
    one_pass(11, 10, 5, layers=(INPUT_LAYER, 0)),
    one_pass(12, 6, 2, layers=(INPUT_LAYER,), score=False),
    one_pass(
        13,
        9,
        8,
        interventions=(
            Clamp(Add((2,), 4 * vector(13), positions="all"), 0.3),
            Gate(Add((3,), vector(14), positions="prompt"), direction(15), 0.0),
        ),
    ),
    one_pass(14, 1, 1),
    one_pass(15, 12, 6, score=False, layers=(1,), interventions=(Add((3,), vector(16)),)),
]


def assert_close(
    actual: Sequence[ScoreResult], expected: Sequence[ScoreResult], bound: float
) -> None:
    assert len(actual) == len(expected)
    for number, (one, other) in enumerate(zip(actual, expected, strict=True)):
        for name, values in vars(other).items():
            got = getattr(one, name)
            if values is None:
                assert got is None
            elif name == "top_token":
                np.testing.assert_array_equal(got, values)
            else:
                np.testing.assert_allclose(
                    got, values, rtol=0, atol=bound, err_msg=f"{name} of pass {number}"
                )


def assert_identical(actual: ScoreResult, expected: ScoreResult) -> None:
    for name, values in vars(expected).items():
        np.testing.assert_array_equal(getattr(actual, name), values, err_msg=name)


@pytest.fixture
def make_context(
    monkeypatch: pytest.MonkeyPatch, tiny_llama: Llama
) -> Callable[..., AnalysisContext]:
    def make(
        chunks: tuple[int, int] = CHUNKS[0], *, n_ctx: int = 512, kv_unified: bool = True
    ) -> AnalysisContext:
        monkeypatch.setattr(analysis, "MICRO_BATCH", chunks[0])
        monkeypatch.setattr(analysis, "LOGITS_BYTES", 4 * N_VOCAB * chunks[1])
        return AnalysisContext(tiny_llama, n_ctx, kv_unified=kv_unified)

    return make


@pytest.fixture
def context(make_context: Callable[..., AnalysisContext]) -> AnalysisContext:
    return make_context()


@pytest.fixture
def one_by_one(make_context: Callable[..., AnalysisContext]) -> list[ScoreResult]:
    """The mixed passes, each alone on a context of its own."""
    return [make_context().run(job) for job in MIXED]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[int, int]]]:
    """The (sequence, position) of each token of each decode call from now on."""
    calls: list[list[tuple[int, int]]] = []
    real = llama_cpp.llama_decode

    def decode(context: Any, batch: Any) -> int:
        rows = range(batch.n_tokens)
        calls.append([(batch.seq_id[row][0], batch.pos[row]) for row in rows])
        return int(real(context, batch))

    monkeypatch.setattr(llama_cpp, "llama_decode", decode)
    return calls


# As one by one


@pytest.mark.parametrize("kv_unified", [True, False])
@pytest.mark.parametrize("chunks", CHUNKS)
def test_mixed_passes(
    make_context: Callable[..., AnalysisContext],
    one_by_one: list[ScoreResult],
    chunks: tuple[int, int],
    kv_unified: bool,
) -> None:
    together = make_context(chunks, kv_unified=kv_unified).run_many(MIXED)
    assert_close(together, one_by_one, ALONE_MAX)


@pytest.mark.parametrize("seed", range(4))
def test_mixed_passes_in_any_order_and_company(
    context: AnalysisContext, one_by_one: list[ScoreResult], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(MIXED))[: int(rng.integers(2, len(MIXED)))]
    together = context.run_many([MIXED[place] for place in order])
    assert_close(together, [one_by_one[place] for place in order], ALONE_MAX)


def test_against_the_reference(context: AnalysisContext, tiny_f32: TinyModel) -> None:
    """Every pass steered its own way: sequences mixed up would show."""
    jobs = [
        one_pass(number, 3 + number, 12 - number, interventions=changes)
        for number, changes in enumerate(
            [
                (Add((1,), vector(1)),),
                (Add((1,), vector(2)),),
                (),
                (SetComponent((2,), direction(3), [0], positions="all"),),
                (Rotate((0,), direction(4), 0.7, positions="response"),),
                (Add((0,), vector(5), positions=4), Clamp(Add((3,), 9 * vector(6)), 0.2)),
            ]
        )
    ]
    for job, got in zip(jobs, context.run_many(jobs), strict=True):
        drawn, n_context = [*job.context, *job.response], len(job.context)
        changes = [
            (each, selected_positions(each.positions, n_context, len(drawn)))
            for each in job.interventions
        ]
        trace = steered_forward(tiny_f32, drawn, changes)
        np.testing.assert_allclose(
            got.captured, trace.residual[:, n_context - 1 :], rtol=0, atol=F32_MAX
        )
        np.testing.assert_allclose(
            got.scored, scores_of(trace, drawn, n_context), rtol=0, atol=F32_MAX
        )


def test_the_same_text_steered_in_different_ways(context: AnalysisContext) -> None:
    """Equal tokens, so that nothing but the sequence tells the rows apart."""
    steered: list[tuple[Intervention, ...]] = [(Add((1,), vector(seed)),) for seed in range(5)]
    jobs = [one_pass(0, 6, 6, interventions=changes) for changes in [(), *steered, ()]]
    together = context.run_many(jobs)
    assert_close(together, [context.run(job) for job in jobs], ALONE_MAX)
    scores = np.stack([result.scored for result in together])
    apart = np.abs(scores[:, None] - scores[None]).max(axis=-1)
    assert apart[0, -1] < ALONE_MAX
    assert np.sort(apart[:-1, :-1], axis=1)[:, 1].min() > 0.05


@pytest.mark.parametrize("neighbour", [0, 1, 2])
def test_an_unsteered_pass_is_not_touched_by_its_neighbours(
    context: AnalysisContext, neighbour: int
) -> None:
    plain = one_pass(1, 5, 8)
    strong = Add(ALL_LAYERS, 20 * np.vstack([vector(3)] * 4), positions="all")
    loud = one_pass(2, 5, 8, interventions=(strong,))
    silence = Add(ALL_LAYERS, np.zeros((4, N_EMBD), np.float32), positions="all")
    quiet = one_pass(2, 5, 8, interventions=(silence,))
    jobs, silent = [loud] * 3, [quiet] * 3
    jobs[neighbour] = silent[neighbour] = plain
    got = context.run_many(jobs)[neighbour]
    assert_identical(got, context.run_many(silent)[neighbour])
    assert_close([got], [context.run(plain)], ALONE_MAX)


@pytest.mark.parametrize("n_jobs", [1, MAX_SEQUENCES, MAX_SEQUENCES + 1, 3 * MAX_SEQUENCES - 5])
def test_any_number_of_passes(
    context: AnalysisContext, decoded: list[list[tuple[int, int]]], n_jobs: int
) -> None:
    jobs = [one_pass(seed, 1 + seed % 5, seed % 7) for seed in range(n_jobs)]
    together = context.run_many(jobs)
    n_calls = len(decoded)
    assert_close(together, [context.run(job) for job in jobs], ALONE_MAX)
    # Contexts and bodies, in a call each; the only pass has a context of one token.
    assert n_calls == (1 if n_jobs == 1 else 2 * -(-n_jobs // MAX_SEQUENCES))
    assert max(sequence for call in decoded for sequence, _ in call) < MAX_SEQUENCES


@pytest.mark.parametrize("chunks", CHUNKS)
def test_expected_tokens_and_logit_biases(
    make_context: Callable[..., AnalysisContext], tiny_f32: TinyModel, chunks: tuple[int, int]
) -> None:
    biases = np.random.default_rng(5).standard_normal((3, N_VOCAB)).astype(np.float32)
    jobs = [one_pass(seed, 3 + seed, 9 - seed, expected=True, biases=biases) for seed in range(4)]
    for job, got in zip(jobs, make_context(chunks).run_many(jobs), strict=True):
        drawn, first = [*job.context, *job.response], len(job.context) - 1
        logits = tiny_f32.forward(drawn).logits[first:-1]
        np.testing.assert_allclose(
            got.expected, np.exp(log_softmax(logits)).sum(axis=0), rtol=0, atol=F32_MAX
        )
        wanted = [
            log_softmax(logits + logit_bias)[range(len(logits)), job.response]
            for logit_bias in biases
        ]
        np.testing.assert_allclose(got.biased, wanted, rtol=0, atol=F32_MAX)


def test_a_logit_bias_is_a_logit_bias(context: AnalysisContext) -> None:
    bias = {7: 2.5, 300: -1.5, 447: 0.25}
    logit_bias = np.zeros((1, N_VOCAB), np.float32)
    logit_bias[0, list(bias)] = list(bias.values())
    for options in ({}, {"biases": 2 * logit_bias}):
        job = one_pass(0, 4, 9, **options)
        plain = context.run(job)
        biased = context.run(one_pass(0, 4, 9, logit_bias=bias, **options))
        (wanted,) = asked_for(context.run(one_pass(0, 4, 9, biases=logit_bias)).biased)
        np.testing.assert_array_equal(biased.scored, wanted)
        assert np.abs(biased.scored - plain.scored).max() > 1e-3
        np.testing.assert_array_equal(biased.captured, plain.captured)
        if options:
            np.testing.assert_array_equal(biased.biased, plain.biased)
    with pytest.raises(ModelError, match="not in the vocabulary"):
        context.run(one_pass(0, 4, 9, logit_bias={448: 1.0}))


def test_what_a_logit_bias_multiplies_by_is_made_once_for_passes_that_share_it(
    context: AnalysisContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, made = context._new_logit_bias_factors, []
    monkeypatch.setattr(
        context, "_new_logit_bias_factors", lambda job: made.append(job) or make(job)
    )
    biases = np.random.default_rng(5).standard_normal((3, N_VOCAB)).astype(np.float32)
    jobs = [one_pass(0, 4, 9, biases=biases), one_pass(0, 4, 20, biases=biases)]
    before = context.run_many(jobs)
    assert len(made) == 1
    # Between passes the same arrays may hold something else.
    biases *= 2
    after = context.run_many(jobs)
    assert len(made) == 2
    assert np.abs(asked_for(after[0].biased) - asked_for(before[0].biased)).max() > 1e-2
    # One after the other on the same context, passes have logit biases of their own.
    biased, plain = one_pass(0, 4, 9, logit_bias={7: 2.5}), one_pass(0, 4, 9)
    mixed = context.run_many([jobs[0], biased, plain, jobs[1]])
    for job, got in zip([jobs[0], biased, plain, jobs[1]], mixed, strict=True):
        np.testing.assert_allclose(got.scored, context.run(job).scored, rtol=0, atol=F32_MAX)
        assert (got.biased is None) == (job.biases is None)


def test_rows_of_logits_are_bounded_whatever_the_vocabulary(
    tiny_llama: Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = AnalysisContext(tiny_llama, 512)
    real, n_rows = llama_cpp.llama_decode, []

    def decode(address: Any, batch: Any) -> int:
        n_rows.append(sum(batch.logits[row] for row in range(batch.n_tokens)))
        return int(real(address, batch))

    monkeypatch.setattr(llama_cpp, "llama_decode", decode)
    context.run(one_pass(0, 20, 400))
    assert max(n_rows) == 128
    assert sum(n_rows) == 401


def test_each_pass_has_a_memory_of_its_own(context: AnalysisContext, tiny_llama: Llama) -> None:
    """It changes the log-probability, after the logit bias, and nothing else."""
    asked: dict[str, Any] = {
        "entropy": True,
        "top_k": 3,
        "expected": True,
        "final": True,
        "logit_bias": {int(token): 2.0 for token in one_pass(0, 4, 9).response[:4]},
        "biases": np.random.default_rng(5).standard_normal((3, N_VOCAB)).astype(np.float32),
        "interventions": (Add((1,), 0.1 * vector(1)),),
    }
    jobs = [one_pass(seed, 4, 9, **asked) for seed in range(4)]
    memories = [
        ActiveMemory(memory_of(tiny_llama, [(job.context, job.response)]), strength)
        for job, strength in zip(jobs[:3], (0.1, 0.5, 2.0), strict=True)
    ]
    plain = context.run_many(jobs)
    mixed = context.run_many(
        [
            dataclasses.replace(job, memory=memory)
            for job, memory in zip(jobs, [*memories, None], strict=True)
        ]
    )
    for without, got in zip(plain, mixed, strict=True):
        for name, values in vars(without).items():
            if name != "log_prob":
                np.testing.assert_array_equal(getattr(got, name), values, err_msg=name)
    for job, memory, without, got in zip(jobs, memories, plain, mixed, strict=False):
        rows = asked_for(without.final)[:-1]
        expected = memory.log_prob(rows, job.response, without.scored)
        np.testing.assert_array_equal(got.scored, expected)
        assert expected.mean() > without.scored.mean() + 1
    np.testing.assert_array_equal(mixed[3].scored, plain[3].scored)


def test_logit_biases_that_do_not_fit(context: AnalysisContext) -> None:
    with pytest.raises(
        ModelError, match=r"logit biases have shape \(1, 3\), expected \(bias, 448\)"
    ):
        context.run(one_pass(0, 3, 3, biases=np.zeros((1, 3), np.float32)))
    with pytest.raises(ModelError, match="come with scores"):
        context.run(one_pass(0, 3, 3, score=False, expected=True))


def test_no_passes(context: AnalysisContext, decoded: list[list[tuple[int, int]]]) -> None:
    assert context.run_many([]) == []
    assert not decoded


# What runs in one call


def test_groups_fit_the_context(
    make_context: Callable[..., AnalysisContext], decoded: list[list[tuple[int, int]]]
) -> None:
    context = make_context(n_ctx=256)
    jobs = [one_pass(seed, 30, 30) for seed in range(9)]
    alone = [context.run(job) for job in jobs]
    decoded.clear()
    together = context.run_many(jobs)
    assert [len(call) for call in decoded] == [4 * 29, 4 * 31, 4 * 29, 4 * 31, 29, 31]
    assert_close(together, alone, ALONE_MAX)


def test_passes_that_fill_the_context(make_context: Callable[..., AnalysisContext]) -> None:
    context = make_context(n_ctx=256)
    jobs = [one_pass(0, 100, 28), one_pass(1, 1, 127), one_pass(2, 250, 6), one_pass(3, 1, 1)]
    assert_close(context.run_many(jobs), [make_context().run(job) for job in jobs], ALONE_MAX)


@pytest.mark.parametrize("chunks", CHUNKS)
def test_decode_calls_stay_within_the_bounds(
    make_context: Callable[..., AnalysisContext],
    decoded: list[list[tuple[int, int]]],
    chunks: tuple[int, int],
) -> None:
    context = make_context(chunks)
    decoded.clear()
    context.run_many(MIXED)
    assert max(len(call) for call in decoded) <= chunks[0]
    assert sum(len(call) for call in decoded) == sum(
        len(job.context) + len(job.response) for job in MIXED
    )


def test_a_split_cache_takes_one_pass_at_a_time(
    make_context: Callable[..., AnalysisContext], decoded: list[list[tuple[int, int]]]
) -> None:
    context = make_context(kv_unified=False)
    decoded.clear()
    context.run_many(MIXED[:5])
    assert len(decoded) == sum(1 + (len(job.context) > 1) for job in MIXED[:5])
    assert {sequence for call in decoded for sequence, _ in call} == {0}


@pytest.mark.parametrize("place", [0, 2, 4])
def test_passes_with_one_control_vector_run_together(
    context: AnalysisContext, decoded: list[list[tuple[int, int]]], place: int
) -> None:
    context.in_graph = True
    added = (Add((2,), vector(1)),)
    jobs = [one_pass(seed, 4, 6) for seed in range(5)]
    for steered in {place, 1, 3}:
        jobs[steered] = one_pass(steered, 4, 6, interventions=added)
    together = context.run_many(jobs)
    assert len(decoded) == 4  # contexts and bodies, of unsteered passes and of steered ones
    assert_close(together, [context.run(job) for job in jobs], ALONE_MAX)
    assert np.abs(together[place].scored - context.run(one_pass(place, 4, 6)).scored).max() > 0.05


def test_control_vectors_one_after_the_other(context: AnalysisContext) -> None:
    context.in_graph = True
    jobs = [one_pass(0, 4, 6, interventions=(Add((1,), vector(seed)),)) for seed in range(3)]
    together = context.run_many([*jobs, one_pass(0, 4, 6)])
    for got, job in zip(together, [*jobs, one_pass(0, 4, 6)], strict=True):
        assert_close([got], [context.run(job)], ALONE_MAX)
    assert np.abs(together[0].scored - together[1].scored).max() > 0.05


# What passes share


def shared_jobs(n: int, **options: Any) -> list[ScoreRequest]:
    """Passes that begin with the same 40 tokens, in two families of 12 more, in mixed order."""
    trunk, families = tokens(0, 40), [tokens(1, 12), tokens(2, 12)]
    jobs = [
        ScoreRequest(
            [*trunk, *families[i % 2], *tokens(10 + i, 1 + i % 3)],
            tokens(30 + i, 5 + i),
            **({"layers": ALL_LAYERS} | options),
        )
        for i in range(n)
    ]
    return [jobs[i] for i in np.random.default_rng(0).permutation(n)]


@pytest.mark.parametrize("n_jobs", [2, 7, MAX_SEQUENCES, 2 * MAX_SEQUENCES + 3])
@pytest.mark.parametrize("chunks", [(512, 4096), (19, 18), (16, 4096)])
def test_a_shared_beginning_is_evaluated_once(
    make_context: Callable[..., AnalysisContext],
    decoded: list[list[tuple[int, int]]],
    n_jobs: int,
    chunks: tuple[int, int],
) -> None:
    context = make_context(chunks)
    jobs = shared_jobs(n_jobs)
    decoded.clear()
    together = context.run_many(jobs)
    n_evaluated = sum(map(len, decoded))
    # The last token of a context is each pass's own.
    n_own = sum(len(job.context) - 52 + len(job.response) for job in jobs)
    assert n_evaluated == 40 + 2 * 12 + n_own
    assert_close(together, [make_context(chunks).run(job) for job in jobs], ALONE_MAX)


def test_what_is_steered_is_shared_up_to_the_first_changed_row(
    context: AnalysisContext, decoded: list[list[tuple[int, int]]]
) -> None:
    mask = np.zeros(60, np.bool_)
    mask[20:] = True
    changes: list[tuple[Intervention, ...]] = [
        (Add((1,), 5 * vector(1), positions="all"),),
        (Add((1,), 5 * vector(2), positions=mask),),
        (Add((1,), 5 * vector(3)),),
        (),
    ]
    jobs = [one_pass(0, 50, 10, interventions=each) for each in changes]
    together = context.run_many(jobs)
    assert sum(map(len, decoded)) == 60 + (20 + 40) + (29 + 11) + 11
    assert_close(together, [context.run(job) for job in jobs], ALONE_MAX)


def test_passes_of_different_depth_share_nothing(context: AnalysisContext) -> None:
    """An early exit leaves the cells of upper blocks empty."""
    jobs = [
        *shared_jobs(6, layers=(0,), score=False),
        *shared_jobs(6),
        *shared_jobs(6, layers=(INPUT_LAYER, 2), score=False),
    ]
    assert_close(context.run_many(jobs), [context.run(job) for job in jobs], ALONE_MAX)


def test_control_vectors_leave_shared_beginnings_alone(context: AnalysisContext) -> None:
    context.in_graph = True
    jobs = [
        *shared_jobs(5, interventions=(Add((1,), vector(1)),)),
        *shared_jobs(5, interventions=(Add((1,), vector(2)),)),
        *shared_jobs(5, interventions=(Add((1,), vector(3), positions="all"),)),
        *shared_jobs(5),
    ]
    together = context.run_many(jobs)
    context.in_graph = False
    assert_close(together, [context.run(job) for job in jobs], ALONE_MAX)


# What is left behind


EARLY = [
    one_pass(1, 9, 14, score=False, layers=(0,)),
    one_pass(2, 3, 5, score=False, layers=(0, 1)),
    one_pass(3, 20, 0, score=False, layers=(2,), interventions=(Add((0,), vector(9)),)),
]


@pytest.mark.parametrize("chunks", [CHUNKS[0], (16, 4096), (19, 7)])
@pytest.mark.parametrize("kv_unified", [True, False])
def test_early_exits_leave_nothing_behind(
    make_context: Callable[..., AnalysisContext], chunks: tuple[int, int], kv_unified: bool
) -> None:
    wanted = MIXED[:8]
    fresh = make_context(chunks, kv_unified=kv_unified).run_many(wanted)
    used = make_context(chunks, kv_unified=kv_unified)
    for job in EARLY:
        used.run_many([job, *EARLY])
        for got, expected in zip(used.run_many(wanted), fresh, strict=True):
            assert_identical(got, expected)


def test_early_exit_reads_the_same_rows_as_a_whole_pass(context: AnalysisContext) -> None:
    early = context.run_many(EARLY)
    whole = context.run_many(
        [ScoreRequest(**(vars(job) | {"score": True, "layers": ALL_LAYERS})) for job in EARLY]
    )
    for one, other, job in zip(early, whole, EARLY, strict=True):
        np.testing.assert_allclose(
            one.captured, other.captured[list(job.layers)], rtol=0, atol=ALONE_MAX
        )


@pytest.mark.parametrize("failing_call", [1, 2, 3])
def test_passes_that_fail_half_way_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
    make_context: Callable[..., AnalysisContext],
    failing_call: int,
) -> None:
    chunks = (64, 64)
    fresh = make_context(chunks).run_many(MIXED)
    context = make_context(chunks)
    real, calls = llama_cpp.llama_decode, []

    def decode(*args: Any) -> int:
        calls.append(args)
        return 2 if len(calls) == failing_call else int(real(*args))

    with monkeypatch.context() as patch:
        patch.setattr(llama_cpp, "llama_decode", decode)
        with pytest.raises(ModelError, match="llama_decode gave 2"):
            context.run_many(MIXED)
    for got, expected in zip(context.run_many(MIXED), fresh, strict=True):
        assert_identical(got, expected)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (one_pass(0, 4, 4, hook_point="no_such_site"), "has no tensor no_such_site-0"),
        (one_pass(0, 4, 4, hook_point="no_such_site", score=False), "has no tensor no_such_site-0"),
        (one_pass(0, 300, 300), "does not fit the analysis context"),
        (one_pass(0, 4, 4, layers=(4,)), "cannot be read"),
        (one_pass(0, 4, 4, interventions=(Add((1,), np.ones((1, 8), np.float32)),)), "do not fit"),
    ],
)
def test_one_bad_pass_is_an_error_and_the_next_ones_work(
    make_context: Callable[..., AnalysisContext], bad: ScoreRequest, message: str
) -> None:
    fresh = make_context().run_many(MIXED)
    context = make_context()
    with pytest.raises(ModelError, match=message):
        context.run_many([*MIXED[:3], bad, *MIXED[3:]])
    for got, expected in zip(context.run_many(MIXED), fresh, strict=True):
        assert_identical(got, expected)


# The order of the tokens


def test_a_batch_in_another_order_than_planned_is_refused(
    monkeypatch: pytest.MonkeyPatch, context: AnalysisContext
) -> None:
    expected = context.run_many(MIXED[:3])
    real = llama_cpp.llama_decode

    def rearranging(address: Any, batch: Any) -> int:
        """What llama.cpp does of itself when it is left to choose."""
        for array in (batch.token, batch.pos, batch.logits):
            array[0], array[batch.n_tokens - 1] = array[batch.n_tokens - 1], array[0]
        first, last = batch.seq_id[0], batch.seq_id[batch.n_tokens - 1]
        first[0], last[0] = last[0], first[0]
        return int(real(address, batch))

    with monkeypatch.context() as patch:
        patch.setattr(llama_cpp, "llama_decode", rearranging)
        with pytest.raises(ModelError, match="the tokens of the batch in another order"):
            context.run_many(
                [ScoreRequest([7], [], layers=(1,)), ScoreRequest([8], [], layers=(1,))]
            )
    for got, wanted in zip(context.run_many(MIXED[:3]), expected, strict=True):
        assert_identical(got, wanted)


def test_a_batch_that_llama_cpp_splits_is_refused(
    monkeypatch: pytest.MonkeyPatch, tiny_llama: Llama
) -> None:
    real = AnalysisContext._params

    def smaller(self: AnalysisContext, llama: Llama) -> Any:
        params = real(self, llama)
        params.n_ubatch = 8
        return params

    monkeypatch.setattr(AnalysisContext, "_params", smaller)
    context = AnalysisContext(tiny_llama, 512)  # whose probe is short enough
    with pytest.raises(ModelError, match=r"was split: llama.cpp computes 8 of 10 tokens"):
        context.run(MIXED[0])
    context.run(one_pass(0, 4, 4))


def test_sequences_that_llama_cpp_rearranges_are_refused(
    make_context: Callable[..., AnalysisContext], one_by_one: list[ScoreResult]
) -> None:
    """With a split cache it does, which is why passes then run one at a time."""
    context = make_context(kv_unified=False)
    one_at_a_time = context._limits
    context._limits = dataclasses.replace(one_at_a_time, sequences=2)
    with pytest.raises(ModelError):
        context.run_many([MIXED[0], MIXED[1]])
    context._limits = one_at_a_time
    assert_close(context.run_many(MIXED), one_by_one, ALONE_MAX)
