"""Requests side by side: the same results as one by one, whatever runs next to them."""

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
from steerx_edge.llamacpp import context as context_module
from steerx_edge.llamacpp import scoring
from steerx_edge.llamacpp.analysis import AnalysisContext
from steerx_edge.llamacpp.context import MAX_SEQUENCES
from steerx_edge.llamacpp.interventions import (
    Add,
    Clamp,
    Gate,
    Intervention,
    Rotate,
    SetComponent,
)
from steerx_edge.llamacpp.requests import INPUT_LAYER, ScoreRequest, ScoreResult, asked_for
from steerx_edge.steering.memory import ActiveMemory
from tests.llamacpp.conftest import (
    ALL_LAYERS,
    ALONE_MAX,
    CALLS,
    N_VOCAB,
    Call,
    assert_all_agree,
    assert_close,
    assert_same,
    changed_batches,
    directions,
    masked,
    tokens_of,
    vectors,
)
from tests.support.memory_reference import memory_of
from tests.support.steered_reference import scores_of, steered_forward


def drawn(seed: int, n_context: int, n_response: int, **options: Any) -> ScoreRequest:
    tokens = tokens_of(seed, n_context + n_response)
    return ScoreRequest(
        tokens[:n_context], tokens[n_context:], **({"layers": ALL_LAYERS} | options)
    )


def mean_of(n_response: int) -> NDArray[np.float32]:
    return np.full((1, n_response + 1), 1 / (n_response + 1), np.float32)


# Lengths, layers, hook points, what is asked for, and changes all differ.
MIXED = [
    drawn(0, 5, 9),
    drawn(1, 1, 20, layers=(1, 3), interventions=(Add((1,), vectors(seed=1)),)),
    drawn(2, 14, 3, score=False, layers=(2,)),
    drawn(3, 7, 7, layers=(), entropy=True, top_k=3),
    drawn(4, 30, 0, layers=(0,)),
    drawn(5, 3, 12, interventions=(SetComponent((0, 2), directions(2, seed=5), [0, 2]),)),
    drawn(6, 8, 4, score=False, layers=(0, 1), weights=mean_of(4)),
    drawn(7, 6, 6, interventions=(Rotate((3,), directions(seed=7), 0.5, positions="all"),)),
    drawn(8, 2, 10, layers=(3,), weights=mean_of(10), top_k=1, final=True),
    drawn(9, 4, 4, hook_point="attn_out", layers=(0, 2)),
    drawn(10, 4, 4, hook_point="ffn_out", layers=(2, 3), score=False),
    drawn(11, 10, 5, layers=(INPUT_LAYER, 0)),
    drawn(12, 6, 2, layers=(INPUT_LAYER,), score=False),
    drawn(
        13,
        9,
        8,
        interventions=(
            Clamp(Add((2,), 4 * vectors(seed=13), positions="all"), 0.3),
            Gate(Add((3,), vectors(seed=14), positions="prompt"), directions(seed=15), 0.0),
        ),
    ),
    drawn(14, 1, 1, final=True),
    drawn(15, 12, 6, score=False, layers=(1,), interventions=(Add((3,), vectors(seed=16)),)),
    drawn(16, 5, 3, score=False, layers=(), final=True),
]


@pytest.fixture
def make_context(
    limit_calls: Callable[[tuple[int, int]], None], tiny_llama: Llama
) -> Callable[..., AnalysisContext]:
    def make(calls: tuple[int, int] = CALLS[0], **options: Any) -> AnalysisContext:
        limit_calls(calls)
        return AnalysisContext(tiny_llama, **{"n_ctx": 512} | options)

    return make


@pytest.fixture
def context(make_context: Callable[..., AnalysisContext]) -> AnalysisContext:
    return make_context()


def alone(context: AnalysisContext, requests: list[ScoreRequest]) -> list[ScoreResult]:
    return [context.run(request) for request in requests]


# As one by one


