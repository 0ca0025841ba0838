"""Fluency check: whether text that is written under a setting reads like text."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from steerx_edge.learning.calibration.grid import UNSTEERED, Setting, weaker
from steerx_edge.learning.calibration.score import HeldOutScores
from steerx_edge.llamacpp.requests import GenerateRequest, ScoreRequest
from steerx_edge.steering.requests import steered

_OWN, _NEUTRAL, _TOKENS = 8, 3, 48  # requests of each kind, and the length of their answers
_MOST_REPEATED = 0.1  # share of repeated, or of shared, 4-grams that may be added


class Written(NamedTuple):
    """Statistics of texts that were written under a setting."""

    surprise: float  # of those for the user's requests, unsteered, nats/token
    repeated: float  # share of 4-grams within each of these
    shared: float  # share of 4-grams among those for neutral requests


def fluent(scores: HeldOutScores, setting: Setting) -> Setting:
    """The setting, or the first weaker one that passes the fluency check."""
    unsteered: Written | None = None
    while setting != UNSTEERED:
        # Together, so that each prompt is evaluated once.
        tried = [setting] if unsteered else [setting, UNSTEERED]
        found, *plain = written(scores, tried)
        unsteered = unsteered or plain[0]
        if _is_fluent(scores, found, unsteered):
            break
        setting = weaker(setting)
    return setting


def writes_fluently(scores: HeldOutScores, setting: Setting) -> bool:
    """Whether a setting passes the fluency check."""
    found, unsteered = written(scores, [setting, UNSTEERED])
    return _is_fluent(scores, found, unsteered)


def _is_fluent(scores: HeldOutScores, found: Written, unsteered: Written) -> bool:
    """The fluency check.

    What the model writes unsteered is the least surprising to it, and the user's own text much
    more so. Steered text may be as surprising as that, and repeat hardly more than unsteered text;
    and the answers to neutral requests may hardly be more alike.
    """
    own_surprise = -np.mean([scores.log_prob(UNSTEERED, j) for j in range(scores.n_items)])
    return bool(
        found.surprise <= max(unsteered.surprise, own_surprise)
        and found.repeated <= unsteered.repeated + _MOST_REPEATED
        and found.shared <= unsteered.shared + _MOST_REPEATED
    )


def written(scores: HeldOutScores, settings: Sequence[Setting]) -> list[Written]:
    """Write answers under settings made from all texts."""
    own = range(min(_OWN, scores.n_items))
    places = [*own, *range(scores.n_items, scores.n_items + _NEUTRAL)]
    answers = [GenerateRequest(scores.all_texts[j].context, _TOKENS) for j in places]
    requests = []
    for setting in settings:
        steering = scores.steering(setting)
        requests += [
            steered(answer, steering) if scores.is_open[j] else answer
            for j, answer in zip(places, answers, strict=True)
        ]
    texts = scores.engine.analysis.generate_many(requests)
    by_setting = [texts[i : i + len(places)] for i in range(0, len(texts), len(places))]
    surprise = _surprise(scores, [each[: len(own)] for each in by_setting])
    return [
        Written(
            surprise[i],
            float(np.mean([repeated_four_grams(text) for text in each[: len(own)]])),
            shared_four_grams(each[len(own) :]),
        )
        for i, each in enumerate(by_setting)
    ]


def _surprise(scores: HeldOutScores, texts: Sequence[Sequence[Sequence[int]]]) -> list[float]:
    """Mean surprise, unsteered, of the answers to the user's requests under each setting."""
    requests = [
        [ScoreRequest(scores.texts[j].context, text) for j, text in enumerate(each) if text]
        for each in texts
    ]
    results = iter(scores.engine.run_many([request for each in requests for request in each]))
    surprise = [[-next(results).scored.mean() for _ in each] for each in requests]
    return [float(np.mean(each)) if each else 0.0 for each in surprise]


def repeated_four_grams(tokens: Sequence[Hashable]) -> float:
    """The share of a text's 4-grams that have occurred before, 0 to 1; 0 where there is none."""
    grams = _four_grams(tokens)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def shared_four_grams(texts: Sequence[Sequence[int]]) -> float:
    """The share of the texts' distinct 4-grams that an earlier one of them has, 0 to below 1."""
    each = [set(_four_grams(tokens)) for tokens in texts]
    n_grams = sum(map(len, each))
    return 1 - len(set().union(*each)) / n_grams if n_grams else 0.0


def _four_grams(tokens: Sequence[Hashable]) -> list[tuple[Hashable, ...]]:
    return [tuple(tokens[i : i + 4]) for i in range(len(tokens) - 3)]
