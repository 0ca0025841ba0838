import copy
import json
import os
import pickle
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import steerx_edge.profile.store
from steerx_edge.errors import ProfileError
from steerx_edge.profile import (
    CONTRAST_METHODS,
    Description,
    Entry,
    Gain,
    LogitBias,
    MemoryPart,
    ModelId,
    Profile,
    WithHistory,
    Word,
)
from steerx_edge.profile.json_format import decode, encode, json_schema
from steerx_edge.steering.gate import Gate
from steerx_edge.steering.memory import KeySpace, Memory
from steerx_edge.steering.steering import Steering

FOLDER = Path(steerx_edge.profile.__file__).parent
SCHEMA = json.loads((FOLDER / "profile.schema.json").read_text("utf-8"))
DOCS = Path(__file__).parents[2] / "docs" / "profile.md"
SEARCHED = os.pathsep.join([str(FOLDER.parents[1]), *sys.path])
ENVIRONMENT = {**os.environ, "PYTHONPATH": SEARCHED}  # of another Python

Json = Any


def a_model(digit: str = "a", **changes: Any) -> ModelId:
    fingerprint = "sha256:" + digit * 64
    model = ModelId(fingerprint, "Tiny Llama", "llama", 6, 8, 21_504, "Q4_1")
    return replace(model, **changes)


def a_logit_bias(**changes: Any) -> LogitBias:
    learned: dict[str, Any] = {
        "tokens": np.array([0, 48, 300, 2**31 - 1]),
        "values": np.array([1.5, -0.1, 1e-30, 0.0]),
        "strength": 0.5,
    }
    return LogitBias(**{**learned, **changes})


def a_memory(n: int = 6, n_embd: int = 8, seed: int = 0) -> Memory:
    rng = np.random.default_rng(seed)
    space = KeySpace.fit(rng.standard_normal((30, n_embd)))
    return Memory(
        space=space,
        keys=rng.integers(-127, 128, (n, space.basis.shape[1]), dtype=np.int8),
        tokens=rng.integers(0, 300, n, dtype=np.int32),
        weights=rng.random(n, dtype=np.float32),
        single=np.unique(rng.integers(0, 2**32, 5, dtype=np.uint32)),
        end=2,
    )


def a_part(**changes: Any) -> MemoryPart:
    """As it is read from a profile whose memory file is missing."""
    learned: dict[str, Any] = {
        "strength": 0.3,
        "level": "shared",
        "rows": 6,
        "file": "me.memory.gguf",
        "sha256": "0123456789abcdef" * 4,
    }
    return MemoryPart(**{**learned, **changes})


def a_new_part(seed: int = 0, **changes: Any) -> MemoryPart:
    """As it is learned."""
    learned: dict[str, Any] = {"strength": 0.3, "level": "shared"}
    return MemoryPart.of(a_memory(seed=seed), **{**learned, **changes})


def a_gate(**changes: Any) -> Gate:
    direction = np.float32([0.5, -3, 0, 1e-30, 1 / 3, 2, 0, 7])
    return replace(Gate(direction, 0.1 + 0.2), **changes)


def with_history(n_layers: int = 3, **changes: Any) -> WithHistory:
    learned: dict[str, Any] = {
        "strengths": np.linspace(0.2, 0.1, n_layers, dtype=np.float32),
        "logit_bias": 0.25,
        "memory": 0.4,
        "gain": Gain(0.02, 0.01, 1 / 3, 16),
    }
    return WithHistory(**{**learned, **changes})


def an_entry(**changes: Any) -> Entry:
    model = changes.pop("model", a_model())
    layers = changes.get("layers", (2, 3, 5))
    directions = np.random.default_rng(7).standard_normal((len(layers), model.n_embd))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    learned: dict[str, Any] = {
        "model": model,
        "description": Description("You write «dry» sentences.\nYou like naïve 🙂 puns.", "model"),
        "words": (
            Word("honestly", 4.82, 3.1, 6.67, 14, 9),
            Word("señor", 0.1 + 0.2, -1e-300, 1 / 3, 2, 1),
        ),
        "layers": layers,
        "directions": directions.astype(np.float32),
        "norms": np.linspace(0.1, 97.3, len(layers), dtype=np.float32),
        "contrast_methods": [CONTRAST_METHODS[i % 2] for i in range(len(layers))],
        "strengths": np.linspace(0.0, 0.3, len(layers), dtype=np.float32),
        "logit_bias": a_logit_bias(),
        "memory": a_part(),
        "gate": a_gate(),
        "gain": Gain(0.05, -0.01, 0.1 + 0.2, 16),
        "with_history": with_history(len(layers)),
        "positions": "generated",
        "counts": {"items": 16, "tokens": 1930, "anchors": 74},
        "settings": {
            "contrast_method": "steerx",
            "tau": 1.0,
            "min_anchors": 3,
            "placebo": True,
            "note": "",
        },
        "versions": {"steerx_edge": "0.1.0", "llama_cpp_python": "0.3.36"},
        "created": "2025-01-31T09:30:00Z",
    }
    return Entry(**{**learned, **changes})


