"""What is kept of unfinished work: whole steps, for the same work only, and not for long."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from steerx_edge.learning.checkpoint import USER_PATH_VARIABLE, Checkpoint, user_path


def test_the_same_work_finds_what_was_put(tmp_path: Path) -> None:
    Checkpoint(tmp_path, "work", 1).put("step", rows=np.eye(3), n=np.asarray(7))
    kept = Checkpoint(tmp_path, "work", 1).get("step")
    assert kept is not None
    np.testing.assert_array_equal(kept["rows"], np.eye(3))
    assert int(kept["n"]) == 7


def test_other_work_and_other_steps_find_nothing(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "work", 1)
    checkpoint.put("step", rows=np.eye(3))
    assert checkpoint.get("another") is None
    assert Checkpoint(tmp_path, "work", 2).get("step") is None


def test_complete_work_leaves_nothing(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "work")
    checkpoint.put("step", rows=np.eye(3))
    other = Checkpoint(tmp_path, "other")
    checkpoint.remove()
    assert len(list(tmp_path.iterdir())) == 1
    assert other.get("step") is None


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive at all"])
def test_a_damaged_file_counts_as_missing(tmp_path: Path, content: bytes) -> None:
    checkpoint = Checkpoint(tmp_path, "work")
    checkpoint.put("step", rows=np.eye(3))
    (file,) = tmp_path.glob("*/*.npz")
    file.write_bytes(content)
    assert checkpoint.get("step") is None


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "work")
    checkpoint.put("step", rows=np.array([print], dtype=object))
    assert checkpoint.get("step") is None


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "unfinished", "work").put("step", rows=np.eye(3))
    (folder,) = (tmp_path / "unfinished").iterdir()
    (file,) = folder.iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    assert file.stat().st_mode & 0o077 == 0


def test_without_a_folder_nothing_is_kept_and_no_call_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (None, tmp_path / "file" / "folder"):
        checkpoint = Checkpoint(folder, "work")
        checkpoint.put("step", rows=np.eye(3))
        assert checkpoint.get("step") is None
        checkpoint.remove()


def test_a_folder_that_disappears_is_no_error(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "work")
    (folder,) = tmp_path.iterdir()
    folder.rmdir()
    checkpoint.put("step", rows=np.eye(3))
    assert checkpoint.get("step") is None


def test_work_that_was_not_resumed_for_a_month_is_removed(tmp_path: Path) -> None:
    Checkpoint(tmp_path, "new").put("step", rows=np.eye(3))
    known = list(tmp_path.iterdir())
    Checkpoint(tmp_path, "old").put("step", rows=np.eye(3))
    (old,) = (each for each in tmp_path.iterdir() if each not in known)
    long_ago = time.time() - 31 * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    Checkpoint(tmp_path, "another")
    assert not old.exists()
    assert Checkpoint(tmp_path, "new").get("step") is not None


def test_what_it_did_not_make_is_never_removed(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "old")
    checkpoint.put("step", rows=np.eye(3))
    (own,) = tmp_path.iterdir()
    novel = tmp_path / "my novel"
    link = tmp_path / f"steerx-edge-{'0' * 32}"
    novel.mkdir()
    link.symlink_to(novel)
    for path in (novel / "chapter 1.npz", own / "notes.txt"):
        path.write_text("It was a dark and stormy night.")
    long_ago = time.time() - 31 * 24 * 3600
    for path in (novel, own):
        os.utime(path, (long_ago, long_ago))
    Checkpoint(tmp_path, "new")
    assert (novel / "chapter 1.npz").exists()
    assert [path.name for path in own.iterdir()] == ["notes.txt"]
    checkpoint.put("step", rows=np.eye(3))
    checkpoint.remove()
    assert [path.name for path in own.iterdir()] == ["notes.txt"]


def test_the_users_folder_is_set_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(USER_PATH_VARIABLE, str(tmp_path))
    assert user_path() == tmp_path
    monkeypatch.delenv(USER_PATH_VARIABLE)
    path = user_path()
    assert path is not None
    assert path.name == "steerx-edge"


NO_HOME = """
import os
import platformdirs
from steerx_edge.learning.checkpoint import Checkpoint, unfinished_path
platformdirs.user_data_path()  # imports what another user may not read
if os.geteuid() == 0:
    os.setuid(54321)  # nobody in the list of users
Checkpoint(unfinished_path(), "work").put("step")
print(unfinished_path())
"""


@pytest.mark.parametrize("home", [None, "", "~"])
def test_without_a_home_nothing_is_kept(tmp_path: Path, home: str | None) -> None:
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    if home is not None:
        environment["HOME"] = home
    command = [sys.executable, "-c", NO_HOME]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    known = home is None and os.geteuid() != 0  # then the list of users has a home
    assert (done.stdout == "None\n") != known, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("home", "path"), [("", "/.local/share/steerx-edge"), ("~", "~/.local/share/steerx-edge")]
)
def test_what_older_platformdirs_take_for_a_home_is_none(
    monkeypatch: pytest.MonkeyPatch, home: str, path: str
) -> None:
    monkeypatch.delenv(USER_PATH_VARIABLE)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr("platformdirs.user_data_path", lambda _: Path(path))
    assert user_path() is None


def test_the_data_folder_of_the_desktop_is_used_without_a_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(USER_PATH_VARIABLE)
    monkeypatch.setenv("HOME", "")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert user_path() == tmp_path / "steerx-edge"
