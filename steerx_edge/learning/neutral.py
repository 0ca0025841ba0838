"""Neutral texts: short passages of many kinds in a plain style, with their requests.

The loss on them estimates what a profile costs on everything else. They were written for this
package, so no model has seen them in training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from steerx_edge.history.item import HistoryItem
from steerx_edge.history.reading import read_history


def neutral_items(use: Literal["calibration", "evaluation"]) -> list[HistoryItem]:
    """The passages for a use, each with a request that it answers.

    Evaluation has passages of its own, which learning never sees.
    """
    return read_history(Path(__file__).with_name(f"neutral_{use}.jsonl"))
