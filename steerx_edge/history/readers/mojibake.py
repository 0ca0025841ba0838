"""UTF-8 that was read as if it were Latin-1 or Windows-1252, as in exports of Facebook."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from steerx_edge.history.item import HistoryItem

logger = logging.getLogger(__name__)

# Latin-1, and what Windows-1252 has in place of its control characters.
_BYTE_OF = {chr(byte): byte for byte in range(256)} | {
    character: byte
    for byte in range(0x80, 0xA0)
    if (character := bytes([byte]).decode("cp1252", "ignore"))
}
# An upper-case letter before an ellipsis or a quotation mark has the same bytes as one letter of
# UTF-8. These pairs are in no language.
_TELLING = re.compile("[\u00c2-\u00f4][\u0080-\u009f]|â€|ðŸ|[ÂÃÐÑØÙÎÏ×][\u00a1-\u00bf]|ã[€‚ƒ]")


def mended(text: str) -> str:
    """Return a text as it was before it was read in the wrong encoding; or the text itself."""
    if not _TELLING.search(text):
        return text
    try:
        return bytes(_BYTE_OF[character] for character in text).decode()
    except (KeyError, UnicodeDecodeError):
        return text


def with_mended_texts(source: str, items: Sequence[HistoryItem]) -> list[HistoryItem]:
    """Mend the items, and log how many were, and how many could not be."""
    result = [HistoryItem(mended(item.response), mended(item.request)) for item in items]
    n_mended = sum(new != old for new, old in zip(result, items, strict=True))
    n_broken = sum(
        bool(_TELLING.search(item.response)) or "\ufffd" in item.response for item in result
    )
    if n_mended:
        logger.warning(
            "%s: mended %d of %d texts, whose UTF-8 had been read as Latin-1 or Windows-1252.",
            source,
            n_mended,
            len(result),
        )
    if n_broken:
        logger.warning(
            "%s: %d of %d texts hold characters that were read in a wrong encoding. Correct the "
            "file, or they are learned as they are.",
            source,
            n_broken,
            len(result),
        )
    return result
