"""KV cells of a prefix that are put back: as if the prefix had just been evaluated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from llama_cpp import Llama
from numpy.typing import NDArray

from models import ARCHITECTURES, TinyModel, make_tiny
from steerx_edge.errors import ModelError
from steerx_edge.llamacpp import compat
from steerx_edge.llamacpp.kept_prefix import KeptPrefixes, evaluated_state, made_by, state_of
from tests.llamacpp.conftest import ALONE_MAX, assert_close, tokens_of
from tests.support.steered_llama import last_logits

PREFIX, REQUEST, OTHER = tokens_of(0, 60), tokens_of(1, 8), tokens_of(2, 90)


def logits_after(llama: Llama, tokens: list[int]) -> NDArray[np.float32]:
    """Of the last of these tokens, evaluated after what the context holds."""
    llama.eval(tokens)
    logits = np.array(last_logits(llama), np.float32)
    assert logits.any()
    return logits


def evaluated(llama: Llama, prefix: list[int], tokens: list[int]) -> NDArray[np.float32]:
    compat.empty(llama)
    llama.eval(prefix)
    return logits_after(llama, tokens)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_follows_a_restored_prefix_is_the_same_to_the_bit(
    tmp_path: Path, open_llama: Callable[..., Llama], architecture: str
) -> None:
    """With attention over all tokens or a window, and with recurrent state."""
    llama = open_llama(make_tiny(tmp_path / "tiny.gguf", architecture))
    expected = evaluated(llama, PREFIX, REQUEST)
    kept = KeptPrefixes(llama)
    kept.add(PREFIX)
    for _ in range(2):
        assert kept.begin([*PREFIX, *REQUEST]) == len(PREFIX)
        assert llama.n_tokens == len(PREFIX)
        # The cells of a window lie elsewhere, and are summed in another order.
        bound = ALONE_MAX if architecture == "gemma3" else 0
        assert_close(logits_after(llama, REQUEST), expected, bound)
        evaluated(llama, [], OTHER)  # nothing of the prefix is left


def test_a_prefix_that_does_not_fit_the_context_is_an_error(
    tiny_f32: TinyModel, open_llama: Callable[..., Llama]
) -> None:
    llama = open_llama(tiny_f32)
    with pytest.raises(ModelError, match="could not evaluate the prefix"):
        evaluated_state(llama, tokens_of(3, llama.n_ctx() + 1))


def test_a_state_continues_in_another_context(
    tiny_f32: TinyModel, open_llama: Callable[..., Llama]
) -> None:
    first, second = open_llama(tiny_f32), open_llama(tiny_f32)
    expected = evaluated(first, PREFIX, REQUEST)
    compat.empty(first)
    first.eval(PREFIX)
    kept = KeptPrefixes(second)
    kept.stay(PREFIX, state_of(first, len(PREFIX)))
    assert kept.begin([*PREFIX, *REQUEST]) == len(PREFIX)
    np.testing.assert_array_equal(logits_after(second, REQUEST), expected)


def test_cells_that_are_there_are_not_put_back(
    tiny_llama: Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = KeptPrefixes(tiny_llama)
    kept.add(PREFIX)
    kept.begin(PREFIX)
    tiny_llama.eval(REQUEST)
    monkeypatch.setattr(compat, "empty", lambda _: pytest.fail("was emptied"))
    assert kept.begin([*PREFIX, *OTHER]) == len(PREFIX)
    assert kept.begin(OTHER) == 0


def test_the_longest_prefix_is_taken_and_only_few_are_kept_beside_those_that_stay(
    tiny_llama: Llama,
) -> None:
    kept = KeptPrefixes(tiny_llama)
    kept.stay(PREFIX[:20])
    kept.add(PREFIX[:25])
    kept.add(PREFIX)
    assert kept.begin([*PREFIX, *REQUEST]) == len(PREFIX)
    for i in range(3):
        kept.add(tokens_of(10 + i, 5))
    assert kept.begin(PREFIX[:30]) == 20
    assert kept.begin([*PREFIX, *REQUEST]) == len(PREFIX)
    kept.add(tokens_of(13, 5))
    assert kept.begin([*PREFIX, *REQUEST]) == 20


@pytest.mark.parametrize("n_cells", [0, 10])
def test_a_state_that_does_not_fit_is_made_anew(tiny_llama: Llama, n_cells: int) -> None:
    """One that llama.cpp refuses, and one of too few cells, which it takes."""
    compat.empty(tiny_llama)
    tiny_llama.eval(PREFIX[:10])
    state = state_of(tiny_llama, 10) if n_cells else np.zeros(1000, np.uint8)
    expected = evaluated(tiny_llama, PREFIX, REQUEST)
    kept = KeptPrefixes(tiny_llama)
    kept.stay(PREFIX, state)
    evaluated(tiny_llama, [], OTHER)
    assert kept.begin([*PREFIX, *REQUEST]) == len(PREFIX)
    np.testing.assert_array_equal(logits_after(tiny_llama, REQUEST), expected)


def test_cells_depend_on_the_model_and_on_parameters_of_the_context(
    tiny_f32: TinyModel, tiny_q8: TinyModel, open_llama: Callable[..., Llama]
) -> None:
    llama = open_llama(tiny_f32)
    made = made_by(llama)
    assert made_by(open_llama(tiny_f32, n_ctx=256)) == made
    assert made_by(open_llama(tiny_q8)) != made
    for name, value in [("type_k", 1), ("rope_freq_base", 5000.0), ("flash_attn_type", 1)]:
        before = getattr(llama.context_params, name)
        setattr(llama.context_params, name, value)
        assert made_by(llama) != made, name
        setattr(llama.context_params, name, before)
