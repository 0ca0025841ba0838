"""`me.json`: what is saved is what is loaded, and what is wrong is refused and named."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import steerx_edge.profile
from steerx_edge.errors import ProfileError
from steerx_edge.profile import Description, Entry, Word
from steerx_edge.profile.json_format import decode, encode, json_schema
from tests.support.entries import a_full_entry, a_missing_memory, a_model

SCHEMA_FILE = Path(steerx_edge.profile.__file__).with_name("profile.schema.json")
VALIDATOR = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text("utf-8")))
DOCS = (Path(__file__).parents[2] / "docs" / "profile.md").read_text("utf-8")
EXAMPLE = re.findall(r"^```json\n(\{.*?)^```", DOCS, re.M | re.S)[0]
NAN, INF = float("nan"), float("inf")

Json = Any


@pytest.fixture
def document() -> Json:
    nothing: dict[str, Any] = {"strengths": np.zeros(3), "logit_bias": None, "memory": None}
    nothing |= {"gate": None, "gain": None, "with_history": None}
    return json.loads(encode([a_full_entry(), a_full_entry(model=a_model("b"), **nothing)]))


def decoded(document: Json) -> tuple[Entry, ...]:
    return decode(json.dumps(document).encode())


def saved_and_loaded(**changes: Any) -> Entry:
    (entry,) = decode(encode([a_full_entry(**changes)]))
    return entry


def refusal(data: bytes) -> str:
    with pytest.raises(ProfileError) as caught:
        decode(data)
    return str(caught.value)


# ---------------------------------------------------------------- round trip


def test_encoding_and_decoding_keeps_every_bit() -> None:
    given, kept = a_full_entry(), saved_and_loaded()
    assert kept == given
    assert encode([kept]) == encode([given])
    for name in ("directions", "norms", "strengths"):
        assert getattr(kept, name).dtype == np.float32
        assert getattr(kept, name).tobytes() == getattr(given, name).tobytes()
    assert kept.logit_bias
    assert kept.logit_bias.tokens.dtype == np.int32
    assert kept.logit_bias.values.dtype == np.float32


def test_floats_of_every_size_survive() -> None:
    rng = np.random.default_rng(3)
    bits = rng.integers(1, 0x7F80_0000, 500, dtype=np.uint32)  # every positive finite float32
    bits[:2] = 1, 0x7F7F_FFFF
    norms = bits.view(np.float32)
    doubles = rng.integers(0, 2**63, 200, dtype=np.uint64).view(np.float64)
    doubles = doubles[np.isfinite(doubles)]
    words = tuple(Word("w", x, x, x, 1, 1) for x in doubles.tolist())
    model, layers = a_model(n_layer=501), tuple(range(1, 501))
    loaded = saved_and_loaded(model=model, layers=layers, norms=norms, strengths=norms, words=words)
    assert loaded.norms.tobytes() == loaded.strengths.tobytes() == norms.tobytes()
    assert [word.effect for word in loaded.words] == doubles.tolist()


def test_types_of_settings_survive() -> None:
    settings = {"a": 1, "b": 1.0, "c": True, "d": "1", "e": -0.0, "f": 5e-324}
    loaded = saved_and_loaded(settings=settings).settings
    assert repr(loaded) == repr(settings)


def test_numpy_scalars_are_saved_as_plain_values() -> None:
    word = Word("w", np.float32(0.5), np.float64(0), 1, np.int32(2), np.uint8(1))
    changes = {"words": [word], "layers": tuple(np.array([2, 3, 5])), "counts": {"n": np.int64(3)}}
    entry = a_full_entry(**changes)
    assert saved_and_loaded(**changes) == entry
    assert b'{"word": "w", "effect": 0.5, "low": 0.0, "high": 1.0,' in encode([entry])


def test_layout_is_for_reading() -> None:
    lines = encode([a_full_entry()]).decode().splitlines()
    assert lines[:3] == ["{", '  "format": "steerx-edge-profile",', '  "schema": 2,']
    assert lines[-1] == "}"
    word = '{"word": "honestly", "effect": 4.82, "low": 3.1, "high": 6.67, "count": 14, "items": 9}'
    assert f"        {word}," in lines
    assert any('"señor"' in line for line in lines)
    assert '      "strengths": [0.0, 0.15, 0.3],' in lines  # not 0.30000001192092896
    directions = lines.index('      "directions": [')
    assert [line[:9] for line in lines[directions + 1 : directions + 4]] == ["        ["] * 3


def test_a_byte_order_mark_is_taken() -> None:
    assert decode(b"\xef\xbb\xbf" + encode([a_full_entry()])) == (a_full_entry(),)


def test_a_profile_of_before_does_not_say_what_was_tried(document: Json) -> None:
    del document["entries"][0]["trials"]
    assert decoded(document)[0] == a_full_entry(trials=None)
    assert b"trials" not in encode([a_full_entry(trials=None)])


@pytest.mark.parametrize("part", ["logit_bias", "memory"])
def test_a_part_may_be_deleted_by_hand(document: Json, part: str) -> None:
    document["entries"][0][part] = None
    assert document["entries"][0]["with_history"][part] > 0
    assert decoded(document)[0] == a_full_entry(**{part: None})


# ---------------------------------------------------------------- what is wrong

UNIT = [1.0] + [0.0] * 7

# A place within entries[0], or of the whole file where it begins with "/"; what is put there, `...`
# deleting it; and what is said.
SEEN_BY_THE_SCHEMA: list[tuple[str, Json, str]] = [
    ("/format", "other", 'not a steerx-edge profile: no "format"'),
    ("/schema", ..., "the profile lacks the key 'schema'"),
    ("/schema", 3, "made by a newer steerx-edge (schema 3; this one reads 2): upgrade"),
    ("/schema", 10**400, "(schema an integer of 1329 bits; this"),
    ("/schema", 1, "an older steerx-edge (schema 1; this one reads 2): learn"),
    ("/extra", 1, "the profile has an unknown key 'extra'; known are form"),
    ("/a - at `$[0]`", 1, "an unknown key 'a - at `$[0]`'; known"),
    ("/entries", [], "entries is a list of 0 values; expected a list, not empty"),
    # keys and types
    ("model.n_embd", ..., "entries[0].model lacks the key 'n_embd'"),
    ("words.1.weight", 1, "entries[0].words[1] has an unknown key 'weight'"),
    ("\x1b[2J" + "x" * 99, 1, r"unknown key '\x1b[2Jxxx"),
    ("memory.memory", None, "entries[0].memory has an unknown key 'memory'"),
    ("description", "text", "entries[0].description is 'text'; expected an object"),
    ("model.n_layer", True, "model.n_layer is true; expected an integer from 1"),
    # strings
    ("model.fingerprint", "sha256:" + "A" * 64, "and 64 lower-case hex"),
    ("model.fingerprint", "sha256:" + "a" * 64 + "\n", "fingerprint is 'sha256:a"),
    ("words.0.word", "", "words[0].word is ''; expected a string of"),
    ("words.0.word", "a\n", r"word is 'a\n'; expected a string of"),
    ("words.0.word", "a\x9b", r"is 'a\x9b'; expected"),
    ("description.text", "a\ud800", r"description.text is 'a\ud800'; expected"),
    ("description.text", "a\rb", "without control characters but tabs and line"),
    ("description.origin", "me", "'me'; expected 'model' or 'statistics' or 'u"),
    ("description.origin", "a\ud800", "not text: it holds a lone surrogate"),
    ("contrast_methods.0", "magic", "contrast_methods[0] is 'magic'; expected 'context-contrast'"),
    ("created", "2025-01-31T09:30:00+00:00", "expected a UTC time such as"),
    ("created", "2025-13-30T09:30:00Z", "entries[0].created is '2025-13-30T09"),
    ("memory.file", "../me.gguf", "'../me.gguf'; expected the name of a file in"),
    ("memory.file", "a\\b", "expected the name of a file in the profile's folder"),
    ("memory.file", ".me.gguf", "'.me.gguf'; expected the name of a file in"),
    ("memory.sha256", "0" * 64 + "\n", "expected 64 lower-case hexadecimal digits"),
    # numbers
    ("model.n_embd", 0, "model.n_embd is 0; expected an integer from 1 to 90"),
    ("gain.high", INF, "entries[0].gain.high is inf; expected a finite number"),
    ("words.1.effect", 10**400, "effect is an integer of 1329 bits; expected a"),
    ("logit_bias.strength", -1, "logit_bias.strength is -1; expected a finite number, at least 0"),
    ("logit_bias.tokens.3", 2**31, "logit_bias.tokens[3] is 2147483648; expected an"),
    ("strengths.1", -0.1, "entries[0].strengths[1] is -0.1; expected"),
    ("norms.1", 1e-46, "norms[1] is 1e-46; expected a finite number, at least 1e-45"),
    ("layers.0", 0, "layers[0] is 0; expected an integer from 1"),
    # what calibration tried
    ("trials.memory.1.mean", 1e39, "trials.memory[1].mean is 1e+39; expected a finite number"),
    ("trials.memory.0.at", -1, "trials.memory[0].at is -1; expected a finite number, at least 0"),
    ("trials.texts.0.loss", "0", "trials.texts[0].loss is '0'; expected a finite number"),
    ("trials.directions.1.layers.0", 0, "directions[1].layers[0] is 0; expected an integer from 1"),
    (
        "trials.gate",
        [],
        "trials has an unknown key 'gate'; known are memory, logit_bias",
    ),
    # objects of any keys
    ("counts.tokens", -1, "entries[0].counts.tokens is -1; expected an integer fr"),
    ("counts.a\x07", 1, r"counts.(key) is 'a\x07'; expected a string of"),
    ("settings.tau", [1], "settings.tau is a list of 1 values; expected a string"),
    ("settings.note", "\x00", r"settings.note is '\x00'; expected a string with"),
    ("versions.steerx_edge", 1, "versions.steerx_edge is 1; expected a str"),
]
# JSON Schema cannot relate two fields, and has no word for some numbers.
SEEN_BY_THE_LOADER_ALONE: list[tuple[str, Json, str]] = [
    ("model.n_layer", 6.0, "model.n_layer is 6.0; expected an integer"),
    ("words.1.effect", NAN, "words[1].effect is nan; expected a finite number"),
    ("settings.seed", 2**60, "settings.seed is 1152921504606846976; exp"),
    ("words.0.items", 15, "words[0].items is 15; expected at most count, 14"),
    ("with_history.gain.low", 0.5, "entries[0].with_history.gain.low is 0.5"),
    ("with_history.strengths", [1, 1], "with_history.strengths has shape (2,);"),
    ("layers.2", 6, "layers[2] is 6; expected a layer above 3 and below 6"),
    ("layers", [2, 3], "contrast_methods has shape (3,); expected (2,), one for each layer"),
    ("strengths", [1, 1], "entries[0].strengths has shape (2,); expected (3,), one"),
    ("directions", [UNIT] * 2, "entries[0].directions has shape (2, 8); expected"),
    ("directions.2", [1.0], "directions has rows of different lengths"),
    ("directions.1.0", 2.0, "directions[1] has length 2."),
    ("directions.1.7", NAN, "directions[1][7] is nan; exp"),
    ("logit_bias.tokens", [0, 1, 2], "logit_bias.values has shape (4,); expected (3,), one"),
    ("logit_bias.tokens.2", 48, "entries[0].logit_bias.tokens holds ids that do not"),
    ("gate.direction", UNIT[1:], "gate.direction has shape (7,); expected (8,)"),
    ("trials.memory.2.at", 0.1, "trials.memory holds values of at that do not increase"),
    ("trials.texts.0.low", 0.5, "entries[0].trials.texts[0].low is 0.5; expected at most high"),
    (
        "trials.directions.1.layers",
        [2],
        "directions[1].contrast_methods holds 2 values; exp",
    ),
]
CASES = [*SEEN_BY_THE_SCHEMA, *SEEN_BY_THE_LOADER_ALONE]


def put(document: Json, place: str, value: Json) -> None:
    container = document if place.startswith("/") else document["entries"][0]
    *steps, last = [
        int(step) if step.isdigit() else step for step in place.removeprefix("/").split(".")
    ]
    for step in steps:
        container = container[step]
    if value is ...:
        del container[last]
    else:
        container[last] = value


@pytest.mark.parametrize(("place", "value", "message"), CASES, ids=[case[2] for case in CASES])
def test_a_broken_file_is_refused_and_named(
    document: Json, place: str, value: Json, message: str
) -> None:
    put(document, place, value)
    said = refusal(json.dumps(document).encode())
    assert message in said
    assert len(said) < 300
    assert said.isprintable()
    assert VALIDATOR.is_valid(document) is ((place, value, message) in SEEN_BY_THE_LOADER_ALONE)


NO_PROFILES: list[tuple[bytes, str]] = [
    (b"", "not JSON: Expecting value: line 1 column 1"),
    (b"\x80\x04K\x01.", "not UTF-8 text (byte 0)"),
    (b'{"format": "\xff"}', "not UTF-8 text (byte 12)"),
    (b"[]", "not a steerx-edge profile"),
    (b"{}", "not a steerx-edge profile"),
    (b"1e999", "not a steerx-edge profile"),
    (b'{"format": {"a": 1, "b": 2, "a": 1}}', "the key 'a' occurs twice in one object"),
    (b"1" * 5000, "not JSON: Exceeds the limit"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"a":' * 100_000, "nested too deeply"),
]


@pytest.mark.parametrize(("data", "message"), NO_PROFILES, ids=[each[1] for each in NO_PROFILES])
def test_what_is_no_profile_is_refused(data: bytes, message: str) -> None:
    assert message in refusal(data)


@pytest.mark.parametrize("number", ["1e999", "-Infinity", "NaN"])
def test_numbers_that_json_does_not_have_are_refused(number: str) -> None:
    data = encode([a_full_entry()]).replace(b'"strength": 0.5', f'"strength": {number}'.encode())
    assert "entries[0].logit_bias.strength is " in refusal(data)


UNLOADABLE: list[tuple[dict[str, Any], str]] = [
    ({"words": [Word("a\x1b", 1, 0, 2, 1, 1)]}, r"words[0].word is 'a\x1b'; expected"),
    ({"words": [Word("a", NAN, 0, 2, 1, 1)]}, "words[0].effect is nan; expected a finite number"),
    ({"description": Description("a\ud800", "user")}, r"description.text is 'a\ud800'; exp"),
    ({"strengths": [0, 0, -1]}, "strengths[2] is -1.0; expected"),
    ({"memory": a_missing_memory(file="../me.gguf")}, "memory.file is '../me.gguf'; expected"),
    ({"settings": {"a": None}}, "settings.a is null; expected a string"),
]


@pytest.mark.parametrize(("changes", "message"), UNLOADABLE, ids=[each[1] for each in UNLOADABLE])
def test_what_could_not_be_loaded_is_not_encoded(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ProfileError, match=re.escape(f"entries[0].{message}")):
        encode([a_full_entry(**changes)])


# ---------------------------------------------------------------- schema and loader


def test_the_schema_is_that_of_the_structs() -> None:
    assert SCHEMA_FILE.read_text("utf-8") == json_schema(), "make schema"


def test_the_schema_is_a_schema_and_takes_what_is_saved(document: Json) -> None:
    VALIDATOR.check_schema(VALIDATOR.schema)
    assert VALIDATOR.is_valid(document)


ODD_VALUES: list[Any] = [
    *(None, True, -1, 0, 2, 1.5, 1e39, 1e-60, NAN, 10**400, 2**53),
    *("", "x", "generated", "\ud800", "a\x1bb", "a\n", "x" * 1001),
    *([], {}, {"": {}}, [1, 2, 3], ["x"], {"x": "y\n"}),
]


def places(value: Json) -> Iterator[tuple[Json, Any]]:
    """(container, key or index) within a document, outermost first; two of a list."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:2])
    for step, inner in list(items):
        yield value, step
        if isinstance(inner, dict | list):
            yield from places(inner)


