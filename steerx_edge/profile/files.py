"""Private files: replaced at once, and errors that name them."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from steerx_edge.errors import ProfileError


@contextmanager
def about(path: str | os.PathLike[str], doing: Literal["read", "written"]) -> Iterator[None]:
    """Make every failure a ProfileError that begins with the path as the caller gave it."""
    try:
        yield
    except ProfileError as error:
        raise ProfileError(f"{path}: {error}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise ProfileError(f"{path}: cannot be {doing}: {reason}") from error


def size_of(n_bytes: int) -> str:
    """Return a number of bytes in words."""
    return f"{n_bytes / 2**20:.1f} MiB"


def check_file(path: Path, most: int, rule: str) -> None:
    """Refuse what is not a regular file, or larger than `most` bytes; `rule` says so.

    A pipe would block, a device may never end.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ProfileError("cannot be read: not a file")
    if status.st_size > most:
        raise ProfileError(f"the file is {size_of(status.st_size)}; {rule}")


@contextmanager
def replacing(*paths: Path) -> Iterator[list[Path]]:
    """Replace files, each atomically and durably, in this order.

    Yields a temporary file for each, to be written. They take their places, one straight after the
    other, when all of them are on the disk; after an error none does. A new file is private (mode
    0600), an existing one keeps its mode. No path may be a symbolic link.
    """
    modes = [_mode_for(path) for path in paths]
    temporaries: list[Path] = []
    try:
        for path in paths:
            # In the same folder, since a rename is atomic only within one file system.
            descriptor, name = tempfile.mkstemp(
                dir=path.parent, prefix=".steerx-edge-", suffix=".tmp"
            )
            os.close(descriptor)
            temporaries.append(Path(name))
        yield list(temporaries)
        for temporary, mode in zip(temporaries, modes, strict=True):
            temporary.chmod(mode)
            _sync(temporary)  # else a power cut after the rename could leave it empty
        for temporary, path in zip(temporaries, paths, strict=True):
            temporary.replace(path)
    except BaseException:  # an interrupt too must not leave a private file behind
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
        raise
    for folder in {path.parent for path in paths}:
        # The new file is in place; some file systems cannot sync a folder, and then a power cut in
        # the next seconds may bring the old file back. The save has still succeeded.
        with suppress(OSError):
            _sync(folder)


def _mode_for(path: Path) -> int:
    try:
        status = path.stat()
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise ProfileError(
                f"cannot be written: there is no folder {path.parent}; create it first"
            ) from None
        return 0o600
    if not stat.S_ISREG(status.st_mode):  # never put a file in the place of /dev/null
        raise ProfileError("cannot be written: something that is not a file has this name")
    return stat.S_IMODE(status.st_mode)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
