"""One engine or several, used from several threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from llama_cpp import Llama

from models import TinyModel
from steerx_edge.errors import ModelError
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.requests import ScoreRequest

REQUESTS = [
    ScoreRequest([1, 300 + i, 301], list(range(310, 320 + i)), layers=(0, 3), entropy=True)
    for i in range(8)
]


def assert_same(engines: list[Engine], rounds: int = 4) -> None:
    """Runs each request on each engine from several threads, and compares with one by one."""
    expected = [[engine.run(request) for request in REQUESTS] for engine in engines]
    with ThreadPoolExecutor(2 * len(engines)) as threads:
        for _ in range(rounds):
            futures = [
                [threads.submit(engine.run, request) for request in REQUESTS] for engine in engines
            ]
            for results, wanted in zip(futures, expected, strict=True):
                for result, want in zip(results, wanted, strict=True):
                    np.testing.assert_array_equal(result.result().scored, want.scored)
                    np.testing.assert_array_equal(result.result().captured, want.captured)


def test_one_engine_serves_several_threads(tiny_engine: Engine) -> None:
    assert_same([tiny_engine])


def test_two_engines_run_in_two_threads(
    open_llama: Callable[..., Llama], tiny_f32: TinyModel, tiny_q8: TinyModel
) -> None:
    assert_same([Engine(open_llama(tiny_f32)), Engine(open_llama(tiny_q8))])


def test_an_engine_with_threads_of_its_own_serves_several_threads(tiny_f32: TinyModel) -> None:
    assert_same([Engine(tiny_f32.path, n_ctx=512, n_threads=2)])


def test_a_model_closed_from_another_thread_waits_for_the_pass(
    open_llama: Callable[..., Llama], tiny_f32: TinyModel
) -> None:
    for _ in range(8):
        llama = open_llama(tiny_f32)
        engine = Engine(llama)
        engine.run(REQUESTS[0])
        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(engine.run_many, REQUESTS)
            llama.close()
            error = running.exception()
            assert error is None or (isinstance(error, ModelError) and "closed" in str(error))
    with pytest.raises(ModelError, match="closed"):
        engine.run(REQUESTS[0])