@pytest.mark.slow
def test_the_schema_takes_what_the_loader_takes_anywhere(document: Json) -> None:
    del document["entries"][1]
    taken = refused = 0
    for container, step in places(document):
        original = container[step]
        for value in ODD_VALUES:
            container[step] = value
            try:
                decoded(document)
            except ProfileError:
                refused += 1
            else:
                taken += 1
                assert VALIDATOR.is_valid(document), (step, value)
        container[step] = original
    assert taken > 100
    assert refused > 1000


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """A valid file with one or two small accidents."""
    tokens = (b"NaN", b"1e999", b"null", b"true", b"-", b'"\\ud800"', b'"', b"[[[[", b"{", b"\xff")
    for _ in range(rng.integers(1, 3)):
        begin, end = sorted(int(x) for x in rng.integers(0, len(data) + 1, 2))
        near = min(end, begin + int(rng.integers(0, 16)))
        flipped = bytes(byte ^ (1 << rng.integers(8)) for byte in data[begin : begin + 1])
        accidents = (
            data[:begin] + flipped + data[begin + 1 :],
            data[:begin] + data[near:],
            data[:begin] + data[begin:near] + data[begin:],
            data[:begin] + tokens[rng.integers(len(tokens))] + data[near:],
            data[:end],
        )
        # A cut nearly always ends at the JSON level: keep it rare.
        data = accidents[rng.choice(len(accidents), p=(0.6, 0.1, 0.1, 0.18, 0.02))]
    return data