def a_profile() -> Profile:
    nothing: dict[str, Any] = {"strengths": np.zeros(3), "logit_bias": None, "memory": None}
    nothing |= {"gate": None, "gain": None, "with_history": None}
    return Profile((an_entry(), an_entry(model=a_model("b", name="Other"), **nothing)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "me.json"


@pytest.fixture
def document(path: Path) -> Json:
    a_profile().save(path)
    return json.loads(path.read_bytes())


def schema_errors(document: Json) -> list[str]:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    return [error.message for error in validator.iter_errors(document)]


def message_of_loading(path: Path, data: bytes | None = None) -> str:
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ProfileError) as caught:
        Profile.load(path)
    return str(caught.value)


# ---------------------------------------------------------------- round trip


def test_saving_and_loading_keeps_every_bit(path: Path) -> None:
    a_profile().save(path)
    loaded = Profile.load(path)
    assert loaded == a_profile()
    assert loaded.entries[0].counts == an_entry().counts
    given, kept = an_entry(), loaded.entries[0]
    for before, after in zip(arrays_of(given), arrays_of(kept), strict=True):
        assert after.dtype == before.dtype
        assert after.tobytes() == before.tobytes()


def arrays_of(entry: Entry) -> list[Any]:
    assert entry.logit_bias is not None
    assert entry.gate is not None
    arrays = [entry.directions, entry.norms, entry.strengths, entry.gate.direction]
    return [*arrays, entry.logit_bias.tokens, entry.logit_bias.values]


def test_saving_what_was_loaded_gives_the_same_bytes(path: Path) -> None:
    a_profile().save(path)
    first = path.read_bytes()
    Profile.load(path).save(path)
    assert path.read_bytes() == first


def test_floats_of_every_size_survive(path: Path) -> None:
    rng = np.random.default_rng(3)
    bits = rng.integers(1, 0x7F80_0000, 500, dtype=np.uint32)  # every positive finite float32
    bits[:2] = 1, 0x7F7F_FFFF
    norms = bits.view(np.float32)
    model = a_model(n_layer=501)
    doubles = rng.integers(0, 2**63, 200, dtype=np.uint64).view(np.float64)
    doubles = doubles[np.isfinite(doubles)]
    words = tuple(Word("w", x, x, x, 1, 1) for x in doubles.tolist())
    layers = tuple(range(1, 501))
    entry = an_entry(model=model, layers=layers, norms=norms, strengths=norms, words=words)
    Profile((entry,)).save(path)
    (loaded,) = Profile.load(path).entries
    assert loaded.norms.tobytes() == loaded.strengths.tobytes() == norms.tobytes()
    assert [word.effect for word in loaded.words] == doubles.tolist()


def test_types_of_settings_survive(path: Path) -> None:
    settings = {"a": 1, "b": 1.0, "c": True, "d": "1", "e": -0.0, "f": 5e-324}
    Profile((an_entry(settings=settings),)).save(path)
    loaded = Profile.load(path).entries[0].settings
    assert {k: (type(v), repr(v)) for k, v in loaded.items()} == {
        k: (type(v), repr(v)) for k, v in settings.items()
    }
    assert list(loaded) == list(settings)


def test_numpy_scalars_are_saved_as_plain_values(path: Path) -> None:
    word = Word("w", np.float32(0.5), np.float64(0), 1, np.int32(2), np.uint8(1))  # type: ignore[arg-type]
    entry = an_entry(words=[word], layers=list(np.array([2, 3, 5])), counts={"items": np.int64(3)})
    Profile((entry,)).save(path)
    assert Profile.load(path).entries == (entry,)
    assert b'{"word": "w", "effect": 0.5, "low": 0.0, "high": 1.0,' in path.read_bytes()


def assert_same(one: Steering, other: Steering) -> None:
    assert (one.layers, one.positions) == (other.layers, other.positions)
    np.testing.assert_array_equal(one.vectors, other.vectors)
    assert one.logit_bias == other.logit_bias
    assert one.memory == other.memory
    assert (one.gate is None) == (other.gate is None)


def test_with_a_history_its_strengths_take_the_place_of_the_others() -> None:
    entry = an_entry(memory=a_new_part())
    found = with_history()
    assert entry.logit_bias is not None
    assert entry.memory is not None
    same = replace(
        entry,
        strengths=found.strengths,
        logit_bias=replace(entry.logit_bias, strength=found.logit_bias),
        memory=replace(entry.memory, strength=found.memory),
        gate=None,
    )
    assert_same(entry.steering(0.5, with_history=True), same.steering(0.5))


def test_without_strengths_for_a_history_the_others_are_taken() -> None:
    entry = an_entry(with_history=None)
    assert_same(entry.steering(with_history=True), entry.steering())


def test_with_a_history_there_may_be_nothing_to_add() -> None:
    nothing = with_history(strengths=np.zeros(3), logit_bias=0, memory=0)
    entry = an_entry(memory=a_new_part(), with_history=nothing)
    assert entry.steering()
    assert not entry.steering(with_history=True)


@pytest.mark.parametrize("part", ["logit_bias", "memory"])
def test_with_a_history_a_part_that_is_not_there_has_no_strength(part: str) -> None:
    entry = an_entry(**{part: None})
    assert entry.with_history is not None
    assert getattr(entry.with_history, part) == 0.0


@pytest.mark.parametrize("part", ["logit_bias", "memory"])
def test_a_part_may_be_deleted_by_hand(path: Path, document: Json, part: str) -> None:
    document["entries"][0][part] = None
    assert document["entries"][0]["with_history"][part] > 0
    path.write_text(json.dumps(document))
    (entry, _) = Profile.load(path).entries
    assert entry == an_entry(**{part: None})


def test_layout_is_for_reading(path: Path) -> None:
    a_profile().save(path)
    lines = path.read_text("utf-8").splitlines()
    assert lines[:3] == ["{", '  "format": "steerx-edge-profile",', '  "schema": 2,']
    assert lines[-1] == "}"
    word = '{"word": "honestly", "effect": 4.82, "low": 3.1, "high": 6.67, "count": 14, "items": 9}'
    assert f"        {word}," in lines
    assert any('"señor"' in line for line in lines)
    assert '      "strengths": [0.0, 0.15, 0.3],' in lines  # not 0.30000001192092896
    directions = lines.index('      "directions": [')
    assert [line[:9] for line in lines[directions + 1 : directions + 4]] == ["        ["] * 3
    entry = json.loads(path.read_bytes())["entries"][0]
    assert list(entry)[:4] == ["model", "created", "description", "words"]
    assert list(entry)[-1] == "directions"


def test_a_byte_order_mark_is_taken(path: Path) -> None:
    a_profile().save(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert Profile.load(path) == a_profile()


# ---------------------------------------------------------------- what the objects do


def test_vectors_are_strength_times_norm_times_direction() -> None:
    entry = an_entry(directions=np.eye(3, 8), norms=[2, 4, 8], strengths=[0.25, 0, 0.5])
    vectors = entry.vectors()
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, np.diag([0.5, 0.0, 4.0]) @ np.eye(3, 8))
    np.testing.assert_array_equal(entry.vectors(-2), -2 * vectors)
    np.testing.assert_array_equal(entry.vectors(0.0), np.zeros((3, 8)))


def test_the_logit_bias_is_strength_times_strength_times_value() -> None:
    bias = LogitBias([3, 7, 9], [0.5, -2, 0], 0.25)
    assert bias.at() == {3: 0.125, 7: -0.5, 9: 0.0}
    assert bias.at(-2) == {3: -0.25, 7: 1.0, 9: 0.0}
    assert {type(value) for pair in bias.at().items() for value in pair} == {int, float}
    assert bias.at(0) == replace(bias, strength=0).at() == {}


def test_a_steering_is_the_parts_of_the_entry_at_a_strength() -> None:
    entry = an_entry(memory=a_new_part(), positions="all")
    steering = entry.steering(0.5)
    assert (steering.layers, steering.positions) == (entry.layers, "all")
    np.testing.assert_array_equal(steering.vectors, entry.vectors(0.5))
    assert entry.logit_bias is not None
    assert steering.logit_bias == entry.logit_bias.at(0.5)
    assert entry.memory is not None
    assert steering.memory == entry.memory.active(0.5)
    assert steering.gate is entry.gate


def test_a_steering_that_changes_nothing_is_false() -> None:
    nothing: dict[str, Any] = {"strengths": np.zeros(3), "logit_bias": None, "memory": None}
    entry = an_entry(**nothing)
    assert not entry.steering()
    for part in (
        {"strengths": [0, 0, 0.1]},
        {"logit_bias": a_logit_bias()},
        {"memory": a_new_part()},
    ):
        assert replace(entry, **part).steering()
        assert not replace(entry, **part).steering(0)


def test_a_memory_is_active_at_strength_times_strength() -> None:
    part = a_new_part(strength=0.25)
    for relative, strength in ((1, 0.25), (4, 1.0)):
        active = part.active(relative)
        assert active is not None
        assert active.memory is part.memory
        assert active.strength == strength


@pytest.mark.parametrize("strength", [0, -0.0, -1, -1e6])
def test_there_is_no_memory_to_steer_away_with(strength: float) -> None:
    assert a_new_part().active(strength) is None
    assert a_new_part(strength=0).active(-strength) is None


def test_a_memory_that_is_not_there_is_not_active() -> None:
    assert a_part().active() is None


def test_a_strength_of_a_memory_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(ProfileError, match=r"strength is 1\.0; expected a number for which"):
        a_new_part(strength=1e300).active()


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), 1e300, None, "1"])
@pytest.mark.parametrize(
    "added",
    [
        Entry.steering,
        Entry.vectors,
        lambda entry, strength: entry.logit_bias.at(strength),
        lambda entry, strength: entry.memory.active(strength),
    ],
)
def test_what_is_added_refuses_a_strength_that_is_no_number(
    added: Callable[..., object], strength: Any
) -> None:
    with pytest.raises(ProfileError, match=r"strength is .*expected"):
        added(an_entry(), strength)


