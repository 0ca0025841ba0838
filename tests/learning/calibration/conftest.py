"""Few neutral texts, and a smoothing that makes values easy to work out."""

from __future__ import annotations

import pytest

from tests.support.calibration import NEUTRAL_ITEMS


@pytest.fixture(autouse=True)
def _easy_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steerx_edge.steering.logit_bias.SMOOTHING", 1.0)
    monkeypatch.setattr(
        "steerx_edge.learning.calibration.score.neutral_items", lambda _: NEUTRAL_ITEMS
    )
