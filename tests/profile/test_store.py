"""A profile on the disk: `me.json` and its memory files, replaced at once or not at all."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import steerx_edge.profile.store
from steerx_edge.errors import ProfileError
from steerx_edge.profile import Description, Profile, Word, check_writable, forget
from steerx_edge.profile.files import locked
from steerx_edge.steering.memory import Memory
from tests.support.entries import a_full_entry, a_gate, a_learned_memory, a_model

ROOT = Path(steerx_edge.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}


def a_profile() -> Profile:
    """For two models; without a memory, as its files are missing."""
    second = a_full_entry(model=a_model("b", name="Other"), memory=None, gain=None)
    return Profile((a_full_entry(), second))


def a_profile_with_memories(*digits: str) -> Profile:
    """With an entry for each model, by the digit of its fingerprint, and a memory of each."""
    return Profile(
        tuple(
            a_full_entry(model=a_model(digit), memory=a_learned_memory(seed))
            for seed, digit in enumerate(digits)
        )
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "me.json"


@pytest.fixture
def memory_path(path: Path) -> Path:
    """The memory file of a profile that was saved."""
    a_profile_with_memories("a").save(path)
    return path.with_name("me.memory.gguf")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(path: Path) -> str:
    with pytest.raises(ProfileError) as caught:
        Profile.load(path)
    return str(caught.value)


# ---------------------------------------------------------------- the entries of a profile


def test_profiles_can_be_copied_and_sent_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(a_profile())) == a_profile()  # noqa: S301
    assert copy.deepcopy(a_profile()) == a_profile()


def test_entry_for_finds_the_model_even_under_another_name() -> None:
    profile = a_profile()
    assert profile.entry_for(a_model("b")) is profile.entries[1]
    assert profile.entry_for(a_model("a", name="renamed", n_params=1)) is profile.entries[0]


def test_entry_for_refuses_another_model() -> None:
    with pytest.raises(ProfileError) as caught:
        a_profile().entry_for(a_model("c", name="New", quantization="Q8_0"))
    assert str(caught.value) == (
        "This profile was made for Tiny Llama (Q4_1, sha256:aaaaaaaa…), Other (Q4_1, "
        "sha256:bbbbbbbb…); this model is New (Q8_0, sha256:cccccccc…). Learn again with this "
        "model and the same file: the new entry is added, the others are kept."
    )


@pytest.mark.parametrize("size", [{"n_layer": 7}, {"n_embd": 4}])
def test_entry_for_refuses_a_forged_fingerprint(size: dict[str, int]) -> None:
    with pytest.raises(ProfileError, match=r"\(n_layer, n_embd\) = \(6, 8\).*damaged"):
        a_profile().entry_for(a_model("a", **size))


def test_with_entry_replaces_or_adds() -> None:
    profile = a_profile()
    relearned, other = a_full_entry(strengths=np.ones(3)), a_full_entry(model=a_model("c"))
    assert profile.with_entry(relearned).entries == (relearned, profile.entries[1])
    assert profile.with_entry(other).entries == (*profile.entries, other)
    assert profile == a_profile()


# ---------------------------------------------------------------- loading


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path).endswith(": cannot be read: not a file")
    missing = tmp_path / "me.json"
    assert refusal(missing) == f"{missing}: cannot be read: No such file or directory"
    os.mkfifo(missing)  # opening it would wait for ever; devices go the same way
    assert "not a file" in refusal(missing)
    assert "cannot be read: " in refusal(Path("me\0.json"))
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert "cannot be read: Too many levels of symbolic links" in refusal(loop)


def test_the_path_is_named_before_what_is_wrong(path: Path) -> None:
    path.write_text("{}")
    assert refusal(path).startswith(f"{path}: not a steerx-edge profile")


def test_a_huge_file_is_refused_unread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read"))
    assert refusal(path).endswith("the file is 1048576.0 MiB; a profile is at most 64 MiB")


def test_a_file_of_the_largest_size_is_read(path: Path) -> None:
    a_profile().save(path)
    padding = steerx_edge.profile.store.MAX_BYTES - path.stat().st_size
    with path.open("ab") as file:
        file.write(b" " * padding)
    assert Profile.load(path).entries[1] == a_profile().entries[1]
    with path.open("ab") as file:
        file.write(b" ")
    assert "a profile is at most 64 MiB" in refusal(path)


# ---------------------------------------------------------------- saving


def test_saving_what_was_loaded_gives_the_same_files(path: Path) -> None:
    profile = a_profile_with_memories("a", "b")
    profile.save(path)
    saved = contents_of(path.parent)
    loaded = Profile.load(path)
    assert loaded == profile
    assert loaded.problems == []
    loaded.save(path)
    assert contents_of(path.parent) == saved


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_files_are_private_and_old_ones_keep_their_mode(path: Path) -> None:
    before = os.umask(0)
    try:
        a_profile_with_memories("a").save(path)
    finally:
        os.umask(before)
    assert {mode(file) for file in path.parent.iterdir()} == {0o600}
    path.chmod(0o640)
    a_profile_with_memories("a").save(path)
    assert mode(path) == 0o640


def test_a_symbolic_link_stays_and_the_files_lie_beside_its_target(tmp_path: Path) -> None:
    (tmp_path / "vault").mkdir()
    link = tmp_path / "me.json"
    link.symlink_to(Path("vault") / "real.json")
    profile = a_profile_with_memories("a")
    for _ in range(2):  # first the target is not there yet
        profile.save(link)
        assert link.is_symlink()
        assert Profile.load(link) == profile
    assert names_in(tmp_path) == ["me.json", "vault"]
    assert names_in(tmp_path / "vault") == ["real.json", "real.memory.gguf"]


def test_a_path_may_be_a_string_and_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("me.json", "n" * 255):  # the longest name there is
        Profile(a_profile().entries[1:]).save(name)
        assert Profile.load(name).entries == a_profile().entries[1:]


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    cases = [
        (tmp_path / "no" / "me.json", f"there is no folder {tmp_path / 'no'}; create it first"),
        (tmp_path / "file" / "me.json", "cannot be written: Not a directory"),
        (tmp_path, "something that is not a file has this name"),
        (tmp_path / "pipe", "something that is not a file has this name"),
        (tmp_path / "loop", "cannot be written: Too many levels of symbolic links"),
        (tmp_path / "\0", "cannot be written: "),
        (tmp_path / ("n" * 256), "cannot be written: File name too long"),
    ]
    before = names_in(tmp_path)
    for path, message in cases:
        for attempt in (a_profile().save, check_writable):
            with pytest.raises(ProfileError) as caught:
                attempt(path)
            assert str(caught.value).startswith(f"{path}: ")
            assert message in str(caught.value)
    assert names_in(tmp_path) == before


def test_a_folder_that_takes_no_files_is_found_out_by_trying() -> None:
    with pytest.raises(ProfileError, match=r"^/proc/me\.json: cannot be written: "):
        check_writable("/proc/me.json")  # whatever its mode says, and to root too


def test_trying_leaves_nothing_behind(path: Path) -> None:
    check_writable(path)
    assert names_in(path.parent) == []
    a_profile().save(path)
    before = contents_of(path.parent)
    check_writable(path)
    assert contents_of(path.parent) == before


def test_what_could_not_be_loaded_is_not_saved(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProfileError, match=r"me\.json: entries\[0\]\.strengths\[2\] is -1\.0"):
        Profile((a_full_entry(strengths=[0, 0, -1]),)).save(path)
    monkeypatch.setattr(steerx_edge.profile.store, "MAX_BYTES", 1000)
    with pytest.raises(ProfileError, match=r"me\.json: the profile would take .* at most"):
        a_profile().save(path)
    assert names_in(path.parent) == []


@pytest.mark.parametrize(
    "step",
    ["os.fsync", "pathlib.Path.chmod", "pathlib.Path.replace", "steerx_edge.profile.store.encode"],
)
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_in_the_middle_leaves_the_old_files_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    a_profile_with_memories("a").save(path)
    before = contents_of(path.parent)
    expected = ProfileError if isinstance(error, OSError) else KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(step, fail)
        with pytest.raises(expected, match=r"me\.json: cannot be written: No space|^$"):
            Profile((a_full_entry(memory=a_learned_memory(seed=1)),)).save(path)
    assert contents_of(path.parent) == before


def test_all_is_on_the_disk_before_anything_gets_its_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def note_fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        is_folder = stat.S_ISDIR(status.st_mode)
        steps.append("folder" if is_folder else f"{status.st_size} bytes")
        fsync(descriptor)

    def note_rename(source: Path, target: Path) -> Path:
        assert source.parent == target.parent
        steps.append(target.name)
        return rename(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_rename)
    a_profile_with_memories("a").save(path)
    names = ["me.memory.gguf", "me.json"]
    sizes = [f"{path.with_name(name).stat().st_size} bytes" for name in names]
    assert steps == [*sizes, *names, "folder"]


def test_a_folder_that_cannot_be_synced_is_no_failure(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def no_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", no_folders)
    a_profile().save(path)
    assert Profile.load(path).entries[1] == a_profile().entries[1]


SAVE_FOR_EVER = """
import sys
from steerx_edge.profile import Profile
one, other = (Profile.load(path) for path in sys.argv[1:3])
while True:
    one.save(sys.argv[3])
    print("saved", flush=True)
    other.save(sys.argv[3])
