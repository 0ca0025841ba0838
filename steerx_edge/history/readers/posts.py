"""What is the same for all posts: what they answer, and which are left out."""

from __future__ import annotations

import re
from datetime import datetime

from steerx_edge.history.item import HistoryItem
from steerx_edge.history.readers.conversations import reason_to_leave_out
from steerx_edge.history.readers.texts import Dropped, Text

SHARED = "post by somebody else that was shared"

_LEADING_HANDLES = re.compile(r"(?:@[\w.-]+(?:@[\w.-]+)?\s+)+")


def post(text: str, answered: str, where: str, written: datetime | None) -> Text | Dropped:
    """Return a post with its request, or why it is left out.

    The post that is answered is not in the archive, so the request names its author only. The
    handles that open an answer are left out: the program puts them there.

    Args:
        text: What the person wrote.
        answered: The handle of whom it answers; empty if it is no answer.
        where: Its place.
        written: When.
    """
    text = text.strip()
    if answered:
        text = _LEADING_HANDLES.sub("", f"{text} ", count=1).strip() if text[:1] == "@" else text
    if reason := reason_to_leave_out(text):
        return Dropped(reason, where, text)
    request = f"Write a reply to {answered}." if answered else "Write a post."
    return Text(HistoryItem(text, request), where, written)
