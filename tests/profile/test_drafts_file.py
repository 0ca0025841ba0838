"""The file of drafts: what is kept, what comes back, and what is removed."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

import pytest

from steerx_edge.errors import HistoryError, ProfileError
from steerx_edge.history.item import HistoryItem
from steerx_edge.profile import (
    Draft,
    feedback,
    forget_drafts,
    forget_drafts_of,
    keep_draft,
    read_drafts,
)

EDITED = Draft("Dear Ana, the build is late.", "Ana, it's late. Sorry!", "Tell Ana.", "2025-01-31")


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """A file where a profile would lie; drafts do not read it."""
    path = tmp_path / "me.json"
    path.write_text("{}")
    return path


@pytest.fixture
def file(profile: Path) -> Path:
    return profile.with_name("me.drafts.jsonl")


def test_a_draft_comes_back_as_it_was_kept(profile: Path) -> None:
    others = [Draft("à peu près\u2028", None), Draft("No.", ""), Draft('"\n\t\\', "x\ny")]
    for draft in (EDITED, *others):
        keep_draft(profile, draft)
    assert read_drafts(profile) == ([EDITED, *others], 0)


def test_a_line_is_an_object_with_four_fields_in_utf_8(profile: Path, file: Path) -> None:
    keep_draft(profile, Draft("Où ?", "Là !", "Q", "2025-01-31T09:30:00Z"))
    assert file.read_text("utf-8") == (
        '{"proposed":"Où ?","final":"Là !","request":"Q","time":"2025-01-31T09:30:00Z"}\n'
    )


def test_texts_are_compared_and_learned_as_those_of_a_history() -> None:
    draft = Draft(" A\r\nb\n", "  Cafe\u0301\n", " Why?\n")
    assert (draft.proposed, draft.final, draft.request) == ("A\nb", "Café", "Why?")
    assert draft.item == HistoryItem("Café", "Why?")


def test_the_time_is_now_in_utc() -> None:
    before = Draft("a").time
    assert len(before) == len("2025-01-31T09:30:00Z")
    assert before.endswith("Z")
    assert before <= Draft("b").time


@pytest.mark.parametrize(
    ("final", "kind"),
    [
        ("Ana, it's late.", "edited"),
        ("the BUILD  is late.\n", "unchanged"),
        (" \n", "rejected"),
        (None, "waiting"),
    ],
)
def test_each_draft_is_of_one_kind(profile: Path, final: str | None, kind: str) -> None:
    keep_draft(profile, Draft("The build is late.", final))
    drafts = read_drafts(profile)
    for name in ("edited", "unchanged", "rejected", "waiting"):
        assert getattr(drafts, name) == (drafts.kept if name == kind else [])


def test_the_last_word_on_a_proposal_counts_and_comes_last(profile: Path) -> None:
    other = Draft(EDITED.proposed, None, "Another request.")
    for draft in (Draft(EDITED.proposed, None, EDITED.request), other, EDITED):
        keep_draft(profile, draft)
    assert read_drafts(profile).kept == [other, EDITED]


def test_feedback_keeps_a_draft(profile: Path) -> None:
    draft = feedback(profile, proposed="A.", final="B.", request="Q?")
    assert (draft.proposed, draft.final, draft.request) == ("A.", "B.", "Q?")
    assert read_drafts(profile).kept == [draft]


def test_the_file_is_private_and_an_existing_one_keeps_its_mode(profile: Path, file: Path) -> None:
    keep_draft(profile, EDITED)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o640)
    keep_draft(profile, EDITED)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    "bad",
    [
        b"{",
        b"[]",
        b'{"final": "x"}',
        b'{"proposed": " "}',
        b'{"proposed": 1}',
        b'{"proposed": "\xff"}',
        b"[" * 100_000,
    ],
)
def test_a_bad_line_costs_no_other(profile: Path, file: Path, bad: bytes) -> None:
    keep_draft(profile, EDITED)
    with file.open("ab") as opened:
        opened.write(bad + b"\n\n")
    keep_draft(profile, Draft("Another."))
    drafts, n_bad = read_drafts(profile)
    assert [draft.proposed for draft in drafts] == [EDITED.proposed, "Another."]
    assert n_bad == 1


def test_a_line_that_was_cut_off_does_not_spoil_the_next(profile: Path, file: Path) -> None:
    keep_draft(profile, EDITED)
    file.write_bytes(file.read_bytes()[:-10])
    keep_draft(profile, EDITED)
    assert read_drafts(profile) == ([EDITED], 1)


def test_two_that_keep_drafts_at_once_lose_none(profile: Path) -> None:
    def keep(name: str) -> None:
        for i in range(20):
            keep_draft(profile, Draft(f"{name} {i}"))

    threads = [threading.Thread(target=keep, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    drafts, n_bad = read_drafts(profile)
    assert sorted(each.proposed for each in drafts) == sorted(
        f"{name} {i}" for name in "ab" for i in range(20)
    )
    assert n_bad == 0


def test_the_drafts_lie_beside_what_a_link_points_to(profile: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "there" / "you.json"
    link.symlink_to(profile)
    keep_draft(link, EDITED)
    assert read_drafts(profile).kept == [EDITED]
    assert [path.name for path in link.parent.iterdir()] == ["you.json"]


def test_without_a_file_there_are_no_drafts(profile: Path) -> None:
    assert read_drafts(profile) == ([], 0)
    assert forget_drafts(profile) == []
    assert forget_drafts_of(profile, ["A."]) == 0


class TestErrors:
    def test_no_profile(self, tmp_path: Path) -> None:
        for function in (lambda path: keep_draft(path, EDITED), forget_drafts):
            with pytest.raises(ProfileError, match=r"you\.json: there is no such profile"):
                function(tmp_path / "you.json")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("proposed", ["", " \n"])
    def test_no_proposal(self, proposed: str) -> None:
        with pytest.raises(ProfileError, match="The proposal of a draft is empty"):
            Draft(proposed, "x")

    def test_no_text(self, profile: Path) -> None:
        with pytest.raises(HistoryError, match="is of type int"):
            feedback(profile, proposed="A.", final=3)  # type: ignore[arg-type]
        assert read_drafts(profile).kept == []

    def test_text_that_utf_8_cannot_hold(self, profile: Path, file: Path) -> None:
        with pytest.raises(ProfileError, match=r"me\.drafts\.jsonl: cannot be written"):
            keep_draft(profile, Draft("\ud800"))
        assert not file.exists()

    def test_something_else_in_its_place(self, profile: Path, file: Path) -> None:
        file.mkdir()
        with pytest.raises(ProfileError, match="not a file"):
            keep_draft(profile, EDITED)
        with pytest.raises(ProfileError, match="not a file"):
            read_drafts(profile)

    def test_a_file_that_is_too_large(
        self, profile: Path, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keep_draft(profile, EDITED)
        size = file.stat().st_size
        monkeypatch.setattr("steerx_edge.profile.drafts_file.MAX_BYTES", 2 * size - 1)
        with pytest.raises(ProfileError, match="a file of drafts is at most"):
            keep_draft(profile, EDITED)
        assert file.stat().st_size == size


class TestForgetting:
    def test_all(self, profile: Path, file: Path) -> None:
        keep_draft(profile, EDITED)
        assert forget_drafts(profile) == ["me.drafts.jsonl"]
        assert not file.exists()
        assert profile.exists()

    def test_what_holds_a_text(self, profile: Path, file: Path) -> None:
        stays = Draft("Another.", None)
        finals = [Draft("Dear Ana.", EDITED.final), Draft(f"  {EDITED.final} ".upper())]
        for draft in (EDITED, stays, *finals):
            keep_draft(profile, draft)
        with file.open("ab") as opened:
            opened.write(b'{"proposed": "Ana, it\n')
        file.chmod(0o640)
        assert forget_drafts_of(profile, [str(EDITED.final)]) == 4
        assert read_drafts(profile) == ([stays], 0)
        assert "Ana" not in file.read_text()
        assert stat.S_IMODE(file.stat().st_mode) == 0o640

    def test_the_last_one(self, profile: Path, file: Path) -> None:
        keep_draft(profile, EDITED)
        assert forget_drafts_of(profile, [EDITED.proposed]) == 1
        assert not file.exists()

    def test_texts_of_no_draft(self, profile: Path, file: Path) -> None:
        keep_draft(profile, EDITED)
        before = file.read_bytes()
        assert forget_drafts_of(profile, ["Never written."]) == 0
        assert file.read_bytes() == before


def test_a_line_of_another_program_may_have_more_fields(profile: Path, file: Path) -> None:
    line = {"proposed": "A.", "final": "B.", "app": "mail"}
    file.write_text(json.dumps(line))
    (draft,) = read_drafts(profile).kept
    assert (draft.proposed, draft.final, draft.request) == ("A.", "B.", "")
