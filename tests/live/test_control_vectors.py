"""Control vectors of other programs: the logits are those of llama.cpp with the same file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from llama_cpp import Llama

from models import TinyModel
from steerx_edge.live import steer
from steerx_edge.llamacpp.models import identify
from steerx_edge.profile import Profile
from steerx_edge.profile.control_vector_file import read_control_vector
from steerx_edge.profile.exporting import write_control_vector
from tests.support.control_vector_files import WRITERS, loaded_by_llama_cpp, some_vectors
from tests.support.entries import a_gate
from tests.support.steered_llama import (
    EXACT,
    a_profile,
    assert_steered_exactly,
    assert_untouched,
    greedy_with_logits,
    knowing,
)

Open = Callable[..., Llama]
LENGTH = 10.0


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_of_another_program_steers_as_llama_cpp_does_with_it(
    writer: str, open_with: Open, llama: Llama, prompt: list[int], tmp_path: Path
) -> None:
    # Of jukofyork's tool the last one is for a block that this model does not have.
    layers = range(2, 5) if writer.startswith("jukofyork") else range(1, 4)
    vectors = some_vectors(layers, identify(llama).n_embd, LENGTH)
    path = WRITERS[writer](tmp_path / "v.gguf", vectors)
    by_llama_cpp = open_with()
    loaded_by_llama_cpp(path).apply(by_llama_cpp)
    expected, expected_logits = greedy_with_logits(by_llama_cpp, prompt)
    unsteered, _ = greedy_with_logits(open_with(), prompt)
    assert expected != unsteered
    with steer(llama, path):
        tokens, logits = greedy_with_logits(llama, prompt)
    assert tokens == expected
    np.testing.assert_allclose(logits, expected_logits, atol=EXACT, rtol=0)
    assert_untouched(llama, open_with(), prompt)


@pytest.mark.parametrize("writer", WRITERS)
def test_an_imported_profile_steers_as_the_file_does(
    writer: str, llama: Llama, tiny_f32: TinyModel, prompt: list[int], tmp_path: Path
) -> None:
    path = WRITERS[writer](tmp_path / "v.gguf", some_vectors((1, 3), identify(llama).n_embd, 5))
    Profile((read_control_vector(path).entry_for(identify(llama)),)).save(tmp_path / "v.json")
    imported = Profile.load(tmp_path / "v.json")
    with steer(llama, imported):
        assert_steered_exactly(llama, tiny_f32, prompt, imported)
        _, logits = greedy_with_logits(llama, prompt)
    with steer(llama, path):
        np.testing.assert_array_equal(greedy_with_logits(llama, prompt)[1], logits)


def test_what_is_exported_is_what_the_profile_adds_to_the_bit(
    open_with: Open, llama: Llama, prompt: list[int], tmp_path: Path
) -> None:
    path = tmp_path / "me.gguf"
    profile = knowing(llama, 0.7, layers=(1, 2), positions="all")
    (entry,) = profile.entries
    write_control_vector(path, entry)
    loaded = loaded_by_llama_cpp(path)
    np.testing.assert_array_equal(loaded.data.reshape(-1, loaded.n_embd), entry.vectors())

    loaded.apply(by_llama_cpp := open_with())
    expected, expected_logits = greedy_with_logits(by_llama_cpp, prompt)
    alone = a_profile(llama, strength=0.7, layers=(1, 2), positions="all")
    with steer(llama, alone):  # the same directions without a memory
        tokens, logits = greedy_with_logits(llama, prompt)
    assert tokens == expected
    np.testing.assert_allclose(logits, expected_logits, atol=EXACT, rtol=0)


def test_an_exported_profile_steers_the_same_rows_again(
    llama: Llama, tiny_f32: TinyModel, prompt: list[int], tmp_path: Path
) -> None:
    profile = a_profile(llama)
    write_control_vector(tmp_path / "me.gguf", profile.entries[0])
    with steer(llama, tmp_path / "me.gguf"):
        assert_steered_exactly(llama, tiny_f32, prompt, profile)


def test_a_strength_scales_a_control_vector(
    llama: Llama, prompt: list[int], tmp_path: Path
) -> None:
    model = identify(llama)
    path = WRITERS["repeng"](tmp_path / "v.gguf", some_vectors((1, 3), model.n_embd, LENGTH))
    twice = WRITERS["repeng"](tmp_path / "w.gguf", some_vectors((1, 3), model.n_embd, 2 * LENGTH))
    with steer(llama, path, strength=2.0):
        logits = greedy_with_logits(llama, prompt)[1]
    with steer(llama, twice):
        np.testing.assert_allclose(greedy_with_logits(llama, prompt)[1], logits, atol=EXACT, rtol=0)


def test_a_gate_is_left_out_of_an_exported_profile(llama: Llama, tmp_path: Path) -> None:
    width = identify(llama).n_embd
    gate = a_gate(direction=np.ones(width, np.float32))
    omitted = write_control_vector(tmp_path / "me.gguf", a_profile(llama, gate=gate).entries[0])
    assert "the request gate" in omitted
    read = Profile.load(tmp_path / "me.gguf").entry_for(identify(llama))
    assert read.gate is None
