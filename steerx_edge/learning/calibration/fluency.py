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
    unsteered = None
    while setting != UNSTEERED:
        unsteered = unsteered or written(scores, UNSTEERED)
        if writes_fluently(scores, setting, unsteered):
            break
        setting = weaker(setting)
    return setting


def writes_fluently(
    scores: HeldOutScores, setting: Setting, unsteered: Written | None = None
) -> bool:
    """The fluency check.

    What the model writes unsteered is the least surprising to it, and the user's own text much
    more so. Steered text may be as surprising as that, and repeat hardly more than unsteered text;
    and the answers to neutral requests may hardly be more alike.

    Args:
        scores: unsteered scores of the user's texts, at least.
        setting: what is checked.
        unsteered: what is written without it; None writes it.
    """
    found, plain = written(scores, setting), unsteered or written(scores, UNSTEERED)
    own_surprise = -np.mean([scores.log_prob(UNSTEERED, j) for j in range(scores.n_items)])
    return bool(
        found.surprise <= max(plain.surprise, own_surprise)
        and found.repeated <= plain.repeated + _MOST_REPEATED
        and found.shared <= plain.shared + _MOST_REPEATED
    )


def written(scores: HeldOutScores, setting: Setting) -> Written:
    """Write answers under a setting made of all texts."""
    own = range(min(_OWN, scores.n_items))
    neutral = range(scores.n_items, scores.n_items + _NEUTRAL)
    steering = scores.steering(setting)
    answers = [GenerateRequest(scores.all_texts[j].context, _TOKENS) for j in (*own, *neutral)]
    texts = scores.engine.analysis.generate_many(
        [
            steered(answer, steering) if scores.is_open[j] else answer
            for j, answer in zip((*own, *neutral), answers, strict=True)
        ]
    )
    requests = [ScoreRequest(scores.texts[j].context, texts[j]) for j in own if texts[j]]
    surprise = [-each.scored.mean() for each in scores.engine.run_many(requests)]
    return Written(
        float(np.mean(surprise)) if surprise else 0.0,
        float(np.mean([repeated_four_grams(texts[j]) for j in own])),
        shared_four_grams(texts[len(own) :]),
    )


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
