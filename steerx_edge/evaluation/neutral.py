"""Neutral texts: short passages of many kinds, in no one's marked style.

What a profile costs on them stands for what it costs on everything else. They were written for this
package, so no model knows them by heart. Only `evaluate` uses them; learning never sees them.
"""

from __future__ import annotations

from pathlib import Path

from steerx_edge.history import HistoryItem, read_history


def neutral_items() -> list[HistoryItem]:
    """The passages, each with a request that it answers."""
    return read_history(Path(__file__).with_name("neutral.jsonl"))
