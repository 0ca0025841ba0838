"""The profiles of a folder that fit a model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steerx_edge.errors import ProfileError, SteerxError
from steerx_edge.live_prefix import LivePrefix
from steerx_edge.profile import Profile

if TYPE_CHECKING:
    from steerx_edge.llamacpp.compat import Llama
    from steerx_edge.model_id import ModelId

_SUFFIX = ".json"


@dataclass(frozen=True)
class ServedProfile:
    """A profile, and the prefix next to it if there is one."""

    profile: Profile
    prefix: LivePrefix | None


def read_profiles(
    folder: Path, llama: Llama, model: ModelId
) -> tuple[dict[str, ServedProfile], list[str]]:
    """Read the profiles of a folder.

    A profile's id is the name of its file without `.json`. Only regular files are read: a link
    could lead out of the folder.

    Returns:
        The profiles for this model by their ids, and why others, or parts of one, are left out.

    Raises:
        ProfileError: the folder cannot be read.
    """
    found: dict[str, ServedProfile] = {}
    problems: list[str] = []
    for path in _files(folder):
        try:
            profile = Profile.load(path)
            entry = profile.entry_for(model)
        except SteerxError as error:
            problems.append(f"'{path.name}' is left out: {error}")
            continue
        problems.extend(f"'{path.name}': {problem}" for problem in profile.problems)
        prefix, problem = LivePrefix.usable(llama, entry, path, renew=False)
        if problem:
            problems.append(f"'{path.name}': {problem}")
        found[path.name.removesuffix(_SUFFIX)] = ServedProfile(profile, prefix)
    return found, problems


def _files(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [
                entry.name
                for entry in entries
                if entry.name.endswith(_SUFFIX)
                and entry.name.isprintable()  # also no byte that is not UTF-8
                and not entry.name.startswith(".")
                and entry.is_file(follow_symlinks=False)
            ]
    except OSError as error:
        raise ProfileError(f"The folder '{folder}' cannot be read: {error.strerror}.") from error
    return [folder / name for name in sorted(names)]