@pytest.mark.slow
def test_accidents_to_a_file_are_noticed_or_harmless() -> None:
    valid = encode([a_full_entry()])
    rng = np.random.default_rng(20250131)
    refusals = []
    n_loaded = 0
    for _ in range(1500):
        try:
            entries = decode(damaged(valid, rng))
        except ProfileError as error:
            refusals.append(str(error))
        else:
            n_loaded += 1
            assert decode(encode(entries)) == entries
    assert all(said.isprintable() for said in refusals)
    assert sum("entries" in said for said in refusals) > 100  # these got past the JSON reader
    assert n_loaded > 60


def test_every_truncation_is_refused() -> None:
    data = encode([a_full_entry()]).rstrip()
    for length in range(0, len(data), 7):
        with pytest.raises(ProfileError):
            decode(data[:length])


# ---------------------------------------------------------------- docs/profile.md


def test_the_example_in_the_docs_is_a_profile_as_it_is_saved() -> None:
    assert encode(decode(EXAMPLE.encode())).decode() == EXAMPLE


def test_the_error_in_the_docs_is_what_is_said() -> None:
    said = refusal(EXAMPLE.replace('"low": 1.02', '"low": 3.95').encode())
    assert f"\nme.json: {said}\n" in DOCS


def test_the_docs_name_every_field(document: Json) -> None:
    entry = document["entries"][0]
    names = [*document, *(name for name in entry if name not in ("model", "description", "words"))]
    parts = (
        "model",
        "description",
        "gain",
        "with_history",
        "logit_bias",
        "memory",
        "gate",
        "trials",
    )
    names += [f"{part}.{name}" for part in parts for name in entry[part]]
    names += [f"{part}[].{name}" for part in ("words", "edits") for name in entry[part][0]]
    assert [name for name in names if f"`{name}`" not in DOCS] == []
