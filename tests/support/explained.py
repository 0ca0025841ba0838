"""Texts and answers as they were explained, made up: no model is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from steerx_edge.explaining.answers import Answers, Attribution
from steerx_edge.explaining.held import FATES, Held
from steerx_edge.explaining.sources import Neighbor, Origins, Source
from steerx_edge.explaining.texts import ExplainedText
from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.effects import Effects
from steerx_edge.report.answer_facts import answer_facts
from steerx_edge.report.texts_facts import texts_facts
from tests.support.entries import a_full_entry

HOSTILE = "</script><script>document.title='stolen'</script><img src=x onerror=alert(1)>"


def a_text(
    pieces: Sequence[str], nats: Sequence[float], place: int = 0, **fields: Any
) -> ExplainedText:
    """A text of these tokens; log-probability -5 without other texts in the context."""
    data = [piece.encode(errors="surrogateescape") for piece in pieces]
    effects = Effects(list(range(len(data))), data, np.array(nats, np.float32))
    control = np.full(len(data), -5, np.float32)
    known: dict[str, Any] = {
        "item": HistoryItem("".join(pieces), "Write to Ana."),
        "held": Held(
            np.arange(len(data) + 1),
            np.full(len(data) + 1, 0.75, np.float32),
            (FATES[0],) * (len(data) + 1),
        ),
        "was_read": True,
        "gain": 0.5,
    }
    return ExplainedText(
        place=place,
        effects=effects,
        treatment=control + effects.nats,
        control=control,
        **known | fields,
    )


def many_texts(n: int, n_words: int = 60) -> dict[str, Any]:
    """Facts of n texts of random words; the word `needle` is in every tenth."""
    rng = np.random.default_rng(0)
    vocabulary = [f" word{i}" for i in range(300)]
    texts = []
    for place in range(n):
        pieces = [str(piece) for piece in rng.choice(vocabulary, n_words)]
        if place % 10 == 0:
            pieces[-1] = " needle"
        texts.append(
            a_text(pieces, rng.normal(0.5, 2, n_words).tolist(), place, gain=float(rng.normal()))
        )
    return texts_facts("me.json", a_full_entry(), texts)


def an_attribution(pieces: Sequence[bytes], steps: Sequence[Sequence[float]]) -> Attribution:
    """Tokens with what the model gives and what directions, logit bias and memory add."""
    model, directions, bias, memory = np.array(steps, np.float64).T
    return Attribution(
        tokens=list(range(len(pieces))),
        pieces=list(pieces),
        model=model,
        directions=directions,
        logit_bias=bias,
        memory=memory,
        total=model + directions + bias + memory,
        rows=np.zeros((len(pieces), 8), np.float32),
        is_steered=True,
    )


def an_answer(**changes: Any) -> dict[str, Any]:
    """Facts of an answer with a token from each part, an emoji of two tokens, and an end."""
    emoji = "🙂".encode()
    steered = an_attribution(
        [b"so", b" then", b",", emoji[:2], emoji[2:], b"\n", b""],
        [
            [-1, 0.25, 0.125, 0.125],  # the model
            [-9, 0.5, 1, 6],  # the memory
            [-4, 0.25, 2, 0.5],  # the logit bias
            [-4, 3, 0.5, 0],  # the direction
            [-0.5, 0, 0, 0],
            [-0.5, -1, 2, -1],
            [-2, 0, 0, 1],
        ],
    )
    plain = an_attribution([b"Dear", b" Ana"], [[-1, 0, 0, 0], [-2, 0, 0, 0]])
    nothing: list[Neighbor] = []
    neighbors = [nothing, [Neighbor(7, 0.75), Neighbor(3, 0.25)], *([nothing] * 5)]
    texts = {7: [Source(4, "right", " then", ",\nthe chair")], 3: []}
    origins = Origins(neighbors, changes.pop("texts", texts))
    return answer_facts("Write to Ana.", "me.json", Answers(plain, steered, None), origins)
