"""GGUF control vectors: what is read is what llama.cpp reads, or a sentence says why not."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steerx_edge.errors import ProfileError
from steerx_edge.profile import Profile
from steerx_edge.profile.control_vector_file import ControlVectorFile, read_control_vector
from steerx_edge.profile.exporting import write_control_vector
from tests.support.control_vector_files import (
    WRITERS,
    by_cvector_generator,
    by_repeng,
    some_vectors,
    write_gguf,
)
from tests.support.entries import a_full_entry, a_model

ONE_ROUNDING = 2.0**-23  # of float32, relative
WIDTH = 8  # of `a_model`, which has 6 layers


def ones(n: int = WIDTH, dtype: Any = np.float32) -> Any:
    return np.ones(n, dtype)


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("writer", WRITERS)
def test_the_producer_is_told_by_what_it_writes(writer: str, tmp_path: Path) -> None:
    vectors = some_vectors((2, 3), WIDTH)
    read = read_control_vector(WRITERS[writer](tmp_path / "v.gguf", vectors))
    assert read.producer.name == writer
    assert ("one block later" in read.producer.meaning) == (
        writer in ("llama.cpp's cvector-generator", "jukofyork's control-vectors")
    )
    assert read.layers == (2, 3)
    np.testing.assert_array_equal(read.vectors, np.stack([vectors[2], vectors[3]]))
    assert read.positions == "all"


@pytest.mark.parametrize(
    ("strings", "count"),
    [({}, 1), ({}, None), ({"controlvector.model_hint": "llama"}, None)],
)
def test_a_file_of_no_known_program_is_read(
    strings: dict[str, str], count: int | None, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "v.gguf", {"direction.3": ones()}, strings=strings, count=count)
    read = read_control_vector(path)
    assert (read.producer.name, read.layers) == ("an unknown program", (3,))


def test_directions_of_one_layer_are_summed(tmp_path: Path) -> None:
    tensors = {"direction.2": ones(), "direction.02": 2 * ones(), "direction.1": ones()}
    read = read_control_vector(write_gguf(tmp_path / "v.gguf", tensors))
    assert read.layers == (1, 2)
    np.testing.assert_array_equal(read.vectors[1], 3 * ones())


# ---------------------------------------------------------------- a profile of it


def test_an_entry_adds_the_vectors_within_one_rounding(tmp_path: Path) -> None:
    vectors = some_vectors((1, 2, 5), WIDTH, 123.456)
    read = read_control_vector(by_repeng(tmp_path / "v.gguf", vectors))
    entry = read.entry_for(a_model())
    assert entry.layers == (1, 2, 5)
    np.testing.assert_allclose(entry.vectors(), read.vectors, rtol=ONE_ROUNDING, atol=0)
    assert set(entry.contrast_methods) == {"imported"}


def test_blocks_that_the_model_does_not_have_are_left_out(tmp_path: Path) -> None:
    read = read_control_vector(by_repeng(tmp_path / "v.gguf", some_vectors((5, 6, 900), WIDTH)))
    assert read.entry_for(a_model()).layers == (5,)
    assert read.too_high(a_model()) == [6, 900]


def test_a_direction_that_is_zero_is_left_out(tmp_path: Path) -> None:
    tensors = {"direction.1": 0 * ones(), "direction.4": ones()}
    read = read_control_vector(write_gguf(tmp_path / "v.gguf", tensors))
    assert read.entry_for(a_model()).layers == (4,)


@pytest.mark.parametrize("vectors", [some_vectors((6,), WIDTH), {2: 0 * ones()}])
def test_a_control_vector_that_adds_nothing_is_refused(vectors: Any, tmp_path: Path) -> None:
    read = read_control_vector(by_repeng(tmp_path / "v.gguf", vectors))
    with pytest.raises(ProfileError, match=r"adds nothing to Tiny Llama .* blocks 1 to 5"):
        read.entry_for(a_model())


def test_another_width_is_refused(tmp_path: Path) -> None:
    read = read_control_vector(by_repeng(tmp_path / "v.gguf", some_vectors((2,), 16)))
    with pytest.raises(ProfileError, match=r"has width 16, but Tiny Llama .* has 8"):
        read.entry_for(a_model())


def test_a_profile_of_a_control_vector_is_for_every_model_of_its_width(tmp_path: Path) -> None:
    by_repeng(tmp_path / "v.gguf", some_vectors((2,), WIDTH))
    profile = Profile.load(tmp_path / "v.gguf")
    for model in (a_model("a"), a_model("b")):
        assert profile.entry_for(model).model == model


def test_a_profile_of_a_control_vector_is_not_saved(tmp_path: Path) -> None:
    profile = Profile.load(by_repeng(tmp_path / "v.gguf", some_vectors((2,), WIDTH)))
    with pytest.raises(ProfileError, match="saved by importing it for a model"):
        profile.save(tmp_path / "v.json")
    assert not (tmp_path / "v.json").exists()


def test_nothing_is_learned_into_a_control_vector(tmp_path: Path) -> None:
    path = by_repeng(tmp_path / "v.gguf", some_vectors((2,), WIDTH))
    with pytest.raises(ProfileError, match="a GGUF file, which cannot hold a profile"):
        Profile((a_full_entry(),)).save_changes(path, since=None)
    assert read_control_vector(path).layers == (2,)


# ---------------------------------------------------------------- what is written


def test_what_is_exported_is_read_again(tmp_path: Path) -> None:
    entry = a_full_entry(strengths=[0.1, 0.0, 0.3])
    omitted = write_control_vector(tmp_path / "me.gguf", entry)
    assert omitted == [
        "the logit bias (4 tokens)",
        "the memory (6 rows)",
        "the request gate",
        "the strengths for prompts with texts",
        "the description",
        "2 words",
    ]
    assert stat.S_IMODE((tmp_path / "me.gguf").stat().st_mode) == 0o600
    read = read_control_vector(tmp_path / "me.gguf")
    assert (read.producer.name, read.model_hint) == ("steerx-edge", "llama")
    assert (read.fingerprint, read.positions) == (entry.model.fingerprint, "generated")
    np.testing.assert_array_equal(read.vectors, entry.vectors()[[0, 2]])
    again = read.entry_for(entry.model)
    assert again.layers == (2, 5)
    np.testing.assert_array_equal(again.norms, entry.norms[[0, 2]])
    np.testing.assert_allclose(again.strengths, [0.1, 0.3], rtol=1e-6)
    np.testing.assert_allclose(again.vectors(), read.vectors, rtol=ONE_ROUNDING, atol=0)


def test_a_profile_without_directions_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="adds no direction"):
        write_control_vector(tmp_path / "me.gguf", a_full_entry(strengths=[0, 0, 0]))
    assert not list(tmp_path.iterdir())


def test_only_a_control_vector_is_replaced(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "model.gguf", {"w": ones()}, architecture="llama")
    before = model.read_bytes()
    with pytest.raises(ProfileError, match="is no control vector: choose another name"):
        write_control_vector(model, a_full_entry())
    assert model.read_bytes() == before
    path = by_repeng(tmp_path / "v.gguf", some_vectors((2,), WIDTH))
    write_control_vector(path, a_full_entry())
    assert read_control_vector(path).layers == (3, 5)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"direction.0": ones()}, "it holds direction.0"),
        ({"direction.1": ones(), "bias": ones(3)}, "the tensor 'bias' is no direction"),
        ({"direction.-1": ones()}, "the tensor 'direction.-1' is no direction"),
        ({"direction.one": ones()}, "the tensor 'direction.one' is no direction"),
        ({"direction.1": ones(dtype=np.float16)}, "direction.1 is not F32"),
        ({"direction.1": ones(dtype=np.int32)}, "direction.1 is not F32"),
        ({"direction.1": np.ones((2, 4), np.float32)}, r"direction.1 has shape \(2, 4\)"),
        ({"direction.1": ones(), "direction.2": ones(9)}, "direction.2 has width 9, others have 8"),
        ({"direction.1": np.nan * ones()}, "direction.1 holds a value that is not finite"),
        ({"direction.1": 1e38 * ones()}, "not finite, or is too large"),
        ({}, "holds no direction"),
    ],
)
def test_what_llama_cpp_refuses_is_refused(tensors: Any, said: str, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "v.gguf", tensors)
    with pytest.raises(ProfileError, match=said) as error:
        read_control_vector(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: write_gguf(path, {"w": ones()}, architecture="llama"), "is 'llama', not"),
        (lambda path: path.write_bytes(b"GGUF"), "not a GGUF control vector"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "not a GGUF control vector"),
        (lambda path: path.write_text("{}"), "not a GGUF control vector"),
        (lambda path: path.unlink(), "cannot be read: No such file"),
    ],
)
def test_another_file_is_refused(spoil: Any, said: str, tmp_path: Path) -> None:
    path = by_repeng(tmp_path / "v.gguf", some_vectors((2,), WIDTH))
    spoil(path)
    with pytest.raises(ProfileError, match=said):
        read_control_vector(path)


def test_hostile_norms_of_an_own_file_change_nothing(tmp_path: Path) -> None:
    tensors = {"direction.1": ones(), "direction.2": ones()}
    floats = {"steerx.norm.1": 3e38, "steerx.norm.2": float("nan")}
    path = tmp_path / "v.gguf"
    write_gguf(path, tensors, floats=floats)
    read = read_control_vector(path)
    assert read.producer.name == "steerx-edge"
    np.testing.assert_allclose(read.entry_for(a_model()).vectors(), read.vectors, rtol=1e-6)


@pytest.mark.parametrize("writer", [by_repeng, by_cvector_generator])
def test_a_damaged_file_is_read_or_refused(writer: Any, tmp_path: Path) -> None:
    whole = writer(tmp_path / "v.gguf", some_vectors((1, 2, 3), WIDTH)).read_bytes()
    rng = np.random.default_rng(5)
    path = tmp_path / "damaged.gguf"
    for _ in range(300):
        data = np.frombuffer(whole, np.uint8).copy()
        places = rng.integers(0, data.size, rng.integers(1, 6))
        data[places] = rng.choice([0, 1, 4, 8, 127, 255], places.size)
        path.write_bytes(data[: rng.integers(1, data.size + 1) if rng.random() < 0.2 else None])
        try:
            read = read_control_vector(path)
        except ProfileError:
            continue
        assert_usable(read)


def assert_usable(read: ControlVectorFile) -> None:
    assert np.isfinite(read.vectors).all()
    assert read.layers[0] >= 1
    try:
        entry = read.entry_for(a_model())
    except ProfileError:
        return
    assert np.isfinite(entry.vectors()).all()
