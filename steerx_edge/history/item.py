"""Items of a history, and authors with items."""

from __future__ import annotations

from dataclasses import dataclass

from steerx_edge.errors import HistoryError
from steerx_edge.history.words import normalized


@dataclass(frozen=True)
class HistoryItem:
    """One text by the user.

    The same text is the same item, whatever it came from: line ends become line feeds, and
    characters are composed (NFC).

    Attributes:
        response: The text.
        request: The request that the text answers, or empty.

    Raises:
        HistoryError: One of them is no string.
    """

    response: str
    request: str = ""

    def __post_init__(self) -> None:
        for name in ("response", "request"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise HistoryError(
                    f"The {name} of an item is of type {type(value).__name__}. Give a string."
                )
            object.__setattr__(self, name, normalized(value))


@dataclass(frozen=True)
class User:
    """One author of a per-author file.

    Attributes:
        id: The author's id in the file.
        history: The author's texts.
        queries: Held-out items: ``request`` is the input, ``response`` what the author wrote. They
            are never part of the history.
    """

    id: str
    history: tuple[HistoryItem, ...]
    queries: tuple[HistoryItem, ...]
