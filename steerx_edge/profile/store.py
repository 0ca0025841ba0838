"""Profile: `me.json` and the memory files beside it, loaded, saved and removed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from steerx_edge.errors import ProfileError
from steerx_edge.model_id import ModelId
from steerx_edge.profile.control_vector_file import ControlVectorFile, read_control_vector
from steerx_edge.profile.entry import Entry
from steerx_edge.profile.fields import FieldError
from steerx_edge.profile.files import (
    about,
    check_file,
    locked,
    remove_abandoned,
    replacing,
    size_of,
    stem_beside,
)
from steerx_edge.profile.gguf_contents import is_gguf
from steerx_edge.profile.json_format import decode, encode
from steerx_edge.profile.memory_file import is_memory_file, read_memory, write_gguf
from steerx_edge.profile.merging import merged

MAX_BYTES = 64 * 2**20

_NOT_JSON = "a GGUF file, which cannot hold a profile: import a control vector to a .json file"
_SIZE_RULE = f"a profile is at most {MAX_BYTES // 2**20} MiB"


@dataclass(frozen=True)
class Profile:
    """What was learned about one user's writing: one entry for each model.

    Attributes:
        entries: at least one, for distinct models (by fingerprint); none of a control vector.
        control_vector: a GGUF control vector that was loaded in the place of a profile, or None. It
            fits every model of its width, and cannot be saved: import it for a model.

    Raises:
        ProfileError: no entries, or two for the same model.
    """

    entries: tuple[Entry, ...]
    control_vector: ControlVectorFile | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", tuple(self.entries))
        if not self.entries and self.control_vector is None:
            raise FieldError("entries is empty; expected at least one entry")
        seen = set()
        for index, entry in enumerate(self.entries):
            fingerprint = entry.model.fingerprint
            if fingerprint in seen:
                raise FieldError(
                    f"entries[{index}].model.fingerprint is '{fingerprint[:40]}…'; expected one "
                    "entry for each model"
                )
            seen.add(fingerprint)

    def entry_for(self, model: ModelId) -> Entry:
        """The entry that was learned on this model.

        Args:
            model: the model that is to be steered.

        Returns:
            The entry with the model's fingerprint.

        Raises:
            ProfileError: no entry is for this model, or one claims to be but has other sizes.
        """
        if self.control_vector is not None:
            return self.control_vector.entry_for(model)
        for entry in self.entries:
            if entry.model.fingerprint == model.fingerprint:
                break
        else:
            known = ", ".join(str(entry.model) for entry in self.entries)
            raise ProfileError(
                f"This profile was made for {known}; this model is {model}. Learn again with "
                "this model and the same file: the new entry is added, the others are kept."
            )
        # A fingerprint can be copied into a file; vectors of the wrong size must not get further.
        theirs = (entry.model.n_layer, entry.model.n_embd)
        ours = (model.n_layer, model.n_embd)
        if theirs != ours:
            raise ProfileError(
                f"This profile's entry for {model} has (n_layer, n_embd) = {theirs}, the model "
                f"itself has {ours}: the profile is damaged. Learn again with this model."
            )
        return entry

    def with_entry(self, entry: Entry) -> Profile:
        """This profile with one entry added, in the place of the one for the same model if any."""
        entries = {each.model.fingerprint: each for each in self.entries}
        entries[entry.model.fingerprint] = entry
        return Profile(tuple(entries.values()))

    @property
    def problems(self) -> list[str]:
        """Why memories cannot be used, a sentence each."""
        parts = [entry.memory for entry in self.entries]
        return [part.problem for part in parts if part is not None and part.problem]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the profile and the memory files next to it, all or nothing.

        A reader, or a crash at any moment, finds the old file or the new one. A new file is
        private (mode 0600); an existing one keeps its mode. A symbolic link keeps its place and
        its target is replaced, and the memories are written next to the target: `me.memory.gguf`
        for `me.json`, and `me.memory.<8 digits of the fingerprint>.gguf` for further entries. What
        the old profile named so and the new one does not is removed. A file of such a name that is
        no memory stays, and the memory gets another name. The reference to a memory that could not
        be loaded stays as it is.

        Args:
            path: the file to write, by custom `me.json`.

        Raises:
            ProfileError: a file cannot be written, or a field holds what a profile may not hold;
                existing files are then as they were.
        """
        with about(path, "written"):
            target = Path(os.path.realpath(path))
            with locked(target):
                _write(self.entries, target)

    def save_changes(self, path: str | os.PathLike[str], since: Profile | None) -> Profile:
        """Write the entries that changed, and keep what others changed in the file meanwhile.

        All other entries stay as they are in the file now. In the changed ones, the edits that
        docs/profile.md describes are kept if they were made since.

        Args:
            path: as of `save`.
            since: the profile as it was loaded from there, or as this method returned it, before
                the work began; None if there was no file.

        Returns:
            What the file holds now.

        Raises:
            ProfileError: the file cannot be read or written, or another program has learned a
                changed entry anew or changed its memory; nothing is changed then.
        """
        with about(path, "written"):
            target = Path(os.path.realpath(path))
            with locked(target):
                current = _loaded(target) if target.exists() else ()
                entries = merged(self.entries, since.entries if since else (), current)
                return Profile(tuple(_write(entries, target)))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Profile:
        """Reads a profile and checks everything in it; safe for files from strangers.

        A memory that is missing, damaged or a different one is not an error: see `problems`. A
        GGUF control vector of any program is a profile, too: see docs/vectors.md.

        Args:
            path: the file to read; its memories are looked for next to it.

        Returns:
            The profile; saving it gives the files as `save` wrote them, byte for byte.

        Raises:
            ProfileError: the file cannot be read, or is not a profile: names the first thing
                wrong, its place in the file, and what was expected.
        """
        with about(path, "read"):
            if not is_gguf(Path(path)):
                return cls(_loaded(Path(path)))
        return cls((), read_control_vector(path))


