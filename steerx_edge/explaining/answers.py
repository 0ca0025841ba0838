"""Where the tokens of a steered answer come from: the model, directions, logit bias, memory.

The answer is generated in the model's own context, and then scored in the analysis context, once
unsteered and once with the directions. Contributions are nested in the order in which the parts of
a profile are applied, so they sum to the difference that all of them make.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from steerx_edge.errors import ModelError
from steerx_edge.live import SteeringHandle
from steerx_edge.llamacpp import compat
from steerx_edge.llamacpp.engine import llama_seed
from steerx_edge.llamacpp.requests import ScoreRequest, asked_for
from steerx_edge.steering.requests import by_context, steered
from steerx_edge.steering.steering import Steering

if TYPE_CHECKING:
    from steerx_edge.live_prefix import LivePrefix
    from steerx_edge.llamacpp.engine import Engine
    from steerx_edge.profile import Entry, Profile
    from steerx_edge.steering.memory import Memory


_LARGEST_BIAS = 80.0
"""Nats, of which float32 still holds the exponential."""


@dataclass(frozen=True, eq=False)
class Attribution:
    """The tokens of an answer, T of them, and what made each one probable.

    Attributes:
        tokens: as generated; the last may be one that ends the answer.
        pieces: the bytes of each; none for an end.
        model: (T,) log-probability under the unsteered model, nats.
        directions: (T,) what the directions add to that, nats.
        logit_bias: (T,) what the logit bias adds to both, nats.
        memory: (T,) what the memory adds to all of these, nats.
        total: (T,) log-probability with all of them, nats; the sum of the four.
        rows: (T, n_embd) final normed rows that predict the tokens, with the directions.
        is_steered: whether anything was to be changed, and the gate let it through.
        has_steering: whether anything was to be changed, with the gate open.
    """

    tokens: list[int]
    pieces: list[bytes]
    model: NDArray[np.float64]
    directions: NDArray[np.float64]
    logit_bias: NDArray[np.float64]
    memory: NDArray[np.float64]
    total: NDArray[np.float64]
    rows: NDArray[np.float32]
    is_steered: bool
    has_steering: bool = True


class Answers(NamedTuple):
    """Two answers to the same prompt.

    Args:
        unsteered: without the profile.
        steered: with it.
        memory: the one that acted on the steered answer, or None.
    """

    unsteered: Attribution
    steered: Attribution
    memory: Memory | None


def answers_to(
    engine: Engine,
    profile: Profile,
    prompt: Sequence[int],
    *,
    strength: float = 1.0,
    prefix: LivePrefix | None = None,
    max_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
) -> Answers:
    """Answer a prompt without and with a profile, and tell what made each token probable.

    Args:
        engine: the model, not steered.
        profile: with an entry for it.
        prompt: token ids.
        strength: as of `steer`.
        prefix: that the prompt begins with; the strengths for prompts with texts apply then.
        max_tokens: at most so many; below 0 for as many as fit.
        temperature: 0 is greedy.
        seed: of sampling, for both answers.

    Raises:
        ProfileError: the profile has no entry for the model.
        ModelError: the prompt is empty or does not fit the analysis context, or llama.cpp fails.
    """
    entry = profile.entry_for(engine.model_id)
    steering = entry.steering(strength, with_history=prefix is not None)
    n = room_for(engine, prompt, max_tokens)
    write = partial(answer, engine, prompt, max_tokens=n, temperature=temperature, seed=seed)
    plain = write()
    with SteeringHandle(engine.llama, profile, strength, with_history=False, prefix=prefix):
        own = write()
    steered_one, acting = attribute(engine, entry, steering, prompt, own)
    unsteered, _ = attribute(engine, entry, Steering(), prompt, plain)
    return Answers(unsteered, steered_one, acting.memory.memory if acting.memory else None)


def room_for(engine: Engine, prompt: Sequence[int], max_tokens: int) -> int:
    """How many tokens an answer may have: it is generated in one context and scored in another.

    Raises:
        ModelError: the prompt is empty, or fills one of them.
    """
    if not prompt:
        raise ModelError("The prompt is empty: there is nothing to continue.")
    n_ctx = min(compat.most_tokens(engine.llama), engine.analysis.n_ctx)
    room = n_ctx - len(prompt)
    if room < 1:
        raise ModelError(
            f"The prompt has {len(prompt)} tokens, and at most {n_ctx - 1} can be explained. "
            "Shorten it."
        )
    return room if max_tokens < 0 else min(max_tokens, room)


def answer(
    engine: Engine, prompt: Sequence[int], *, max_tokens: int, temperature: float, seed: int
) -> list[int]:
    """Generate tokens as `Engine.stream` does, with the steering that the model has now.

    Args:
        engine: the model.
        prompt: token ids.
        max_tokens: see `room_for`.
        temperature: 0 is greedy.
        seed: of sampling, as of `Engine.stream`.

    Returns:
        The tokens; the last is one of `Engine.end_tokens` if the model ended the answer.
    """
    tokens: list[int] = []
    ends = {*engine.end_tokens}
    llama = engine.llama
    llama.reset()  # type: ignore[no-untyped-call]
    llama.set_seed(llama_seed(seed))
    with closing(llama.generate(list(prompt), temp=temperature)) as stream:
        while len(tokens) < max_tokens and not (tokens and tokens[-1] in ends):
            tokens.append(next(stream))
    return tokens


def attribute(
    engine: Engine, entry: Entry, steering: Steering, prompt: Sequence[int], tokens: Sequence[int]
) -> tuple[Attribution, Steering]:
    """Score an answer without the parts of a steering, and with one after the other.

    Args:
        engine: the model.
        entry: whose steering it is.
        steering: what the answer was generated under; `Steering()` for an unsteered one.
        prompt: token ids.
        tokens: the answer, with its end if it has one.

    Returns:
        What made each token probable, and the steering that acted: none behind a closed gate.

    Raises:
        ModelError: the answer does not fit the analysis context, the logit bias is far too large,
            or llama.cpp fails.
    """
    if entry.model.architecture in compat.NO_LOGITS_WITH_ROWS:  # as live steering does
        steering = replace(steering, gate=None)
    (acting,) = by_context(engine, steering, [prompt])
    own = ScoreRequest(prompt, tokens, final=True)
    with_directions = replace(
        steered(own, acting), logit_bias={}, memory=None, biases=_dense(acting, engine)
    )
    # Behind a closed gate it is the same pass, which gives the same only if it is run once.
    results = engine.run_many([own, with_directions] if acting else [own])
    bare, guided = results[0], results[-1]
    rows = asked_for(guided.final)[:-1]
    biased = asked_for(guided.biased)[0] if acting.logit_bias else guided.scored
    total = biased
    if acting.memory is not None:
        total = acting.memory.log_prob(rows, tokens, biased)
    # Differences of float32 numbers of like size are exact in float64, and so is their sum.
    steps = [each.astype(np.float64) for each in (bare.scored, guided.scored, biased, total)]
    found = Attribution(
        tokens=list(tokens),
        pieces=engine.pieces(tokens),
        model=steps[0],
        directions=steps[1] - steps[0],
        logit_bias=steps[2] - steps[1],
        memory=steps[3] - steps[2],
        total=steps[3],
        rows=rows,
        is_steered=bool(acting),
        has_steering=bool(steering),
    )
    return found, acting


def _dense(steering: Steering, engine: Engine) -> NDArray[np.float32] | None:
    """The logit bias as (1, n_vocab); None for none."""
    if not steering.logit_bias:
        return None
    bias = np.zeros((1, engine.analysis.n_vocab), np.float32)
    bias[0, list(steering.logit_bias)] = list(steering.logit_bias.values())
    if (largest := float(np.abs(bias).max())) > _LARGEST_BIAS:
        raise ModelError(
            f"A logit bias of {largest:.0f} nats is too large to be explained. Lower --strength, "
            "or the strength of the logit bias in the profile."
        )
    return bias
