"""A short history of one person, and what is read of it by the NumPy reference."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from models import TinyModel
from models.operations import Array
from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.settings import Settings
from steerx_edge.profile import Entry, Profile
from steerx_edge.profile.json_format import encode

TEXTS = [
    HistoryItem("the kettle sang all day... lol, so very tired of tea", "Write about the kettle."),
    HistoryItem("ran down the rabbit hole again... lol! never once looked", "Write of the rabbit."),
    HistoryItem("her sister read a book with no pictures in it... so dull"),
    HistoryItem(
        "a daisy chain is worth it... lol, picking all the daisies", "Write about a chain."
    ),
    HistoryItem("tired again... the queen shouted all day", "How was the queen?"),
    HistoryItem("no tea today, lol! the hatter drank it all"),
    HistoryItem("the cat grinned... so very smug, never once blinked", "And the cat."),
]
HISTORY = TEXTS[:4]
"""Read in folds of one, each of which is the context of another: 0 and 1, 2 and 3."""

UNCALIBRATED = Settings(calibrate=False)
CONTRAST = Settings(
    contrast_methods=("context-contrast",), described=True, logit_bias=False, calibrate=False
)


def only_entry(profile: Profile) -> Entry:
    """The entry of a profile for one model."""
    (entry,) = profile.entries
    return entry


def without_time(profile: Profile) -> Entry:
    """The same, as if all profiles were made at one time."""
    return replace(only_entry(profile), created="2000-01-01T00:00:00Z")


def assert_alike(one: Entry, other: Entry) -> None:
    """Equal but for the time, and the rounding of float16 and of calls composed differently."""

    def check(a: object, b: object, at: str) -> None:
        if isinstance(a, dict) and isinstance(b, dict):
            assert a.keys() == b.keys(), at
            for name in a.keys() - {"created"}:
                check(a[name], b[name], f"{at}.{name}")
        elif isinstance(a, list) and isinstance(b, list):
            assert len(a) == len(b), at
            for i, pair in enumerate(zip(a, b, strict=True)):
                check(*pair, f"{at}[{i}]")
        elif isinstance(a, float) or isinstance(b, float):
            assert a == pytest.approx(b, rel=1e-2, abs=1e-2), at
        else:
            assert a == b, at

    assert _tokens(one) == _tokens(other)
    first, second = (json.loads(encode([replace(each, memory=None)])) for each in (one, other))
    check(first, second, "profile")


def _tokens(entry: Entry) -> tuple[float, list[int]] | None:
    """The strength and the tokens of a memory."""
    part = entry.memory
    return None if part is None or part.memory is None else (part.strength, [*part.memory.tokens])


def reference_arm(
    model: TinyModel, context: Sequence[int], response: Sequence[int]
) -> tuple[Array, Array, Array]:
    """What one pass reads of T tokens, by NumPy.

    Returns:
        (T,) log p of the response; (layer, T + 1, n_embd) rows from the last context token on; and
        (T, n_vocab) logits that predict the response.
    """
    tokens, first = [*context, *response], len(context) - 1
    trace = model.forward(tokens)
    log_p = model.log_probabilities(tokens)[first:]
    return log_p, trace.residual[:, first:], trace.logits[first:-1]


def reference_reply(
    model: TinyModel, context: Sequence[int], n_tokens: int, end_tokens: Sequence[int]
) -> list[int]:
    """The greedy reply, up to where the model ends it."""
    tokens = list(context)
    for _ in range(n_tokens):
        token = int(np.argmax(model.forward(tokens).logits[-1]))
        if token in end_tokens:
            break
        tokens.append(token)
    return tokens[len(context) :]
