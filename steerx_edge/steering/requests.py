"""Requests under a steering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from steerx_edge.llamacpp.interventions import Add
from steerx_edge.llamacpp.requests import GenerateRequest, ScoreRequest, asked_for
from steerx_edge.steering.steering import Steering

if TYPE_CHECKING:
    from steerx_edge.llamacpp.engine import Engine

_Request = TypeVar("_Request", ScoreRequest, GenerateRequest)


def steered(request: _Request, steering: Steering) -> _Request:
    """Return the request with a steering, regardless of its gate: see `by_context`."""
    vectors = Add(steering.layers, steering.vectors, steering.positions)
    return replace(
        request,
        interventions=(vectors,) if steering.adds else (),
        logit_bias=steering.logit_bias,
        memory=steering.memory,
    )


def by_context(
    engine: Engine, steering: Steering, contexts: Sequence[Sequence[int]]
) -> list[Steering]:
    """The steering of the answer after each context: none where the gate is closed.

    Raises:
        ModelError: a context does not fit, or llama.cpp fails.
    """
    if steering.gate is None or not steering or not contexts:
        return [steering] * len(contexts)
    is_open = steering.gate.is_open(opening_rows(engine, contexts))
    return [steering if opens else Steering() for opens in is_open]


def opening_rows(engine: Engine, contexts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Final normed rows that predict the first token after each context: (n, n_embd)."""
    requests = [ScoreRequest(context, (), score=False, final=True) for context in contexts]
    return np.stack([asked_for(result.final)[0] for result in engine.run_many(requests)])
