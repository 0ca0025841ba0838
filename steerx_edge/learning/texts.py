"""The texts of a history that are learned from."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from steerx_edge.errors import HistoryError
from steerx_edge.history import budget
from steerx_edge.history.item import HistoryItem
from steerx_edge.history.readers.mojibake import mended
from steerx_edge.learning.settings import MIN_ITEMS
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import ScoreRequest
from steerx_edge.steering.ledger import plain, text_hash

if TYPE_CHECKING:
    from steerx_edge.llamacpp.engine import Engine

logger = logging.getLogger(__name__)


BLANK_LINES = "In a plain text file, separate the texts by blank lines."


class OwnText(NamedTuple):
    """A text of the user."""

    item: HistoryItem  # cut to its share of the analysis context
    hash: int  # `text_hash` of the whole text


def items_of(history: Sequence[str | HistoryItem]) -> list[HistoryItem]:
    """Return a history as items: a string is a text that answers no request.

    Raises:
        HistoryError: it is not a list of texts; says what it is, or what is in it.
    """
    if isinstance(history, str | bytes | os.PathLike | Mapping) or not isinstance(
        history, Iterable
    ):
        raise HistoryError(
            f"The history is of type {type(history).__name__}. Give a list of texts, or read a "
            "file with read_history(path)."
        )
    items = [HistoryItem(item) if isinstance(item, str) else item for item in history]
    for place, item in enumerate(items):
        if not isinstance(item, HistoryItem):
            raise HistoryError(
                f"history[{place}] is of type {type(item).__name__}. Give strings, or "
                "HistoryItem(text, request)."
            )
    return items


def chosen(history: Sequence[HistoryItem], max_items: int | None) -> list[HistoryItem]:
    """Return the last `max_items` items that have text.

    Of texts that differ only in white space and case, the last one is kept: a copy would look like
    a habit, and give away the text that calibration holds out.
    """
    texts = [plain(item.response) for item in history]
    last = {text: i for i, text in enumerate(texts) if text}
    return [history[i] for i in sorted(last.values())[-(max_items or len(history)) :]]


def usable(engine: Engine, history: Sequence[HistoryItem], max_items: int | None) -> list[OwnText]:
    """The texts to learn from.

    Raises:
        HistoryError: there is too little text.
    """
    items = chosen(history, max_items)
    if len(items) < MIN_ITEMS:
        raise HistoryError(
            f"There is {'only one text' if items else 'no text'} to learn from, but at least "
            f"{MIN_ITEMS} different ones are needed, because each is read in the context of the "
            f"others. {BLANK_LINES}"
        )
    if n_broken := sum(mended(item.response) != item.response for item in items):
        logger.warning(
            "%d of %d texts look like UTF-8 that was read as Latin-1 or Windows-1252. Decode them "
            "as UTF-8, or they are learned as they are.",
            n_broken,
            len(items),
        )
    return [own_text(engine, item) for item in items]


def own_text(engine: Engine, item: HistoryItem) -> OwnText:
    """A text as it is read."""
    return OwnText(shortened(engine, item), text_hash(item.response))


def shortened(engine: Engine, item: HistoryItem) -> HistoryItem:
    """Cut an item to its share of the analysis context."""
    n_ctx = engine.analysis.n_ctx
    return budget.shortened(engine, item, request=n_ctx * 3 // 16, response=n_ctx // 8)


def sampled(n_items: int, most: int) -> list[int]:
    """Return places spread evenly over all items, the last one included.

    A history is sorted by time or by kind, so the sample is stratified by either.
    """
    n = min(n_items, most)
    return [(k + 1) * n_items // n - 1 for k in range(n)]


def requests_for(
    engine: Engine,
    items: Sequence[HistoryItem],
    in_context: Sequence[HistoryItem] = (),
    **asked: Any,
) -> list[ScoreRequest]:
    """Each text after its request, as a request to the analysis context.

    Args:
        engine: the model.
        items: the texts and their requests.
        in_context: further items before each request, the most relevant last.
        asked: further arguments of `ScoreRequest`.
    """
    return [
        ScoreRequest(
            engine.prompt(messages_for(item.request, history=in_context)),
            engine.tokenize(item.response),
            **asked,
        )
        for item in items
    ]
