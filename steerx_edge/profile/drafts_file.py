"""Drafts: what a model proposed, and what the person made of it; `me.drafts.jsonl` by a profile.

A line is a JSON object. Lines are only added: of those with one request and one proposal, the last
counts. No profile names the file: it is found by its name. It holds the person's texts as they are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import msgspec

from steerx_edge.errors import ProfileError
from steerx_edge.history.item import HistoryItem
from steerx_edge.profile.files import about, check_file, locked, replacing, size_of, stem_beside
from steerx_edge.steering.ledger import plain

MAX_BYTES = 2**28

_SIZE_RULE = f"a file of drafts is at most {size_of(MAX_BYTES)}"


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Draft:
    """What a model proposed, and what the person made of it.

    White space around the texts is left out, as a file ends with some.

    Attributes:
        proposed: the model's text.
        final: the person's; empty if they rejected the proposal, None while it is not known.
        request: what both answer, or empty.
        time: when it was kept, in UTC, such as `2025-01-31T09:30:00Z`.

    Raises:
        ProfileError: the proposal is empty.
        HistoryError: a text is not a string.
    """

    proposed: str
    final: str | None = None
    request: str = ""
    time: str = field(default_factory=_now)

    def __post_init__(self) -> None:
        proposed = HistoryItem(self.proposed, self.request)
        object.__setattr__(self, "request", proposed.request.strip())
        object.__setattr__(self, "proposed", proposed.response.strip())
        if self.final is not None:
            object.__setattr__(self, "final", HistoryItem(self.final).response.strip())
        if not self.proposed:
            raise ProfileError("The proposal of a draft is empty. Give what the model wrote.")

    @property
    def is_edited(self) -> bool:
        """Whether the person wrote another text; white space and case make no difference."""
        return bool(self.final) and plain(self.final or "") != plain(self.proposed)

    @property
    def item(self) -> HistoryItem:
        """The person's text, as one of a history."""
        return HistoryItem(self.final or "", self.request)


class Drafts(NamedTuple):
    """The drafts of a file, the one that was kept last at the end."""

    kept: list[Draft]
    n_bad: int  # lines that are no drafts

    @property
    def edited(self) -> list[Draft]:
        """Those that the person made another text of."""
        return [draft for draft in self.kept if draft.is_edited]

    @property
    def waiting(self) -> list[Draft]:
        """Those of which it is not known what the person made of them."""
        return [draft for draft in self.kept if draft.final is None]

    @property
    def rejected(self) -> list[Draft]:
        """Those that the person made nothing of."""
        return [draft for draft in self.kept if draft.final == ""]

    @property
    def unchanged(self) -> list[Draft]:
        """Those that the person took as they were."""
        return [draft for draft in self.kept if draft.final and not draft.is_edited]


def feedback(
    profile: str | os.PathLike[str], *, proposed: str, final: str | None, request: str = ""
) -> Draft:
    """Keep what a person made of a model's text, in the file of drafts beside their profile.

    Nothing is learned yet: see `learn_from_drafts`. The file holds the texts as they are.

    Args:
        profile: path of the profile, which must be there.
        proposed: the model's text.
        final: what the person made of it; empty if they rejected it, None if it is not known yet.
        request: what the model was asked.

    Returns:
        The draft that was kept.

    Raises:
        ProfileError: there is no such profile, the proposal is empty, or the file cannot be
            written.
        HistoryError: a text is not a string.
    """
    draft = Draft(proposed, final, request)
    keep_draft(profile, draft)
    return draft


def drafts_path(profile: str | os.PathLike[str]) -> Path:
    """Where the drafts of a profile lie."""
    path = Path(os.path.realpath(profile))
    return path.with_name(f"{stem_beside(path)}.drafts.jsonl")


def keep_draft(profile: str | os.PathLike[str], draft: Draft) -> None:
    """Add a draft to the file beside a profile. A new file is private (mode 0600).

    Args:
        profile: path of the profile, which must be there.
        draft: what is kept.

    Raises:
        ProfileError: there is no such profile, or the file cannot be written.
    """
    with _held(profile) as path:
        line = msgspec.json.encode(draft) + b"\n"
        if path.exists():
            check_file(path, MAX_BYTES - len(line), _SIZE_RULE)
        path.touch(0o600)
        with path.open("ab+", buffering=0) as file:
            if size := file.seek(0, os.SEEK_END):
                file.seek(size - 1)
                if file.read(1) != b"\n":  # a line that was cut off must not spoil this one
                    line = b"\n" + line
            file.write(line)
            os.fsync(file)


def read_drafts(profile: str | os.PathLike[str]) -> Drafts:
    """Read the drafts beside a profile; none where there is no file.

    Raises:
        ProfileError: there is neither profile nor file, or the file cannot be read.
    """
    path = drafts_path(profile)
    if not path.exists():
        _check_profile(profile)
        return Drafts([], 0)
    with about(path, "read"):
        check_file(path, MAX_BYTES, _SIZE_RULE)
        found: dict[tuple[str, str], Draft] = {}
        n_bad = 0
        for line in path.read_bytes().splitlines():
            draft = _draft(line)
            if draft is not None:
                found.pop((draft.request, draft.proposed), None)
                found[draft.request, draft.proposed] = draft
            elif line.strip():
                n_bad += 1
        return Drafts(list(found.values()), n_bad)


def forget_drafts(profile: str | os.PathLike[str]) -> list[str]:
    """Remove the drafts beside a profile; return the name of the file, if there was one.

    Raises:
        ProfileError: there is no such profile, or the file cannot be removed.
    """
    with _held(profile) as path:
        if not path.exists():
            return []
        path.unlink()
        return [path.name]


def forget_drafts_of(profile: str | os.PathLike[str], texts: Sequence[str]) -> int:
    """Remove the drafts that hold one of some texts, as proposal or as what was made of it.

    Lines that cannot be read are removed too, as they may hold one.

    Returns:
        How many lines were removed.

    Raises:
        ProfileError: there is no such profile, or the file cannot be read or written.
    """
    unwanted = {plain(text) for text in texts}

    def is_kept(line: bytes) -> bool:
        draft = _draft(line)
        return draft is not None and not unwanted & {
            plain(draft.proposed),
            plain(draft.final or draft.proposed),
        }

    with _held(profile) as path:
        return _filter(path, is_kept) if path.exists() else 0


def _filter(path: Path, is_kept: Callable[[bytes], bool]) -> int:
    check_file(path, MAX_BYTES, _SIZE_RULE)
    lines = path.read_bytes().splitlines()
    kept = [line for line in lines if is_kept(line)]
    if not kept:
        path.unlink()
    elif len(kept) < len(lines):
        with replacing(path) as (temporary,):
            temporary.write_bytes(b"".join(line + b"\n" for line in kept))
    return len(lines) - len(kept)


def _draft(line: bytes) -> Draft | None:
    """The draft of a line, or None where it is none."""
    try:
        return msgspec.json.decode(line, type=Draft)
    except (msgspec.MsgspecError, ProfileError, UnicodeDecodeError, RecursionError):
        return None


def _check_profile(profile: str | os.PathLike[str]) -> None:
    with about(profile, "read"):
        if not Path(profile).exists():
            raise ProfileError("there is no such profile: learn one first")


@contextmanager
def _held(profile: str | os.PathLike[str]) -> Iterator[Path]:
    """The drafts of a profile, which no other program changes meanwhile."""
    _check_profile(profile)
    path = drafts_path(profile)
    with about(path, "written"), locked(Path(os.path.realpath(profile))):
        yield path
