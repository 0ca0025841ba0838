"""Settings that make no sense."""

from __future__ import annotations

from typing import Any

import pytest

from steerx_edge.errors import SteerxError
from steerx_edge.learning.settings import Settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_items": 1},
        {"min_anchors": 0},
        {"in_context": 0},
        {"layers": ()},
        {"contrast_methods": ()},
        {"contrast_methods": ("caa",)},
        {"contrast_methods": "stylevector"},
        {"contrast_methods": ("stylevector", "stylevector")},
        {"selection": "some"},
        {"estimate": "median"},
        {"max_weight": 0.0},
        {"max_weight": float("inf")},
        {"memory": None},
        {"sample": 1},
        {"fold": 0},
        {"row": "before"},
        {"strength": -1.0},
        {"strength": float("nan")},
        {"threshold": float("inf")},
    ],
    ids=str,
)
def test_an_invalid_setting_is_named(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(SteerxError, match=f"setting {name} cannot be"):
        Settings(**wrong)
