"""A profile's entry for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from steerx_edge.model_id import ModelId
from steerx_edge.profile import Description, Entry


def an_entry(
    model: ModelId, layers: tuple[int, ...], directions: ArrayLike, **fields: Any
) -> Entry:
    """An entry that steers these layers along unit vectors (layer, n_embd), and nothing else.

    Norms and strengths are 1; `fields` gives others, and whatever the entry shall hold beside.
    """
    entry = Entry(
        model=model,
        description=Description("You write as it comes.", "user"),
        words=(),
        layers=layers,
        directions=np.asarray(directions, np.float32),
        norms=np.ones(len(layers), np.float32),
        contrast_methods=("stylevector",) * len(layers),
        strengths=np.ones(len(layers), np.float32),
        logit_bias=None,
        memory=None,
        gate=None,
        gain=None,
        with_history=None,
        positions="generated",
        counts={},
        settings={},
        versions={},
        created="2025-01-31T09:30:00Z",
    )
    return replace(entry, **fields)
