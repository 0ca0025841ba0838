"""The effects of a history's words, as plain data for the terminal, the heat map and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from steerx_edge.explaining.held import FATES, Fate
from steerx_edge.explaining.words import segments

if TYPE_CHECKING:
    from steerx_edge.explaining.texts import ExplainedText
    from steerx_edge.profile import Entry

UNREAD = "not in the memory: the profile was not learned from this text"
NO_MEMORY = "the profile has no memory that can be used"

SAID: Mapping[Fate, str] = {
    "kept": "in the memory",
    "request": "in the memory with weight 0: the word is in the request",
    "single": "not in the memory: the word occurs in one text only (level shared)",
    "absent": "not in the memory: its row was removed, or the text has changed",
}
"""What became of a token of a text that the profile was learned from."""


def texts_facts(path: str, entry: Entry, texts: Sequence[ExplainedText]) -> dict[str, Any]:
    """Collect the effects of every word, and what the memory holds.

    Args:
        path: of the profile.
        entry: its entry for the model.
        texts: of the history.

    Returns:
        What can be written as JSON; log-probabilities and effects in nats.
    """
    return {
        "profile": path,
        "model": str(entry.model),
        "level": entry.memory.level if entry.memory else None,
        "profile_words": {word.word: asdict(word) for word in entry.words},
        "texts": [_text_facts(text) for text in texts],
    }


def _text_facts(text: ExplainedText) -> dict[str, Any]:
    nats, fates = text.effects.nats, text.held.fates[:-1] if text.held else ()
    found = Counter(fates)
    return {
        "number": text.place + 1,
        "request": text.item.request,
        "tokens": len(nats),
        "effect": _rounded(float(nats.mean())) if len(nats) else 0.0,
        "gain": None if text.gain is None else _rounded(text.gain),
        "was_read": text.was_read,
        "memory": None if text.held is None else {fate: found[fate] for fate in FATES},
        "words": [
            {
                "text": part.text,
                "word": part.word,
                "effect": _sum(nats, part.begin, part.end),
                "treatment": _sum(text.treatment, part.begin, part.end),
                "control": _sum(text.control, part.begin, part.end),
                "tokens": [_token_facts(text, at) for at in range(part.begin, part.end)],
            }
            for part in segments(text.effects.pieces)
        ],
    }


def _token_facts(text: ExplainedText, at: int) -> dict[str, Any]:
    return {
        "text": text.effects.pieces[at].decode(errors="replace"),
        "effect": _rounded(text.effects.nats[at]),
        "treatment": _rounded(text.treatment[at]),
        "control": _rounded(text.control[at]),
        "fate": text.held.fates[at] if text.held else None,
        "weight": _rounded(text.held.weights[at]) if text.held else None,
    }


def said_of(text: Mapping[str, Any], fate: Fate | None) -> str:
    """What became of a token of one of `texts_facts`."""
    if fate is None:
        return NO_MEMORY
    return UNREAD if fate == "absent" and text["was_read"] is False else SAID[fate]


def _sum(values: NDArray[np.float32], begin: int, end: int) -> float:
    return _rounded(values[begin:end].sum(dtype=np.float64))


def _rounded(value: float) -> float:
    return round(float(value), 4)
