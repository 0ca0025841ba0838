"""What a long piece of work has found so far, so that it can be interrupted and resumed.

The files hold tokens of a user's texts and rows of the residual stream. They are readable by
their owner alone, and removed when the work ends. Nothing else is ever removed: neither another
folder nor a file that somebody put into one of these.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

USER_PATH_VARIABLE = "STEERX_EDGE_USER_PATH"

_FOLDER = "steerx-edge-{}"
_FOLDER_PATTERN = re.compile(_FOLDER.format("[0-9a-f]{32}"))
_OWN_SUFFIXES = (".npz", ".partial")
_FORGOTTEN_AFTER = 30 * 24 * 3600  # seconds


def user_path() -> Path | None:
    """Where user data is kept: $STEERX_EDGE_USER_PATH, else the platform's usual place.

    None if neither is set and the user has no home folder.
    """
    if chosen := os.environ.get(USER_PATH_VARIABLE):
        return Path(chosen)
    from platformdirs import user_data_path

    try:
        path = user_data_path("steerx-edge")
    except (RuntimeError, KeyError):  # no home
        return None
    # Older platformdirs take the root folder for an empty HOME, and `~` itself for a missing one.
    has_home = os.environ.get("HOME") != "" or bool(os.environ.get("XDG_DATA_HOME"))
    return path if has_home and path.is_absolute() else None


def unfinished_path() -> Path | None:
    """The folder of all unfinished work, or None if there is no place for it."""
    path = user_path()
    return path and path / "unfinished"


def has_unfinished() -> bool:
    """Whether any unfinished work is kept: there may be no place for it, or no room."""
    path = unfinished_path()
    return path is not None and any(path.glob(f"{_FOLDER.format('*')}/*{_OWN_SUFFIXES[0]}"))


class Checkpoint:
    """Named groups of arrays of one piece of work.

    Without a folder, or with one that cannot be written, nothing is kept and nothing fails: the
    work itself does not need it.

    Args:
        folder: holds the unfinished work of any number of runs.
        work: everything the results depend on; other work finds nothing of this one's.
    """

    def __init__(self, folder: Path | None, *work: object) -> None:
        self._folder: Path | None = None
        if folder is None:
            return
        name = _FOLDER.format(hashlib.sha256(repr(work).encode()).hexdigest()[:32])
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            _remove_forgotten(folder)
            (folder / name).mkdir(mode=0o700, exist_ok=True)
            self._folder = folder / name

    def get(self, name: str) -> dict[str, NDArray[Any]] | None:
        """The arrays, or None where there are none, or none that can be read."""
        if self._folder is None:
            return None
        try:
            with np.load(self._folder / f"{name}.npz", allow_pickle=False) as file:
                return dict(file)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def put(self, name: str, **arrays: NDArray[Any]) -> None:
        """Keep arrays, all of them or none."""
        if self._folder is None:
            return
        with suppress(OSError):
            descriptor, path = tempfile.mkstemp(dir=self._folder, suffix=_OWN_SUFFIXES[1])
            partial = Path(path)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    np.savez(file, **arrays)  # type: ignore[arg-type]
                partial.replace(self._folder / f"{name}.npz")
            finally:
                partial.unlink(missing_ok=True)

    def remove(self) -> None:
        """Forget everything: the work is complete."""
        if self._folder is not None:
            _remove(self._folder)


def _remove_forgotten(folder: Path) -> None:
    """Remove work that was never resumed."""
    for other in folder.iterdir():
        with suppress(OSError):
            is_own = _FOLDER_PATTERN.fullmatch(other.name) and not other.is_symlink()
            if is_own and time.time() - other.stat().st_mtime > _FORGOTTEN_AFTER:
                _remove(other)


def _remove(folder: Path) -> None:
    """Remove what this module wrote to a folder, and the folder if nothing else is in it."""
    with suppress(OSError):
        for file in folder.iterdir():
            if file.suffix in _OWN_SUFFIXES:
                file.unlink()
        folder.rmdir()