def test_entries_cannot_be_changed() -> None:
    directions = np.eye(3, 8, dtype=np.float32)
    counts = {"items": 1}
    entry = an_entry(directions=directions, counts=counts)
    directions[0, 0] = 9
    counts["items"] = -1
    assert entry.directions[0, 0] == 1
    assert entry.counts == {"items": 1}
    with pytest.raises(ValueError, match="read-only"):
        entry.directions[0, 0] = 9
    with pytest.raises(FrozenInstanceError):
        entry.strengths = 2  # type: ignore[misc,assignment]
    tokens = np.array([1, 2], np.int32)
    logit_bias = a_logit_bias(tokens=tokens, values=[1, 1])
    tokens[1] = 0
    assert logit_bias.tokens.tolist() == [1, 2]
    assert entry.gate is not None
    for array in (entry.strengths, logit_bias.tokens, logit_bias.values, entry.gate.direction):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 9


def test_equality_sees_every_field() -> None:
    entry = an_entry()
    assert entry == an_entry()
    assert entry != "entry"
    changes: dict[str, Any] = {
        "model": a_model("c"),
        "description": Description("Else.", "user"),
        "words": (),
        "layers": (1, 3, 5),
        "directions": -entry.directions,
        "norms": 2 * entry.norms,
        "contrast_methods": ("context-contrast",) * 3,
        "strengths": 2 * entry.strengths,
        "logit_bias": None,
        "memory": None,
        "gate": None,
        "gain": None,
        "with_history": None,
        "positions": "all",
        "counts": {},
        "settings": {},
        "versions": {},
        "created": "2025-01-31T09:30:01Z",
    }
    assert set(changes) == {field.name for field in fields(Entry)}
    for field, value in changes.items():
        assert replace(entry, **{field: value}) != entry, field


def test_equality_sees_both_parts_of_a_gate() -> None:
    for gate in (a_gate(direction=np.ones(8, np.float32)), a_gate(threshold=0.25)):
        assert an_entry(gate=gate) != an_entry()


def test_equality_of_logit_biases_sees_every_field() -> None:
    assert a_logit_bias() == a_logit_bias()
    assert a_logit_bias() != "logit_bias"
    changes = {"tokens": [0, 48, 300, 301], "values": np.zeros(4), "strength": 0.25}
    assert set(changes) == {field.name for field in fields(LogitBias)}
    for field, value in changes.items():
        assert a_logit_bias(**{field: value}) != a_logit_bias(), field


def test_equality_of_memories_sees_what_they_are_and_not_where() -> None:
    assert a_part() == a_part(file="other.gguf", problem="Lost.")
    assert a_part() != "memory"
    changes = {"strength": 0.1, "level": "all", "rows": 7, "sha256": "0" * 64}
    for field, value in changes.items():
        assert a_part(**{field: value}) != a_part(), field
    assert a_new_part() == a_new_part()
    assert a_new_part() != a_new_part(seed=1)


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
    relearned = an_entry(strengths=np.ones(3))
    assert profile.with_entry(relearned).entries == (relearned, profile.entries[1])
    other = an_entry(model=a_model("c"))
    assert profile.with_entry(other).entries == (*profile.entries, other)
    assert profile == a_profile()


# ---------------------------------------------------------------- broken files

Mutation = Callable[[Json], object]


def put(value: Any, *steps: str | int) -> Mutation:
    """Sets what is at these steps within entries[0]; `...` as the value deletes it."""

    def mutate(document: Json) -> None:
        place = document["entries"][0]
        for step in steps[:-1]:
            place = place[step]
        if value is ...:
            del place[steps[-1]]
        else:
            place[steps[-1]] = value

    return mutate


UNIT = [1.0] + [0.0] * 7
NAN, INF = float("nan"), float("inf")
BOTH = True  # the JSON Schema sees it as well
LOADER = False  # only the loader can: it relates fields, or JSON Schema has no word for it

