"""Weighted sums of profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steerx_edge.errors import ProfileError
from steerx_edge.profile import Entry, LogitBias, Profile
from steerx_edge.profile.combining import combine, left_out
from steerx_edge.profile.fields import equal
from tests.support.control_vector_files import by_repeng, some_vectors
from tests.support.entries import (
    a_full_entry,
    a_gate,
    a_learned_memory,
    a_model,
    an_entry,
)

FLOAT32 = 1e-6  # relative, of a few roundings


def a_profile(*layers: int, seed: int = 0, **fields: Any) -> Profile:
    """With random directions of one model."""
    vectors = some_vectors(layers, 8, seed=seed)
    directions = np.stack(list(vectors.values()))
    norms = np.linspace(3, 50, len(layers))
    fields = {"norms": norms, "strengths": np.linspace(0.3, 0.1, len(layers)), **fields}
    return Profile((an_entry(fields.pop("model", a_model()), layers, directions, **fields),))


def added(profile: Profile) -> dict[int, Any]:
    """What is added to the residual stream, by layer."""
    (entry,) = profile.entries
    return dict(zip(entry.layers, entry.vectors(), strict=True))


def only(profile: Profile) -> Entry:
    (entry,) = profile.entries
    return entry


def test_directions_are_summed_layer_by_layer() -> None:
    one, other = a_profile(1, 3), a_profile(3, 4, seed=1)
    total = added(combine([one, other], [0.7, -0.3]))
    first, second = added(one), added(other)
    expected = {1: 0.7 * first[1], 3: 0.7 * first[3] - 0.3 * second[3], 4: -0.3 * second[4]}
    assert total.keys() == expected.keys()
    for layer, vector in expected.items():
        np.testing.assert_allclose(total[layer], vector, rtol=FLOAT32, atol=FLOAT32)


def test_a_profile_minus_itself_adds_nothing() -> None:
    one = a_profile(1, 3)
    assert not only(combine([one, one], [1, -1])).steering()


def test_one_profile_with_weight_1_and_others_with_0_is_that_profile() -> None:
    one, other = a_profile(1, 3), a_profile(1, 3, seed=1)
    total = added(combine([one, other], [1, 0]))
    for layer, vector in added(one).items():
        np.testing.assert_allclose(total[layer], vector, rtol=FLOAT32, atol=0)


def test_logit_biases_are_summed_token_by_token() -> None:
    one = a_profile(1, logit_bias=LogitBias(np.array([2, 5]), np.array([1.0, 2.0]), 0.5))
    other = a_profile(1, logit_bias=LogitBias(np.array([5, 9]), np.array([4.0, -1.0]), 1.0))
    bias = only(combine([one, other, a_profile(2)], [1, 0.5, 1])).steering().logit_bias
    assert bias == {2: 0.5, 5: 3.0, 9: -0.5}


def test_the_memory_is_that_of_the_first_at_its_weight(tmp_path: Path) -> None:
    one = a_profile(1, memory=a_learned_memory(0, strength=0.4))
    other = a_profile(1, memory=a_learned_memory(1, strength=0.8))
    combined = combine([one, other], [0.5, 2])
    combined.save(tmp_path / "c.json")
    part = only(Profile.load(tmp_path / "c.json")).memory
    first = only(one).memory
    assert part is not None
    assert part.memory is not None
    assert first is not None
    assert first.memory is not None
    assert part.strength == pytest.approx(0.2)
    assert part.memory.equals(first.memory)
    assert any("Memories cannot be summed" in note for note in left_out([one, other], combined))


def test_a_memory_is_left_out_at_a_weight_below_0() -> None:
    one = a_profile(1, memory=a_learned_memory())
    combined = combine([one, a_profile(2)], [-1, 1])
    assert only(combined).memory is None
    assert any("its weight is below 0" in note for note in left_out([one, one], combined))


def test_what_was_measured_is_left_out_and_the_rest_is_that_of_the_first() -> None:
    one = Profile((a_full_entry(),))
    other = a_profile(2, gate=a_gate(threshold=9.0), positions="all")
    combined = combine([one, other], [1, 1])
    entry, first = only(combined), only(one)
    assert (entry.gain, entry.with_history) == (None, None)
    assert equal(entry.gate, first.gate)
    assert (entry.positions, entry.words) == ("generated", first.words)
    assert entry.description == first.description
    notes = " ".join(left_out([one, other], combined))
    for said in ("Request gates cannot be summed", "'generated' is kept", "strengths for prompts"):
        assert said in notes


def test_a_control_vector_is_combined_with_a_profile(tmp_path: Path) -> None:
    vectors = some_vectors((2,), 8, 4.0)
    vector = Profile.load(by_repeng(tmp_path / "v.gguf", vectors))
    one = a_profile(1)
    total = added(combine([one, vector], [1, 0.5]))
    np.testing.assert_allclose(total[2], 0.5 * vectors[2], rtol=FLOAT32, atol=0)
    np.testing.assert_allclose(total[1], added(one)[1], rtol=FLOAT32, atol=0)


def test_only_models_that_all_are_for_are_combined() -> None:
    one, other = a_profile(1), a_profile(1, model=a_model("b"))
    both = Profile((*one.entries, *other.entries))
    combined = combine([both, other], [1, 1])
    assert [entry.model for entry in combined.entries] == [a_model("b")]
    assert left_out([both, other], combined) == [
        f"Left out {a_model('a')}: not all profiles are for it."
    ]
    with pytest.raises(ProfileError, match="no model in common"):
        combine([one, other], [1, 1])


def test_control_vectors_alone_name_no_model(tmp_path: Path) -> None:
    vector = Profile.load(by_repeng(tmp_path / "v.gguf", some_vectors((2,), 8)))
    with pytest.raises(ProfileError, match="import one of them for a model"):
        combine([vector, vector], [1, 1])


@pytest.mark.parametrize(
    ("n", "weights", "said"),
    [(1, [1], "at least two"), (2, [1], "1 weights"), (2, [1, float("inf")], "finite numbers")],
)
def test_wrong_numbers_are_refused(n: int, weights: list[float], said: str) -> None:
    with pytest.raises(ProfileError, match=said):
        combine([a_profile(1)] * n, weights)
