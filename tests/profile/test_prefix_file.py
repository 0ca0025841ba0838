"""The prefix file: what is read is what was written, or a sentence says why not."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from steerx_edge.errors import ProfileError
from steerx_edge.profile.prefix_file import Prefix, prefix_files, prefix_path
from tests.support.prefixes import MODEL, a_prefix


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved = a_prefix()
    path = saved.save(tmp_path / "me.json")
    assert path.name == "me.prefix.abababab.gguf"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    loaded = Prefix.load(tmp_path / "me.json", MODEL)
    assert loaded is not None
    assert (loaded.fingerprint, loaded.made_by) == (saved.fingerprint, saved.made_by)
    for found, expected in zip(loaded.beginnings, saved.beginnings, strict=True):
        assert found.items == expected.items
        np.testing.assert_array_equal(found.tokens, expected.tokens)
        np.testing.assert_array_equal(found.state, expected.state)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_there_may_be_none(tmp_path: Path) -> None:
    assert Prefix.load(tmp_path / "me.json", MODEL) is None


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-500] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (flip, "damaged: learn again with --prefix"),
        (lambda path: path.write_bytes(path.read_bytes()[:-600]), "not a prefix file"),
        (lambda path: path.write_text("text"), "not a prefix file"),
        (
            lambda path: (
                a_prefix("sha256:" + "cd" * 32).save(path.with_name("x.json")).replace(path)
            ),
            "the prefix of another model",
        ),
    ],
    ids=["a changed byte", "cut", "no GGUF file", "another model"],
)
def test_another_or_a_damaged_file_is_refused(
    tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    spoil(a_prefix().save(tmp_path / "me.json"))
    with pytest.raises(ProfileError, match=said):
        Prefix.load(tmp_path / "me.json", MODEL)


def test_only_prefix_files_of_this_profile_are_listed(tmp_path: Path) -> None:
    profile = tmp_path / "me.json"
    own = [a_prefix(f"sha256:{digit * 64}").save(profile) for digit in "12"]
    a_prefix().save(tmp_path / "you.json")
    prefix_path(profile, "sha256:" + "3" * 64).write_text("somebody's own")
    assert prefix_files(profile) == own