ATTACKS: list[tuple[Mutation, str, bool]] = [
    # the top
    (lambda d: d.update(format="other"), 'not a steerx-edge profile: no "format"', BOTH),
    (lambda d: d.pop("schema"), "the profile lacks the key 'schema'", BOTH),
    (lambda d: d.update(schema=True), "schema is true; expected 2", BOTH),
    (lambda d: d.update(schema=0), "schema is 0; expected 2", BOTH),
    (
        lambda d: d.update(schema=3, new=[], entries={}),
        "made by a newer steerx-edge (schema 3",
        BOTH,
    ),
    (lambda d: d.update(schema=10**400), "(schema an integer of 1329 bits; this", BOTH),
    (
        lambda d: d.update(schema=1),
        "an older steerx-edge (schema 1; this one reads 2): learn",
        BOTH,
    ),
    (lambda d: d.update(extra=1), "the profile has an unknown key 'extra'; known are form", BOTH),
    (lambda d: d.update({"a - at `$[0].b`": 1}), "an unknown key 'a - at `$[0].b`'; known", BOTH),
    (lambda d: d.update(entries=[]), "entries is a list of 0 values; expected a list, not", BOTH),
    (lambda d: d.update(entries={}), "entries is an object with 0 keys; expected a list", BOTH),
    (lambda d: d.update(entries=[[]]), "entries[0] is a list of 0 values; expected an obj", BOTH),
    (
        lambda d: d["entries"][1]["model"].update(d["entries"][0]["model"]),
        "entries[1].model.fingerprint is 'sha256:aaa",
        LOADER,
    ),
    # keys, and values of other types
    (put(..., "positions"), "entries[0] lacks the key 'positions'", BOTH),
    (put(..., "model", "n_embd"), "entries[0].model lacks the key 'n_embd'", BOTH),
    (put(1, "words", 1, "weight"), "entries[0].words[1] has an unknown key 'weight'", BOTH),
    (put(1, "\x1b[2J" + "x" * 99), r"unknown key '\x1b[2Jxxx", BOTH),
    (put(None, "memory", "memory"), "entries[0].memory has an unknown key 'memory'", BOTH),
    (put("text", "description"), "entries[0].description is 'text'; expected an object", BOTH),
    (put([], "gain"), "entries[0].gain is a list of 0 values; expected an object", BOTH),
    (put({}, "words"), "entries[0].words is an object with 0 keys; expected a list", BOTH),
    (put([], "counts"), "counts is a list of 0 values; expected an object", BOTH),
    (put("1", "words", 1, "effect"), "words[1].effect is '1'; expected a finite number", BOTH),
    (put(True, "model", "n_layer"), "model.n_layer is true; expected an integer from 1", BOTH),
    (put(6.0, "model", "n_layer"), "model.n_layer is 6.0; expected an integer", LOADER),
    (put(None, "model", "name"), "model.name is null; expected a string of", BOTH),
    # strings
    (put("sha256:" + "A" * 64, "model", "fingerprint"), "and 64 lower-case hex", BOTH),
    (put("sha256:" + "a" * 64 + "\n", "model", "fingerprint"), "fingerprint is 'sha256:a", BOTH),
    (put("", "words", 0, "word"), "words[0].word is ''; expected a string of", BOTH),
    (put("x" * 1001, "model", "name"), "xxx…'; expected a string of", BOTH),
    (put("a\n", "words", 0, "word"), r"word is 'a\n'; expected a string of", BOTH),
    (put("a\x9b", "words", 0, "word"), r"is 'a\x9b'; expected", BOTH),
    (put("a\ud800", "description", "text"), r"description.text is 'a\ud800'; expected", BOTH),
    (put("a\ud800", "description", "origin"), "not text: it holds half of a surrogate", BOTH),
    (put("a\rb", "description", "text"), "without control characters but tabs and line", BOTH),
    (put("x" * 20_001, "description", "text"), "…'; expected a string of", BOTH),
    (put("", "description", "text"), "description.text is ''; expected a string of", BOTH),
    (put("me", "description", "origin"), "'me'; expected 'model' or 'statistics' or 'u", BOTH),
    (put([], "positions"), "positions is a list of 0 values; expected 'generated' or 'all'", BOTH),
    (put("most", "memory", "level"), "expected 'shared' or 'causal' or 'all'", BOTH),
    (
        put(["magic"] * 3, "contrast_methods"),
        "contrast_methods[0] is 'magic'; expected 'context-contrast' or",
        BOTH,
    ),
    (put("2025-01-31T09:30:00+00:00", "created"), "expected a UTC time such as", BOTH),
    (put("2025-01-31T09:30:00Z\n", "created"), r"created is '2025-01-31T09:30:00Z\n'", BOTH),
    (put("2025-13-30T09:30:00Z", "created"), "entries[0].created is '2025-13-30T09", BOTH),
    (put("../me.gguf", "memory", "file"), "'../me.gguf'; expected the name of a file in", BOTH),
    (put("a\\b", "memory", "file"), "expected the name of a file in the profile's folder", BOTH),
    (put(".me.gguf", "memory", "file"), "'.me.gguf'; expected the name of a file in", BOTH),
    (put("a\n", "memory", "file"), "memory.file is 'a\\n'; expected the name", BOTH),
    (put("x" * 256, "memory", "file"), "xxx…'; expected the name of a file", BOTH),
    (put("", "memory", "file"), "memory.file is ''; expected the name of a file", BOTH),
    (put("0" * 64 + "\n", "memory", "sha256"), "expected 64 lower-case hexadecimal digits", BOTH),
    # numbers
    (put(0, "model", "n_embd"), "model.n_embd is 0; expected an integer from 1 to 90", BOTH),
    (put(2**53, "model", "n_params"), "n_params is 9007199254740992; expected an int", BOTH),
    (put(10**400, "model", "n_params"), "n_params is an integer of 1329 bits", BOTH),
    (put(NAN, "words", 1, "effect"), "words[1].effect is nan; expected a finite number", LOADER),
    (put(INF, "gain", "high"), "entries[0].gain.high is inf; expected a finite number", BOTH),
    (put(-INF, "gain", "low"), "entries[0].gain.low is -inf; expected a finite number", BOTH),
    (put(10**400, "words", 1, "effect"), "effect is an integer of 1329 bits; expected a", BOTH),
    (
        put(-1, "logit_bias", "strength"),
        "logit_bias.strength is -1; expected a finite number, at least 0",
        BOTH,
    ),
    (put([1, -0.1, 1], "strengths"), "entries[0].strengths[1] is -0.1; expected", BOTH),
    (put([1, 1e39, 1], "norms"), "entries[0].norms[1] is 1e+39; expected a finite number", BOTH),
    (put([1, 0, 2], "norms"), "norms[1] is 0; expected a finite number, at least 1e-45", BOTH),
    (put([1, 1e-46, 2], "norms"), "norms[1] is 1e-46; expected a finite number, at", BOTH),
    # objects of any keys
    (put(-1, "counts", "tokens"), "entries[0].counts.tokens is -1; expected an integer fr", BOTH),
    (put(1, "counts", ""), "entries[0].counts.(key) is ''; expected a string of", BOTH),
    (put(1, "counts", "a\x07"), r"counts.(key) is 'a\x07'; expected a string of", BOTH),
    (put([1], "settings", "tau"), "settings.tau is a list of 1 values; expected a string", BOTH),
    (put(INF, "settings", "tau"), "entries[0].settings.tau is inf; expected a string", BOTH),
    (put(2**60, "settings", "seed"), "settings.seed is 1152921504606846976; exp", LOADER),
    (put("\x00", "settings", "note"), r"settings.note is '\x00'; expected a string with", BOTH),
    (put(1, "versions", "steerx_edge"), "versions.steerx_edge is 1; expected a str", BOTH),
    # fields that do not fit together
    (put(15, "words", 0, "items"), "words[0].items is 15; expected at most count, 14", LOADER),
    (put(7.0, "words", 0, "low"), "words[0].low is 7.0; expected at most high, 6.67", LOADER),
    (put(0.5, "gain", "low"), "entries[0].gain.low is 0.5; expected at most high, 0.3", LOADER),
    (put(0.5, "with_history", "gain", "low"), "entries[0].with_history.gain.low is 0.5", LOADER),
    (put([1, 1], "with_history", "strengths"), "with_history.strengths has shape (2,);", LOADER),
    (put([], "layers"), "layers is a list of 0 values; expected a list, not empty", BOTH),
    (put([0, 3, 5], "layers"), "layers[0] is 0; expected an integer from 1", BOTH),
    (put([2, 2, 5], "layers"), "layers[1] is 2; expected a layer above 2 and below 6", LOADER),
    (put([2, 3, 6], "layers"), "layers[2] is 6; expected a layer above 3 and below 6", LOADER),
    (
        put([2, 3], "layers"),
        "contrast_methods has shape (3,); expected (2,), one for each layer",
        LOADER,
    ),
    (put([1, 1], "strengths"), "entries[0].strengths has shape (2,); expected (3,), one", LOADER),
    (put([1, 2], "norms"), "entries[0].norms has shape (2,); expected (3,), one", LOADER),
    (put([UNIT] * 2, "directions"), "entries[0].directions has shape (2, 8); expected", LOADER),
    (put([UNIT, UNIT, [1.0]], "directions"), "directions has rows of different lengths", LOADER),
    (put([UNIT, [2.0, *UNIT[1:]], UNIT], "directions"), "directions[1] has length 2; exp", LOADER),
    (put([UNIT, UNIT, [3e38] * 8], "directions"), "directions[2] has length 8.48528e+38;", LOADER),
    (put([UNIT, [0.0] * 8, UNIT], "directions"), "directions[1] has length 0; expected", LOADER),
    (put([UNIT, [*UNIT[1:], NAN], UNIT], "directions"), "directions[1][7] is nan; exp", LOADER),
    (
        put([0, 1, 2], "logit_bias", "tokens"),
        "logit_bias.values has shape (4,); expected (3,), one",
        LOADER,
    ),
    (
        put([0, 1, 1, 2], "logit_bias", "tokens"),
        "entries[0].logit_bias.tokens holds ids that do not",
        LOADER,
    ),
    (
        put([0, 1, 2, 2**31], "logit_bias", "tokens"),
        "logit_bias.tokens[3] is 2147483648; expected an",
        BOTH,
    ),
    (put(UNIT[1:], "gate", "direction"), "gate.direction has shape (7,); expected (8,)", LOADER),
]