@pytest.mark.parametrize(
    ("calls", "kv_unified"), [*((each, True) for each in CALLS), (CALLS[2], False)]
)
def test_mixed_requests(
    make_context: Callable[..., AnalysisContext], calls: tuple[int, int], kv_unified: bool
) -> None:
    expected = [make_context().run(request) for request in MIXED]
    context = make_context(calls, kv_unified=kv_unified)
    assert_all_agree(context.run_many(MIXED), expected)
    order = np.random.default_rng(0).permutation(len(MIXED))[:11]  # in other company
    together = context.run_many([MIXED[place] for place in order])
    assert_all_agree(together, [expected[place] for place in order])


def test_against_the_reference(context: AnalysisContext, tiny_f32: TinyModel) -> None:
    """Every sequence steered its own way: rows mixed up would show."""
    changes: list[tuple[Intervention, ...]] = [
        (Add((1,), vectors(seed=1)),),
        (Add((1,), vectors(seed=2)),),
        (),
        (SetComponent((2,), directions(seed=3), [0], positions="all"),),
        (Rotate((0,), directions(seed=4), 0.7, positions="response"),),
        (Add((0,), vectors(seed=5), positions=4), Clamp(Add((3,), 9 * vectors(seed=6)), 0.2)),
    ]
    requests = [drawn(i, 3 + i, 12 - i, interventions=each) for i, each in enumerate(changes)]
    for request, got in zip(requests, context.run_many(requests), strict=True):
        tokens, n_context = [*request.context, *request.response], len(request.context)
        steered = masked(request.interventions, n_context, len(tokens))
        trace = steered_forward(tiny_f32, tokens, steered)
        assert_close(got.captured, trace.residual[:, n_context - 1 :])
        assert_close(got.scored, scores_of(trace, tokens, n_context))


def test_the_same_text_steered_in_different_ways(context: AnalysisContext) -> None:
    """Equal tokens, so that nothing but the sequence tells the rows apart."""
    steered: list[tuple[Intervention, ...]] = [
        (Add((1,), vectors(seed=seed)),) for seed in range(5)
    ]
    requests = [drawn(0, 6, 6, interventions=changes) for changes in [(), *steered, ()]]
    together = context.run_many(requests)
    assert_all_agree(together, alone(context, requests))
    scores = np.stack([result.scored for result in together])
    apart = np.abs(scores[:, None] - scores[None]).max(axis=-1)
    assert apart[0, -1] < ALONE_MAX
    assert np.sort(apart[:-1, :-1], axis=1)[:, 1].min() > 0.05


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_unsteered_sequence_is_not_touched_by_its_neighbours(
    context: AnalysisContext, place: int
) -> None:
    plain = drawn(1, 5, 8)

    def among(strength: float) -> ScoreResult:
        strong = Add(ALL_LAYERS, strength * vectors(4), positions="all")
        requests = [drawn(2, 5, 8, interventions=(strong,))] * 3
        requests[place] = plain
        return context.run_many(requests)[place]

    assert_same(among(20), among(0))
    assert_all_agree([among(20)], [context.run(plain)])


@pytest.mark.parametrize("n", [0, 1, MAX_SEQUENCES, 2 * MAX_SEQUENCES + 1])
def test_any_number_of_requests(context: AnalysisContext, decoded: list[Call], n: int) -> None:
    requests = [drawn(seed, 1 + seed % 5, seed % 7) for seed in range(n)]
    told: list[int] = []
    together = context.run_many(requests, told.append)
    # Contexts and bodies, in a call each; the only request has a context of one token.
    assert len(decoded) == (n if n < 2 else 2 * -(-n // MAX_SEQUENCES))
    assert max((max(call.sequences) for call in decoded), default=0) < MAX_SEQUENCES
    assert told == sorted(told)
    assert told[-1:] == [n] * (n > 0)
    assert_all_agree(together, alone(context, requests))


@pytest.mark.parametrize("failing_call", [1, 2, 3])
def test_requests_that_fail_half_way_leave_nothing_behind(
    make_context: Callable[..., AnalysisContext], failing_call: int
) -> None:
    fresh = make_context((64, 64)).run_many(MIXED)
    context = make_context((64, 64))
    calls = []

    def fail(batch: Any) -> None:
        calls.append(batch)
        if len(calls) == failing_call:
            batch.token[0] = N_VOCAB

    with changed_batches(fail), pytest.raises(ModelError, match="could not evaluate a batch"):
        context.run_many(MIXED)
    for got, expected in zip(context.run_many(MIXED), fresh, strict=True):
        assert_same(got, expected)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (drawn(0, 4, 4, hook_point="nowhere"), "has no tensor nowhere-0"),
        (drawn(0, 4, 4, hook_point="nowhere", score=False), "has no tensor nowhere-0"),
        (drawn(0, 300, 300), "does not fit the analysis context"),
        (drawn(0, 4, 4, interventions=(Add((1,), np.ones((1, 8), np.float32)),)), "do not fit"),
    ],
)
def test_one_bad_request_is_an_error_and_the_next_ones_work(
    make_context: Callable[..., AnalysisContext], bad: ScoreRequest, message: str
) -> None:
    fresh = make_context().run_many(MIXED)
    context = make_context()
    with pytest.raises(ModelError, match=message):
        context.run_many([*MIXED[:3], bad, *MIXED[3:]])
    for got, expected in zip(context.run_many(MIXED), fresh, strict=True):
        assert_same(got, expected)