"""


@pytest.mark.slow
def test_a_reader_or_a_kill_at_any_moment_finds_a_whole_file(tmp_path: Path) -> None:
    model = a_model(n_layer=9, n_embd=1024)
    sources = [tmp_path / "one.json", tmp_path / "other.json"]
    for last, source in zip((9, 3), sources, strict=True):
        layers = tuple(range(1, last))
        Profile((a_full_entry(model=model, layers=layers, gate=None, memory=None),)).save(source)
    whole = {source.read_bytes() for source in sources}
    target = tmp_path / "target" / "me.json"
    target.parent.mkdir()
    rng = np.random.default_rng(5)
    for _ in range(3):
        command = [sys.executable, "-c", SAVE_FOR_EVER, *map(str, (*sources, target))]
        with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE) as child:
            try:
                assert child.stdout
                assert child.stdout.readline() == b"saved\n"
                kill_at = time.monotonic() + rng.uniform(0.1, 0.3)
                while time.monotonic() < kill_at:
                    assert target.read_bytes() in whole
            finally:
                child.send_signal(signal.SIGKILL)
        assert target.read_bytes() in whole
    # A killed save may leave its temporary files, and nothing else.
    left = {path.name for path in target.parent.iterdir()} - {"me.json"}
    assert all(re.fullmatch(r"\.steerx-edge-\w+\.(tmp|lock)", name) for name in left)


# ---------------------------------------------------------------- saving beside others


SAVE_MANY = """
import sys
from dataclasses import replace
from steerx_edge.profile import Profile
path, digit, source = sys.argv[1:]
(entry, *_) = Profile.load(source).entries
for i in range(10):
    model = replace(entry.model, fingerprint=f"sha256:{i}" + 63 * digit)
    Profile((replace(entry, model=model),)).save_changes(path, since=None)
