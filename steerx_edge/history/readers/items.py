"""Records that are items: `response`, and perhaps `prompt`."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem
from steerx_edge.history.readers.records import Record, Template, names_of, text_of

logger = logging.getLogger(__name__)

_RESPONSE_FIELDS = ("response", "text")


def items_of(
    source: str, records: Sequence[Record], response: str | None, template: Template | None
) -> list[HistoryItem]:
    """The items that records are, without those whose text is empty."""
    items = [_item(record, response, template) for record in records]
    kept = with_text(source, "items", items)
    if not kept:
        raise HistoryError(f"{source} holds {len(items)} items, and the text of each is empty.")
    return kept


def with_text(source: str, noun: str, items: list[HistoryItem]) -> list[HistoryItem]:
    """Items without those whose text is empty, whose number is logged."""
    kept = [item for item in items if item.response.strip()]
    if len(kept) < len(items):
        left_out = len(items) - len(kept)
        logger.warning(
            "%s: left out %d of %d %s, whose text is empty.", source, left_out, len(items), noun
        )
    return kept


def _item(record: Record, response: str | None, template: Template | None) -> HistoryItem:
    if response is None:
        response = next((name for name in _RESPONSE_FIELDS if name in record.fields), None)
    if response is None:
        raise HistoryError(
            f"{record.where} has neither 'response' nor 'text'{names_of(record)}. Name the field "
            "with the user's own text (response, --response)."
        )
    if template is not None:
        request = template.fill(record)
    elif "prompt" in record.fields and response != "prompt":
        request = text_of(record, "prompt")
    else:
        request = ""
    return HistoryItem(response=text_of(record, response), request=request)