EARLY = [
    drawn(1, 9, 14, score=False, layers=(0,)),
    drawn(2, 3, 5, score=False, layers=(0, 1)),
    drawn(3, 20, 0, score=False, layers=(2,), interventions=(Add((0,), vectors(seed=9)),)),
]


@pytest.mark.parametrize(
    ("calls", "kv_unified"), [(CALLS[0], True), (CALLS[2], True), (CALLS[1], False)]
)
def test_early_exits_read_the_same_rows_and_leave_nothing_behind(
    make_context: Callable[..., AnalysisContext], calls: tuple[int, int], kv_unified: bool
) -> None:
    fresh = make_context(calls, kv_unified=kv_unified).run_many(MIXED[:8])
    used = make_context(calls, kv_unified=kv_unified)
    for request in EARLY:
        early = used.run_many([request, *EARLY])[0]
        whole = used.run(dataclasses.replace(request, score=True, layers=ALL_LAYERS)).captured
        assert_close(early.captured, whole[list(request.layers)], ALONE_MAX)
        for got, expected in zip(used.run_many(MIXED[:8]), fresh, strict=True):
            assert_same(got, expected)


# Logit biases and memories


@pytest.mark.parametrize("calls", CALLS)
def test_expected_tokens_and_logit_biases(
    make_context: Callable[..., AnalysisContext], tiny_f32: TinyModel, calls: tuple[int, int]
) -> None:
    biases = np.random.default_rng(5).standard_normal((3, N_VOCAB)).astype(np.float32)
    requests = [drawn(seed, 3 + seed, 9 - seed, expected=True, biases=biases) for seed in range(4)]
    for request, got in zip(requests, make_context(calls).run_many(requests), strict=True):
        tokens, n_context = [*request.context, *request.response], len(request.context)
        logits = tiny_f32.forward(tokens).logits[n_context - 1 : -1]
        assert_close(got.expected, np.exp(log_softmax(logits)).sum(axis=0))
        log_p = log_softmax(logits + biases[:, None])
        assert_close(got.biased, log_p[:, range(len(logits)), request.response])


@pytest.mark.parametrize("biases", [None, np.ones((2, N_VOCAB), np.float32)])
def test_a_logit_bias_is_one_of_biases(
    context: AnalysisContext, biases: NDArray[np.float32] | None
) -> None:
    bias = {7: 2.5, 300: -1.5, 447: 0.25}
    row = np.zeros((1, N_VOCAB), np.float32)
    row[0, list(bias)] = list(bias.values())
    plain = context.run(drawn(0, 4, 9, biases=biases))
    biased = context.run(drawn(0, 4, 9, biases=biases, logit_bias=bias))
    (wanted,) = asked_for(context.run(drawn(0, 4, 9, biases=row)).biased)
    assert np.abs(wanted - plain.scored).max() > 1e-3
    assert_same(biased, dataclasses.replace(plain, log_prob=wanted))


