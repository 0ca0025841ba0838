"""What the tests of the analysis context share: requests, comparisons, and views of llama.cpp."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations, product
from typing import Any, NamedTuple

import llama_cpp
import numpy as np
import pytest
from llama_cpp._ggml import libggml
from numpy.typing import NDArray

from steerx_edge.llamacpp import context as context_module
from steerx_edge.llamacpp.interventions import Intervention, selected_positions
from steerx_edge.llamacpp.requests import ScoreRequest, ScoreResult
from tests.support.steered_reference import unit

N_LAYER, N_EMBD, N_VOCAB = 4, 64, 448
ALL_LAYERS = (0, 1, 2, 3)
# More than two of gemma3's sliding windows.
TOKENS = [int(token) for token in np.random.default_rng(2).integers(5, 300, size=40)]
N = len(TOKENS)

F32_MAX = 1e-4  # of tests/tiny_models/test_models_reference.py
ALONE_MAX = 1e-5  # a batch of another size sums in another order

# (tokens of a decode call, rows of logits in one): more than any pass; several calls; calls that
# logits end; single rows.
CALLS = [(512, 4096), (7, 4096), (19, 7), (512, 3), (1, 1)]


def pairwise(*axes: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Cases in which any two values of two axes meet at least once: far fewer than the product."""
    products = list(product(*(range(len(axis)) for axis in axes)))

    def pairs(case: Sequence[int]) -> set[Any]:
        return set(combinations(enumerate(case), 2))

    missing = set().union(*map(pairs, products))
    cases = []
    while missing:
        best = max(products, key=lambda case: len(pairs(case) & missing))
        missing -= pairs(best)
        cases.append(tuple(axis[i] for axis, i in zip(axes, best, strict=True)))
    return cases


# Requests


def tokens_of(seed: int, n: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(100 + seed).integers(5, N_VOCAB, n)]


def vectors(n_layers: int = 1, *, seed: int = 3, n_embd: int = N_EMBD) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n_layers, n_embd)).astype(np.float32)


def directions(n_layers: int = 1, *, seed: int = 3, n_embd: int = N_EMBD) -> NDArray[np.float32]:
    return unit(vectors(n_layers, seed=seed, n_embd=n_embd)).astype(np.float32)


def split(*interventions: Intervention, n_context: int = 10, **options: Any) -> ScoreRequest:
    """Score TOKENS after the first of them, and read all layers."""
    options = {"layers": ALL_LAYERS} | options
    return ScoreRequest(
        TOKENS[:n_context], TOKENS[n_context:], interventions=interventions, **options
    )


def masked(
    interventions: Sequence[Intervention], n_context: int, n_tokens: int
) -> list[tuple[Intervention, NDArray[np.bool_]]]:
    """Interventions as `steered_forward` takes them."""
    return [
        (each, selected_positions(each.positions, n_context, n_tokens)) for each in interventions
    ]


# Comparisons


def assert_close(
    actual: NDArray[Any] | None, expected: NDArray[Any], bound: float = F32_MAX
) -> None:
    assert actual is not None
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound)


def assert_agree(actual: ScoreResult, expected: ScoreResult, bound: float) -> None:
    for name, values in vars(expected).items():
        got = getattr(actual, name)
        if values is None:
            assert got is None, name
        elif name == "top_token":
            np.testing.assert_array_equal(got, values)
        else:
            np.testing.assert_allclose(got, values, rtol=0, atol=bound, err_msg=name)


def assert_all_agree(
    actual: Sequence[ScoreResult], expected: Sequence[ScoreResult], bound: float = ALONE_MAX
) -> None:
    for one, other in zip(actual, expected, strict=True):
        assert_agree(one, other, bound)


def assert_same(actual: ScoreResult, expected: ScoreResult) -> None:
    """Bit for bit."""
    assert_agree(actual, expected, 0)


# Views of llama.cpp


class Call(NamedTuple):
    """A decode call: of each token its first sequence, position, and whether logits are wanted."""

    sequences: list[int]
    positions: list[int]
    outputs: list[bool]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """The decode calls from now on."""
    calls: list[Call] = []
    real = llama_cpp.llama_decode

    def decode(context: Any, batch: Any) -> int:
        rows = range(batch.n_tokens)
        calls.append(
            Call(
                [batch.seq_id[row][0] for row in rows],
                [batch.pos[row] for row in rows],
                [bool(batch.logits[row]) for row in rows],
            )
        )
        return int(real(context, batch))

    monkeypatch.setattr(llama_cpp, "llama_decode", decode)
    return calls


@contextmanager
def changed_batches(change: Callable[[Any], object]) -> Iterator[None]:
    """Calls `change` with each batch before llama.cpp gets it."""
    real = llama_cpp.llama_decode

    def decode(context: Any, batch: Any) -> int:
        change(batch)
        return int(real(context, batch))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llama_cpp, "llama_decode", decode)
        yield


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the nodes that contexts made from now on compute."""
    names: list[str] = []
    real = llama_cpp.ggml_backend_sched_eval_callback
    kept = []  # as long as contexts may call them
    libggml.ggml_get_name.argtypes = [ctypes.c_void_p]
    libggml.ggml_get_name.restype = ctypes.c_char_p

    def around(address: int) -> Any:
        hook = real(address)

        def note(tensor: int, ask: bool, user_data: int) -> bool:
            if ask:
                names.append(libggml.ggml_get_name(tensor).decode())
            return bool(hook(tensor, ask, user_data))

        kept.append((hook, real(note)))
        return kept[-1][1]

    monkeypatch.setattr(llama_cpp, "ggml_backend_sched_eval_callback", around)
    return names


@pytest.fixture
def limit_calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[int, int]], None]:
    """Limits tokens and rows of logits of the decode calls of contexts made from now on."""

    def limit(calls: tuple[int, int]) -> None:
        monkeypatch.setattr(context_module, "MICRO_BATCH", calls[0])
        monkeypatch.setattr(context_module, "LOGITS_BYTES", 4 * N_VOCAB * calls[1])

    return limit
