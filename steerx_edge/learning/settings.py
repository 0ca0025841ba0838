"""How a profile is learned: every choice, with its default."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from steerx_edge.errors import SteerxError
from steerx_edge.learning.contrasts import ContrastMethod, RowConvention
from steerx_edge.learning.directions import Estimate

MIN_ITEMS = 2
"""Each item is read with others in its context."""


@dataclass(frozen=True)
class Settings:
    """How a profile is learned. The defaults are ours, picked by measurement: see docs/method.md.

    Args:
        contrast_methods: how directions are found.
        selection: which rows of the user's texts a direction is the mean of: those of anchors (as
            SteerX does), all, weighted by their effect up to `max_weight`, or all alike.
        described: whether half of them are read under the description (as SteerX does).
        estimate: how a direction is computed from the differences of all texts.
        max_weight: the effect above which a row weighs no more, in nats.
        logit_bias: whether a logit bias may be added.
        memory: which of the user's tokens the memory holds: those of words that stand in two
            texts at least ("shared"), all, weighted by their causal effect ("causal") or alike
            ("all"), or none.
        calibrate: choose layers and strengths by the user's own held-out texts. Otherwise the
            first contrast method that has a direction is added with `strength`, no logit bias and
            no memory.
        layers: blocks that may be steered, 0-based, each at least 1; None takes `default_layers`.
        strength: without calibration: what is added at each layer, as a share of the median
            residual norm there.
        in_context: other items in the treatment arm's context, retrieved for each fold.
        fold: items that share a context, which is then read once for all of them; 1 retrieves for
            each item alone.
        threshold: effect above which a token is an anchor, in nats.
        min_anchors: the fewest anchors of a text.
        row: which residual row represents a token.
        sample: of a longer history, so many texts, spread over all of it, are used for directions
            and calibration; the others only for the logit bias, the words and the memory.
        max_items: use only this many of the latest items; None for all.
    """

    contrast_methods: tuple[ContrastMethod, ...] = ("stylevector",)
    selection: Literal["anchors", "weighted", "all"] = "all"
    described: bool = False
    estimate: Estimate = "mean"
    max_weight: float = 3.0
    logit_bias: bool = True
    memory: Literal["shared", "causal", "all", "none"] = "causal"
    calibrate: bool = True
    layers: tuple[int, ...] | None = None
    strength: float = 0.1
    in_context: int = 4
    fold: int = 4
    threshold: float = 1.0
    min_anchors: int = 3
    row: RowConvention = "predicts"
    sample: int = 24
    max_items: int | None = None

    def __post_init__(self) -> None:
        wrong = {
            "contrast_methods": not self.contrast_methods
            or not set(self.contrast_methods) <= set(get_args(ContrastMethod))
            or len(set(self.contrast_methods)) < len(self.contrast_methods),
            "selection": self.selection not in ("anchors", "weighted", "all"),
            "estimate": self.estimate not in get_args(Estimate),
            "max_weight": not (math.isfinite(self.max_weight) and self.max_weight > 0),
            "memory": self.memory not in ("shared", "causal", "all", "none"),
            "layers": self.layers is not None and not self.layers,
            "strength": not (math.isfinite(self.strength) and self.strength >= 0),
            "in_context": self.in_context < 1,
            "fold": self.fold < 1,
            "threshold": not math.isfinite(self.threshold),
            "min_anchors": self.min_anchors < 1,
            "row": self.row not in get_args(RowConvention),
            "sample": self.sample < MIN_ITEMS,
            "max_items": self.max_items is not None and self.max_items < MIN_ITEMS,
        }
        for name in (name for name, is_wrong in wrong.items() if is_wrong):
            raise SteerxError(
                f"The setting {name} cannot be {getattr(self, name)!r}. See the documentation of "
                "Settings for its values."
            )