def test_logit_biases_of_equal_values_are_made_once_for_a_run(
    context: AnalysisContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = scoring.logit_bias_factors
    made: list[ScoreRequest] = []

    def noted(request: ScoreRequest, n_vocab: int) -> NDArray[np.float32] | None:
        made.append(request)
        return make(request, n_vocab)

    monkeypatch.setattr(scoring, "logit_bias_factors", noted)
    biases = np.random.default_rng(5).standard_normal((3, N_VOCAB)).astype(np.float32)
    requests = [drawn(0, 4, 9, biases=biases), drawn(0, 4, 20, biases=biases.copy())]
    before = context.run_many(requests)
    assert len(made) == 1
    asked_for(requests[1].biases)[:] *= 2  # between runs the same array may hold something else
    after = context.run_many(requests)
    assert len(made) == 3
    assert np.abs(asked_for(after[1].biased) - asked_for(before[1].biased)).max() > 1e-2
    # Side by side, each request has its own.
    mixed = [requests[0], drawn(0, 4, 9, logit_bias={7: 2.5}), drawn(0, 4, 9), requests[1]]
    assert_all_agree(context.run_many(mixed), alone(context, mixed))


def test_each_request_has_a_memory_of_its_own(context: AnalysisContext, tiny_llama: Llama) -> None:
    """It changes the log-probability, after the logit bias, and nothing else."""
    asked: dict[str, Any] = {
        "entropy": True,
        "top_k": 3,
        "expected": True,
        "final": True,
        "logit_bias": {int(token): 2.0 for token in drawn(0, 4, 9).response[:4]},
        "biases": np.random.default_rng(5).standard_normal((3, N_VOCAB)).astype(np.float32),
        "interventions": (Add((1,), 0.1 * vectors()),),
    }
    requests = [drawn(seed, 4, 9, **asked) for seed in range(4)]
    memories = [
        ActiveMemory(memory_of(tiny_llama, [(request.context, request.response)]), strength)
        for request, strength in zip(requests[:3], (0.1, 0.5, 2.0), strict=True)
    ]
    plain = context.run_many(requests)
    mixed = context.run_many(
        [
            dataclasses.replace(request, memory=memory)
            for request, memory in zip(requests, [*memories, None], strict=True)
        ]
    )
    for request, memory, without, got in zip(requests, memories, plain, mixed, strict=False):
        rows = asked_for(without.final)[:-1]
        expected = memory.log_prob(rows, request.response, without.scored)
        assert_same(got, dataclasses.replace(without, log_prob=expected))
        assert expected.mean() > without.scored.mean() + 1
    assert_same(mixed[3], plain[3])


# What runs in one call


def test_groups_fit_the_context(
    make_context: Callable[..., AnalysisContext], decoded: list[Call]
) -> None:
    context = make_context(n_ctx=256)
    requests = [drawn(seed, 30, 30) for seed in range(9)]
    expected = alone(context, requests)
    decoded.clear()
    together = context.run_many(requests)
    sizes = [len(call.sequences) for call in decoded]
    assert sizes == [4 * 29, 4 * 31, 4 * 29, 4 * 31, 29, 31]
    assert_all_agree(together, expected)
    full = [drawn(0, 100, 28), drawn(1, 1, 127), drawn(2, 250, 6), drawn(3, 1, 1)]
    assert_all_agree(context.run_many(full), alone(make_context(), full))


@pytest.mark.parametrize("calls", CALLS)
def test_decode_calls_stay_within_the_bounds(
    make_context: Callable[..., AnalysisContext], decoded: list[Call], calls: tuple[int, int]
) -> None:
    context = make_context(calls)
    decoded.clear()
    context.run_many(MIXED)
    sizes = np.array([(len(call.outputs), sum(call.outputs)) for call in decoded])
    assert (sizes.max(axis=0) <= calls).all()
    assert sizes[:, 0].sum() == sum(len(each.context) + len(each.response) for each in MIXED)


def test_a_split_cache_takes_one_sequence_at_a_time(
    make_context: Callable[..., AnalysisContext], decoded: list[Call]
) -> None:
    context = make_context(kv_unified=False)
    decoded.clear()
    context.run_many(MIXED[:5])
    assert len(decoded) == sum(1 + (len(request.context) > 1) for request in MIXED[:5])
    assert {sequence for call in decoded for sequence in call.sequences} == {0}


def test_requests_with_equal_control_vectors_run_together(
    context: AnalysisContext, decoded: list[Call]
) -> None:
    """Equal in value, and summed up: not the same objects."""
    context.in_graph = True
    half = Add((2,), np.float32(0.5) * vectors())
    changes: list[tuple[Intervention, ...]] = [
        (Add((2,), vectors()),),
        (),
        (Add((2,), vectors()),),
        (half, half),
        (),
    ]
    requests = [drawn(i, 4, 6, interventions=each) for i, each in enumerate(changes)]
    together = context.run_many(requests)
    assert len(decoded) == 4  # contexts and bodies, of unsteered sequences and of steered ones
    assert_all_agree(together, alone(context, requests))
    assert np.abs(together[0].scored - context.run(drawn(0, 4, 6)).scored).max() > 0.05
    decoded.clear()
    everywhere = Add((2,), vectors(), positions="all")
    others = [drawn(9, 4, 6, interventions=(each,)) for each in (Add((1,), vectors()), everywhere)]
    assert_all_agree(context.run_many([*requests, *others]), alone(context, requests + others))
    assert sum(len(call.sequences) for call in decoded[:8]) == 7 * 10


# What requests share


def sharing(n: int, **options: Any) -> list[ScoreRequest]:
    """Requests that begin with the same 40 tokens, in two families of 12 more, in mixed order."""
    trunk, families = tokens_of(0, 40), [tokens_of(1, 12), tokens_of(2, 12)]
    requests = [
        ScoreRequest(
            [*trunk, *families[i % 2], *tokens_of(10 + i, 1 + i % 3)],
            tokens_of(30 + i, 5 + i),
            **({"layers": ALL_LAYERS} | options),
        )
        for i in range(n)
    ]
    return [requests[i] for i in np.random.default_rng(0).permutation(n)]


@pytest.mark.parametrize(
    ("n", "calls"), [(2, CALLS[0]), (7, CALLS[2]), (2 * MAX_SEQUENCES + 3, (19, 18))]
)
def test_a_shared_beginning_is_evaluated_once(
    make_context: Callable[..., AnalysisContext],
    decoded: list[Call],
    n: int,
    calls: tuple[int, int],
) -> None:
    context = make_context(calls)
    requests = sharing(n)
    decoded.clear()
    together = context.run_many(requests)
    # The last token of a context is each sequence's own.
    n_own = sum(len(each.context) - 52 + len(each.response) for each in requests)
    assert sum(len(call.sequences) for call in decoded) == 40 + 2 * 12 + n_own
    assert_all_agree(together, alone(context, requests))


def test_stored_prompts_are_evaluated_once_for_all_calls(
    context: AnalysisContext, decoded: list[Call]
) -> None:
    requests = [*sharing(5), drawn(3, 70, 8)]
    expected = context.run_many(requests)

    def n_evaluated(many: Sequence[ScoreRequest]) -> int:
        decoded.clear()
        assert_all_agree(context.run_many(many), expected[: len(many)])
        return sum(len(call.sequences) for call in decoded)

    # The last token of a context is each sequence's own.
    n_own = sum(1 + len(each.response) for each in requests)
    with context.storing([each.context for each in requests]):
        n_first = n_evaluated(requests)
        assert n_evaluated(requests) == n_own
        assert n_evaluated(requests[:1]) == 1 + len(requests[0].response)
    assert n_evaluated(requests) == n_first


def test_a_prompt_is_stored_as_the_beginning_of_a_longer_one(
    context: AnalysisContext, decoded: list[Call]
) -> None:
    requests = sharing(4)
    expected = context.run_many(requests)
    with context.storing([tokens_of(0, 40)]):
        context.run(requests[0])
        decoded.clear()
        assert_all_agree(context.run_many(requests), expected)
    n_distinct = 2 * 12 + 1 + sum(len(each.context) - 52 + len(each.response) for each in requests)
    assert sum(len(call.sequences) for call in decoded) == n_distinct


def test_prompts_are_stored_as_long_as_there_is_room(
    context: AnalysisContext, decoded: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context_module, "STORED_BYTES", 60_000)  # of the cells of 50 tokens
    requests = [drawn(0, 50, 5), drawn(1, 50, 5)]
    with context.storing([each.context for each in requests]):
        expected = context.run_many(requests)
        decoded.clear()
        assert_all_agree(context.run_many(requests), expected)
    assert sum(len(call.sequences) for call in decoded) == 6 + 55


def test_cells_of_an_early_exit_are_not_stored(context: AnalysisContext) -> None:
    early, whole = (drawn(0, 50, 5, score=score, layers=(1,)) for score in (False, True))
    expected = context.run(whole)
    context.run(drawn(1, 50, 5))  # else the upper blocks' cells were still there
    with context.storing([early.context]):
        context.run(early)
        assert_all_agree([context.run(whole)], [expected])


def test_what_is_steered_is_shared_up_to_the_first_changed_row(
    context: AnalysisContext, decoded: list[Call]
) -> None:
    changes: list[tuple[Intervention, ...]] = [
        (Add((1,), 5 * vectors(seed=1), positions="all"),),
        (Add((1,), 5 * vectors(seed=2), positions=np.arange(60) >= 20),),
        (Add((1,), 5 * vectors(seed=3)),),
        (),
    ]
    requests = [drawn(0, 50, 10, interventions=each) for each in changes]
    together = context.run_many(requests)
    assert sum(len(call.sequences) for call in decoded) == 60 + (20 + 40) + (29 + 11) + 11
    assert_all_agree(together, alone(context, requests))


def test_sequences_of_different_depth_share_nothing(context: AnalysisContext) -> None:
    """An early exit leaves the cells of upper blocks empty."""
    requests = [
        *sharing(6, layers=(0,), score=False),
        *sharing(6),
        *sharing(6, layers=(INPUT_LAYER, 2), score=False),
    ]
    assert_all_agree(context.run_many(requests), alone(context, requests))


def test_control_vectors_leave_shared_beginnings_alone(context: AnalysisContext) -> None:
    context.in_graph = True
    requests = [
        *sharing(5, interventions=(Add((1,), vectors(seed=1)),)),
        *sharing(5, interventions=(Add((1,), vectors(seed=2)),)),
        *sharing(5, interventions=(Add((1,), vectors(seed=3), positions="all"),)),
        *sharing(5),
    ]
    together = context.run_many(requests)
    context.in_graph = False
    assert_all_agree(together, alone(context, requests))


# The order of the tokens


def swap_ends(batch: Any) -> None:
    """What llama.cpp does of itself when it is left to choose."""
    last = batch.n_tokens - 1
    for array in (batch.token, batch.pos, batch.logits):
        array[0], array[last] = array[last], array[0]
    first, other = batch.seq_id[0], batch.seq_id[last]
    first[0], other[0] = other[0], first[0]


def test_a_batch_in_another_order_than_planned_is_refused(context: AnalysisContext) -> None:
    expected = context.run_many(MIXED[:3])
    two = [ScoreRequest([token], [], layers=(1,)) for token in (7, 8)]
    with (
        changed_batches(swap_ends),
        pytest.raises(ModelError, match="the tokens of the batch in another order") as caught,
    ):
        context.run_many(two)
    assert isinstance(caught.value.__cause__, RuntimeError)
    for got, wanted in zip(context.run_many(MIXED[:3]), expected, strict=True):
        assert_same(got, wanted)


def test_a_batch_that_llama_cpp_splits_is_refused(
    monkeypatch: pytest.MonkeyPatch, tiny_llama: Llama
) -> None:
    make = llama_cpp.llama_init_from_model

    def make_smaller(model: Any, params: Any) -> Any:
        params.n_ubatch = 8
        return make(model, params)

    monkeypatch.setattr(llama_cpp, "llama_init_from_model", make_smaller)
    context = AnalysisContext(tiny_llama, 512)  # whose probe is short enough
    with pytest.raises(ModelError, match=r"was split: llama.cpp computes 8 of 10 tokens"):
        context.run(MIXED[0])
    context.run(drawn(0, 4, 4))
