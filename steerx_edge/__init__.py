"""Personal steering vectors for llama.cpp: learn how a user writes, and write that way.

See `learn`, `steer` and the README.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steerx_edge.errors import HistoryError, ModelError, ProfileError, SteerxError
    from steerx_edge.history.item import HistoryItem, User
    from steerx_edge.history.reading import read_history, read_users
    from steerx_edge.learning.adding import learn_more
    from steerx_edge.learning.feedback import Feedback, learn_from_drafts
    from steerx_edge.learning.learn import learn
    from steerx_edge.learning.settings import Settings
    from steerx_edge.live import SteeringHandle, steer
    from steerx_edge.llamacpp.engine import Engine
    from steerx_edge.profile import (
        Description,
        Draft,
        Entry,
        Gain,
        LogitBias,
        Profile,
        WithHistory,
        Word,
        feedback,
        read_drafts,
    )
    from steerx_edge.profile.combining import combine
    from steerx_edge.profile.control_vector_file import ControlVectorFile, read_control_vector
    from steerx_edge.profile.exporting import write_control_vector
    from steerx_edge.steering.steering import Steering
    from steerx_edge.version import __version__

_HOMES = {
    "learning.adding": ("learn_more",),
    "llamacpp.engine": ("Engine",),
    "errors": ("HistoryError", "ModelError", "ProfileError", "SteerxError"),
    "history.item": ("HistoryItem", "User"),
    "learning.feedback": ("Feedback", "learn_from_drafts"),
    "history.reading": ("read_history", "read_users"),
    "learning.learn": ("learn",),
    "profile": (
        "Description",
        "Draft",
        "Entry",
        "Gain",
        "Profile",
        "LogitBias",
        "WithHistory",
        "Word",
        "feedback",
        "read_drafts",
    ),
    "profile.combining": ("combine",),
    "profile.control_vector_file": ("ControlVectorFile", "read_control_vector"),
    "profile.exporting": ("write_control_vector",),
    "learning.settings": ("Settings",),
    "live": ("SteeringHandle", "steer"),
    "steering.steering": ("Steering",),
    "version": ("__version__",),
}

__all__ = [
    "ControlVectorFile",
    "Description",
    "Draft",
    "Engine",
    "Entry",
    "Feedback",
    "Gain",
    "HistoryError",
    "HistoryItem",
    "LogitBias",
    "ModelError",
    "Profile",
    "ProfileError",
    "Settings",
    "Steering",
    "SteeringHandle",
    "SteerxError",
    "User",
    "WithHistory",
    "Word",
    "__version__",
    "combine",
    "feedback",
    "learn",
    "learn_from_drafts",
    "learn_more",
    "read_control_vector",
    "read_drafts",
    "read_history",
    "read_users",
    "steer",
    "write_control_vector",
]


def __getattr__(name: str) -> Any:
    """Import on first use: a command line that prints its help should not load llama.cpp."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"steerx_edge.{module}"), name)
    raise AttributeError(f"module 'steerx_edge' has no attribute {name!r}")
