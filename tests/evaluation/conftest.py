"""Learning that can be followed by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from steerx_edge.evaluation import arms
from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.settings import Settings
from steerx_edge.profile import Profile
from tests.support.following_engine import entry_of
from tests.support.users import WORDS


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[HistoryItem]]:
    """Make learning look at the words alone, and tell what each profile is learned from."""
    given: list[Sequence[HistoryItem]] = []

    def learn_words(_: object, items: Sequence[HistoryItem], settings: Settings) -> Profile:
        given.append(items[-(settings.max_items or 0) :])
        words = Counter(word for item in items for word in WORDS if word in item.response)
        strength = settings.strength if settings.layers is None else settings.layers[0]
        return Profile((entry_of(words, strength),))

    monkeypatch.setattr(arms, "learn", learn_words)
    return given
