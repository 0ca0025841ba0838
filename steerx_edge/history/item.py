"""What a person has written: an item, and an author with items."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HistoryItem:
    """One thing that a user wrote.

    Attributes:
        response: The user's own text.
        request: What the text answers; empty when nothing asked for it.
    """

    response: str
    request: str = ""


@dataclass(frozen=True)
class User:
    """One author of a per-author file.

    Attributes:
        id: The author's id in the file.
        history: What is known of the author's writing.
        queries: Held-out items, ``request`` the input and ``response`` what the author wrote.
            They are never part of the history.
    """

    id: str
    history: tuple[HistoryItem, ...]
    queries: tuple[HistoryItem, ...]
