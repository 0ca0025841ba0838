"""The settings that calibration tries, and their order from strong to weak."""

from __future__ import annotations

import pytest

from steerx_edge.learning.calibration.grid import (
    MEMORY_STRENGTHS,
    STRENGTH,
    UNSTEERED,
    Setting,
    Strengths,
    around,
    settings_of,
    weaker,
)
from steerx_edge.steering.logit_bias import BIAS_STRENGTHS


@pytest.mark.parametrize(
    ("with_logit_bias", "with_memory", "n"),
    [
        (False, False, 1),
        (True, False, len(BIAS_STRENGTHS)),
        (True, True, len(BIAS_STRENGTHS) * len(MEMORY_STRENGTHS)),
    ],
)
def test_strengths_of_directions_are_combined_with_every_other_strength(
    n: int, *, with_logit_bias: bool, with_memory: bool
) -> None:
    strengths = ((0, 0.1),)
    found = list(settings_of(strengths, with_logit_bias=with_logit_bias, with_memory=with_memory))
    assert len(found) == len(set(found)) == n
    assert {setting.strengths for setting in found} == {strengths}
    assert Setting(strengths) in found


@pytest.mark.parametrize(
    ("leader", "expected"),
    [
        (((0, 0.2),), [((0, 0.1),), ((0, 0.4),), ((0, 0.2), (2, STRENGTH))]),
        (
            ((2, 0.2),),
            [((2, 0.1),), ((2, 0.4),), ((0, STRENGTH), (2, 0.2)), ((1, STRENGTH), (2, 0.2))],
        ),
        (((0, 0.1), (2, 0.2)), [((0, 0.05), (2, 0.1)), ((0, 0.2), (2, 0.4))]),
    ],
    ids=str,
)
def test_around_are_half_and_twice_the_strengths_and_one_more_direction(
    leader: Strengths, expected: list[Strengths]
) -> None:
    assert around(leader, layers=(1, 1, 3)) == expected


def test_weaker_drops_directions_then_the_logit_bias_then_halves_the_memory() -> None:
    steps = [Setting(((0, 0.1), (2, 0.2)), 1.0, 0.8)]
    while steps[-1] != UNSTEERED and len(steps) < 9:
        steps.append(weaker(steps[-1]))
    assert steps[1:] == [
        Setting((), 1.0, 0.8),
        Setting((), 0.0, 0.8),
        Setting((), 0.0, 0.3),
        Setting((), 0.0, 0.1),
        UNSTEERED,
    ]
