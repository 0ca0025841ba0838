"""Calibration: strengths chosen by what they give on the user's own held-out texts."""

from steerx_edge.learning.calibration.choose import Calibration, calibrate, recalibrate
from steerx_edge.learning.calibration.grid import UNSTEERED, Setting
from steerx_edge.learning.calibration.score import HeldOutScores, Scored

__all__ = [
    "UNSTEERED",
    "Calibration",
    "HeldOutScores",
    "Scored",
    "Setting",
    "calibrate",
    "recalibrate",
]
