"""An answer and where its tokens come from, as plain data for the terminal, the page and JSON."""

from __future__ import annotations

import math
from codecs import getincrementaldecoder
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from steerx_edge.explaining.sources import SHOWN

if TYPE_CHECKING:
    from steerx_edge.explaining.answers import Answers, Attribution
    from steerx_edge.explaining.sources import Neighbor, Origins, Source

PARTS = ("directions", "logit_bias", "memory")
"""In the order in which they are applied."""

DOUBLED = math.log(2)
"""Nats; a token whose probability the profile did not at least double comes from the model."""

END = "‹end›"


def answer_facts(prompt: str, about: str, answers: Answers, origins: Origins) -> dict[str, Any]:
    """Collect two answers to a prompt.

    Args:
        prompt: as text.
        about: a line on profile and model.
        answers: without the profile and with it.
        origins: where the memory has the tokens of the steered one from.

    Returns:
        What can be written as JSON, in nats. Texts are numbered from 1.
    """
    unsteered, steered = answers.unsteered, answers.steered
    return {
        "prompt": prompt,
        "about": about,
        "is_steered": steered.is_steered,
        "has_steering": steered.has_steering,
        "has_sources": origins.texts is not None,
        "unsteered": [
            {"text": text, "log_prob": float(log_prob)}
            for text, log_prob in zip(_texts(unsteered), unsteered.total, strict=True)
        ],
        "steered": [
            _token_facts(steered, at, text, origins.neighbors[at], origins.texts or {})
            for at, text in enumerate(_texts(steered))
        ],
    }


def origin_of(added: Mapping[str, float]) -> str:
    """Return the part that added most to a token, or the model if all of them added little."""
    if sum(added.values()) < DOUBLED:
        return "model"
    return max(added, key=lambda part: added[part])


def _token_facts(
    found: Attribution,
    at: int,
    text: str,
    neighbors: Sequence[Neighbor],
    sources: Mapping[int, Sequence[Source]],
) -> dict[str, Any]:
    added = {part: float(getattr(found, part)[at]) for part in PARTS}
    return {
        "text": text,
        "model": float(found.model[at]),
        **added,
        "log_prob": float(found.total[at]),
        "origin": origin_of(added),
        "sources": [
            {
                "share": round(each.share, 4),
                "texts": [
                    {
                        "number": source.place + 1,
                        "before": source.before,
                        "token": source.token or END,
                        "after": source.after,
                    }
                    for source in sources.get(each.row, ())
                ],
            }
            for each in neighbors[:SHOWN]
        ],
    }


def _texts(found: Attribution) -> list[str]:
    """The text of each token; a character belongs to the token with its last byte."""
    decoder = getincrementaldecoder("utf-8")("replace")
    return [decoder.decode(piece) if piece else END for piece in found.pieces]
