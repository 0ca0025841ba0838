"""How long learning takes, estimated before it starts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from steerx_edge.analysis import Pass
from steerx_edge.prompts import messages_for
from steerx_edge.reading import sampled, usable

if TYPE_CHECKING:
    from steerx_edge.engine import Engine
    from steerx_edge.history import HistoryItem
    from steerx_edge.settings import Settings

# What is evaluated, as multiples of the texts' tokens; counted while learning from docs/demo.
_ARMS = 2
_DIRECTIONS = 2
_CALIBRATION = 5

_TIMED = 4  # texts


def estimated_seconds(engine: Engine, history: Sequence[HistoryItem], settings: Settings) -> float:
    """Extrapolate from the time that a few texts take on this model and machine.

    Args:
        engine: the model.
        history: what is learned from.
        settings: how.

    Raises:
        HistoryError: there is too little text.
        ModelError: the model cannot be read.
    """
    items = usable(engine, history, settings.max_items)
    passes = [
        Pass(engine.prompt(messages_for(item.request)), engine.tokenize(item.response))
        for item in items
    ]
    n_tokens = [len(job.context) + len(job.response) for job in passes]
    sample = sampled(len(items), settings.sample)
    timed = [passes[place] for place in sample[: 1 + _TIMED]]
    engine.run_many(timed[:1])  # opens the analysis context
    begin = time.perf_counter()
    engine.run_many(timed[1:])
    seconds_a_token = (time.perf_counter() - begin) / sum(
        n_tokens[place] for place in sample[1 : len(timed)]
    )
    n_sample = sum(n_tokens[place] for place in sample)
    n_evaluated = (_ARMS + _DIRECTIONS) * n_sample
    if settings.calibrate:
        n_evaluated += _CALIBRATION * n_sample + _ARMS * (sum(n_tokens) - n_sample)
    return seconds_a_token * n_evaluated
