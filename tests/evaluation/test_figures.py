"""Means over users, and differences of arms."""

from __future__ import annotations

from typing import Any

import pytest

from steerx_edge.evaluation import BASELINES, Evaluation


def rows_of(user: str, unsteered: float, own: float, generic: float) -> list[dict[str, Any]]:
    return [
        {
            "user": user,
            "method": BASELINES,
            "items": 5,
            "queries": 1,
            "arms": {"unsteered": {"log_prob": unsteered, "neutral": -4.0}},
            "sweep": [],
        },
        {
            "user": user,
            "method": "m",
            "arms": {
                "own": {"log_prob": own, "neutral": -4.5},
                "generic": {"log_prob": generic, "neutral": -4.25},
            },
            "sweep": [],
        },
    ]


def test_means_are_over_users_and_differences_are_paired() -> None:
    rows = [
        *rows_of("a", -5.0, -4.0, -4.5),
        *rows_of("b", -9.0, -8.0, -8.5),
        *rows_of("c", -2.0, -2.02, -2.03),
        *rows_of("d", -2.0, -2.01 + 1e-9, -2.0),
    ]
    done = Evaluation({"users": ["a", "b", "c", "d"], "methods": {"m": {}}, "seed": 0}, rows)
    figures = {line.arm: line.figures for line in done.lines()}
    assert figures["unsteered"]["log_prob"].mean == pytest.approx(-4.5)
    assert figures["own"]["gain"].mean == pytest.approx((1 + 1 - 0.02 - 0.01) / 4)
    assert figures["own"]["gain"].median == pytest.approx((1 - 0.01) / 2)
    assert figures["own"]["worse"].mean == 0.25
    assert figures["generic"]["worse"].mean == 0.25
    personal = figures["own - generic"]
    assert personal["gain"].mean == pytest.approx((0.5 + 0.5 + 0.01 - 0.01) / 4)
    assert personal["gain"].median == pytest.approx((0.5 + 0.01) / 2)  # of the differences
    assert personal["worse"].mean == 0
    assert personal["neutral"].mean == pytest.approx(-0.25)
    assert figures["own"]["neutral"].mean == pytest.approx(-0.5)
    assert personal["gain"].users == 4
    low, high = personal["gain"].low, personal["gain"].high
    assert low is not None
    assert high is not None
    assert -0.01 <= low < personal["gain"].mean < high <= 0.5
    # Users differ far more in their levels than in what they gain.
    level = figures["unsteered"]["log_prob"]
    assert level.high is not None
    assert level.low is not None
    assert level.high - level.low > 5 * (high - low)


def test_a_user_without_an_arm_is_not_counted_for_it() -> None:
    rows = [*rows_of("a", -5.0, -4.0, -4.5), *rows_of("b", -9.0, -8.0, -8.5)]
    del rows[3]["arms"]["generic"]
    done = Evaluation({"users": ["a", "b"], "methods": {"m": {}}, "seed": 0}, rows)
    figures = {line.arm: line.figures for line in done.lines()}
    assert figures["generic"]["gain"].users == figures["own - generic"]["gain"].users == 1
    assert figures["own"]["gain"].users == 2


def test_in_a_sweep_profiles_that_do_nothing_gain_nothing() -> None:
    rows = [*rows_of("a", -5.0, -4.0, -4.5), *rows_of("b", -9.0, -8.0, -8.5)]
    rows[1]["sweep"] = [{"over": "strength", "at": 2.0, "arm": "own", "log_prob": -3.0}]
    del rows[3]["arms"]["own"]
    rows[3]["same"] = {"own": "unsteered"}
    done = Evaluation({"users": ["a", "b"], "methods": {"m": {}}, "seed": 0}, rows)
    by_strength = done.sweep("m", "strength")["own"]
    assert {at: figure.mean for at, figure in by_strength.items()} == {0: 0, 1: 0.5, 2: 1}
    assert {figure.users for figure in by_strength.values()} == {2}
