"""What an edit does to an entry, and that it outlives learning."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from steerx_edge.profile import (
    Action,
    Description,
    Edit,
    Entry,
    LogitBias,
    MemoryPart,
    Profile,
    Word,
)
from steerx_edge.profile.editing import with_edit, with_edits, without_edit
from steerx_edge.profile.store import change
from steerx_edge.steering.barred import Barred
from tests.support.entries import a_full_entry, a_memory, a_with_history

BIAS = LogitBias(np.array([5, 7, 9]), np.array([2.0, -1.0, 1.0]), 0.5)
WORDS = tuple(
    Word(word, effect, 0, 9, 3, 2) for word, effect in (("b", 3), ("Cheers", 2), ("a", 1))
)


def an_entry_of_words(**changes: object) -> Entry:
    memory = replace(
        a_memory(),
        tokens=np.array([5, 5, 7, 8, 9, 9], np.int32),
        weights=np.full(6, 0.5, np.float32),
    )
    fields = {
        "words": WORDS,
        "edits": (),
        "logit_bias": BIAS,
        "memory": MemoryPart.of(memory, strength=0.3, level="all"),
        "strengths": np.zeros(3),
    }
    return a_full_entry(**fields | changes)


def weights(entry: Entry) -> dict[int, list[float]]:
    memory = entry.steering().memory
    assert memory is not None
    rows = zip(memory.memory.tokens.tolist(), memory.memory.weights.tolist(), strict=True)
    found: dict[int, list[float]] = {}
    for token, weight in rows:
        found.setdefault(token, []).append(weight)
    return found


@pytest.mark.parametrize(
    ("action", "bias", "row_weights"),
    [
        ("drop", {5: 0, 7: 0, 9: 0.5}, {5: [0, 0], 7: [0], 8: [0.5], 9: [0.5, 0.5]}),
        ("never", {5: 0, 7: 0, 9: 0.5}, {5: [0, 0], 7: [0], 8: [0.5], 9: [0.5, 0.5]}),
        ("pin", {5: 1, 7: 0, 9: 0.5}, {5: [1, 1], 7: [1], 8: [0.5], 9: [0.5, 0.5]}),
    ],
)
def test_what_an_edit_does_to_bias_and_memory(
    action: Action, bias: dict[int, float], row_weights: dict[int, list[float]]
) -> None:
    entry = with_edits(an_entry_of_words(), [Edit(action, "cheers", (5, 7))])
    assert entry.steering().logit_bias == bias
    assert weights(entry) == row_weights
    assert entry.logit_bias == BIAS  # what was learned stays
    with_history = replace(entry, with_history=a_with_history(logit_bias=1.0))
    expected = {token: 2 * value for token, value in bias.items()}
    assert with_history.steering(with_history=True).logit_bias == expected


def test_a_token_of_a_dropped_and_of_a_pinned_word_is_not_offered() -> None:
    entry = with_edits(an_entry_of_words(), [Edit("pin", "a", (5,)), Edit("drop", "b", (5, 9))])
    assert entry.steering().logit_bias == {5: 0, 7: -0.5, 9: 0}
    assert weights(entry)[5] == [0, 0]


@pytest.mark.parametrize("strength", [1.0, 0.1, -1.0])
def test_words_are_barred_at_every_strength_but_0(strength: float) -> None:
    edits = [Edit("never", "Cheers"), Edit("never", "干杯"), Edit("drop", "a")]
    entry = with_edits(an_entry_of_words(logit_bias=None, memory=None), edits)
    barred = (Barred("Cheers", whole=True), Barred("干杯", whole=False))
    assert entry.steering(strength).never == barred
    assert entry.steering(strength)
    assert not entry.steering(0)
    assert entry.steering(strength, with_history=True).never == barred


def test_words_move_into_the_edit_and_back() -> None:
    entry = an_entry_of_words()
    dropped = with_edits(entry, [Edit("drop", "cheers"), Edit("pin", "a")])
    assert [word.word for word in dropped.words] == ["b", "a"]
    assert dropped.edits[0].learned == WORDS[1:2]
    assert with_edits(dropped, dropped.edits) == dropped
    assert with_edits(dropped, []) == entry


def test_words_that_were_learned_anew_are_taken_out_again() -> None:
    edits = with_edits(an_entry_of_words(), [Edit("drop", "cheers")]).edits
    newer = replace(WORDS[1], effect=2.5)
    entry = replace(an_entry_of_words(), edits=edits, words=(WORDS[0], newer, WORDS[2]))
    assert with_edits(entry, edits).edits[0].learned == (newer,)
    assert with_edits(entry, []).words == (WORDS[0], newer, WORDS[2])


def test_one_edit_for_each_word_whatever_its_case() -> None:
    edits = with_edit([Edit("drop", "Cheers"), Edit("pin", "a")], Edit("never", "cheers"))
    assert edits == [Edit("pin", "a"), Edit("never", "cheers")]
    assert without_edit(edits, "CHEERS") == [Edit("pin", "a")]


def test_a_profile_without_edits_is_read_by_versions_that_know_none(tmp_path: Path) -> None:
    Profile((an_entry_of_words(),)).save(tmp_path / "me.json")
    assert "edits" not in json.loads((tmp_path / "me.json").read_text())["entries"][0]


def test_learning_again_keeps_edits_and_the_users_description(tmp_path: Path) -> None:
    path = tmp_path / "me.json"
    Profile((an_entry_of_words(),)).save(path)
    edits = [Edit("drop", "cheers", (5, 7)), Edit("never", "oh dear")]
    own = Description("I am brief.", "user")
    before = change(path, lambda entry: replace(with_edits(entry, edits), description=own))
    assert Profile.load(path) == before
    again = an_entry_of_words(created="2026-01-31T09:30:00Z", gain=None)
    after = Profile((again,)).save_changes(path, since=before)
    assert after == Profile.load(path)
    (entry,) = after.entries
    assert entry.gain is None  # that of the second time
    assert entry.edits == before.entries[0].edits
    assert [word.word for word in entry.words] == ["b", "a"]
    assert entry.description == own


def test_edits_that_are_made_while_it_is_learned_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "me.json"
    before = Profile((an_entry_of_words(),))
    before.save(path)
    before = Profile.load(path)
    change(path, lambda entry: with_edits(entry, [Edit("drop", "cheers", (5,))]))
    added = replace(before.entries[0], words=WORDS, created="2026-01-31T09:30:00Z")
    (entry,) = Profile((added,)).save_changes(path, since=before).entries
    assert entry.edits == (Edit("drop", "cheers", (5,), WORDS[1:2]),)


def test_where_nothing_changes_the_file_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "me.json"
    Profile((an_entry_of_words(),)).save(path)
    before = path.stat().st_ino
    change(path, lambda entry: entry)
    assert path.stat().st_ino == before
