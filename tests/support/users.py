"""Users of an evaluation, each of whom writes about one thing."""

from __future__ import annotations

from collections.abc import Sequence

from steerx_edge.evaluation import Sample
from steerx_edge.history.item import HistoryItem, User

WORDS = ("kettle", "rabbit", "daisy", "clock")


def a_user(word: str, n_items: int = 5, n_queries: int = 2) -> User:
    """A user who writes about one thing."""
    items = [HistoryItem(f"the {word} sang {i} times", f"Write {i}.") for i in range(n_items)]
    queries = [HistoryItem(f"one {word} more {i}", f"Write more {i}.") for i in range(n_queries)]
    return User(word, tuple(items), tuple(queries))


def a_sample(*users: User, reported: Sequence[str] | None = None) -> Sample:
    people = users or tuple(map(a_user, WORDS))
    return Sample("data.jsonl", people, tuple(reported or (user.id for user in people)), {})
