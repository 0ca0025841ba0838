"""Models with room for a description, and few neutral texts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from llama_cpp import Llama

from models import TinyModel
from steerx_edge.history.item import HistoryItem


@pytest.fixture
def tiny_llama(open_llama: Callable[..., Llama], tiny_f32: TinyModel) -> Llama:
    """With room for the model's own description, which takes many of a tiny model's tokens."""
    return open_llama(tiny_f32, n_ctx=1024)


@pytest.fixture(autouse=True)
def _few_neutral_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [HistoryItem(f"It rained {when}.", "Was it dry?") for when in ("now", "then", "here")]
    monkeypatch.setattr("steerx_edge.learning.calibration.score.neutral_items", lambda _: items)
