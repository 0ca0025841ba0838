"""`kill -9` at any moment: what lies on the disk is whole, and the next run does its work."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from docs.tools.run_console import prepare
from models import TinyModel
from steerx_edge.learning.checkpoint import USER_PATH_VARIABLE
from steerx_edge.llamacpp.models import MODEL_VARIABLE
from steerx_edge.profile import Profile, read_drafts
from steerx_edge.profile.prefix_file import prefix_files, read_prefix

PROGRAM = (sys.executable, "-m", "steerx_edge")
KILLED_WHILE_SAVING = """
import atexit, os, signal, sys
from steerx_edge.apps.cli import main
moment, folder = int(sys.argv.pop(1)), sys.argv.pop(1)
NAMES, MODULES = ("write", "truncate", "replace", "unlink"), ("posix", "io", "_io")
n_calls = 0

def count(_, event, called):
    global n_calls
    if event != "c_call" or called.__name__ not in NAMES:
        return
    if (called.__module__ or type(called.__self__).__module__) in MODULES:
        n_calls += 1
        if n_calls == moment:
            os.kill(os.getpid(), signal.SIGKILL)

def begin(event, arguments):
    if event == "open":
        path = str(arguments[0])
        if path.startswith(folder) and path.endswith(".lock"):
            sys.setprofile(count)

def end():
    sys.setprofile(None)
    print(n_calls, flush=True)

atexit.register(end)
sys.addaudithook(begin)
main()
"""
"""Runs a command and counts what it writes and replaces from the moment at which the profile is
locked. It is killed before one of these calls."""

LEARN = ("learn", "sent.jsonl", "-o", "me.json")
COMMANDS: dict[str, tuple[str, ...]] = {
    "learn": (*LEARN, "--prefix", "256"),
    "add": ("learn", "--add", "new.jsonl", "-o", "me.json"),
    "edit": ("edit", "me.json", "--drop", "morning"),
    "forget": ("forget", "--profile", "me.json", "--text", "email.jsonl"),
    "feedback": ("feedback", "me.json", "--proposed", "mail.txt", "--final", "email.jsonl"),
}
MOMENTS = {"learn": 4, "add": 4, "edit": 40, "forget": 10, "feedback": 10}
"""At how many of these calls each command is killed; `edit` and `feedback` at all of them."""
TIMES = 4
"""How often it is killed after a random time."""


@pytest.fixture(scope="module")
def environment(tiny_chat: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {
        **os.environ,
        MODEL_VARIABLE: str(tiny_chat.path),
        USER_PATH_VARIABLE: str(tmp_path_factory.mktemp("user")),
        "LLAMA_ARG_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]),
    }


@pytest.fixture(scope="module")
def before(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile with a memory, a prefix and a draft, and the texts that the commands read."""
    folder = tmp_path_factory.mktemp("before")
    prepare(folder)
    for command in (
        (*LEARN, "--prefix", "192", "--memory", "shared"),
        ("feedback", "me.json", "--proposed", "email.jsonl", "--final", "mail.txt"),
    ):
        run(command, folder, environment)
    return folder


def run(command: tuple[str, ...], folder: Path, environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        [*PROGRAM, *command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def files_of(folder: Path) -> dict[str, Any]:
    """What lies by the profile, without what differs from run to run; of other files their size.

    Work that is resumed evaluates other tokens together, which changes the last bits of numbers.
    """
    found: dict[str, Any] = {}
    for path in folder.glob("me.*"):
        if path.suffix == ".json":
            found[path.name] = lasting(json.loads(path.read_bytes()))
        elif path.suffix == ".jsonl":
            # A draft that is kept again is one.
            lines = map(json.loads, path.read_text("utf-8").splitlines())
            found[path.name] = {json.dumps(lasting(line)) for line in lines}
        else:
            found[path.name] = path.stat().st_size
    return found


def lasting(value: Any) -> Any:
    """A JSON value without times, numbers that are not whole, and hashes of files."""
    if isinstance(value, dict):
        varies = ("created", "time", "sha256")
        return {name: lasting(each) for name, each in value.items() if name not in varies}
    if isinstance(value, list):
        return [lasting(each) for each in value]
    return None if isinstance(value, float) else value


def assert_whole(folder: Path, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Each file is as it was before the command, or as it leaves it; what they hold can be used."""
    now = files_of(folder)
    for name in before.keys() | after.keys() | now.keys():
        assert now.get(name) in (before.get(name), after.get(name)), name
    if Profile.load(folder / "me.json").problems:  # killed between the two renames of a save
        assert now["me.json"] == before["me.json"] != after["me.json"]
    for path in prefix_files(folder / "me.json"):
        assert read_prefix(path).items
    assert read_drafts(folder / "me.json").n_bad == 0


def left_in(folder: Path) -> list[str]:
    """What killed programs have left, apart from unfinished work."""
    return [path.name for path in folder.glob(".*")]


def killed_while_saving(
    command: tuple[str, ...], moment: int, folder: Path, environment: Mapping[str, str]
) -> int:
    """Run a command and kill it while it saves.

    Returns:
        How many calls were counted, if it ended.
    """
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_SAVING, str(moment), str(folder), *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode == -signal.SIGKILL:
        return 0
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


def killed_after(
    command: tuple[str, ...], seconds: float, folder: Path, environment: Mapping[str, str]
) -> None:
    with subprocess.Popen(
        [*PROGRAM, *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as child:
        with suppress(subprocess.TimeoutExpired):
            child.wait(seconds)
        child.kill()


def copied(folder: Path, into: Path) -> Path:
    shutil.rmtree(into, ignore_errors=True)
    return Path(shutil.copytree(folder, into))


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_kill_at_any_moment_leaves_whole_files(
    name: str, before: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    command, moments = COMMANDS[name], random.Random(7)  # noqa: S311
    ended = copied(before, tmp_path / "ended")
    begin = time.monotonic()
    n_calls = killed_while_saving(command, 0, ended, environment)
    took = time.monotonic() - begin
    after, old = files_of(ended), files_of(before)
    assert after != old

    folder = tmp_path / "killed"
    calls = range(1, n_calls + 1)
    for moment in moments.sample(calls, min(n_calls, MOMENTS[name])):
        shutil.copytree(before, folder, dirs_exist_ok=True)  # what was left stays
        assert not killed_while_saving(command, moment, folder, environment)
        assert_whole(folder, old, after)
    run(command, folder, environment)
    assert files_of(folder) == after
    assert left_in(folder) == []

    copied(before, folder)
    for _ in range(TIMES):
        killed_after(command, moments.uniform(0, took), folder, environment)
        assert_whole(folder, old, after)
        if files_of(folder) == after:
            copied(before, folder)
    run(command, folder, environment)
    assert files_of(folder) == after
    assert left_in(folder) == []