"""


@pytest.mark.slow
def test_programs_that_save_at_the_same_time_lose_nothing(path: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.json"
    Profile((a_full_entry(memory=None),)).save(source)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SAVE_MANY, *map(str, (path, digit, source))], env=ENVIRONMENT
        )
        for digit in "abc"
    ]
    assert [each.wait() for each in running] == [0, 0, 0]
    assert len(Profile.load(path).entries) == 30
    assert names_in(tmp_path) == ["me.json", "source.json"]


def test_a_program_that_does_not_stop_saving_is_said(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steerx_edge.profile.files._PATIENCE", 0.1)
    a_profile().save(path)
    attempts: list[Callable[[], object]] = [
        lambda: a_profile().save(path),
        lambda: a_profile().save_changes(path, since=None),
        lambda: forget(path),
    ]
    with locked(path):
        for attempt in attempts:
            with pytest.raises(ProfileError, match="another program has been saving it"):
                attempt()
    a_profile().save(path)


def test_where_files_cannot_be_locked_a_profile_is_saved_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("steerx_edge.profile.files.FileLock.acquire", no_locks)
    a_profile().save(path)
    assert names_in(path.parent) == ["me.json"]


WORDS = tuple(Word(word, 3.0, 2.0, 4.0, 5, 4) for word in ("lol", "honestly", "Nils"))

EDITS: dict[str, dict[str, Any]] = {
    "description": {"description": Description("You are dry.", "user")},
    "a word": {"words": WORDS[:2]},
    "strengths": {"strengths": np.array([0.5, 0, 0], np.float32)},
    "no logit bias": {"logit_bias": None},
    "no memory": {"memory": None},
    "no gate": {"gate": None},
    "gate": {"gate": a_gate(threshold=-3.0)},
}


@pytest.mark.parametrize("name", EDITS)
def test_edits_made_meanwhile_are_kept(path: Path, name: str) -> None:
    a, b = a_profile_with_memories("a", "b").entries
    Profile((replace(a, words=WORDS), b)).save(path)
    since = Profile.load(path)
    edited, _ = since.entries
    (c,) = a_profile_with_memories("c").entries
    edited = replace(edited, **EDITS[name])
    Profile((edited, replace(b, description=EDITS["description"]["description"]), c)).save(path)
    before = Profile.load(path)

    learned = replace(
        since.entries[0],
        words=(*WORDS, Word("new", 2.0, 1.0, 3.0, 5, 4)),
        counts={"items": 40},
        memory=a_learned_memory(seed=7),
        created="2025-02-01T00:00:00Z",
    )
    saved = since.with_entry(learned).save_changes(path, since=since)

    assert saved == Profile.load(path)
    assert saved.entries[1:] == before.entries[1:]
    expected = {"memory": learned.memory} | EDITS[name]
    if name == "a word":
        expected["words"] = (*WORDS[:2], learned.words[-1])
    assert saved.entries[0] == replace(learned, **expected)


def test_strengths_edited_meanwhile_stay_in_new_parts(path: Path) -> None:
    (entry,) = a_profile_with_memories("a").entries
    Profile((entry,)).save(path)
    since = Profile.load(path)
    assert entry.logit_bias
    assert entry.memory
    bias = replace(entry.logit_bias, strength=0.125)
    edited = replace(entry, logit_bias=bias, memory=replace(entry.memory, strength=0.7))
    Profile((edited,)).save(path)
    new = replace(
        entry,
        logit_bias=replace(entry.logit_bias, values=entry.logit_bias.values * 2),
        memory=a_learned_memory(seed=7),
    )
    (saved,) = Profile((new,)).save_changes(path, since=since).entries
    assert saved.logit_bias == replace(bias, values=bias.values * 2)
    assert saved.memory == a_learned_memory(seed=7, strength=0.7)


def test_strengths_are_not_taken_over_to_other_directions(path: Path) -> None:
    entry = a_full_entry(memory=None)
    Profile((entry,)).save(path)
    since = Profile.load(path)
    Profile((replace(entry, strengths=entry.strengths * 2, gate=a_gate(threshold=-3.0)),)).save(
        path
    )
    new = replace(entry, directions=-entry.directions)
    assert Profile((new,)).save_changes(path, since=since).entries == (new,)


def test_an_entry_that_another_program_learned_meanwhile_is_not_replaced(path: Path) -> None:
    (entry,) = a_profile_with_memories("a").entries
    Profile((entry,)).save(path)
    since = Profile.load(path)
    later = replace(entry, created="2025-02-01T00:00:00Z")
    fewer = replace(entry, memory=a_learned_memory(seed=1))  # as `forget --text` leaves it
    new = Profile((replace(entry, counts={"items": 99}),))
    for theirs, base in ((later, since), (fewer, since), (entry, None)):
        Profile((theirs,)).save(path)
        before = contents_of(path.parent)
        with pytest.raises(ProfileError, match=r"me\.json: another program changed the entry for"):
            new.save_changes(path, since=base)
        assert contents_of(path.parent) == before


def test_a_file_that_was_broken_meanwhile_stays(path: Path) -> None:
    a_profile().save(path)
    since = Profile.load(path)
    path.write_text("{")
    with pytest.raises(ProfileError) as caught:
        since.with_entry(a_full_entry(counts={"items": 99})).save_changes(path, since=since)
    assert str(caught.value).startswith(f"{path}: not JSON")
    assert path.read_text() == "{"
    path.unlink()
    saved = since.with_entry(a_full_entry(counts={"items": 99})).save_changes(path, since=since)
    assert [entry.counts for entry in saved.entries] == [{"items": 99}]


# ---------------------------------------------------------------- memories beside the profile


def memory_of(profile: Profile) -> Memory | None:
    part = profile.entries[0].memory
    assert part
    return part.memory


def test_further_memories_are_named_by_their_model(path: Path) -> None:
    (a, b, c) = a_profile_with_memories("a", "b", "c").entries
    alike = replace(c, model=a_model(fingerprint="sha256:" + "b" * 8 + "c" * 56))
    profile = Profile((replace(a, memory=None), b, c, alike))
    profile.save(path)
    memories = {f"me.memory{which}.gguf" for which in ("", ".cccccccc", ".bbbbbbbb")}
    assert set(names_in(path.parent)) == {"me.json", *memories}
    assert Profile.load(path) == profile


def test_memories_go_along_to_another_place(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    profile = a_profile_with_memories("a", "b")
    profile.save(tmp_path / "me.json")
    Profile.load(tmp_path / "me.json").save(tmp_path / "other" / "you.json")
    for file in tmp_path.glob("me.*"):
        file.unlink()
    expected = ["you.json", "you.memory.bbbbbbbb.gguf", "you.memory.gguf"]
    assert names_in(tmp_path / "other") == expected
    assert Profile.load(tmp_path / "other" / "you.json") == profile


@pytest.mark.parametrize("name", [".me.json", "...json"])
def test_a_hidden_profile_has_a_memory_too(tmp_path: Path, name: str) -> None:
    profile = a_profile_with_memories("a")
    profile.save(tmp_path / name)
    loaded = Profile.load(tmp_path / name)
    assert loaded == profile
    assert loaded.problems == []


def test_no_two_profiles_share_a_memory_file(tmp_path: Path) -> None:
    names = ["me.json", "me", ".me.json", ".me"]
    profiles = [a_profile_with_memories(letter) for letter in "abcd"]
    for name, profile in zip(names, profiles, strict=True):
        profile.save(tmp_path / name)
    assert [Profile.load(tmp_path / name) for name in names] == profiles
    forget(tmp_path / "me")
    assert Profile.load(tmp_path / "me.json") == profiles[0]


def problem_of(path: Path) -> str:
    """Why the memory is not used."""
    profile = Profile.load(path)
    assert memory_of(profile) is None
    (problem,) = profile.problems
    found = re.fullmatch(
        r"The memory is not used \((.*)\): put the file back next to the profile, or learn again\.",
        problem,
    )
    assert found
    return found[1]


def test_without_its_file_a_memory_is_not_used(path: Path, memory_path: Path) -> None:
    memory_path.unlink()
    assert problem_of(path) == f"{memory_path}: cannot be read: No such file or directory"


def test_another_file_in_its_place_is_not_used(path: Path, memory_path: Path) -> None:
    Profile((a_full_entry(memory=a_learned_memory(seed=1)),)).save(path.with_name("you.json"))
    path.with_name("you.memory.gguf").replace(memory_path)
    assert problem_of(path) == f"{memory_path}: not the file saved with the profile"


def test_the_memory_of_another_model_is_not_used(path: Path, memory_path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"a" * 64, b"b" * 64))
    assert problem_of(path) == f"{memory_path}: the memory of another model"


@pytest.mark.usefixtures("memory_path")
def test_a_memory_of_another_size_than_the_profile_says_is_not_used(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"rows": 6', b'"rows": 5'))
    assert problem_of(path) == "rows is 5; expected 6, as many as the memory has"


def test_the_name_of_a_missing_file_is_kept_and_given_to_no_other(
    path: Path, memory_path: Path
) -> None:
    before = path.read_bytes()
    away = memory_path.rename(path.with_name("away"))
    Profile.load(path).save(path)
    assert path.read_bytes() == before
    (added,) = a_profile_with_memories("b").entries
    Profile.load(path).with_entry(added).save(path)
    away.rename(memory_path)
    assert Profile.load(path) == a_profile_with_memories("a").with_entry(added)


def test_a_memory_that_was_replaced_or_removed_leaves_no_file(path: Path) -> None:
    profile = a_profile_with_memories("a", "b")
    profile.save(path)
    first, second = profile.entries
    Profile((first, replace(second, memory=None))).save(path)
    assert names_in(path.parent) == ["me.json", "me.memory.gguf"]
    Profile((replace(first, memory=None),)).save(path)
    assert names_in(path.parent) == ["me.json"]


def test_a_file_that_saving_would_not_have_named_so_is_never_removed(
    path: Path, memory_path: Path
) -> None:
    thesis = memory_path.rename(path.with_name("thesis.gguf"))
    path.write_bytes(path.read_bytes().replace(b"me.memory.gguf", b"thesis.gguf"))
    a_profile().save(path)
    assert thesis.exists()


def test_a_file_that_is_no_memory_is_not_replaced(path: Path) -> None:
    model = path.with_name("me.memory.gguf")
    model.write_bytes(b"GGUF, a model called me.memory")
    before = model.read_bytes()
    profile = a_profile_with_memories("a")
    for _ in range(2):
        profile.save(path)
        assert model.read_bytes() == before
        assert names_in(path.parent) == ["me.json", "me.memory.aaaaaaaa.gguf", "me.memory.gguf"]
    assert Profile.load(path) == profile


def test_a_memory_that_no_profile_names_is_replaced(path: Path, memory_path: Path) -> None:
    path.unlink()
    a_profile_with_memories("b").save(path)
    assert names_in(path.parent) == [path.name, memory_path.name]
    assert Profile.load(path) == a_profile_with_memories("b")


def test_profiles_that_differ_in_the_suffix_have_memories_of_their_own(tmp_path: Path) -> None:
    for digit, name in zip("abc", ("me.json", "me.v1", "me.v2"), strict=True):
        a_profile_with_memories(digit).save(tmp_path / name)
    assert Profile.load(tmp_path / "me.json") == a_profile_with_memories("a")
    assert Profile.load(tmp_path / "me.v1") == a_profile_with_memories("b")


def test_a_profile_without_a_memory_imports_no_gguf(path: Path) -> None:
    Profile((a_full_entry(memory=None),)).save(path)
    code = (
        "import sys; from steerx_edge.profile import Profile; Profile.load(sys.argv[1]); "
        "sys.exit('gguf' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], env=ENVIRONMENT)
    assert done.returncode == 0
