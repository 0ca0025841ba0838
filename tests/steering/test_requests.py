"""Requests under a steering."""

from __future__ import annotations

import numpy as np
import pytest

from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.interventions import Add
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import GenerateRequest, ScoreRequest
from steerx_edge.steering.memory import ActiveMemory, KeySpace, Memory
from steerx_edge.steering.requests import by_context, steered
from steerx_edge.steering.steering import Steering
from tests.support.gate_reference import gate_for

VECTORS = np.eye(2, 8, dtype=np.float32)


def a_memory() -> ActiveMemory:
    space = KeySpace.fit(np.random.default_rng(0).standard_normal((50, 8)))
    keys = np.ones((1, space.basis.shape[1]), np.int8)
    one = np.ones(1, np.int32)
    return ActiveMemory(
        Memory(space, keys, one, np.ones(1, np.float32), np.empty(0, np.uint32), 1), 0.5
    )


@pytest.mark.parametrize("request_", [ScoreRequest([1], [2]), GenerateRequest([1])])
def test_a_request_takes_every_part_of_a_steering(request_: ScoreRequest) -> None:
    memory = a_memory()
    found = steered(request_, Steering((1, 3), VECTORS, "all", {5: 1.0}, memory))
    (added,) = found.interventions
    assert isinstance(added, Add)
    assert (added.layers, added.positions) == ((1, 3), "all")
    np.testing.assert_array_equal(added.vectors, VECTORS)
    assert found.logit_bias == {5: 1.0}
    assert found.memory is memory


def test_a_steering_that_changes_nothing_leaves_a_request_as_it_is() -> None:
    request = ScoreRequest([1], [2])
    assert steered(request, Steering()) == request
    assert steered(request, Steering((1, 3), 0 * VECTORS)) == request


def test_an_answer_is_steered_where_the_gate_is_open(tiny_chat_engine: Engine) -> None:
    engine = tiny_chat_engine
    contexts = [engine.prompt(messages_for(request)) for request in ("Write.", "Sing!", "Read 2")]
    always = Steering(logit_bias={5: 1.0})
    assert by_context(engine, always, contexts) == [always] * 3
    sometimes = Steering(logit_bias={5: 1.0}, gate=gate_for(engine.llama, contexts[1]))
    assert list(map(bool, by_context(engine, sometimes, contexts))) == [False, True, False]
