"""The profile that learning saves to: what it held before, and what this run has saved.

Nothing here loads llama.cpp before there is an engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from steerx_edge.errors import ProfileError
from steerx_edge.learning.checkpoint import has_unfinished
from steerx_edge.profile import Entry, Prefix, Profile, TextSource, check_writable, prefix_files
from steerx_edge.profile.prefix_file import prefix_path

if TYPE_CHECKING:
    from steerx_edge.history.item import HistoryItem
    from steerx_edge.history.reading import Survey
    from steerx_edge.llamacpp.engine import Engine

_MEMORY = ".memory.00000000.gguf"  # the end of the name of a memory, with eight digits


def existing_profile(path: str, *, with_memory: bool) -> Profile | None:
    """The profile at `path`, which an entry is added to; None if there is no file.

    Args:
        path: of the profile.
        with_memory: whether a memory will be saved next to it.

    Raises:
        ProfileError: there is something else, or nothing can be saved there.
    """
    try:
        existing = Profile.load(path) if Path(path).exists() else None
    except ProfileError as error:
        raise ProfileError(
            f"{error}. It was not changed: choose another file with -o, or remove it."
        ) from error
    if existing and existing.control_vector:
        raise ProfileError(f"{path}: this is a control vector. Choose another file with -o.")
    try:
        check_writable(path, beside=_MEMORY if with_memory else "")
    except ProfileError as error:
        raise ProfileError(f"{error}. Choose another file with -o.") from error
    return existing


def source_of(found: Survey) -> TextSource:
    """A history that was read, as a profile notes it."""
    days = [written.date().isoformat() for written in found.tally.dates or ()]
    return TextSource(found.format, found.tally.kept, *days)


class SavedProfile:
    """The file of a profile that is being learned.

    Args:
        path: of the profile.
        uninterrupted: holds back interrupts while a file is written.

    Attributes:
        existing: what the file holds, as far as this run knows; None if there is none yet.
        source: the history that is learned from, to be noted in the entry.
        n_texts: how many texts the profile that this run saved was learned from; 0 before.
    """

    def __init__(
        self, path: str, uninterrupted: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self.path = path
        self.existing: Profile | None = None
        self.source: TextSource | None = None
        self.n_texts = 0
        self._uninterrupted = uninterrupted

    def n_texts_for(self, engine: Engine) -> int:
        """How many texts the entry in the file for this model was learned from; 0 without one."""
        entries = self.existing.entries if self.existing else ()
        fingerprint = engine.model_id.fingerprint
        known = [each for each in entries if each.model.fingerprint == fingerprint]
        return known[0].counts.get("items", 0) if known else 0

    def save(self, engine: Engine, learned: Profile) -> None:
        """Save the entry for this model; what others changed in the file meanwhile is kept.

        Decisions of the user in entries for other models are carried over into a new one.

        Raises:
            ProfileError: it cannot be saved.
        """
        from steerx_edge.editing import carried
        from steerx_edge.llamacpp.vocabulary import Vocabulary

        learned = carried(learned, self.existing, Vocabulary(engine.llama.model))
        entry = self._with_source(learned.entry_for(engine.model_id))
        with self._uninterrupted():
            try:
                self.existing = learned.with_entry(entry).save_changes(
                    self.path, since=self.existing
                )
            except ProfileError as error:
                kept = "The work is kept: rerun the same command to resume, or with another -o."
                raise ProfileError(f"{error}. {kept}" if has_unfinished() else str(error)) from None
            self.n_texts = entry.counts.get("items", 0)

    def save_if_fuller(self, engine: Engine, learned: Profile, n_wanted: int) -> bool:
        """Save an entry unless the file has one of more texts, and not all that were wanted are in.

        Args:
            engine: the model.
            learned: a profile with one entry, for this model.
            n_wanted: how many texts there are to learn from.

        Returns:
            Whether it was saved.

        Raises:
            ProfileError: it cannot be saved.
        """
        n_read = learned.entries[0].counts["items"]
        if n_read < min(n_wanted, self.n_texts_for(engine)):
            return False
        self.save(engine, learned)
        return True

    def save_prefix(
        self, engine: Engine, items: Sequence[HistoryItem], n_tokens: int, *, most: int
    ) -> Prefix | None:
        """Choose texts that prompts begin with, and save them next to the profile.

        Args:
            engine: the model.
            items: texts of the user, the latest last.
            n_tokens: the longest a beginning of prompts may be.
            most: how many beginnings there may be, 1 or 2.

        Returns:
            The prefix; None if no text is short enough.

        Raises:
            ProfileError: it cannot be saved.
        """
        from steerx_edge.learning.prefix import chosen_prefixes, prefix_of

        groups = chosen_prefixes(engine, items, n_tokens, most=most)
        if not groups:
            return None
        with self._uninterrupted():
            prefix = prefix_of(engine, *groups)
            prefix.save(self.path)
        return prefix

    def remove_prefix(self, engine: Engine) -> Path | None:
        """Remove the prefix of a profile that was replaced; None if there is none."""
        path = prefix_path(self.path, engine.model_id.fingerprint)
        if path.name not in {file.name for file in prefix_files(self.path)}:
            return None
        path.unlink()
        return path

    def when_interrupted(self) -> str:
        """Say what was saved before an interrupt."""
        if self.n_texts:
            state = f"{self.path} holds the profile learned from {self.n_texts} texts"
        elif self.existing:
            state = f"{self.path} was not changed"
        else:
            state = f"nothing was saved to {self.path} yet"
        return f"Interrupted: {state}; rerun the same command to resume."

    def _with_source(self, entry: Entry) -> Entry:
        """Note what this run read, after what earlier ones did."""
        if self.source is None or self.source in entry.sources:
            return entry
        return replace(entry, sources=(*entry.sources, self.source))
