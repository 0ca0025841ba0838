"""`steer` on a `Llama`: exactly which rows it changes, and that it leaves nothing behind."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from llama_cpp import Llama
from llama_cpp.llama_cache import LlamaRAMCache

from models import TinyModel, make_tiny_llama
from steerx_edge.errors import ProfileError, SteerxError
from steerx_edge.live import steer
from steerx_edge.profile import Entry, Gain, Profile, WithHistory
from tests.support.steered_llama import (
    EXACT,
    TEXT,
    Logits,
    N,
    Positions,
    a_profile,
    assert_steered_exactly,
    bias_of,
    biased,
    break_off_stream,
    chat,
    complete,
    first_steered,
    forcing,
    from_row,
    greedy,
    greedy_steered,
    greedy_with_logits,
    knowing,
    last_logits,
    reference_logits,
    reset,
)

Open = Callable[..., Llama]
Make = Callable[..., Profile]

both_positions = pytest.mark.parametrize("positions", ["generated", "all"])
OTHER_TEXT = "Alice was late again, and the garden was quiet for once."


# ---------------------------------------------------------------- on and off


def test_strength_zero_is_no_steering(
    llama: Llama, prompt: list[int], unsteered: list[int]
) -> None:
    with steer(llama, a_profile(llama), strength=0.0):
        assert greedy(llama, prompt) == unsteered
    with steer(llama, a_profile(llama, strength=0.0)):  # no reliable preference was found
        assert greedy(llama, prompt) == unsteered


def test_with_history_takes_the_strengths_for_prompts_with_in_context_texts(
    llama: Llama, prompt: list[int]
) -> None:
    bias = bias_of({300 + i: i / 2 - 2 for i in range(10)})
    (entry,) = a_profile(llama, logit_bias=bias).entries
    weaker = np.array([0.25, 0.5], np.float32)
    found = WithHistory(weaker, 0.5, 0, Gain(0.1, 0.05, 0.2, 4))

    def logits_of(entry: Entry, *, with_history: bool) -> Logits:
        with steer(llama, Profile((entry,)), with_history=with_history):
            return greedy_with_logits(llama, prompt)[1]

    expected = logits_of(
        replace(entry, strengths=weaker, logit_bias=replace(bias, strength=0.5)),
        with_history=False,
    )
    usual = logits_of(entry, with_history=False)
    assert np.abs(expected - usual).max() > 0.1
    both = replace(entry, with_history=found)
    np.testing.assert_array_equal(logits_of(both, with_history=True), expected)
    np.testing.assert_array_equal(logits_of(both, with_history=False), usual)
    np.testing.assert_array_equal(logits_of(entry, with_history=True), usual)  # it has none


@both_positions
def test_the_model_is_as_before_after_with_and_after_clear(
    llama: Llama, prompt: list[int], unsteered: list[int], positions: Positions
) -> None:
    profile = a_profile(llama, positions=positions)
    with suppress(ZeroDivisionError), steer(llama, profile):
        assert greedy(llama, prompt) != unsteered
        raise ZeroDivisionError
    assert greedy(llama, prompt) == unsteered
    steering = steer(llama, profile)
    for _ in range(2):  # it may be called again
        steering.clear()
        assert greedy(llama, prompt) == unsteered


def test_a_real_model_is_steered_and_then_as_before(smollm2_path: Path) -> None:
    llama = Llama(str(smollm2_path), n_ctx=256, n_threads=1, n_threads_batch=1, verbose=False)
    messages = [{"role": "user", "content": "Write one sentence about the sea."}]

    def answer() -> str:
        reset(llama)  # a last row that is evaluated apart from its prompt is rounded otherwise
        return chat(llama, messages, 6)

    with closing(llama):
        unsteered = answer()
        with steer(llama, a_profile(llama, layers=(20,), norm=100.0)) as steering:
            steered = answer()
            assert steered != unsteered
            steering.strength = 0.0
            assert answer() == unsteered
            steering.strength = 1.0
            assert answer() == steered
        assert answer() == unsteered


# ---------------------------------------------------------------- every logit, by the reference


@pytest.mark.parametrize(
    ("layers", "strength", "positions"),
    [
        ((1, 3), 1.0, "generated"),
        ((2,), -0.7, "generated"),
        ((2,), 0.1, "all"),
        ((1, 3), -0.7, "all"),
    ],
)
def test_logits_are_those_of_the_reference(
    llama: Llama,
    tiny_f32: TinyModel,
    prompt: list[int],
    layers: tuple[int, ...],
    strength: float,
    positions: Positions,
) -> None:
    profile = a_profile(llama, layers=layers, positions=positions, strength=0.8)
    with steer(llama, profile, strength):
        assert_steered_exactly(llama, tiny_f32, prompt, profile, strength)


@pytest.mark.parametrize(
    ("options", "n_prompt", "positions"),
    [
        pytest.param({}, 1, "generated", id="a prompt of one token"),
        pytest.param({}, 2, "all", id="a prompt of two tokens"),
        pytest.param({"n_batch": 8}, 30, "generated", id="longer than a batch"),
        pytest.param({"n_batch": 8}, 30, "all", id="longer than a batch, all rows"),
        pytest.param({"n_batch": 8}, 17, "generated", id="two batches and the last row"),
        pytest.param({"n_batch": 8}, 16, "generated", id="the last row ends the second batch"),
        pytest.param({"n_ubatch": 4}, 30, "generated", id="longer than a micro-batch"),
        pytest.param({"logits_all": True, "n_batch": 8}, 30, "generated", id="logits of all rows"),
    ],
)
def test_logits_do_not_depend_on_how_the_prompt_is_cut_into_batches(
    open_with: Open,
    tiny_f32: TinyModel,
    options: dict[str, Any],
    n_prompt: int,
    positions: Positions,
) -> None:
    llama = open_with(**options)
    prompt = llama.tokenize(TEXT.encode())[:n_prompt]
    assert len(prompt) == n_prompt
    profile = a_profile(llama, positions=positions)
    with steer(llama, profile):
        assert_steered_exactly(llama, tiny_f32, prompt, profile)


@both_positions
def test_exactly_the_rows_of_the_positions_are_steered(
    open_with: Open, tiny_f32: TinyModel, prompt: list[int], positions: Positions
) -> None:
    llama = open_with(logits_all=True)
    profile = a_profile(llama, positions=positions)
    with steer(llama, profile):
        generated = greedy(llama, prompt)
        scores = llama.scores[: llama.n_tokens].copy()
    tokens = [*prompt, *generated[:-1]]
    first = first_steered(prompt, positions)
    expected = reference_logits(tiny_f32, tokens, profile, from_row(first, 1.0, len(tokens)))
    np.testing.assert_allclose(scores, expected, atol=EXACT, rtol=0)
    deviates = np.abs(scores - tiny_f32.forward(tokens).logits).max(axis=1) > 100 * EXACT
    assert deviates.tolist() == [row >= first for row in range(len(tokens))]


# ---------------------------------------------------------------- it depends on the prompt alone


def break_off_steered_stream(llama: Llama, prompt: list[int]) -> None:
    with steer(llama, a_profile(llama)):
        break_off_stream(llama, prompt)


def put_steered_reply_in_prompt(llama: Llama, prompt: list[int]) -> None:
    with steer(llama, a_profile(llama)):
        greedy(llama, [*prompt, *greedy(llama, prompt), *prompt])


def reset_while_steered(llama: Llama, prompt: list[int]) -> None:
    with steer(llama, a_profile(llama)):
        greedy(llama, prompt)
        reset(llama)
        greedy(llama, prompt[:9], reset=False)


EARLIER_CALLS: dict[str, Callable[[Llama, list[int]], object]] = {
    "the prompt is evaluated": lambda llama, prompt: Llama.eval(llama, prompt),
    "one unsteered token": lambda llama, prompt: greedy(llama, prompt, 1),
    "several unsteered tokens": greedy,
    "a longer prompt": lambda llama, prompt: greedy(llama, [*prompt, *prompt]),
    "a broken off stream": break_off_stream,
    "the prompt, steered": greedy_steered,
    "steered by another profile": lambda llama, prompt: greedy_steered(llama, prompt, seed=1),
    "a prompt that begins alike, steered": lambda llama, prompt: greedy_steered(
        llama, [*prompt[:9], 300, 301]
    ),
    "its beginning, steered": lambda llama, prompt: greedy_steered(llama, prompt[:-5]),
    "a longer prompt, steered": lambda llama, prompt: greedy_steered(llama, [*prompt, *prompt]),
    "a broken off stream, steered": break_off_steered_stream,
    "a reset by hand, steered": reset_while_steered,
    "a steered reply in a longer prompt": put_steered_reply_in_prompt,
    "all rows steered": lambda llama, prompt: greedy_steered(llama, prompt, positions="all"),
}


@pytest.mark.parametrize("call", EARLIER_CALLS.values(), ids=EARLIER_CALLS.keys())
def test_logits_do_not_depend_on_earlier_calls(
    llama: Llama,
    tiny_f32: TinyModel,
    prompt: list[int],
    call: Callable[[Llama, list[int]], object],
) -> None:
    profile = a_profile(llama)
    call(llama, prompt)
    with steer(llama, profile):
        assert_steered_exactly(llama, tiny_f32, prompt, profile)
    call(llama, prompt)
    assert_steered_exactly(llama, tiny_f32, prompt, profile, 0.0)


@both_positions
def test_logits_do_not_depend_on_earlier_prompts_and_strengths(
    llama: Llama, tiny_f32: TinyModel, prompt: list[int], positions: Positions
) -> None:
    other = llama.tokenize(OTHER_TEXT.encode())
    assert prompt[:8] == other[:8]
    profile = a_profile(llama, positions=positions)
    with steer(llama, profile) as steering:
        for each in (prompt, other, prompt, prompt, prompt[:-4], prompt):
            assert_steered_exactly(llama, tiny_f32, each, profile)
        assert steering.strength == 1.0
        for strength in (-0.5, 0.3, 0.0, 1.0):
            steering.strength = strength
            assert steering.strength == strength
            assert_steered_exactly(llama, tiny_f32, prompt, profile, strength)


@both_positions
def test_an_earlier_reply_in_the_prompt_is_evaluated_as_on_a_fresh_model(
    llama: Llama, tiny_f32: TinyModel, prompt: list[int], positions: Positions
) -> None:
    profile = a_profile(llama, positions=positions)
    with steer(llama, profile):
        for _ in range(3):  # replies
            assert_steered_exactly(llama, tiny_f32, prompt, profile)
            prompt = [*prompt, *greedy(llama, prompt), *llama.tokenize(b" And then?", False)]


def test_a_prompt_is_not_evaluated_again_for_another_profile_or_none(
    llama: Llama, prompt: list[int], evaluated: list[tuple[int, int]]
) -> None:
    greedy(llama, prompt, 3)
    evaluated.clear()
    for seed in (0, 1):
        with steer(llama, a_profile(llama, seed=seed)):
            greedy(llama, prompt, 3)
    greedy(llama, prompt, 3)
    last = len(prompt) - 1
    assert evaluated == 3 * [(last, 1), (last + 1, 1), (last + 2, 1)]


# ---------------------------------------------------------------- every way to generate


@pytest.mark.parametrize("is_positional", [False, True])
def test_generate_without_reset_continues_the_generation(
    llama: Llama, prompt: list[int], *, is_positional: bool
) -> None:
    with steer(llama, a_profile(llama)):
        whole = greedy(llama, prompt, 8)
        begun = greedy(llama, prompt, 4)
        if is_positional:
            defaults = (40, 0.95, 0.05, 1.0)  # top_k, top_p, min_p, typical_p
            with closing(llama.generate(begun[-1:], *defaults, 0.0, 1.0, False)) as tokens:
                rest = list(islice(tokens, 4))
        else:
            rest = greedy(llama, begun[-1:], 4, reset=False)
    assert begun + rest == whole


def test_speculative_decoding_generates_the_same_tokens(
    llama: Llama, open_with: Open, prompt: list[int], unsteered: list[int]
) -> None:
    expected = greedy_steered(llama, prompt, n=16)
    text = [*prompt, *expected]
    drafted: list[int] = []

    def draft(tokens: npt.NDArray[np.intc], /, **_: Any) -> npt.NDArray[np.intc]:
        """Three tokens: right, right and wrong."""
        guess = [*text[len(tokens) : len(tokens) + 2], 299]
        drafted.extend(guess)
        return np.array(guess, dtype=np.intc)

    fast = open_with(draft_model=draft)
    with steer(fast, a_profile(llama)):
        assert greedy(fast, prompt, 16) == expected
        assert greedy(fast, prompt, 16) == expected
    assert set(drafted) & set(expected)
    assert 299 in set(drafted) - set(expected)
    assert greedy(fast, prompt) == unsteered


# ---------------------------------------------------------------- off between generations


def eval_logits(llama: Llama, tokens: Sequence[int]) -> Logits:
    """Last logits of tokens that go to llama.cpp directly, past everything `steer` replaces."""
    reset(llama)
    Llama.eval(llama, tokens)
    logits = last_logits(llama)
    reset(llama)
    return logits


@pytest.fixture
def plain_logits(open_with: Open, prompt: list[int]) -> Logits:
    return eval_logits(open_with(), prompt)


def test_between_generations_the_vector_is_off(
    llama: Llama, prompt: list[int], plain_logits: Logits
) -> None:
    def fail(_tokens: object, _logits: object) -> bool:
        raise ZeroDivisionError

    with steer(llama, a_profile(llama)) as steering:
        np.testing.assert_array_equal(eval_logits(llama, prompt), plain_logits)
        llama.eval(prompt)
        np.testing.assert_array_equal(last_logits(llama), plain_logits)
        np.testing.assert_array_equal(eval_logits(llama, prompt), plain_logits)
        greedy(llama, prompt)
        np.testing.assert_array_equal(eval_logits(llama, prompt), plain_logits)
        break_off_stream(llama, prompt)
        np.testing.assert_array_equal(eval_logits(llama, prompt), plain_logits)
        with pytest.raises(ZeroDivisionError):
            greedy(llama, prompt, stopping_criteria=fail)
        np.testing.assert_array_equal(eval_logits(llama, prompt), plain_logits)
        steering.strength = 2.0
        np.testing.assert_array_equal(eval_logits(llama, prompt), plain_logits)


def test_an_open_stream_does_not_steer_what_comes_after_clear(
    llama: Llama, tiny_f32: TinyModel, prompt: list[int]
) -> None:
    profile = a_profile(llama)
    with steer(llama, profile):
        stream = llama.generate(prompt, temp=0.0)
        next(stream), next(stream)
    assert_steered_exactly(llama, tiny_f32, prompt, profile, 0.0)
    stream.close()
    assert_steered_exactly(llama, tiny_f32, prompt, profile, 0.0)


def test_an_open_stream_does_not_disturb_the_next_one(
    llama: Llama, tiny_f32: TinyModel, prompt: list[int]
) -> None:
    profile = a_profile(llama)
    with steer(llama, profile):
        stream = llama.generate(prompt, temp=0.0)
        next(stream), next(stream)
        assert_steered_exactly(llama, tiny_f32, prompt, profile)
        other = llama.generate(prompt, temp=0.0)
        tokens = [next(other), next(other)]
        stream.close()  # as a garbage collector may do at any time
        tokens += [next(other), next(other)]
        assert tokens == greedy(llama, prompt, 4)


@pytest.mark.parametrize(
    ("before", "after", "positions"),
    [
        (1.0, 0.3, "generated"),
        (1.0, 0.3, "all"),
        (1.0, 0.0, "generated"),
        (0.0, 1.0, "all"),
        (1.0, None, "generated"),  # clears
        (1.0, None, "all"),
    ],
)
def test_a_change_during_a_generation_applies_from_the_next_row_on(
    llama: Llama,
    tiny_f32: TinyModel,
    prompt: list[int],
    before: float,
    after: float | None,
    positions: Positions,
) -> None:
    profile = a_profile(llama, positions=positions)
    steering = steer(llama, profile, before)
    generated, logits = [], []
    with ExitStack() as warned, closing(llama.generate(prompt, temp=0.0)) as stream:
        for token in islice(stream, N):
            generated.append(token)
            logits.append(last_logits(llama))
            if len(generated) == 4 and after is None:
                steering.clear()
                warned.enter_context(pytest.warns(UserWarning, match="steering has ended"))
            elif len(generated) == 4 and after is not None:
                steering.strength = after
    tokens = [*prompt, *generated[:-1]]
    strengths = from_row(first_steered(prompt, positions), before, len(tokens))
    strengths[len(prompt) + 3 :] = after or 0.0
    expected = reference_logits(tiny_f32, tokens, profile, strengths)
    np.testing.assert_allclose(np.stack(logits), expected[len(prompt) - 1 :], atol=EXACT, rtol=0)

    # No later generation reuses the KV cells of this one.
    if after is not None:
        assert_steered_exactly(llama, tiny_f32, prompt, profile, after)
        steering.clear()
    assert_steered_exactly(llama, tiny_f32, prompt, profile, 0.0)


@pytest.mark.parametrize(
    "begin",
    [
        lambda llama, prompt: llama.generate(prompt, temp=0.0),
        lambda llama, prompt: llama.create_completion(
            prompt, max_tokens=60, temperature=0.0, stream=True
        ),
        lambda llama, _: llama.create_chat_completion(
            [{"role": "user", "content": TEXT}], max_tokens=60, temperature=0.0, stream=True
        ),
    ],
    ids=["tokens", "completion", "chat"],
)
@pytest.mark.parametrize("n_read", [0, 1])
def test_a_stream_read_after_the_end_says_that_it_is_not_steered(
    llama: Llama, prompt: list[int], begin: Callable[..., Iterator[object]], n_read: int
) -> None:
    with steer(llama, forcing(llama)):  # whole characters, so that each token is a chunk
        stream = begin(llama, prompt)
        assert len(list(islice(stream, n_read))) == n_read
    with pytest.warns(UserWarning, match=r"steering has ended.*Read the whole stream") as warned:
        assert len(list(islice(stream, 3))) == 3
    assert len(warned) == 1


def test_a_stream_first_read_after_the_end_is_unsteered(
    llama: Llama, prompt: list[int], unsteered: list[int]
) -> None:
    with steer(llama, a_profile(llama)):
        stream = llama.generate(prompt, temp=0.0)
    with pytest.warns(UserWarning, match="steering has ended"):
        tokens = list(islice(stream, N))
    assert tokens == unsteered


def test_a_loop_of_ones_own_says_that_it_is_not_steered(llama: Llama, prompt: list[int]) -> None:
    llama.eval(prompt)
    with steer(llama, a_profile(llama)):
        greedy(llama, prompt)  # which calls the same methods
        llama.eval(prompt)  # fills the cache, as applications do before they generate
        with pytest.warns(UserWarning, match=r"not steered.*llama\.generate\(\)") as warned:
            llama.sample(temp=0.0)
    assert warned[0].filename == __file__
    llama.sample(temp=0.0)  # without a word


def copying_draft(tokens: npt.NDArray[np.intc], /, **_: Any) -> npt.NDArray[np.intc]:
    """Guess that the last tokens are repeated, as prompt lookup does."""
    guess: npt.NDArray[np.intc] = tokens[-6:-3].copy()
    return guess


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (1.0, 0.3),
        (0.0, 1.0),
        pytest.param(
            1.0, None, marks=pytest.mark.xfail(strict=True, reason="a draft may hold token -1")
        ),
    ],
)
def test_a_change_during_speculative_decoding_acts_as_without_a_draft(
    llama: Llama, open_with: Open, prompt: list[int], before: float, after: float | None
) -> None:
    generated = []
    for each in (llama, open_with(draft_model=copying_draft)):
        steering = steer(each, a_profile(each), before)
        with closing(each.generate(prompt, temp=0.0)) as stream:
            tokens = list(islice(stream, 4))
            if after is None:
                steering.clear()
            else:
                steering.strength = after
            generated.append(tokens + list(islice(stream, 12)))
    assert generated[0] == generated[1]


@both_positions
def test_a_llama_remembers_no_token_below_0(
    llama: Llama, prompt: list[int], positions: Positions
) -> None:
    def remembered() -> set[int]:
        return {*llama.eval_tokens, *llama.input_ids[: llama.n_tokens].tolist()}

    with steer(llama, a_profile(llama, positions=positions)) as steering:
        greedy(llama, prompt)
        steering.strength = 0.5
        assert min(remembered(), default=0) >= 0
    assert min(remembered(), default=0) >= 0


# ---------------------------------------------------------------- the handle


NOT_STRENGTHS = [float("nan"), -float("inf"), 1e39, "1", None]


@pytest.mark.parametrize("strength", NOT_STRENGTHS)
def test_steer_refuses_a_strength_that_is_not_a_number_and_changes_nothing(
    llama: Llama, prompt: list[int], unsteered: list[int], strength: Any
) -> None:
    llama.set_cache(cache := LlamaRAMCache())
    with pytest.raises(ProfileError, match="strength"):
        steer(llama, a_profile(llama), strength)
    assert llama.cache is cache
    assert_not_steered(llama)
    assert greedy(llama, prompt) == unsteered


@pytest.mark.parametrize(
    ("make", "positions", "strength"),
    [
        *((a_profile, "generated", strength) for strength in NOT_STRENGTHS),
        (a_profile, "all", float("nan")),
        (biased, "generated", float("inf")),
        (knowing, "all", "1"),
    ],
)
def test_a_refused_strength_leaves_the_former_one(
    llama: Llama, prompt: list[int], make: Make, positions: Positions, strength: Any
) -> None:
    with steer(llama, make(llama, positions=positions), 0.5) as steering:
        expected = greedy(llama, prompt)
        with pytest.raises(ProfileError, match="strength"):
            steering.strength = strength
        assert steering.strength == 0.5
        assert greedy(llama, prompt) == expected


def assert_not_steered(llama: Llama) -> None:
    assert not {"generate", "eval"} & set(vars(llama))
    with steer(llama, a_profile(llama)):  # or this would be refused
        pass


def test_a_strength_set_after_clear_is_refused(
    llama: Llama, prompt: list[int], unsteered: list[int]
) -> None:
    steering = steer(llama, a_profile(llama, positions="all"))
    steering.clear()
    with pytest.raises(SteerxError, match="cleared"):
        steering.strength = 2.0
    assert steering.strength == 1.0
    assert greedy(llama, prompt) == unsteered


def test_a_steered_model_cannot_be_steered_twice(llama: Llama, prompt: list[int]) -> None:
    profile, other = a_profile(llama), a_profile(llama, seed=1)
    with steer(llama, profile) as steering:
        expected = greedy(llama, prompt)
        with pytest.raises(SteerxError, match=r"already steered.*clear\(\)"):
            steer(llama, other)
        assert greedy(llama, prompt) == expected
        steering.clear()
        with steer(llama, other):
            different = greedy(llama, prompt)
            assert different != expected
            steering.clear()  # which is over, so this does not end the second one
            assert greedy(llama, prompt) == different


@both_positions
def test_a_model_closed_while_it_is_steered_can_be_cleared(
    open_with: Open, prompt: list[int], positions: Positions
) -> None:
    llama = open_with()
    with steer(llama, a_profile(llama, positions=positions)) as steering:
        stream = llama.generate(prompt, temp=0.0)
        next(stream), next(stream)
        llama.close()
        stream.close()
    steering.clear()
    assert_unwrapped(llama)


def assert_unwrapped(llama: Any) -> None:
    assert llama.generate.__func__ is Llama.generate
    assert llama.eval.__func__ is Llama.eval


def test_a_closed_model_is_refused(open_with: Open) -> None:
    llama = open_with()
    profile = a_profile(llama)
    llama.close()
    with pytest.raises(SteerxError, match="closed"):
        steer(llama, profile)


def test_clear_removes_every_attribute_that_steer_sets(llama: Llama, prompt: list[int]) -> None:
    names = set(vars(llama))
    with steer(llama, a_profile(llama)):
        greedy(llama, prompt)
    of_sampling = {"_sampler", "_mirostat_mu"}
    assert set(vars(llama)) - of_sampling == names - of_sampling
    assert_unwrapped(llama)


@pytest.mark.parametrize("name", ["generate", "eval"])
def test_clear_puts_back_methods_that_the_application_has_set(llama: Llama, name: str) -> None:
    own = getattr(llama, name)
    setattr(llama, name, own)
    with steer(llama, a_profile(llama)):
        assert getattr(llama, name) is not own
    assert vars(llama)[name] is own


def test_a_model_stays_steered_if_the_handle_is_dropped(
    llama: Llama, prompt: list[int], unsteered: list[int]
) -> None:
    expected = greedy_steered(llama, prompt)
    steer(llama, a_profile(llama))
    gc.collect()
    assert greedy(llama, prompt) == expected != unsteered
    with pytest.raises(SteerxError, match="already steered"):
        steer(llama, a_profile(llama))


@pytest.mark.parametrize(
    ("make", "is_cleared"),
    [(a_profile, True), (a_profile, False), (biased, True), (knowing, False)],
)
def test_a_steered_model_is_freed_after_its_last_reference(
    tiny_f32: TinyModel, make: Make, *, is_cleared: bool
) -> None:
    llama = Llama(str(tiny_f32.path), n_ctx=64, n_threads=1, verbose=False)
    steering = steer(llama, make(llama))
    greedy(llama, [1, 300, 301])
    if is_cleared:
        steering.clear()
    reference = weakref.ref(llama)
    del llama, steering
    gc.collect()
    assert reference() is None


# ---------------------------------------------------------------- profiles and the prompt cache


def test_a_profile_may_be_given_by_its_path(
    llama: Llama, prompt: list[int], tmp_path: Path
) -> None:
    a_profile(llama).save(tmp_path / "me.json")
    expected = greedy_steered(llama, prompt)
    for path in (tmp_path / "me.json", str(tmp_path / "me.json")):
        with steer(llama, path):
            assert greedy(llama, prompt) == expected


def test_a_profile_of_another_model_is_refused_with_both_names(
    llama: Llama, open_with: Open, tmp_path: Path, prompt: list[int], unsteered: list[int]
) -> None:
    other = make_tiny_llama(tmp_path / "other.gguf", seed=5, name="somebody-else")
    profile = a_profile(open_with(other))
    with pytest.raises(ProfileError, match=r"made for somebody-else .*this model is tiny-llama"):
        steer(llama, profile)
    assert_not_steered(llama)
    assert greedy(llama, prompt) == unsteered


@both_positions
def test_the_prompt_cache_is_set_aside_and_put_back(
    llama: Llama, prompt: list[int], positions: Positions
) -> None:
    cache = LlamaRAMCache()
    llama.set_cache(cache)
    plain = complete(llama, prompt)
    assert len(cache.cache_state) == 1
    with steer(llama, a_profile(llama, positions=positions)):
        assert llama.cache is None
        steered = complete(llama, prompt)
        assert complete(llama, prompt) == steered != plain
    assert llama.cache is cache
    assert len(cache.cache_state) == 1  # no steered state was saved
    assert complete(llama, prompt) == plain


def test_a_prompt_cache_set_while_steered_stays(llama: Llama) -> None:
    llama.set_cache(LlamaRAMCache())
    own = LlamaRAMCache()
    with steer(llama, a_profile(llama)):
        llama.set_cache(own)
    assert llama.cache is own


def save_and_load(llama: Llama) -> None:
    llama.load_state(llama.save_state())


def save_inside(llama: Llama, prompt: list[int], profile: Profile) -> Any:
    """Leave a state of the prompt and its steered answer."""
    with steer(llama, profile):
        greedy(llama, prompt)
        return llama.save_state()


@both_positions
def test_from_a_state_saved_while_steered_nothing_steered_is_used_again(
    llama: Llama, tiny_f32: TinyModel, prompt: list[int], positions: Positions
) -> None:
    profile = a_profile(llama, positions=positions)
    state = save_inside(llama, prompt, profile)
    (*answered,) = state.input_ids[: state.n_tokens].tolist()
    answer = greedy_steered(llama, prompt, positions=positions)
    for text in (prompt, [*prompt, *answer[:4]]):
        llama.load_state(state)
        assert_steered_exactly(llama, tiny_f32, text, profile, 0.0)
        with steer(llama, profile):
            llama.load_state(state)
            assert_steered_exactly(llama, tiny_f32, text, profile)
            save_and_load(llama)
            assert_steered_exactly(llama, tiny_f32, text, profile)
    assert (answered[0] == prompt[0]) == (positions == "generated")  # whose prompt is unsteered


@both_positions
def test_a_state_saved_before_is_steered_from_where_the_positions_begin(
    llama: Llama, tiny_f32: TinyModel, prompt: list[int], positions: Positions
) -> None:
    profile = a_profile(llama, positions=positions)
    greedy(llama, prompt)
    state = llama.save_state()
    with steer(llama, profile):
        greedy(llama, prompt)
        llama.load_state(state)
        assert_steered_exactly(llama, tiny_f32, prompt, profile)


@both_positions
def test_a_prompt_cache_set_while_steered_holds_no_steered_cell_for_a_later_prompt(
    open_with: Open, prompt: list[int], positions: Positions
) -> None:
    llama, fresh = open_with(), open_with()
    llama.set_cache(cache := LlamaRAMCache())
    fresh.set_cache(LlamaRAMCache())
    with steer(llama, a_profile(llama, positions=positions)):
        llama.set_cache(cache)
        answer = complete(llama, prompt)
        reset(llama)
        assert complete(llama, prompt) == answer
    (key,) = cache.cache_state
    for text in (prompt, list(key)):
        reset(llama)
        assert complete(llama, text) == complete(fresh, text)
        assert_cells_alike(llama, fresh)


def assert_cells_alike(llama: Llama, fresh: Llama) -> None:
    """Both continue with the same logits, to rounding."""
    for each in (llama, fresh):
        each.eval([300])
    np.testing.assert_allclose(last_logits(llama), last_logits(fresh), atol=EXACT, rtol=0)
