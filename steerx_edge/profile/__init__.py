"""Profile: what was learned about one user's writing, in one small JSON file (`me.json`).

The file is readable, holds no code, and has one entry for each model it was learned on. Loading
checks everything and names the first thing wrong. The format is described in `docs/profile.md` and,
for other programs, in `profile.schema.json`. A memory lies in a file of its own beside it, which
may be missing: see `MemoryPart`.
"""

from __future__ import annotations

from steerx_edge.model_id import ModelId
from steerx_edge.profile.drafts_file import (
    Draft,
    Drafts,
    feedback,
    forget_drafts,
    forget_drafts_of,
    keep_draft,
    read_drafts,
)
from steerx_edge.profile.entry import CONTRAST_METHODS, Entry, Setting
from steerx_edge.profile.files import check_writable
from steerx_edge.profile.parts import Gain, LogitBias, MemoryPart, WithHistory
from steerx_edge.profile.prefix_file import Beginning, Prefix, prefix_files
from steerx_edge.profile.store import Profile, change, forget
from steerx_edge.profile.trials import DirectionsTrial, Trial, Trials
from steerx_edge.profile.words import Action, Description, Edit, TextSource, Word

__all__ = [
    "CONTRAST_METHODS",
    "Action",
    "Beginning",
    "Description",
    "DirectionsTrial",
    "Draft",
    "Drafts",
    "Edit",
    "Entry",
    "Gain",
    "LogitBias",
    "MemoryPart",
    "ModelId",
    "Prefix",
    "Profile",
    "Setting",
    "TextSource",
    "Trial",
    "Trials",
    "WithHistory",
    "Word",
    "change",
    "check_writable",
    "feedback",
    "forget",
    "forget_drafts",
    "forget_drafts_of",
    "keep_draft",
    "prefix_files",
    "read_drafts",
]
