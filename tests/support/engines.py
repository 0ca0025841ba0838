"""An engine that fails at a chosen moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.requests import ScoreRequest, ScoreResult


class InterruptedEngine(Engine):
    """Is interrupted before the call of `run_many` of a number, counted over its life."""

    n_calls = 0
    last_call = 10**9

    def run_many(
        self, requests: Sequence[ScoreRequest], done: Callable[[int], None] | None = None
    ) -> list[ScoreResult]:
        if self.n_calls == self.last_call:
            raise KeyboardInterrupt
        self.n_calls += 1
        return super().run_many(requests, done)
