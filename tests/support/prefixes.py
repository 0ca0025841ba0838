"""A prefix with two beginnings, whose cells no model made."""

from __future__ import annotations

import numpy as np

from steerx_edge.history.item import HistoryItem
from steerx_edge.profile.prefix_file import Beginning, Prefix

MODEL = "sha256:" + "ab" * 32


def a_prefix(fingerprint: str = MODEL) -> Prefix:
    items = (HistoryItem("ok, ta", "Can you come?"), HistoryItem("naïve 日本\n\nk"))
    return Prefix(
        (
            Beginning(items, np.arange(9, dtype=np.int32), np.arange(1000, dtype=np.uint8)),
            Beginning(items[:1], np.arange(5, dtype=np.int32), np.ones(500, np.uint8)),
        ),
        fingerprint,
        {"type_k": "1", "llama_cpp_python": "0.3.36"},
    )
