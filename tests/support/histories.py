"""A short history of one person, and what is read of it by the NumPy reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from models import TinyModel
from models.operations import Array
from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.settings import Settings
from steerx_edge.profile import Entry, Profile

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