@pytest.mark.parametrize(("mutate", "message", "schema_sees"), ATTACKS, ids=[a[1] for a in ATTACKS])
def test_a_broken_file_is_refused_and_named(
    path: Path, document: Json, mutate: Mutation, message: str, schema_sees: bool
) -> None:
    mutate(document)
    said = message_of_loading(path, json.dumps(document).encode())
    assert said.startswith(f"{path}: ")
    assert message in said
    assert len(said) < 300 + len(str(path))
    assert said.isprintable()
    assert bool(schema_errors(document)) is schema_sees


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


RAW_ATTACKS: list[tuple[bytes, str]] = [
    (b"", "not JSON: Expecting value: line 1 column 1"),
    (b"{", "not JSON: Expecting property name"),
    (b'{"format": 1,}', "not JSON:"),
    (b"\x80\x04K\x01.", "not UTF-8 text (byte 0)"),
    (b'{"format": "\xff"}', "not UTF-8 text (byte 12)"),
    ('{"format": "steerx-edge-profile"}'.encode("utf-16"), "not UTF-8 text (byte 0)"),
    (b'"text"', "not a steerx-edge profile"),
    (b"null", "not a steerx-edge profile"),
    (b"[]", "not a steerx-edge profile"),
    (b"{}", "not a steerx-edge profile"),
    (b"1e999", "not a steerx-edge profile"),
    (b'{"format": {"a": 1, "b": 2, "a": 1}}', "the key 'a' is there twice in one object"),
    (b'{"format": "steerx-edge-profile", "schema": 2, "schema": 2}', "the key 'schema' is there"),
    (b"1" * 5000, "not JSON: Exceeds the limit"),
    (nested(100_000), "nested too deeply"),
    (b'{"a":' * 100_000, "nested too deeply"),
    (nested(400), "not a steerx-edge profile"),
]


@pytest.mark.parametrize(("data", "message"), RAW_ATTACKS, ids=[a[1] for a in RAW_ATTACKS])
def test_what_is_no_profile_is_refused(path: Path, data: bytes, message: str) -> None:
    assert message in message_of_loading(path, data)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_are_refused(path: Path, number: str) -> None:
    a_profile().save(path)
    data = path.read_bytes().replace(b'"strength": 0.5', b'"strength": ' + number.encode())
    assert "entries[0].logit_bias.strength is " in message_of_loading(path, data)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert message_of_loading(tmp_path).endswith(": cannot be read: not a file")
    missing = tmp_path / "me.json"
    assert message_of_loading(missing) == f"{missing}: cannot be read: No such file or directory"
    os.mkfifo(missing)  # opening it would wait for ever; devices go the same way
    assert "not a file" in message_of_loading(missing)
    assert "cannot be read: " in message_of_loading(Path("me\0.json"))
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert "cannot be read: Too many levels of symbolic links" in message_of_loading(loop)


def test_a_huge_file_is_refused_unread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read"))
    said = message_of_loading(path)
    assert said.endswith("the file is 1048576.0 MiB; a profile is at most 64 MiB")


def test_a_file_of_the_largest_size_is_read(path: Path) -> None:
    a_profile().save(path)
    padding = steerx_edge.profile.store.MAX_BYTES - path.stat().st_size
    with path.open("ab") as file:
        file.write(b" " * padding)
    assert Profile.load(path) == a_profile()
    with path.open("ab") as file:
        file.write(b" ")
    assert "a profile is at most 64 MiB" in message_of_loading(path)


CONTRADICTIONS: list[tuple[Callable[[], object], str]] = [
    (lambda: Word("w", 1, 3, 2, 1, 1), "low is 3; expected at most high, 2"),
    (lambda: an_entry(directions=1e300 * np.eye(3, 8)), "directions holds a value that is not"),
    (lambda: an_entry(directions=np.eye(3, 8) * 1.002), "directions[0] has length 1.002;"),
    (lambda: an_entry(directions=[[1, 2], [3]]), "directions has rows of different lengths"),
    (lambda: an_entry(norms=[1, np.nan, 1]), "norms holds a value that is not a finite float32"),
    (lambda: an_entry(layers=[], directions=[]), "layers is empty; expected at least one layer"),
    (
        lambda: a_logit_bias(tokens=[]),
        "tokens holds ids that do not strictly increase from 0 or more",
    ),
    (lambda: a_logit_bias(tokens=[-1, 0, 1, 2]), "tokens holds ids that do not strictly increase"),
    (lambda: a_logit_bias(values=[1, 2, 3, np.inf]), "values holds a value that is not a finite"),
    (lambda: a_gate_of(np.full(8, np.nan)), "gate.direction holds a value that is not a finite"),
    (lambda: replace(a_new_part(), rows=7), "rows is 7; expected 6, as many as the memory has"),
    (
        lambda: an_entry(memory=MemoryPart.of(a_memory(n_embd=9), strength=1, level="all")),
        "memory is of rows 9 wide; expected 8",
    ),
    (
        lambda: MemoryPart.of(
            replace(a_memory(), tokens=-np.ones(6, np.int32)), strength=1, level="all"
        ),
        "damaged memory: tokens holds a number below 0",
    ),
    (lambda: Profile(()), "entries is empty; expected at least one entry"),
    (lambda: Profile((an_entry(), an_entry())), "entries[1].model.fingerprint is"),
]


def a_gate_of(direction: Any) -> Entry:
    return an_entry(gate=a_gate(direction=direction))


