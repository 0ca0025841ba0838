"""Placebo authors: passages that are not the user's, for telling the user's own part from the rest.

Whatever another person's texts do as well, in the same place, is not the user's own: that there is
any text in the context, or that a person wrote it and not a model. A laptop holds no other users'
texts, so twelve passages by authors in the public domain come with the package, of 1882 to 1922,
none of them as long as a page. `placebo.jsonl` names their sources.
"""

from __future__ import annotations

from pathlib import Path

from steerx_edge.history import HistoryItem, read_history


def placebo_items() -> list[HistoryItem]:
    """The passages, each with a request that it answers."""
    return read_history(Path(__file__).with_name("placebo.jsonl"))
