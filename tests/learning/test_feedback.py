"""Learning from drafts: which are read, how they are held out, and when the profile changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from steerx_edge.errors import ProfileError
from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.adding import learn_more
from steerx_edge.learning.feedback import FEWEST, learn_from_drafts
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import ScoreRequest
from steerx_edge.profile import Draft, Entry, Gain, Profile
from steerx_edge.steering.requests import steered
from tests.support.drafts import ALIKE, addable, idle
from tests.support.histories import TEXTS, without_time


@pytest.fixture
def profile(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Profile:
    return addable(tiny_engine, monkeypatch)


def test_drafts_that_help_are_added_as_texts(tiny_engine: Engine, profile: Profile) -> None:
    saved: list[Profile] = []
    found = learn_from_drafts(tiny_engine, profile, ALIKE, save=saved.append)
    assert found.is_taken
    assert found.change is not None
    assert found.change.mean > 0
    assert found.n_new == len(ALIKE)
    assert saved == [found.profile]
    added = learn_more(tiny_engine, profile, [draft.item for draft in ALIKE])
    assert without_time(found.profile) == without_time(added)


def test_drafts_that_do_not_help_change_nothing(tiny_engine: Engine, profile: Profile) -> None:
    saved: list[Profile] = []
    unchanged = idle(profile)
    found = learn_from_drafts(tiny_engine, unchanged, ALIKE, save=saved.append)
    assert not found.is_taken
    assert found.change == Gain(0, 0, 0, len(ALIKE))
    assert found.profile is unchanged
    assert saved == []


def log_prob(engine: Engine, entry: Entry | None, item: HistoryItem) -> float:
    context = engine.prompt(messages_for(item.request))
    request = ScoreRequest(context, engine.tokenize(item.response))
    if entry is not None:
        request = steered(request, entry.steering())
    (result,) = engine.run_many([request])
    return float(result.scored.mean())


def test_the_gains_are_of_drafts_that_were_held_out(tiny_engine: Engine, profile: Profile) -> None:
    """The fifth draft is held out together with the first."""
    found = learn_from_drafts(tiny_engine, profile, ALIKE)
    items = [draft.item for draft in ALIKE]
    before, change = [], []
    for place, item in enumerate(items):
        others = [other for i, other in enumerate(items) if i % 4 != place % 4]
        old = profile.entries[0]
        new = without_time(learn_more(tiny_engine, profile, others))
        scores = [log_prob(tiny_engine, entry, item) for entry in (None, old, new)]
        before.append(scores[1] - scores[0])
        change.append(scores[2] - scores[1])
    assert found.before is not None
    assert found.change is not None
    assert found.before.mean == pytest.approx(np.mean(before), abs=1e-4)
    assert found.change.mean == pytest.approx(np.mean(change), abs=1e-4)
    assert found.before.items == found.change.items == len(ALIKE)
    assert found.change.low <= found.change.mean <= found.change.high


def test_texts_that_the_person_did_not_write_are_left_out(
    tiny_engine: Engine, profile: Profile
) -> None:
    """Nor are there enough of the others."""
    others = [
        Draft("The same.", "the  SAME."),
        Draft("Refused.", ""),
        Draft("Not known yet.", None),
        *ALIKE[: FEWEST - 1],
    ]
    found = learn_from_drafts(tiny_engine, profile, others)
    assert (found.profile, found.n_new, found.before, found.change) == (
        profile,
        FEWEST - 1,
        None,
        None,
    )
    assert not found.is_taken


def test_texts_that_were_read_before_are_not_new(tiny_engine: Engine, profile: Profile) -> None:
    known = [Draft("Something else.", text.response, "Another request.") for text in TEXTS[:4]]
    assert learn_from_drafts(tiny_engine, profile, known).n_new == 0
    learned = learn_from_drafts(tiny_engine, profile, [*known, *ALIKE])
    assert learned.n_new == len(ALIKE)
    again = learn_from_drafts(tiny_engine, learned.profile, [*known, *ALIKE])
    assert again.n_new == 0
    assert again.profile is learned.profile


def test_what_cannot_be_saved_can_be_resumed(
    tiny_engine: Engine, profile: Profile, tmp_path: Path
) -> None:
    def full(_: Profile) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        learn_from_drafts(tiny_engine, profile, ALIKE, resume=tmp_path, save=full)
    assert list(tmp_path.iterdir())
    learn_from_drafts(tiny_engine, profile, ALIKE, resume=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_profile_without_a_memory_is_an_error(tiny_engine: Engine, profile: Profile) -> None:
    bare = Profile((replace(profile.entries[0], memory=None),))
    with pytest.raises(ProfileError, match="texts cannot be added without one"):
        learn_from_drafts(tiny_engine, bare, ALIKE)


def test_progress_counts_the_folds_and_then_the_texts(
    tiny_engine: Engine, profile: Profile
) -> None:
    calls: list[tuple[str, int, int]] = []
    learn_from_drafts(tiny_engine, profile, ALIKE, progress=lambda *call: calls.append(call))
    assert calls[:4] == [("held-out drafts", fold, 4) for fold in range(4)]
    assert calls[4][0] == "further texts"
    assert calls[-1] == ("done", 1, 1)