@pytest.mark.parametrize(("make", "message"), CONTRADICTIONS, ids=[c[1] for c in CONTRADICTIONS])
def test_what_contradicts_itself_cannot_be_made_in_python(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(ProfileError, match=re.escape(message)) as caught:
        make()
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301


UNLOADABLE: list[tuple[dict[str, Any], str]] = [
    ({"words": [Word("a\x1b", 1, 0, 2, 1, 1)]}, r"entries[0].words[0].word is 'a\x1b'; expected"),
    ({"words": [Word("a", NAN, 0, 2, 1, 1)]}, "words[0].effect is nan; expected a finite number"),
    ({"description": Description("a\ud800", "user")}, r"description.text is 'a\ud800'; exp"),
    ({"strengths": [0, 0, -1]}, "entries[0].strengths[2] is -1.0; expected"),
    ({"memory": a_part(file="../me.gguf")}, "memory.file is '../me.gguf'; expected"),
    ({"settings": {"a": None}}, "settings.a is null; expected a string"),
]


@pytest.mark.parametrize(("changes", "message"), UNLOADABLE, ids=[u[1] for u in UNLOADABLE])
def test_what_could_not_be_loaded_is_not_saved(
    path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProfileError) as caught:
        Profile((an_entry(**changes),)).save(path)
    assert str(caught.value).startswith(f"{path}: entries[0].")
    assert message in str(caught.value)
    assert list(path.parent.iterdir()) == []


def test_directions_may_be_off_unit_length_by_rounding() -> None:
    for length in (0.9995, 1.0005):
        an_entry(directions=np.eye(3, 8) * length)


# ---------------------------------------------------------------- the schema and the loader


def test_the_schema_is_that_of_the_structs() -> None:
    assert (FOLDER / "profile.schema.json").read_text("utf-8") == json_schema(), "make schema"


def test_the_schema_is_a_schema_and_takes_what_is_saved(document: Json) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert schema_errors(document) == []


EVIL: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 1.5, -0.0, 1e308, 1e39, 1e-60, float("nan"), float("inf")),
    *(10**400, 2**53, "", "x", "1", "generated", "\ud800", "a\x1bb", "a\n", "x" * 1001, "AAAA"),
    *([], {}, [[[]]], {"": {}}, [1, 2, 3], ["x"], {"x": 1}, {"x": "y"}, {"x": "y\n"}),
]


def places(value: Json) -> Iterator[tuple[Json, Any]]:
    """(container, key or index) within a document, outermost first; two of a list."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:2])
    for step, inner in list(items):
        yield value, step
        if isinstance(inner, dict | list):
            yield from places(inner)


def test_whatever_stands_wherever_the_loader_decides_and_the_schema_takes_what_it_takes(
    path: Path,
) -> None:
    Profile((an_entry(),)).save(path)
    document = json.loads(path.read_bytes())
    taken = refused = 0
    for container, step in places(document):
        original = container[step]
        for evil in EVIL:
            container[step] = evil
            try:
                decode(json.dumps(document).encode())
            except ProfileError:
                refused += 1
            else:
                taken += 1
                assert schema_errors(document) == [], (step, evil)
        container[step] = original
    assert taken > 100
    assert refused > 1000


# ---------------------------------------------------------------- fuzzing


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """A valid file with one or two small accidents."""
    tokens = (b"NaN", b"1e999", b"null", b"true", b"-", b'"\\ud800"', b'"', b"[[[[", b"{", b"\xff")
    for _ in range(rng.integers(1, 3)):
        at, end = sorted(int(x) for x in rng.integers(0, len(data) + 1, 2))
        near = min(end, at + int(rng.integers(0, 16)))
        accidents = (
            data[:at] + bytes([rng.integers(256)]) + data[at + 1 :],
            data[:at]
            + bytes(b ^ (1 << rng.integers(8)) for b in data[at : at + 1])
            + data[at + 1 :],
            data[:at] + data[near:],
            data[:at] + data[at:near] + data[at:],
            data[:at] + tokens[rng.integers(len(tokens))] + data[near:],
            data[:end],
        )
        # Truncation nearly always ends the story at the JSON level: keep it rare.
        data = accidents[rng.choice(len(accidents), p=(0.25, 0.35, 0.1, 0.1, 0.18, 0.02))]
    return data


def test_accidents_to_a_file_are_noticed_or_harmless() -> None:
    valid = encode([an_entry()])
    rng = np.random.default_rng(20250131)
    refusals = []
    loaded = 0
    for _ in range(4000):
        try:
            entries = decode(mutated(valid, rng))
        except ProfileError as error:
            refusals.append(str(error))
        else:
            loaded += 1
            assert decode(encode(entries)) == entries
    assert all(said.isprintable() for said in refusals)
    assert sum("entries" in said for said in refusals) > 300  # these got past the JSON reader
    assert loaded > 200


def test_every_truncation_is_refused() -> None:
    data = encode([an_entry()]).rstrip()
    for length in range(len(data)):
        with pytest.raises(ProfileError):
            decode(data[:length])


# ---------------------------------------------------------------- saving


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_is_private(path: Path) -> None:
    before = os.umask(0)
    try:
        a_profile().save(path)
    finally:
        os.umask(before)
    assert mode(path) == 0o600


@pytest.mark.parametrize("given", [0o644, 0o640, 0o600])
def test_an_existing_file_keeps_its_mode(path: Path, given: int) -> None:
    path.write_text("old")
    path.chmod(given)
    a_profile().save(path)
    assert mode(path) == given
    assert Profile.load(path) == a_profile()


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "vault").mkdir()
    link, target = tmp_path / "me.json", tmp_path / "vault" / "real.json"
    link.symlink_to(Path("vault") / "real.json")
    for _ in range(2):  # first the target is not there yet
        a_profile().save(link)
        assert link.is_symlink()
        assert Profile.load(target) == a_profile()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["me.json", "real.json", "vault"]


def test_a_path_may_be_a_string_and_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    a_profile().save("me.json")
    assert Profile.load("me.json") == a_profile()
    a_profile().save("n" * 255)  # the longest name there is
    assert Profile.load("n" * 255) == a_profile()


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    cases = [
        (tmp_path / "no" / "me.json", f"there is no folder {tmp_path / 'no'}; make it first"),
        (tmp_path / "file" / "me.json", "cannot be written: Not a directory"),
        (tmp_path, "there is something that is not a file"),
        (tmp_path / "pipe", "there is something that is not a file"),
        (tmp_path / "loop", "cannot be written: Too many levels of symbolic links"),
        (tmp_path / "\0", "cannot be written: "),
        (tmp_path / ("n" * 256), "cannot be written: File name too long"),
    ]
    before = sorted(tmp_path.iterdir())
    for path, message in cases:
        with pytest.raises(ProfileError) as caught:
            a_profile().save(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert message in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("root may write anywhere")
    with pytest.raises(ProfileError, match="cannot be written: Permission denied"):
        a_profile().save(tmp_path / "me.json")


def fail(error: BaseException) -> Callable[..., Any]:
    def raise_it(*_: Any, **__: Any) -> None:
        raise error

    return raise_it


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.chmod", "pathlib.Path.replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_in_the_middle_leaves_the_old_file_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    a_profile().save(path)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(step, fail(error))
        expected = ProfileError if isinstance(error, OSError) else KeyboardInterrupt
        with pytest.raises(expected, match=r"me\.json: cannot be written: No space|^$"):
            a_profile().with_entry(an_entry(gain=None)).save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_the_file_is_on_the_disk_before_it_gets_its_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    fsync, rename = os.fsync, Path.replace

    def note_fsync(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        steps.append((f"sync {kind}", os.fstat(descriptor).st_size if kind == "file" else None))
        fsync(descriptor)

    def note_rename(source: Path, target: Path) -> Path:
        steps.append(("rename", None))
        assert source.parent == target.parent
        return rename(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_rename)
    a_profile().save(path)
    assert steps == [("sync file", path.stat().st_size), ("rename", None), ("sync folder", None)]


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
    assert Profile.load(path) == a_profile()


def test_a_profile_too_large_to_load_is_not_saved(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steerx_edge.profile.store, "MAX_BYTES", 1000)
    with pytest.raises(ProfileError, match=r"me\.json: the profile would take .* at most"):
        a_profile().save(path)
    assert not path.exists()


SAVE_FOR_EVER = """
import sys
from steerx_edge.profile import Profile
one, other = (Profile.load(path) for path in sys.argv[1:3])
while True:
    one.save(sys.argv[3])
    print("saved", flush=True)
    other.save(sys.argv[3])
