"""Private files: replaced at once, and errors that name them."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from steerx_edge.errors import ProfileError

if sys.platform != "win32":
    import fcntl

_JSON = ".json"
_PREFIX, _SUFFIX = ".steerx-edge-", ".tmp"
_PATIENCE = 60.0  # seconds that another program may take to save
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)  # of some network file systems


@contextmanager
def about(path: str | os.PathLike[str], doing: Literal["read", "written"]) -> Iterator[None]:
    """Make every failure a ProfileError that begins with the path as the caller gave it."""
    try:
        yield
    except ProfileError as error:
        raise ProfileError(f"{path}: {error}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = str(error)
        if isinstance(error, OSError):  # NumPy's have no number, where less was written than asked
            reason = error.strerror or f"the disk may be full ({error})"
        raise ProfileError(f"{path}: cannot be {doing}: {reason}") from error


def stem_beside(profile: Path) -> str:
    """What the names of the files next to a profile begin with: "me" for `me.json`.

    Of a name of another form it holds a digest, so that no two profiles share a file.
    """
    name = profile.name
    if name.endswith(_JSON) and not name.startswith("."):
        return name.removesuffix(_JSON)
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
    return f"{name.lstrip('.') or 'profile'}.{digest[:8]}"


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


def check_writable(path: str | os.PathLike[str], *, beside: str = "") -> None:
    """Try whether a file can be saved, before the work whose result it is to hold.

    Args:
        path: the file.
        beside: the end of the name of another file, which begins as this one's does.

    Raises:
        ProfileError: its folder takes no new files, something else has its name, or the name is
            too long or not UTF-8.
    """
    with about(path, "written"):
        target = Path(os.path.realpath(path))
        _mode_for(target)
        if beside:
            target.name.encode()
            with suppress(FileNotFoundError):
                target.with_name(stem_beside(target) + beside).stat()
        with _temporary(target.parent):
            pass


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other programs from saving a file while it is read, changed and replaced.

    The lock is a file beside it, which is there only meanwhile.

    Raises:
        ProfileError: the file could not be saved, or another program does not stop saving it.
    """
    _mode_for(path)
    name = hashlib.sha256(path.name.encode(errors="surrogateescape")).hexdigest()[:16]
    lock = FileLock(path.with_name(f"{_PREFIX}{name}.lock"), timeout=_PATIENCE)
    try:
        lock.acquire()
    except Timeout:
        raise ProfileError(
            f"cannot be written: another program has been saving it for {_PATIENCE:g} seconds. End "
            "that program first"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    try:
        yield
    finally:
        if lock.is_locked:  # who waits for a file that was removed tries again
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()


@contextmanager
def replacing(*paths: Path) -> Iterator[list[Path]]:
    """Replace files, each atomically and durably, in this order.

    Yields a temporary file for each, to be written. They take their places, one straight after the
    other, when all of them are on the disk; after an error none does. A new file is private (mode
    0600), an existing one keeps its mode. No path may be a symbolic link.
    """
    modes = [_mode_for(path) for path in paths]
    for folder in {path.parent for path in paths}:
        remove_abandoned(folder)
    with ExitStack() as stack:
        # In the same folder, since a rename is atomic only within one file system.
        temporaries = [stack.enter_context(_temporary(path.parent)) for path in paths]
        yield list(temporaries)
        for temporary, mode in zip(temporaries, modes, strict=True):
            temporary.chmod(mode)
            _sync(temporary)  # else a power cut after the rename could leave it empty
        for temporary, path in zip(temporaries, paths, strict=True):
            temporary.replace(path)
    for folder in {path.parent for path in paths}:
        # The new file is in place; some file systems cannot sync a folder, and then a power cut in
        # the next seconds may bring the old file back. The save has still succeeded.
        with suppress(OSError):
            _sync(folder)


def remove_abandoned(folder: Path) -> list[str]:
    """Remove the temporary files of programs that were killed while they saved.

    Such a file may hold a private text. It is told from one that is being written by its lock,
    which ends with its program.

    Returns:
        Their names.
    """
    removed = []
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        with suppress(OSError):  # it is being written, or another's
            descriptor = os.open(path, os.O_RDWR)
            try:
                _lock(descriptor, wait=False)
                path.unlink()
                removed.append(path.name)
            finally:
                os.close(descriptor)
    return removed


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """A new private file; removed at the end, after an interrupt too, if it is still there."""
    while True:
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=_PREFIX, suffix=_SUFFIX)
        with suppress(OSError):  # of a file system without locks
            _lock(descriptor, wait=True)
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)  # another program took it for abandoned before it was locked
    path = Path(name)
    with os.fdopen(descriptor) as held:
        if sys.platform == "win32":
            held.close()  # an open file cannot be replaced there
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def _lock(descriptor: int, *, wait: bool) -> None:
    """Lock a file until it is closed, or raise OSError."""
    if sys.platform == "win32":
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


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
