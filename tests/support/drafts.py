"""Profiles that texts can be added to, and drafts that help one of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from steerx_edge.learning.calibration import Calibration, Setting
from steerx_edge.learning.learn import learn
from steerx_edge.learning.settings import Settings
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.profile import Draft, Gain, Profile
from tests.support.histories import TEXTS

ALIKE = [
    Draft(f"No {word}.", f"{word} hello hello hello {word} hello hello", f"Write of {word}.")
    for word in ("ants", "bees", "cats", "dogs", "eels")
]
"""All with the same word in the person's texts."""


def addable(engine: Engine, patch: pytest.MonkeyPatch) -> Profile:
    """A profile with a logit bias and a memory, whatever calibration would find."""
    setting = Setting(((0, 0.1),), 0.5, 0.3)
    patch.setattr(
        "steerx_edge.learning.learned.calibrate",
        lambda *_, **__: Calibration(setting, Gain(0.2, 0.1, 0.3, 4)),
    )
    return learn(engine, TEXTS[:4], Settings(sample=4, layers=(2,)))


def idle(profile: Profile) -> Profile:
    """The same with all strengths at 0, which no text changes."""
    (entry,) = profile.entries
    assert entry.logit_bias is not None
    assert entry.memory is not None
    return Profile(
        (
            replace(
                entry,
                strengths=np.zeros_like(entry.strengths),
                logit_bias=replace(entry.logit_bias, strength=0.0),
                memory=replace(entry.memory, strength=0.0),
            ),
        )
    )