"""


def test_a_reader_or_a_kill_at_any_moment_finds_a_whole_file(tmp_path: Path) -> None:
    model = a_model(n_layer=9, n_embd=1024)
    profiles = [
        Profile((an_entry(model=model, layers=tuple(range(1, last)), gate=None),))
        for last in (9, 3)
    ]
    sources = [tmp_path / "one.json", tmp_path / "other.json"]
    for profile, source in zip(profiles, sources, strict=True):
        profile.save(source)
    whole = {source.read_bytes() for source in sources}
    target = tmp_path / "target" / "me.json"
    target.parent.mkdir()
    rng = np.random.default_rng(5)
    for _ in range(5):
        command = [sys.executable, "-c", SAVE_FOR_EVER, *map(str, (*sources, target))]
        with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE) as child:
            try:
                assert child.stdout is not None
                assert child.stdout.readline() == b"saved\n"
                kill_at = time.monotonic() + rng.uniform(0.1, 0.3)
                while time.monotonic() < kill_at:
                    assert target.read_bytes() in whole
            finally:
                child.send_signal(signal.SIGKILL)
        assert target.read_bytes() in whole
        assert Profile.load(target) in profiles
    # A killed save may leave its temporary file, and nothing else.
    left = {path.name for path in target.parent.iterdir()} - {"me.json"}
    assert all(re.fullmatch(r"\.steerx-edge-\w+\.tmp", name) for name in left)


# ---------------------------------------------------------------- memories, beside the profile


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def a_remembering_profile(*digits: str, **changes: Any) -> Profile:
    """With an entry for each model, by the digit of its fingerprint, and a memory of each."""
    return Profile(
        tuple(
            an_entry(model=a_model(digit), memory=a_new_part(seed=seed, **changes))
            for seed, digit in enumerate(digits)
        )
    )


def memory_of(profile: Profile, entry: int = 0) -> Memory | None:
    part = profile.entries[entry].memory
    assert part is not None
    return part.memory


def file_of(profile: Profile, entry: int = 0) -> str:
    part = profile.entries[entry].memory
    assert part is not None
    return part.file


def test_a_memory_is_saved_beside_the_profile(path: Path) -> None:
    profile = a_remembering_profile("a")
    profile.save(path)
    assert names_in(path.parent) == ["me.json", "me.memory.gguf"]
    assert b"me.memory.gguf" in path.read_bytes()
    loaded = Profile.load(path)
    assert loaded == profile
    assert loaded.problems == []


def test_a_memory_that_was_loaded_offers_the_same_to_the_last_bit(path: Path) -> None:
    profile = a_remembering_profile("a")
    profile.save(path)
    learned, loaded = memory_of(profile), memory_of(Profile.load(path))
    assert learned is not None
    assert loaded is not None
    rows = np.random.default_rng(1).standard_normal((5, 8))
    offers = loaded.offers(rows).of_text(range(5)), learned.offers(rows).of_text(range(5))
    for offered, expected in zip(*offers, strict=True):
        assert offered.tobytes() == expected.tobytes()


def test_a_memory_file_is_private(path: Path) -> None:
    before = os.umask(0)
    try:
        a_remembering_profile("a").save(path)
    finally:
        os.umask(before)
    assert mode(path.with_name("me.memory.gguf")) == 0o600


def test_saving_what_was_loaded_gives_the_same_memory_file(path: Path) -> None:
    a_remembering_profile("a", "b").save(path)
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    Profile.load(path).save(path)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_further_memories_are_named_by_their_model(path: Path) -> None:
    profile = a_remembering_profile("a", "b", "c")
    profile.save(path)
    expected = ["me.json", "me.memory.bbbbbbbb.gguf", "me.memory.cccccccc.gguf", "me.memory.gguf"]
    assert names_in(path.parent) == expected
    assert Profile.load(path) == profile


def test_the_first_memory_need_not_be_that_of_the_first_entry(path: Path) -> None:
    Profile((an_entry(memory=None), *a_remembering_profile("b").entries)).save(path)
    assert names_in(path.parent) == ["me.json", "me.memory.gguf"]


def test_models_that_begin_alike_have_files_of_their_own(path: Path) -> None:
    profile = a_remembering_profile("a", "b", "c")
    alike = "sha256:" + "b" * 8 + "c" * 56
    (*others, last) = profile.entries
    profile = Profile((*others, replace(last, model=a_model(fingerprint=alike))))
    profile.save(path)
    assert len(names_in(path.parent)) == 4
    assert Profile.load(path) == profile


def test_memories_go_along_to_another_place(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    profile = a_remembering_profile("a", "b")
    profile.save(tmp_path / "me.json")
    Profile.load(tmp_path / "me.json").save(tmp_path / "other" / "you.json")
    for file in tmp_path.glob("me.*"):
        file.unlink()
    assert names_in(tmp_path / "other") == [
        "you.json",
        "you.memory.bbbbbbbb.gguf",
        "you.memory.gguf",
    ]
    assert Profile.load(tmp_path / "other" / "you.json") == profile


def test_a_memory_lies_beside_the_file_that_a_link_points_to(tmp_path: Path) -> None:
    (tmp_path / "vault").mkdir()
    link = tmp_path / "me.json"
    link.symlink_to(Path("vault") / "real.json")
    profile = a_remembering_profile("a")
    profile.save(link)
    assert names_in(tmp_path) == ["me.json", "vault"]
    assert names_in(tmp_path / "vault") == ["real.json", "real.memory.gguf"]
    assert Profile.load(link) == profile


@pytest.mark.parametrize("name", [".me", ".me.json", "...json"])
def test_a_hidden_profile_has_a_memory_too(tmp_path: Path, name: str) -> None:
    profile = a_remembering_profile("a")
    profile.save(tmp_path / name)
    loaded = Profile.load(tmp_path / name)
    assert loaded == profile
    assert loaded.problems == []


def said_of(path: Path) -> str:
    """The one problem of a profile, without what is said of any."""
    profile = Profile.load(path)
    assert memory_of(profile) is None
    (problem,) = profile.problems
    assert problem.isprintable()
    begin, end = (
        "The memory is not used (",
        "): put the file back next to the profile, or learn again.",
    )
    assert problem.startswith(begin)
    assert problem.endswith(end)
    return problem.removeprefix(begin).removesuffix(end)


def test_without_its_file_a_memory_is_not_used(path: Path) -> None:
    a_remembering_profile("a").save(path)
    file = path.with_name("me.memory.gguf")
    file.unlink()
    assert said_of(path) == f"{file}: cannot be read: No such file or directory"


def test_another_file_in_its_place_is_not_used(path: Path) -> None:
    a_remembering_profile("a").save(path)
    Profile((an_entry(memory=a_new_part(seed=1)),)).save(path.with_name("you.json"))
    file = path.with_name("me.memory.gguf")
    path.with_name("you.memory.gguf").replace(file)
    assert said_of(path) == f"{file}: not the file that was saved with the profile"


def test_a_damaged_file_is_not_used(path: Path) -> None:
    a_remembering_profile("a").save(path)
    file = path.with_name("me.memory.gguf")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert said_of(path) == f"{file}: not the file that was saved with the profile"


def test_the_memory_of_another_model_is_not_used(path: Path) -> None:
    a_remembering_profile("a", "b").save(path)
    document = json.loads(path.read_bytes())
    document["entries"][0]["memory"] = document["entries"][1]["memory"]
    path.write_text(json.dumps(document))
    file = path.with_name("me.memory.bbbbbbbb.gguf")
    assert said_of(path) == f"{file}: the memory of another model"


def test_a_memory_of_other_size_than_the_profile_says_is_not_used(path: Path) -> None:
    a_remembering_profile("a").save(path)
    path.write_bytes(path.read_bytes().replace(b'"rows": 6', b'"rows": 5'))
    assert said_of(path) == "rows is 5; expected 6, as many as the memory has"


def test_a_reference_to_a_file_that_is_missing_is_kept(path: Path) -> None:
    profile = a_remembering_profile("a")
    profile.save(path)
    before = path.read_bytes()
    file = path.with_name("me.memory.gguf")
    away = file.rename(path.with_name("away"))
    Profile.load(path).save(path)
    assert path.read_bytes() == before
    away.rename(file)
    assert Profile.load(path) == profile


def test_the_name_of_a_file_that_is_missing_is_not_given_to_another(path: Path) -> None:
    profile = a_remembering_profile("a")
    profile.save(path)
    away = path.with_name("me.memory.gguf").rename(path.with_name("away"))
    (added,) = a_remembering_profile("b").entries
    Profile.load(path).with_entry(added).save(path)
    away.rename(path.with_name("me.memory.gguf"))
    assert Profile.load(path) == profile.with_entry(added)


def test_a_memory_that_was_replaced_or_removed_leaves_no_file(path: Path) -> None:
    profile = a_remembering_profile("a", "b")
    profile.save(path)
    first, second = profile.entries
    Profile((first, replace(second, memory=None))).save(path)
    assert names_in(path.parent) == ["me.json", "me.memory.gguf"]
    Profile((replace(first, memory=None),)).save(path)
    assert names_in(path.parent) == ["me.json"]


def test_a_file_that_saving_would_not_have_named_so_is_never_removed(path: Path) -> None:
    a_remembering_profile("a").save(path)
    thesis = path.with_name("thesis.gguf")
    thesis.write_text("years of work")
    path.write_bytes(path.read_bytes().replace(b"me.memory.gguf", b"thesis.gguf"))
    a_profile().save(path)
    assert thesis.read_text() == "years of work"


def test_a_profile_without_a_memory_imports_no_gguf(path: Path) -> None:
    Profile((an_entry(memory=None),)).save(path)
    code = (
        "import sys; from steerx_edge.profile import Profile; Profile.load(sys.argv[1]); "
        "sys.exit('gguf' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, path], env=ENVIRONMENT, check=True)


@pytest.mark.parametrize(
    "step", ["os.fsync", "pathlib.Path.chmod", "steerx_edge.profile.store.encode"]
)
def test_a_failure_in_the_middle_leaves_the_old_memory_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    profile = a_remembering_profile("a")
    profile.save(path)
    changed = Profile((an_entry(memory=a_new_part(seed=1)),))
    with monkeypatch.context() as patch:
        patch.setattr(step, fail(OSError(28, "No space left on device")))
        with pytest.raises(ProfileError, match="No space"):
            changed.save(path)
    assert Profile.load(path) == profile
    assert names_in(path.parent) == ["me.json", "me.memory.gguf"]


def test_all_is_on_the_disk_before_anything_gets_its_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    fsync, rename = os.fsync, Path.replace

    def note_fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def note_rename(source: Path, target: Path) -> Path:
        steps.append(target.name)
        return rename(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_rename)
    a_remembering_profile("a").save(path)
    assert steps == ["file", "file", "me.memory.gguf", "me.json", "folder"]


# ---------------------------------------------------------------- the page about it


def test_the_example_in_the_docs_is_a_profile_as_it_is_saved(path: Path) -> None:
    example = re.findall(r"^```json\n(\{.*?)^```", DOCS.read_text("utf-8"), re.M | re.S)[0]
    path.write_text(example, "utf-8")
    Profile.load(path).save(path)
    assert path.read_text("utf-8") == example


def test_the_error_in_the_docs_is_what_is_said(path: Path) -> None:
    docs = DOCS.read_text("utf-8")
    example = re.findall(r"^```json\n(\{.*?)^```", docs, re.M | re.S)[0]
    said = message_of_loading(path, example.replace('"low": 1.02', '"low": 3.95').encode())
    assert f"\nme.json: {said.removeprefix(f'{path}: ')}\n" in docs


def test_the_docs_name_every_field(document: Json) -> None:
    docs = DOCS.read_text("utf-8")
    entry = document["entries"][0]
    names = [*document, *(name for name in entry if name not in ("model", "description", "words"))]
    names += [f"model.{name}" for name in entry["model"]]
    names += [f"description.{name}" for name in entry["description"]]
    names += [f"words[].{name}" for name in entry["words"][0]]
    parts = ("gain", "with_history", "logit_bias", "memory", "gate")
    names += [f"{part}.{name}" for part in parts for name in entry[part]]
    assert [name for name in names if f"`{name}`" not in docs] == []
