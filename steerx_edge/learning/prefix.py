"""The texts that every prompt may begin with, and their KV cells.

In-context texts are the strongest baseline, and cost their tokens with every request. A fixed
choice of them is evaluated once. Whoever writes in two ways, such as to friends and to customers,
gets two such beginnings, and the request says which is used. See docs/results.md for the choices
that were tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from steerx_edge.errors import ModelError
from steerx_edge.history.budget import MOST_PREFIX, shortened
from steerx_edge.history.item import HistoryItem
from steerx_edge.history.retrieval import GroupRetriever
from steerx_edge.history.words import WORD
from steerx_edge.learning.texts import requests_for
from steerx_edge.llamacpp import compat
from steerx_edge.llamacpp.kept_prefix import evaluated_state, made_by
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.profile.prefix_file import Beginning, Prefix

Order: TypeAlias = Callable[[Sequence[HistoryItem]], list[int]]
"""Places of texts, the first ones to be taken."""

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from steerx_edge.llamacpp.engine import Engine

_REQUEST, _RESPONSE = 64, 256  # tokens of each text
_MOST_SKIPPED = 8
"""Texts in a row that are too long for what is left, after which no more are tried."""

_MOST_TRIED, _MOST_HELD_OUT, _EVERY = 200, 16, 4
"""The latest texts are chosen from. At most 16 of them, and at most every fourth, are held out."""

_FEWEST = 8
"""Texts of each of two groups."""

_LEAST_GAIN = 0.02
"""Nats per token that two prefixes gain at least over one: they take twice the room."""


def longest_prefix(engine: Engine) -> int:
    """Tokens of the longest prefix; at most half of the analysis context."""
    return min(MOST_PREFIX, engine.analysis.n_ctx // 2)


def chosen_prefixes(
    engine: Engine, items: Sequence[HistoryItem], n_tokens: int, *, most: int = 2
) -> list[list[HistoryItem]]:
    """The latest texts that fit, or varied ones where these predict the user's other texts better.

    Two such lists, each of texts on other subjects, where choosing between them by the request
    predicts the other texts better still.

    Args:
        engine: the model.
        items: texts of the user, the latest last.
        n_tokens: of the prompt up to the next request.
        most: how many lists there may be, 1 or 2.

    Returns:
        Lists of texts in the order of `items`, long ones and their requests truncated; none if no
        text fits.

    Raises:
        ModelError: llama.cpp fails.
    """
    items = [shortened(engine, item, request=_REQUEST, response=_RESPONSE) for item in items]
    items = items[-_MOST_TRIED:]
    step = max(_EVERY, len(items) // _MOST_HELD_OUT) | 1  # odd: two kinds of texts may take turns
    held_out = list(range(len(items)))[::-step]
    rest = [item for i, item in enumerate(items) if i not in held_out]
    texts = [items[i] for i in held_out]

    def fitted(groups: Sequence[Sequence[HistoryItem]], order: Order) -> list[list[HistoryItem]]:
        found = [fitting(engine, group, order(group), n_tokens) for group in groups]
        return [group for group in found if group]

    orders: list[Order] = [latest, varied]
    tried = [fitted([rest], order) for order in orders]
    if tried[0] == tried[1]:
        del tried[1]
    groups = halves(rest)
    may_be_two = most > 1 and min(map(len, groups)) >= _FEWEST
    if len(tried) == 1 and not may_be_two:
        return fitted([items], latest)
    scores = [_log_probs(engine, prefixes, texts) for prefixes in tried]
    best = int(np.argmax([score.mean() for score in scores]))
    order = orders[best]
    if may_be_two:
        gains = _log_probs(engine, fitted(groups, order), texts) - scores[best]
        if gains.mean() >= _LEAST_GAIN:
            return fitted(halves(items), order)
    return fitted([items], order)


def latest(items: Sequence[HistoryItem]) -> list[int]:
    """Places of the texts, the latest first."""
    return list(range(len(items)))[::-1]


def varied(items: Sequence[HistoryItem]) -> list[int]:
    """Places of the texts: each time one that is like most others, and unlike those before.

    Maximal marginal relevance (Carbonell and Goldstein 1998) by the cosine of tf-idf.
    """
    if not items:
        return []
    rows = _tf_idf([item.response for item in items])
    like = rows @ rows.T
    np.fill_diagonal(like, 0)
    typical, closest = like.mean(axis=1), np.zeros(len(items))
    order: list[int] = []
    while len(order) < len(items):
        scores = typical - 0.5 * closest
        scores[order] = -np.inf
        order.append(int(scores.argmax()))
        closest = np.maximum(closest, like[order[-1]])
    return order


def halves(items: Sequence[HistoryItem]) -> tuple[list[HistoryItem], list[HistoryItem]]:
    """Two groups of texts by subject, each in the order of `items`; one may be empty.

    By the sign along the first principal direction of tf-idf (Boley 1998, principal direction
    divisive partitioning).
    """
    if not items:
        return [], []
    rows = _tf_idf([f"{item.request}\n{item.response}" for item in items])
    along = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)[0][:, 0]
    groups: tuple[list[HistoryItem], list[HistoryItem]] = [], []
    for item, is_second in zip(items, along > 0, strict=True):
        groups[int(is_second)].append(item)
    return groups


def _tf_idf(texts: Sequence[str]) -> NDArray[np.float64]:
    """(text, word), each text of length 1, or 0 without words."""
    words = [WORD.findall(text.lower()) for text in texts]
    columns = {word: i for i, word in enumerate(dict.fromkeys(chain.from_iterable(words)))}
    counts = np.zeros((len(texts), len(columns)))
    for row, found in zip(counts, words, strict=True):
        np.add.at(row, [columns[word] for word in found], 1)
    weighted = counts * np.log(1 + len(texts) / np.maximum((counts > 0).sum(axis=0), 1))
    rows: NDArray[np.float64] = weighted / np.maximum(
        np.linalg.norm(weighted, axis=1, keepdims=True), 1e-9
    )
    return rows


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


def _log_probs(
    engine: Engine, prefixes: Sequence[Sequence[HistoryItem]], items: Sequence[HistoryItem]
) -> NDArray[np.float64]:
    """(item,) nats per token of each text, after the prefix that its request calls for."""
    groups = GroupRetriever(prefixes)
    requests = [
        request
        for item in items
        for request in requests_for(engine, [item], groups.retrieve(item.request))
    ]
    return np.array([result.scored.mean() for result in engine.run_many(requests)], np.float64)


def prefix_of(engine: Engine, *groups: Sequence[HistoryItem]) -> Prefix:
    """Evaluate texts that prompts begin with, in the model's own context.

    Args:
        engine: the model; nothing is steered or generated meanwhile.
        groups: the texts of each beginning, as `chosen_prefixes` returns them; at least one.

    Raises:
        ModelError: the texts do not fit the context, or llama.cpp fails.
    """
    beginnings = tuple(_beginning(engine, items) for items in groups)
    return Prefix(beginnings, engine.model_id.fingerprint, made_by(engine.llama))


def _beginning(engine: Engine, items: Sequence[HistoryItem]) -> Beginning:
    tokens = engine.prompts.beginning(messages_for("", history=items)[:-1])
    n_ctx = compat.most_tokens(engine.llama)
    if len(tokens) >= n_ctx:
        raise ModelError(f"A prefix of {len(tokens)} tokens does not fit the context of {n_ctx}.")
    state = evaluated_state(engine.llama, tokens)
    return Beginning(tuple(items), np.array(tokens, np.int32), state)


def prefix_bytes(engine: Engine, n_tokens: int) -> int:
    """How large the state of so many tokens is, in the model's own context.

    Raises:
        ModelError: llama.cpp fails.
    """
    one, two = (evaluated_state(engine.llama, [0] * n).nbytes for n in (1, 2))
    compat.empty(engine.llama)
    return one + (n_tokens - 1) * (two - one)
