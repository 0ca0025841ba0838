"""`steer` with a logit bias, a memory and a gate: what changes the next-token distribution."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_cpp import Llama, LogitsProcessorList
from llama_cpp.llama_grammar import LlamaGrammar

from models import TinyModel, make_tiny
from models.operations import Array, log_softmax
from steerx_edge.errors import ModelError, ProfileError
from steerx_edge.live import steer
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.requests import ScoreRequest
from steerx_edge.profile import LogitBias, MemoryPart, Profile
from steerx_edge.steering.requests import steered
from tests.support.gate_reference import gate_for
from tests.support.memory_reference import memory_of, mixture, normed
from tests.support.steered_llama import (
    EXACT,
    TAUGHT,
    TEXT,
    WORD,
    Logits,
    N,
    Positions,
    Recorder,
    a_profile,
    assert_steered_exactly,
    assert_untouched,
    bias_of,
    biased,
    complete,
    dense,
    every_way,
    first_steered,
    force_tokens,
    forcing,
    from_row,
    greedy,
    greedy_with_logits,
    insisting,
    knowing,
    processors,
    reference_logits,
    reference_steering,
    reset,
    taught,
)

Open = Callable[..., Llama]

both_positions = pytest.mark.parametrize("positions", ["generated", "all"])


# ---------------------------------------------------------------- the logit bias


@pytest.mark.parametrize(
    ("vectors", "strength", "positions"),
    [(0.0, 1.0, "generated"), (1.0, 0.3, "generated"), (1.0, -2.0, "all"), (0.0, -2.0, "all")],
)
def test_the_logit_bias_is_added_to_the_logits_of_each_generated_token(
    llama: Llama,
    tiny_f32: TinyModel,
    prompt: list[int],
    vectors: float,
    strength: float,
    positions: Positions,
) -> None:
    profile = biased(llama, vectors, positions=positions)
    recorder = Recorder(llama)
    with steer(llama, profile, strength):
        generated = greedy(llama, prompt, logits_processor=processors(recorder))
    added = dense(llama, profile.entries[0].steering(strength).logit_bias)
    assert np.count_nonzero(added) == 40
    given = np.stack(recorder.given[:N])
    np.testing.assert_array_equal(given, np.stack(recorder.own[:N]) + added)
    assert generated == given.argmax(axis=1).tolist()

    tokens = [*prompt, *generated[:-1]]
    strengths = from_row(first_steered(prompt, positions), strength, len(tokens))
    expected = reference_logits(tiny_f32, tokens, profile, strengths)[len(prompt) - 1 :]
    np.testing.assert_allclose(given, expected + added, atol=EXACT, rtol=0)


@pytest.mark.parametrize(
    ("bias", "positions"),
    [
        pytest.param(None, "all", id="none"),
        pytest.param(bias_of({WORD: 1e6}, 0.0), "generated", id="at strength 0"),
        pytest.param(bias_of({WORD: 0.0}), "all", id="with a value of 0"),
    ],
)
def test_a_profile_without_a_preference_changes_nothing(
    llama: Llama,
    prompt: list[int],
    unsteered: list[int],
    bias: LogitBias | None,
    positions: Positions,
) -> None:
    with steer(llama, biased(llama, positions=positions, logit_bias=bias)) as steering:
        for steering.strength in (1.0, 1e40, -1.0):
            assert greedy(llama, prompt) == unsteered
        recorder = Recorder(llama)
        greedy(llama, prompt, logits_processor=[recorder])
    np.testing.assert_array_equal(recorder.given, recorder.own)


def test_a_logit_bias_alone_evaluates_nothing_again(
    llama: Llama, prompt: list[int], unsteered: list[int], evaluated: list[tuple[int, int]]
) -> None:
    llama.eval(prompt)
    evaluated.clear()
    with steer(llama, forcing(llama)):
        assert greedy(llama, prompt, 1) == [WORD]
    assert greedy(llama, prompt, 1) == unsteered[:1]
    assert evaluated == []


def add_5(_ids: object, scores: Logits) -> Logits:
    scores[7] += 5
    return scores


def double(_ids: object, scores: Logits) -> Logits:
    return 2 * scores


@pytest.mark.parametrize(
    ("collect", "is_positional"), [(list, False), (tuple, True), (LogitsProcessorList, True)]
)
def test_the_callers_logits_processors_come_after_the_logit_bias(
    llama: Llama, prompt: list[int], collect: Callable[[Any], Any], *, is_positional: bool
) -> None:
    recorder = Recorder(llama)
    own = collect([add_5, double, recorder])
    profile = biased(llama)
    with steer(llama, profile):
        if is_positional:
            defaults = (40, 0.95, 0.05, 1.0, 0.0, 1.0, True, 0.0, 0.0, 1.0, 0, 5.0, 0.1, True)
            with closing(llama.generate(prompt, *defaults, own)) as stream:
                next(stream), next(stream)
        else:
            greedy(llama, prompt, 2, logits_processor=own)
    added = dense(llama, profile.entries[0].steering().logit_bias)
    fives = dense(llama, {7: 5.0})
    np.testing.assert_array_equal(recorder.given, 2 * (np.stack(recorder.own) + added + fives))
    assert list(own) == [add_5, double, recorder]


# ---------------------------------------------------------------- the memory


@pytest.mark.parametrize(
    ("vectors", "strength", "positions", "with_logit_bias"),
    [
        (0.0, 1.0, "generated", False),
        (0.1, 0.3, "generated", True),
        (0.1, 1.0, "all", False),
        (0.0, 0.3, "all", True),
    ],
)
def test_the_memory_is_mixed_into_the_prediction_of_each_generated_token(
    llama: Llama,
    tiny_f32: TinyModel,
    prompt: list[int],
    vectors: float,
    strength: float,
    positions: Positions,
    *,
    with_logit_bias: bool,
) -> None:
    logit_bias = biased(llama).entries[0].logit_bias if with_logit_bias else None
    profile = knowing(llama, vectors / strength, positions=positions, logit_bias=logit_bias)
    recorder = Recorder(llama)
    with steer(llama, profile, strength):
        generated = greedy(llama, prompt, logits_processor=processors(recorder))
    given = np.stack(recorder.given[:N])
    assert generated == given.argmax(axis=1).tolist()

    (entry,) = profile.entries
    tokens, last = [*prompt, *generated[:-1]], len(prompt) - 1
    strengths = from_row(first_steered(prompt, positions), strength, len(tokens))
    trace = tiny_f32.forward(tokens, reference_steering(profile, strengths))
    final = normed(tiny_f32, trace.residual[-1])[last:]
    bias = dense(llama, entry.steering(strength).logit_bias)
    before = log_softmax(trace.logits[last:] + bias)
    assert entry.memory is not None
    memory = entry.memory.memory
    assert memory is not None
    for row, log_p in enumerate(before):
        expected = mixture(memory, 0.5 * strength, final[row], generated[:row], np.exp(log_p))
        got = log_softmax(given[row].astype(np.float64))
        np.testing.assert_allclose(got, np.log(expected), rtol=0, atol=2e-4)
    # The memory holds the beginning of this answer.
    assert log_softmax(given[0].astype(np.float64))[WORD] > before[0, WORD] + 1


@pytest.mark.parametrize(("positions", "is_gated"), [("generated", True), ("all", False)])
def test_generated_text_has_the_probabilities_that_score_requests_give(
    tiny_chat_llama: Llama, positions: Positions, *, is_gated: bool
) -> None:
    llama = tiny_chat_llama
    engine = Engine(llama)
    six = [WORD, 310, 311, 313, 314, 315]
    text = [*six, 320, *six, 320, 321, *six[:3], 322]
    # The request holds the text too, which must not count as written.
    request = TEXT + llama.detokenize(text).decode()
    messages: Any = [{"role": "user", "content": request}]
    context = engine.prompt(messages)
    profile = biased(
        llama,
        0.05,
        memory=taught(llama, [(context, text), (context[:9], TAUGHT[0])], 0.6),
        gate=gate_for(llama, context) if is_gated else None,
        positions=positions,
    )
    given: list[Array] = []
    with steer(llama, profile):
        forced = processors(force_tokens(text, given))
        llama.create_chat_completion(messages, max_tokens=len(text), logits_processor=forced)
    generated = [log_p[token] for log_p, token in zip(given, text, strict=True)]
    steering = profile.entries[0].steering()
    assert steering.adds
    assert steering.logit_bias
    assert steering.memory
    scored, without_memory = (
        engine.run(steered(ScoreRequest(context, text), each)).scored
        for each in (steering, replace(steering, memory=None))
    )
    np.testing.assert_allclose(generated, scored, rtol=0, atol=EXACT)
    assert np.abs(scored - without_memory).max() > 1


def test_the_memory_does_not_repeat_what_was_written(llama: Llama, prompt: list[int]) -> None:
    """Even if it offers nothing else."""
    run = [WORD, 310, 311]
    with steer(llama, insisting(llama, 3 * run)):
        written = greedy(llama, prompt)
    assert written[:3] == run
    assert written[3:6] != run


def test_only_the_answer_counts_as_written(llama: Llama, prompt: list[int]) -> None:
    run = TAUGHT[1]
    prompt = [*prompt, *run, 17]  # nor does the prompt itself
    memory = taught(llama, [(prompt, run)], 1e6)
    with steer(llama, a_profile(llama, strength=0.0, memory=memory)):
        for _ in range(3):
            assert greedy(llama, prompt, 4) == run
        reset(llama)
        llama.eval(prompt[:-2])
        assert greedy(llama, prompt[-2:], 4, reset=False) == run


@pytest.mark.parametrize(("strength", "positions"), [(0.0, "generated"), (-1.0, "all")])
def test_a_memory_acts_only_at_strengths_above_zero(
    llama: Llama, open_with: Open, prompt: list[int], strength: float, positions: Positions
) -> None:
    fresh = open_with()
    with steer(llama, insisting(llama, positions=positions), strength) as steering:
        assert_untouched(llama, fresh, prompt)
        steering.strength = 1.0
        assert greedy(llama, prompt, 4) == TAUGHT[1]
        steering.strength = strength
        assert_untouched(llama, fresh, prompt)
    with steer(llama, knowing(llama, memory=0.0)) as steering:
        for steering.strength in (1.0, 1e40, -1.0):
            assert_untouched(llama, fresh, prompt)
    assert_untouched(llama, fresh, prompt)


def test_a_memory_switched_on_mid_stream_knows_what_was_written(
    llama: Llama, prompt: list[int]
) -> None:
    run = [WORD, 310, 311, WORD, 310, 311, 320]
    given: list[Array] = []
    processor = processors(force_tokens(run[:-2], given))
    with (
        steer(llama, insisting(llama, run), 0.0) as steering,
        closing(llama.generate(prompt, temp=0.0, logits_processor=processor)) as stream,
    ):
        assert list(islice(stream, 4)) == run[:4]
        steering.strength = 1.0
        assert next(stream) == run[4]
    assert given[4][run[4]] > np.log(0.8)


def test_only_the_last_row_of_the_prompt_is_evaluated_again_for_the_memory(
    llama: Llama, prompt: list[int], evaluated: list[tuple[int, int]]
) -> None:
    profile = insisting(llama)
    llama.eval(prompt)
    last = len(prompt) - 1
    with steer(llama, profile):
        assert greedy(llama, prompt, 2) == TAUGHT[1][:2]
    assert evaluated == [(0, last + 1), (last, 1), (last + 1, 1)]


def test_the_callers_logits_processors_and_logit_bias_come_after_the_memory(
    llama: Llama, prompt: list[int]
) -> None:
    alone, after = Recorder(llama), Recorder(llama)
    own = [lambda _ids, scores: 2 * scores, after]
    with steer(llama, knowing(llama)):
        greedy(llama, prompt, 1, logits_processor=[alone])
        greedy(llama, prompt, 1, logits_processor=own)
    np.testing.assert_array_equal(after.given[0], 2 * alone.given[0])
    assert len(own) == 2

    word, another = (llama.detokenize([token]).decode() for token in (WORD, WORD + 1))
    with steer(llama, insisting(llama)):
        assert complete(llama, prompt, 1) == word != another
        assert complete(llama, prompt, 1, logit_bias={WORD: -1e6}) != word
        assert complete(llama, prompt, 1, logit_bias={WORD + 1: 1e6}) == another


def test_log_probabilities_are_returned_under_a_memory(open_with: Open) -> None:
    llama = open_with(logits_all=True)
    with steer(llama, insisting(llama)):
        answer: Any = llama.create_completion(TEXT, max_tokens=4, temperature=0.0, logprobs=2)
    (choice,) = answer["choices"]
    assert choice["text"] == llama.detokenize(TAUGHT[1]).decode()
    assert len(choice["logprobs"]["token_logprobs"]) == 4
    assert max(choice["logprobs"]["token_logprobs"]) < 0


def test_with_a_draft_model_only_the_memory_is_left_out(
    llama: Llama, open_with: Open, prompt: list[int]
) -> None:
    fast = open_with(draft_model=lambda tokens, /, **_: tokens[-6:-3].copy())
    generated = []
    for each, memory in (
        (fast, insisting(llama).entries[0].memory),
        (fast, None),
        (llama, None),
    ):
        with steer(each, biased(each, 0.01, memory=memory)):
            generated.append(greedy(each, prompt, 24))
    assert generated[0] == generated[1] == generated[2]


def test_a_recurrent_model_takes_a_memory_and_a_gate(open_with: Open, tmp_path: Path) -> None:
    llama = open_with(make_tiny(tmp_path / "tiny.gguf", architecture="mamba2"))
    prompt = llama.tokenize(TEXT.encode())
    plain = greedy(llama, prompt, 4)
    for gate in (None, gate_for(llama, prompt)):
        with steer(llama, insisting(llama, gate=gate)):
            assert greedy(llama, prompt, 4) == TAUGHT[1]
    with steer(llama, insisting(llama, gate=gate_for(llama, prompt, is_open=False))):
        assert greedy(llama, prompt, 4) == plain
    logits = greedy_with_logits(llama, prompt, 4)[1]
    with steer(llama, a_profile(llama, gate=gate_for(llama, prompt))):
        steered_logits = greedy_with_logits(llama, prompt, 4)[1]
    # Its state cannot be rolled back, so the token that the gate saw is not steered.
    np.testing.assert_allclose(steered_logits[0], logits[0], atol=EXACT)
    assert np.abs(steered_logits[1:] - logits[1:]).max() > 0.1
    assert greedy(llama, prompt, 4) == plain


def test_a_model_without_logits_beside_its_rows_takes_no_memory_and_ignores_gates(
    open_with: Open, tmp_path: Path
) -> None:
    llama = open_with(make_tiny(tmp_path / "tiny.gguf", architecture="lfm2"))
    with pytest.raises(ModelError, match="'lfm2' gives no logits together with its rows"):
        steer(llama, insisting(llama))
    assert not {"generate", "eval"} & set(vars(llama))

    prompt = llama.tokenize(TEXT.encode())
    plain, generated = greedy(llama, prompt), []
    for gate in (None, gate_for(llama, prompt, is_open=False)):
        with steer(llama, a_profile(llama, gate=gate)):
            generated.append(greedy(llama, prompt))
    assert generated[0] == generated[1] != plain


# ---------------------------------------------------------------- either


@pytest.mark.parametrize(("make", "begun"), [(forcing, 2 * [WORD]), (insisting, TAUGHT[1][:2])])
@pytest.mark.parametrize("after", [0.0, None])  # None clears
def test_a_change_of_the_strength_applies_from_the_next_token_on(
    llama: Llama,
    prompt: list[int],
    make: Callable[..., Profile],
    begun: list[int],
    after: float | None,
) -> None:
    steering = steer(llama, make(llama))
    with closing(llama.generate(prompt, temp=0.0)) as stream:
        assert [next(stream), next(stream)] == begun
        if after is None:
            steering.clear()
        else:
            steering.strength = after
        with nullcontext() if after is not None else pytest.warns(match="has ended"):
            rest = list(islice(stream, 4))
    assert rest[0] not in (WORD, TAUGHT[1][2])
    steering.clear()
    assert rest == greedy(llama, [*prompt, *begun], 4)


def test_completions_and_chats_are_steered_whole_and_streamed(tiny_chat_llama: Llama) -> None:
    llama = tiny_chat_llama
    plain = every_way(llama)
    word = llama.detokenize(4 * [WORD]).decode()
    with steer(llama, forcing(llama)):
        assert every_way(llama, temperature=0.8) == 4 * [word]

    run = [WORD, WORD + 2, WORD, WORD + 3]
    chat_context = Engine(llama).prompt([{"role": "user", "content": TEXT}])
    memory = taught(llama, [(llama.tokenize(TEXT.encode()), run), (chat_context, run)], 1e6)
    with steer(llama, a_profile(llama, strength=0.0, memory=memory)):
        assert every_way(llama) == 4 * [llama.detokenize(run).decode()]
    assert every_way(llama) == plain


def test_steered_text_keeps_to_a_grammar(llama: Llama, prompt: list[int]) -> None:
    bracket, letter = (llama.tokenize(text, add_bos=False)[-1] for text in (b"[", b"q"))

    def text() -> str:
        grammar = LlamaGrammar.from_string('root ::= "[" [a-z ]+ "]"', verbose=False)
        return llama.detokenize(greedy(llama, prompt, 3, grammar=grammar)).decode().strip()

    assert text()[1:] != "qq"
    for profile in (forcing(llama, letter), insisting(llama, [bracket, letter, letter])):
        with steer(llama, profile):
            assert text() == "[qq"
    with steer(llama, insisting(llama, [WORD, WORD])):
        assert text().startswith("[")


def test_a_token_that_the_model_lacks_is_refused(
    llama: Llama, prompt: list[int], unsteered: list[int]
) -> None:
    n_vocab = llama.n_vocab()
    memory = memory_of(llama, [(prompt, TAUGHT[0])])
    outside = replace(memory, tokens=np.full_like(memory.tokens, n_vocab))
    part = MemoryPart.of(outside, strength=0.0, level="all")
    for profile in (forcing(llama, n_vocab), a_profile(llama, memory=part)):
        message = f"names token {n_vocab}, but the model has only {n_vocab}"
        with pytest.raises(ProfileError, match=message):
            steer(llama, profile)
        assert not {"generate", "eval"} & set(vars(llama))
        assert greedy(llama, prompt) == unsteered
    for profile in (forcing(llama, n_vocab - 1), insisting(llama, [n_vocab - 1])):
        with steer(llama, profile):
            assert greedy(llama, prompt, 1) == [n_vocab - 1]


# ---------------------------------------------------------------- the gate


def gated(llama: Llama, *, is_open: bool, positions: Positions = "generated") -> Profile:
    """A profile in which everything acts, and a gate that is open to the prompt, or not."""
    prompt = llama.tokenize(TEXT.encode())
    memory = taught(llama, [(prompt, TAUGHT[0])], 0.5)
    gate = gate_for(llama, prompt, is_open=is_open)
    return biased(llama, 0.5, positions=positions, memory=memory, gate=gate)


@pytest.mark.parametrize(
    ("n_prompt", "positions"), [(1, "generated"), (30, "generated"), (30, "all")]
)
def test_nothing_is_steered_where_the_gate_is_closed(
    llama: Llama, open_with: Open, prompt: list[int], n_prompt: int, positions: Positions
) -> None:
    fresh = open_with()
    with steer(llama, gated(llama, is_open=False, positions=positions)) as steering:
        for steering.strength in (1.0, 0.5):
            assert_untouched(llama, fresh, prompt[:n_prompt])
    assert_untouched(llama, fresh, prompt[:n_prompt])


@both_positions
def test_the_gate_decides_for_each_answer(
    llama: Llama, open_with: Open, prompt: list[int], positions: Positions
) -> None:
    other = [1, *range(100, 120)]
    fresh = open_with()
    with steer(llama, gated(llama, is_open=True, positions=positions)):
        expected = greedy(llama, prompt)
        assert_untouched(llama, fresh, other)
        assert greedy(llama, prompt) == expected != greedy(fresh, prompt)
        assert_untouched(llama, fresh, other)


@pytest.mark.parametrize(
    ("n_before", "positions"), [(0, "generated"), (9, "all"), (30, "generated"), (30, "all")]
)
def test_where_the_gate_is_open_the_same_rows_are_steered_as_without_a_gate(
    llama: Llama, tiny_f32: TinyModel, prompt: list[int], n_before: int, positions: Positions
) -> None:
    profile = gated(llama, is_open=True, positions=positions)
    with steer(llama, profile):
        if n_before:  # tokens of the prompt that are in the KV cache
            greedy(llama, prompt[:n_before], 2)
        assert_steered_exactly(llama, tiny_f32, prompt, profile)


def test_an_open_gate_costs_one_row(
    llama: Llama, prompt: list[int], evaluated: list[tuple[int, int]]
) -> None:
    last = len(prompt) - 1
    with steer(llama, gated(llama, is_open=True)):
        greedy(llama, prompt, 2)
    assert evaluated == [(0, last), (last, 1), (last, 1), (last + 1, 1)]


@both_positions
def test_a_new_strength_does_not_steer_an_answer_that_began_unsteered(
    llama: Llama, prompt: list[int], unsteered: list[int], positions: Positions
) -> None:
    profile = gated(llama, is_open=False, positions=positions)
    with steer(llama, profile) as steering, closing(llama.generate(prompt, temp=0.0)) as stream:
        begun = list(islice(stream, 4))
        steering.strength = 2.0
        assert begun + list(islice(stream, N - 4)) == unsteered
