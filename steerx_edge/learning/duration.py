"""How long learning takes, estimated before it starts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from steerx_edge.learning.texts import requests_for, sampled, shortened, usable

if TYPE_CHECKING:
    from steerx_edge.history.item import HistoryItem
    from steerx_edge.learning.settings import Settings
    from steerx_edge.llamacpp.engine import Engine

# Time, as multiples of that for reading the texts once; measured while learning from docs/demo.
_ARMS = 3
_DIRECTIONS = 2.5
_CALIBRATION = 7.5
_FURTHER = 2.5

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
    items = [text.item for text in usable(engine, history, settings.max_items)]
    sample = sampled(len(items), settings.sample)
    n_tokens, seconds_a_token = _timed(engine, items, sample)
    n_sample = sum(n_tokens[place] for place in sample)
    n_evaluated = (_ARMS + _DIRECTIONS) * n_sample
    if settings.calibrate:
        n_evaluated += _CALIBRATION * n_sample + _FURTHER * (sum(n_tokens) - n_sample)
    return seconds_a_token * n_evaluated


def estimated_seconds_more(engine: Engine, new: Sequence[HistoryItem]) -> float:
    """The same for texts that are added to a profile.

    Args:
        engine: the model.
        new: those that are read.

    Raises:
        ModelError: the model cannot be read.
    """
    items = [shortened(engine, item) for item in new]
    n_tokens, seconds_a_token = _timed(engine, items, range(len(items)))
    return seconds_a_token * _FURTHER * sum(n_tokens)


def _timed(
    engine: Engine, items: Sequence[HistoryItem], places: Sequence[int]
) -> tuple[list[int], float]:
    """How many tokens each item has with its request, and seconds a token of a few of them."""
    passes = requests_for(engine, items)
    n_tokens = [len(request.context) + len(request.response) for request in passes]
    timed = list(places[: 1 + _TIMED])
    engine.run_many([passes[timed[0]]])  # opens the analysis context
    timed = timed[1:] or timed
    begin = time.perf_counter()
    engine.run_many([passes[place] for place in timed])
    seconds = time.perf_counter() - begin
    return n_tokens, seconds / sum(n_tokens[place] for place in timed)
