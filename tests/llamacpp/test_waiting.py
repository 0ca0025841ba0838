"""What is said to OpenMP."""

from __future__ import annotations

import os

import pytest

from steerx_edge.llamacpp.waiting import wait_briefly

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({}, ("passive", "1000")),
        ({"OMP_WAIT_POLICY": "active"}, ("active", None)),
        ({"GOMP_SPINCOUNT": "5"}, (None, "5")),
    ],
    ids=["nothing", "a policy", "a count"],
)
def test_what_the_user_has_said_is_left(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], left: tuple[str | None, ...]
) -> None:
    monkeypatch.setattr(os, "environ", dict(given))
    wait_briefly()
    assert tuple(os.environ.get(name) for name in NAMES) == left
