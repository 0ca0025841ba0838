"""JSON lines, or one JSON array, of items: `response` and an optional `prompt`."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem
from steerx_edge.history.readers.json_records import Record, Template, names_of, text_of
from steerx_edge.history.readers.source import Options, Source

logger = logging.getLogger(__name__)

_RESPONSE_FIELDS = ("response", "text")


def can_read(source: Source) -> bool:
    """Return whether the file holds JSON."""
    return source.is_json


def read(source: Source, options: Options) -> list[HistoryItem]:
    """Return the items, without those whose text is empty.

    Raises:
        HistoryError: the file cannot be read, or the options do not apply to it.
    """
    records = source.records
    if options.user is not None:
        raise HistoryError(
            f"{source} is not a per-author file, so there is no user {options.user!r} in it. "
            "Leave out the user, or give a file whose rows have user_id and profile."
        )
    return items_of(str(source), records, options.response, options.prompt)


def items_of(
    source: str, records: Sequence[Record], response: str | None, template: Template | None
) -> list[HistoryItem]:
    """Convert records to items, without those whose text is empty."""
    items = [_item(record, response, template) for record in records]
    kept = with_text(source, "items", items)
    if not kept:
        raise HistoryError(f"{source}: the text of all {len(items)} items is empty.")
    return kept


def with_text(source: str, noun: str, items: list[HistoryItem]) -> list[HistoryItem]:
    """Drop items whose text is empty, and log how many there were."""
    kept = [item for item in items if item.response.strip()]
    if len(kept) < len(items):
        skipped = len(items) - len(kept)
        logger.warning(
            "%s: skipped %d of %d %s with empty text.", source, skipped, len(items), noun
        )
    return kept


def _item(record: Record, response: str | None, template: Template | None) -> HistoryItem:
    if response is None:
        response = next((name for name in _RESPONSE_FIELDS if name in record.fields), None)
    if response is None:
        raise HistoryError(
            f"{record.where} has neither 'response' nor 'text'{names_of(record)}. Name the field "
            "with your text (response, --response)."
        )
    if template is not None:
        request = template.fill(record)
    elif "prompt" in record.fields and response != "prompt":
        request = text_of(record, "prompt")
    else:
        request = ""
    return HistoryItem(response=text_of(record, response), request=request)
