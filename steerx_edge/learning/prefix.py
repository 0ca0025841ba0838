"""The texts that every prompt may begin with, and their KV cells.

In-context texts are the strongest baseline, and cost their tokens with every request. A fixed
choice of them is evaluated once. See docs/results.md for the choices that were tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from steerx_edge.errors import ModelError
from steerx_edge.history.budget import shortened
from steerx_edge.history.item import HistoryItem
from steerx_edge.history.words import WORD
from steerx_edge.learning.texts import requests_for
from steerx_edge.llamacpp import compat
from steerx_edge.llamacpp.kept_prefix import evaluated_state, made_by
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.profile.prefix_file import Prefix

if TYPE_CHECKING:
    from steerx_edge.llamacpp.engine import Engine

_LEAST = 64  # tokens
_REQUEST, _RESPONSE = 64, 256  # tokens of each text
_MOST_SKIPPED = 8
"""Texts in a row that are too long for what is left, after which no more are tried."""

_MOST_TRIED, _MOST_HELD_OUT, _EVERY = 200, 8, 4
"""The latest texts are chosen from. At most 8 of them, and at most every fourth, are held out."""


def least_and_most(engine: Engine) -> tuple[int, int]:
    """Tokens of the shortest and the longest prefix.

    With the longest, half of the analysis context, texts can still be scored.
    """
    return _LEAST, engine.analysis.n_ctx // 2


def chosen_prefix(engine: Engine, items: Sequence[HistoryItem], n_tokens: int) -> list[HistoryItem]:
    """The latest texts that fit, or varied ones where these predict the user's other texts better.

    Args:
        engine: the model.
        items: texts of the user, the latest last.
        n_tokens: of the prompt up to the next request.

    Returns:
        The texts in the order of `items`, long ones and their requests truncated.

    Raises:
        ModelError: llama.cpp fails.
    """
    items = [shortened(engine, item, request=_REQUEST, response=_RESPONSE) for item in items]
    items = items[-_MOST_TRIED:]
    held_out = list(range(len(items)))[:: -max(_EVERY, len(items) // _MOST_HELD_OUT)]
    rest = [item for i, item in enumerate(items) if i not in held_out]
    tried = [fitting(engine, rest, order(rest), n_tokens) for order in (latest, varied)]
    order = latest
    if tried[0] != tried[1]:
        texts = [items[i] for i in held_out]
        gains = [_log_prob(engine, prefix, texts) for prefix in tried]
        order = varied if gains[1] > gains[0] else latest
    return fitting(engine, items, order(items), n_tokens)


def latest(items: Sequence[HistoryItem]) -> list[int]:
    """Places of the texts, the latest first."""
    return list(range(len(items)))[::-1]


def varied(items: Sequence[HistoryItem]) -> list[int]:
    """Places of the texts: each time one that is like most others, and unlike those before.

    Maximal marginal relevance (Carbonell and Goldstein 1998) by the cosine of tf-idf.
    """
    if not items:
        return []
    words = [WORD.findall(item.response.lower()) for item in items]
    columns = {word: i for i, word in enumerate(dict.fromkeys(chain.from_iterable(words)))}
    counts = np.zeros((len(items), len(columns)))
    for row, found in zip(counts, words, strict=True):
        np.add.at(row, [columns[word] for word in found], 1)
    weighted = counts * np.log(1 + len(items) / np.maximum((counts > 0).sum(axis=0), 1))
    weighted /= np.maximum(np.linalg.norm(weighted, axis=1, keepdims=True), 1e-9)
    like = weighted @ weighted.T
    np.fill_diagonal(like, 0)
    typical, closest = like.mean(axis=1), np.zeros(len(items))
    order: list[int] = []
    while len(order) < len(items):
        scores = typical - 0.5 * closest
        scores[order] = -np.inf
        order.append(int(scores.argmax()))
        closest = np.maximum(closest, like[order[-1]])
    return order


def fitting(
    engine: Engine, items: Sequence[HistoryItem], order: Sequence[int], n_tokens: int
) -> list[HistoryItem]:
    """The first texts of an order that fit, in the order of `items`."""
    chosen: list[int] = []
    n_skipped = 0
    for i in order:
        longer = sorted([*chosen, i])
        prompt = engine.prompt(messages_for("", history=[items[j] for j in longer]))
        if len(prompt) <= n_tokens:
            chosen, n_skipped = longer, 0
        elif (n_skipped := n_skipped + 1) == _MOST_SKIPPED:
            break
    return [items[i] for i in chosen]


def _log_prob(engine: Engine, prefix: Sequence[HistoryItem], items: Sequence[HistoryItem]) -> float:
    """Mean over texts of the log-probability per token after a prefix, in nats."""
    results = engine.run_many(requests_for(engine, items, prefix))
    return float(np.mean([result.scored.mean() for result in results]))


def prefix_of(engine: Engine, items: Sequence[HistoryItem]) -> Prefix:
    """Evaluate texts that prompts begin with, in the model's own context.

    Args:
        engine: the model; nothing is steered or generated meanwhile.
        items: the texts; at least one, as `chosen_prefix` returns them.

    Raises:
        ModelError: the texts do not fit the context, or llama.cpp fails.
    """
    tokens = engine.prompts.beginning(messages_for("", history=items)[:-1])
    n_ctx = compat.most_tokens(engine.llama)
    if len(tokens) >= n_ctx:
        raise ModelError(f"A prefix of {len(tokens)} tokens does not fit the context of {n_ctx}.")
    state = evaluated_state(engine.llama, tokens)
    return Prefix(
        tuple(items),
        np.array(tokens, np.int32),
        engine.model_id.fingerprint,
        made_by(engine.llama),
        state,
    )


def prefix_bytes(engine: Engine, n_tokens: int) -> int:
    """How large the state of so many tokens is, in the model's own context.

    Raises:
        ModelError: llama.cpp fails.
    """
    one, two = (evaluated_state(engine.llama, [0] * n).nbytes for n in (1, 2))
    compat.empty(engine.llama)
    return one + (n_tokens - 1) * (two - one)