def change(path: str | os.PathLike[str], change_entry: Callable[[Entry], Entry]) -> Profile:
    """Change each entry of a profile file while no other program can save it.

    Args:
        path: of the profile.
        change_entry: gives the entry that takes the place of another; where none changes, the file
            is not written.

    Returns:
        What the file holds now.

    Raises:
        ProfileError: the profile cannot be read or written.
    """
    with _held(path) as target:
        before = _loaded(target)
        after = tuple(map(change_entry, before))
        return Profile(after if after == before else tuple(_write(after, target)))


@contextmanager
def _held(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the file that a profile lies in; no other program can save it meanwhile.

    Raises:
        ProfileError: it cannot be read or written.
    """
    with about(path, "read"):
        check_file(Path(path), MAX_BYTES, _SIZE_RULE)
    target = Path(os.path.realpath(path))
    with about(path, "written"), locked(target):
        yield target


def forget(path: str | os.PathLike[str]) -> list[str]:
    """Remove the memories of a profile file, and their names in it.

    Args:
        path: of the profile. Memory files next to it that are named like its own are removed, too,
            and what programs have left there that were killed while they saved.

    Returns:
        The names of the files that were removed.

    Raises:
        ProfileError: the profile cannot be read or written.
    """
    with _held(path) as target:
        return [*_forget(_loaded(target), target), *remove_abandoned(target.parent)]


def _forget(entries: Sequence[Entry], target: Path) -> list[str]:
    known = {part.file: part for each in entries if (part := each.memory)}

    def is_own(file: Path) -> bool:
        if not _is_memory_name(file.name, target):
            # Only if it is what the profile says.
            return file.name in known and known[file.name].memory is not None
        return file.name in known or is_memory_file(file)

    files = [file for file in sorted(target.parent.iterdir()) if is_own(file)]
    if any(entry.memory for entry in entries):
        _write([replace(entry, memory=None) for entry in entries], target)
    for file in files:
        file.unlink(missing_ok=True)
    return [file.name for file in files]


def _write(entries: Sequence[Entry], target: Path) -> list[Entry]:
    """Write a profile whose file is locked; return its entries with the names of their files."""
    if not entries:
        raise ProfileError("a control vector is saved by importing it for a model")
    outdated = _memory_files_of(target)
    names = _memory_names(entries, target, outdated)
    files = [target.with_name(name) for name in names.values()]
    entries = list(entries)
    with replacing(*files, target) as (*memories, temporary):
        for (i, name), memory in zip(names.items(), memories, strict=True):
            entries[i] = _with_file(entries[i], memory, name)
        temporary.write_bytes(_encoded(entries))
    for name in outdated - {entry.memory.file for entry in entries if entry.memory}:
        target.with_name(name).unlink(missing_ok=True)
    return entries


def _encoded(entries: Sequence[Entry]) -> bytes:
    data = encode(entries)
    if len(data) > MAX_BYTES:
        raise ProfileError(f"the profile would take {size_of(len(data))}; {_SIZE_RULE}")
    return data


def _loaded(path: Path) -> tuple[Entry, ...]:
    """The entries of a profile, with their memories."""
    folder = Path(os.path.realpath(path)).parent
    return tuple(_with_memory(entry, folder) for entry in _read_entries(path))


def _read_entries(path: Path) -> tuple[Entry, ...]:
    check_file(path, MAX_BYTES, _SIZE_RULE)
    if is_gguf(path):
        raise ProfileError(_NOT_JSON)
    return decode(path.read_bytes())


def _memory_names(
    entries: Sequence[Entry], profile: Path, replaceable: Collection[str]
) -> dict[int, str]:
    """The names of the files to be written, by the place of the entry.

    No file is replaced that is neither in `replaceable` nor a memory.
    """
    stem = _memory_stem(profile)
    parts = [entry.memory for entry in entries]
    taken = {part.file for part in parts if part is not None and part.memory is None}
    names = {}

    def is_free(path: Path) -> bool:
        return not path.exists() or is_memory_file(path)

    for i, part in enumerate(parts):
        if part is not None and part.memory is not None:
            digits = entries[i].model.fingerprint.removeprefix("sha256:")
            choices = (f"{stem}{which}.gguf" for which in ("", f".{digits[:8]}", f".{digits}"))
            names[i] = next(
                name
                for name in choices
                if name not in taken and (name in replaceable or is_free(profile.with_name(name)))
            )
            taken.add(names[i])
    return names


def _memory_stem(profile: Path) -> str:
    return f"{stem_beside(profile)}.memory"


def _is_memory_name(name: str, profile: Path) -> bool:
    """Whether a file's name is one that saving `profile` gives to a memory."""
    stem = re.escape(_memory_stem(profile))
    return bool(re.fullmatch(rf"{stem}(\.[0-9a-f]{{8}}|\.[0-9a-f]{{64}})?\.gguf", name))


def _memory_files_of(profile: Path) -> set[str]:
    """The names of the memory files that the profile at a path has now, where it saved them."""
    with suppress(ProfileError, OSError):
        names = {entry.memory.file for entry in _read_entries(profile) if entry.memory}
        return {name for name in names if _is_memory_name(name, profile)}
    return set()


def _with_file(entry: Entry, path: Path, name: str) -> Entry:
    """The entry, its memory written to `path`, which will have that name."""
    part = entry.memory
    if part is None or part.memory is None:
        return entry
    fingerprint = entry.model.fingerprint
    sha256 = write_gguf(path, part.memory, fingerprint=fingerprint, level=part.level)
    return replace(entry, memory=replace(part, file=name, sha256=sha256))


def _with_memory(entry: Entry, folder: Path) -> Entry:
    """The entry as it is read from a file, with its memory from a folder."""
    part = entry.memory
    if part is None:
        return entry
    path = folder / part.file
    try:
        memory = read_memory(path, part.sha256, fingerprint=entry.model.fingerprint)
        return replace(entry, memory=replace(part, memory=memory))
    except ProfileError as error:
        problem = (
            f"The memory is not used ({error}): put the file back next to the profile, or learn "
            "again."
        )
        return replace(entry, memory=replace(part, problem=problem))
