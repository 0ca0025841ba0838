"""Neutral texts, which a profile must not change: passages of many kinds, with their requests."""

from __future__ import annotations

from pathlib import Path

from steerx_edge.history import HistoryItem, read_history


def neutral_items() -> list[HistoryItem]:
    """The passages that calibration uses."""
    return read_history(Path(__file__).with_name("neutral.jsonl"))
