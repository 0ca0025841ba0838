"""How often rows cross between a device and the host: the functions that move them are counted."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import llama_cpp
import numpy as np
import pytest

from steerx_edge import _native
from tests.native.conftest import N_EMBD, N_LAYER, TOKENS, Context, Rows, f32, i32

COUNTING = """
#include <stddef.h>

void (*note)(const char *direction, const void *tensor, size_t offset, size_t size);
void (*real_get)(const void *tensor, void *data, size_t offset, size_t size);
void (*real_set)(void *tensor, const void *data, size_t offset, size_t size);

void ggml_backend_tensor_get(const void *tensor, void *data, size_t offset, size_t size) {
    note("get", tensor, offset, size);
    real_get(tensor, data, offset, size);
}

void ggml_backend_tensor_set(void *tensor, const void *data, size_t offset, size_t size) {
    note("set", tensor, offset, size);
    real_set(tensor, data, offset, size);
}
"""
ROW = N_EMBD * 4  # bytes


class Transfer(NamedTuple):
    direction: str
    name: str
    offset: int
    size: int


@pytest.fixture
def transfers() -> list[Transfer]:
    return []


@pytest.fixture
def context(
    open_context: Callable[..., Context], transfers: list[Transfer], tmp_path: Path
) -> Iterator[Context]:
    """One whose hook finds the functions above before llama.cpp's own, and lists their calls."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("there is no C compiler")
    source, built = tmp_path / "counting.c", tmp_path / "counting.so"
    source.write_text(COUNTING)
    subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(built)], check=True)
    counting, llama = ctypes.CDLL(str(built)), llama_cpp.llama_cpp._lib
    llama.ggml_get_name.restype = ctypes.c_char_p

    @ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
    def note(direction: bytes, tensor: int, offset: int, size: int) -> None:
        name = llama.ggml_get_name(ctypes.c_void_p(tensor))
        transfers.append(Transfer(direction.decode(), name.decode(), offset, size))

    for name, function in [
        ("note", note),
        ("real_get", llama.ggml_backend_tensor_get),
        ("real_set", llama.ggml_backend_tensor_set),
    ]:
        address = ctypes.cast(function, ctypes.c_void_p)
        ctypes.c_void_p.in_dll(counting, name).value = address.value
    api = _native.LlamaApi([counting._handle, llama._handle])
    yield open_context(hooks=_native.ResidualHooks(api, N_LAYER, N_EMBD))
    del note  # until now it may be called


def add(layer: int, rows: list[int]) -> _native.Write:
    return _native.Write(_native.make_add([layer], np.ones((1, N_EMBD), np.float32)), [layer], rows)


def read(layers: list[int], rows: list[int], values: Rows) -> _native.Read:
    slots = [0] * len(rows)
    return _native.Read("l_out", layers, i32(*rows), i32(*slots), f32(*[1.0] * len(rows)), values)


def test_rows_of_a_layer_move_once_whatever_is_done_with_them(
    context: Context, transfers: list[Transfer]
) -> None:
    """Layer 1 is read twice and changed twice, layer 2 read, layer 3 changed, layer 0 let alone."""
    values = [np.zeros((2, 1, N_EMBD), np.float32), np.zeros((1, 1, N_EMBD), np.float32)]
    n = len(TOKENS)
    context.hooks.arm(
        i32(*TOKENS),
        i32(*range(n)),
        [add(1, [6, 3]), add(1, [4]), add(3, [11])],
        [read([1, 2], [5, 8, 2], values[0]), read([1], [5, 5], values[1])],
        False,
    )
    context.decode()
    context.hooks.finish()
    tokens, *rows = transfers
    assert tokens == Transfer("get", tokens.name, 0, 4 * n)
    assert "inp_tokens" in tokens.name  # the order that llama.cpp computes in
    assert rows == [
        Transfer("get", "l_out-1", 2 * ROW, 7 * ROW),
        Transfer("set", "l_out-1", 2 * ROW, 7 * ROW),
        Transfer("get", "l_out-2", 2 * ROW, 7 * ROW),
        Transfer("get", "l_out-3", 11 * ROW, ROW),
        Transfer("set", "l_out-3", 11 * ROW, ROW),
    ]


def test_nothing_moves_in_an_idle_pass(context: Context, transfers: list[Transfer]) -> None:
    context.decode()
    assert transfers == []
