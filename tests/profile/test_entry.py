"""What an entry does to a model, and that none contradicts itself."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import numpy as np
import pytest

from steerx_edge.errors import ProfileError
from steerx_edge.profile import Description, Entry, LogitBias, MemoryPart, Profile, Word
from steerx_edge.steering.steering import Steering
from tests.support.entries import (
    a_full_entry,
    a_gate,
    a_learned_memory,
    a_logit_bias,
    a_memory,
    a_missing_memory,
    a_model,
    a_with_history,
)

NOT_NUMBERS = [float("nan"), float("inf"), 1e300, None, "1"]


def test_vectors_are_strength_times_norm_times_direction() -> None:
    entry = a_full_entry(directions=np.eye(3, 8), norms=[2, 4, 8], strengths=[0.25, 0, 0.5])
    vectors = entry.vectors()
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, np.diag([0.5, 0.0, 4.0]) @ np.eye(3, 8))
    np.testing.assert_array_equal(entry.vectors(-2), -2 * vectors)
    np.testing.assert_array_equal(entry.vectors(0.0), np.zeros((3, 8)))


def test_a_logit_bias_is_strength_times_strength_times_value() -> None:
    bias = a_logit_bias(tokens=[3, 7, 9], values=[0.5, -2, 0], strength=0.25)
    assert bias.at() == {3: 0.125, 7: -0.5, 9: 0.0}
    assert bias.at(-2) == {3: -0.25, 7: 1.0, 9: 0.0}
    assert {type(value) for pair in bias.at().items() for value in pair} == {int, float}
    assert bias.at(0) == replace(bias, strength=0).at() == {}


def test_a_steering_is_the_parts_of_the_entry_at_a_strength() -> None:
    entry = a_full_entry(memory=a_learned_memory(), positions="all")
    steering = entry.steering(0.5)
    assert entry.logit_bias
    assert entry.memory
    assert (steering.layers, steering.positions) == (entry.layers, "all")
    np.testing.assert_array_equal(steering.vectors, entry.vectors(0.5))
    assert steering.logit_bias == entry.logit_bias.at(0.5)
    assert steering.memory == entry.memory.active(0.5)
    assert steering.gate is entry.gate


@pytest.mark.parametrize(
    "part",
    [{"strengths": [0, 0, 0.1]}, {"logit_bias": a_logit_bias()}, {"memory": a_learned_memory()}],
    ids=lambda part: next(iter(part)),
)
def test_a_steering_that_changes_nothing_is_false(part: dict[str, Any]) -> None:
    nothing: dict[str, Any] = {"strengths": np.zeros(3), "logit_bias": None, "memory": None}
    assert not a_full_entry(**nothing).steering()
    entry = a_full_entry(**nothing | part)
    assert entry.steering()
    assert not entry.steering(0)


def test_a_memory_is_active_at_strength_times_strength_above_zero() -> None:
    part = a_learned_memory(strength=0.25)
    active = part.active(3)
    assert active is not None
    assert active.memory is part.memory
    assert active.strength == 0.75
    assert part.active(0) is part.active(-1e6) is None
    assert a_learned_memory(strength=0).active(-1) is None
    assert a_missing_memory().active() is None


@pytest.mark.parametrize("strength", NOT_NUMBERS)
@pytest.mark.parametrize(
    "added",
    [
        Entry.steering,
        Entry.vectors,
        lambda entry, strength: entry.logit_bias.at(strength),
        lambda entry, strength: entry.memory.active(strength),
    ],
)
def test_a_strength_that_is_no_number_is_refused(
    added: Callable[..., object], strength: Any
) -> None:
    with pytest.raises(ProfileError, match=r"strength is .*expected a finite number"):
        added(a_full_entry(), strength)


def test_with_history_its_strengths_replace_the_others_and_there_is_no_gate() -> None:
    entry = a_full_entry(memory=a_learned_memory())
    found = a_with_history()
    assert entry.logit_bias
    assert entry.memory
    same = replace(
        entry,
        strengths=found.strengths,
        logit_bias=replace(entry.logit_bias, strength=found.logit_bias),
        memory=replace(entry.memory, strength=found.memory),
        gate=None,
    )
    assert_same(entry.steering(0.5, with_history=True), same.steering(0.5))


def test_without_strengths_for_a_history_the_others_are_used() -> None:
    entry = a_full_entry(with_history=None)
    assert_same(entry.steering(with_history=True), entry.steering())


def assert_same(one: Steering, other: Steering) -> None:
    assert (one.layers, one.positions) == (other.layers, other.positions)
    np.testing.assert_array_equal(one.vectors, other.vectors)
    assert (one.logit_bias, one.memory) == (other.logit_bias, other.memory)
    assert (one.gate is None) == (other.gate is None)


@pytest.mark.parametrize("part", ["logit_bias", "memory"])
def test_with_history_a_missing_part_has_no_strength(part: str) -> None:
    entry = a_full_entry(**{part: None})
    assert getattr(entry.with_history, part) == 0.0


def test_entries_cannot_be_changed() -> None:
    directions, counts = np.eye(3, 8, dtype=np.float32), {"items": 1}
    tokens = np.array([1, 2], np.int32)
    logit_bias = a_logit_bias(tokens=tokens, values=[1, 1])
    entry = a_full_entry(directions=directions, counts=counts, logit_bias=logit_bias)
    directions[0, 0] = 9
    counts["items"] = -1
    tokens[1] = 0
    assert entry.directions[0, 0] == 1
    assert entry.counts == {"items": 1}
    assert logit_bias.tokens.tolist() == [1, 2]
    assert entry.gate
    arrays = (entry.directions[0], entry.strengths, entry.gate.direction)
    for array in (*arrays, logit_bias.tokens, logit_bias.values):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 9
    with pytest.raises(FrozenInstanceError):
        entry.strengths = 2  # type: ignore[misc,assignment]


def test_equality_sees_every_field() -> None:
    entry = a_full_entry()
    assert entry == a_full_entry()
    changes: dict[str, Any] = {
        "model": a_model("c"),
        "description": Description("Else.", "user"),
        "layers": (1, 3, 5),
        "directions": -entry.directions,
        "norms": 2 * entry.norms,
        "contrast_methods": ("context-contrast",) * 3,
        "strengths": 2 * entry.strengths,
        "positions": "all",
        "created": "2025-01-31T09:30:01Z",
        **dict.fromkeys(["words", "counts", "settings", "versions", "edits", "sources"], ()),
        **dict.fromkeys(["logit_bias", "memory", "gate", "gain", "with_history", "trials"]),
    }
    assert set(changes) == {field.name for field in fields(Entry)}
    for field, value in changes.items():
        assert replace(entry, **{field: value}) != entry, field
    for gate in (a_gate(direction=np.ones(8, np.float32)), a_gate(threshold=0.25)):
        assert a_full_entry(gate=gate) != entry


def test_equality_of_logit_biases_sees_every_field() -> None:
    assert a_logit_bias() == a_logit_bias()
    changes = {"tokens": [0, 48, 300, 301], "values": np.zeros(4), "strength": 0.25}
    assert set(changes) == {field.name for field in fields(LogitBias)}
    for field, value in changes.items():
        assert a_logit_bias(**{field: value}) != a_logit_bias(), field


def test_equality_of_memories_sees_what_they_are_and_not_where() -> None:
    assert a_missing_memory() == a_missing_memory(file="other.gguf", problem="Lost.")
    changes = {"strength": 0.1, "level": "all", "rows": 7, "sha256": "0" * 64}
    for field, value in changes.items():
        assert a_missing_memory(**{field: value}) != a_missing_memory(), field
    assert a_learned_memory() == a_learned_memory()
    assert a_learned_memory() != a_learned_memory(seed=1)


CONTRADICTIONS: list[tuple[Callable[[], object], str]] = [
    (lambda: Word("w", 1, 3, 2, 1, 1), "low is 3; expected at most high, 2"),
    (lambda: a_full_entry(directions=1e300 * np.eye(3, 8)), "directions holds a value that is not"),
    (lambda: a_full_entry(norms=[1, np.nan, 1]), "norms holds a value that is not a finite"),
    (lambda: replace(a_full_entry(), layers=()), "layers is empty; expected at least one layer"),
    (lambda: a_logit_bias(tokens=[]), "tokens holds ids that do not strictly increase from 0"),
    (lambda: a_logit_bias(tokens=[-1, 0, 1, 2]), "tokens holds ids that do not strictly increase"),
    (lambda: a_logit_bias(values=[1, 2, 3, np.inf]), "values holds a value that is not a finite"),
    (
        lambda: a_full_entry(gate=a_gate(direction=np.full(8, np.nan))),
        "gate.direction holds a value that is not a finite",
    ),
    (lambda: replace(a_learned_memory(), rows=7), "rows is 7; expected 6, as many as the memory"),
    (
        lambda: a_full_entry(memory=MemoryPart.of(a_memory(n_embd=9), strength=1, level="all")),
        "memory has rows of width 9; expected 8",
    ),
    (
        lambda: MemoryPart.of(
            replace(a_memory(), tokens=-np.ones(6, np.int32)), strength=1, level="all"
        ),
        "damaged memory: tokens holds a number below 0",
    ),
    (lambda: Profile(()), "entries is empty; expected at least one entry"),
    (lambda: Profile((a_full_entry(), a_full_entry())), "entries[1].model.fingerprint is"),
]


@pytest.mark.parametrize(("make", "message"), CONTRADICTIONS, ids=[c[1] for c in CONTRADICTIONS])
def test_a_contradiction_is_refused_in_python_too(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ProfileError, match=re.escape(message)) as caught:
        make()
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301


def test_directions_may_be_off_unit_length_by_rounding() -> None:
    entry = a_full_entry(directions=np.eye(3, 8) * 1.0005)
    np.testing.assert_allclose(np.linalg.norm(entry.directions, axis=1), 1.0005, rtol=1e-6)
