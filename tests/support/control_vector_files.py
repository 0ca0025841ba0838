"""GGUF control vectors as other programs write them, and as llama.cpp reads them."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import llama_cpp
import numpy as np
import numpy.typing as npt
from gguf import GGUFWriter

Vectors = Mapping[int, npt.NDArray[np.float32]]

_ggml = ctypes.CDLL(str(next((Path(llama_cpp.__file__).parent / "lib").glob("libggml-base.*"))))
_P, _S, _N = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64


class _InitParams(ctypes.Structure):
    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", _P), ("no_alloc", ctypes.c_bool))


class _GgufInitParams(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.POINTER(_P)))


for _name, _result, _arguments in (
    ("ggml_init", _P, [_InitParams]),
    ("ggml_free", None, [_P]),
    ("ggml_new_tensor_1d", _P, [_P, ctypes.c_int, _N]),
    ("ggml_set_name", _P, [_P, _S]),
    ("ggml_get_tensor", _P, [_P, _S]),
    ("ggml_get_data_f32", ctypes.POINTER(ctypes.c_float), [_P]),
    ("ggml_nelements", _N, [_P]),
    ("gguf_init_empty", _P, []),
    ("gguf_init_from_file", _P, [_S, _GgufInitParams]),
    ("gguf_free", None, [_P]),
    ("gguf_set_val_str", None, [_P, _S, _S]),
    ("gguf_set_val_i32", None, [_P, _S, ctypes.c_int32]),
    ("gguf_add_tensor", None, [_P, _P]),
    ("gguf_write_to_file", ctypes.c_bool, [_P, _S, ctypes.c_bool]),
    ("gguf_get_n_tensors", _N, [_P]),
    ("gguf_get_tensor_name", _S, [_P, _N]),
):
    getattr(_ggml, _name).restype = _result
    getattr(_ggml, _name).argtypes = _arguments


def some_vectors(layers: Sequence[int], n_embd: int, length: float = 1.0, seed: int = 0) -> Vectors:
    """Random vectors of one length."""
    rows = np.random.default_rng(seed).standard_normal((len(layers), n_embd))
    rows *= length / np.linalg.norm(rows, axis=1, keepdims=True)
    return dict(zip(layers, rows.astype(np.float32), strict=True))


def write_gguf(
    path: Path,
    tensors: Mapping[str, npt.NDArray[Any]],
    *,
    architecture: str = "controlvector",
    strings: Mapping[str, str] | None = None,
    count: int | None = None,
    floats: Mapping[str, float] | None = None,
) -> Path:
    """Write a GGUF file by the `gguf` package."""
    writer = GGUFWriter(str(path), architecture)
    for key, text in (strings or {}).items():
        writer.add_string(key, text)
    if count is not None:
        writer.add_uint32("controlvector.layer_count", count)
    for key, number in (floats or {}).items():
        writer.add_float32(key, number)
    for name, array in tensors.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _named(vectors: Vectors) -> dict[str, npt.NDArray[np.float32]]:
    return {f"direction.{layer}": vector for layer, vector in vectors.items()}


def by_repeng(path: Path, vectors: Vectors) -> Path:
    """Hugging Face's word for the model, the number of directions, the last layer first."""
    latest_first = dict(sorted(vectors.items(), reverse=True))
    hint = {"controlvector.model_hint": "mistral"}
    return write_gguf(path, _named(latest_first), strings=hint, count=len(vectors))


def by_jukofyork(path: Path, vectors: Vectors, n_layer: int = 4) -> Path:
    """As repeng, with the number of the model's layers; `vectors` by the tensors' own numbers."""
    hint = {"controlvector.model_hint": "mistral"}
    return write_gguf(path, _named(vectors), strings=hint, count=n_layer)


def by_easysteer(path: Path, vectors: Vectors) -> Path:
    """As repeng, with the method and its figures."""
    strings = {"controlvector.model_hint": "qwen2", "controlvector.method": "diffmean"}
    floats = {"controlvector.explained_variance.2": 0.5}
    return write_gguf(path, _named(vectors), strings=strings, count=len(vectors), floats=floats)


def by_cvector_generator(path: Path, vectors: Vectors) -> Path:
    """By llama.cpp's own functions, with a signed number of directions."""
    ctx = _ggml.ggml_init(_InitParams(2**20, None, False))
    file = _ggml.gguf_init_empty()
    _ggml.gguf_set_val_str(file, b"general.architecture", b"controlvector")
    _ggml.gguf_set_val_str(file, b"controlvector.model_hint", b"llama")
    _ggml.gguf_set_val_i32(file, b"controlvector.layer_count", len(vectors))
    for name, vector in _named(vectors).items():
        tensor = _ggml.ggml_new_tensor_1d(ctx, 0, vector.size)  # 0: F32
        _ggml.ggml_set_name(tensor, name.encode())
        ctypes.memmove(_ggml.ggml_get_data_f32(tensor), vector.ctypes.data, vector.nbytes)
        _ggml.gguf_add_tensor(file, tensor)
    assert _ggml.gguf_write_to_file(file, str(path).encode(), False)
    _ggml.gguf_free(file)
    _ggml.ggml_free(ctx)
    return path


WRITERS = {
    "repeng": by_repeng,
    "llama.cpp's cvector-generator": by_cvector_generator,
    "jukofyork's control-vectors": by_jukofyork,
    "EasySteer": by_easysteer,
}


class Loaded(NamedTuple):
    """What llama.cpp's loader gives to `llama_set_adapter_cvec`; row 0 is for block 1."""

    n_embd: int
    data: npt.NDArray[np.float32]

    def apply(self, llama: llama_cpp.Llama) -> None:
        """Steer every row of a model, in llama.cpp's default range of layers."""
        n_layer = llama_cpp.llama_model_n_layer(llama.model)
        values = self.data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        status = llama_cpp.llama_set_adapter_cvec(
            llama.ctx, values, self.data.size, self.n_embd, 1, n_layer
        )
        assert status == 0


def loaded_by_llama_cpp(path: Path) -> Loaded:
    """Read a control vector with llama.cpp's own reader of GGUF files.

    llama.cpp's loader of control vectors lies in its `common` library, which llama-cpp-python does
    not contain, so what it does with the tensors is done here.
    """
    ctx = _P()
    params = _GgufInitParams(False, ctypes.pointer(ctx))
    file = _ggml.gguf_init_from_file(str(path).encode(), params)
    assert file
    n_embd, data = 0, np.zeros(0, np.float32)
    for i in range(_ggml.gguf_get_n_tensors(file)):
        name = _ggml.gguf_get_tensor_name(file, i)
        tensor = _ggml.ggml_get_tensor(ctx, name)
        layer = int(name.decode().removeprefix("direction."))
        n_embd = _ggml.ggml_nelements(tensor)
        values = np.ctypeslib.as_array(_ggml.ggml_get_data_f32(tensor), (n_embd,))
        data = np.pad(data, (0, max(0, n_embd * layer - data.size)))
        data[n_embd * (layer - 1) : n_embd * layer] += values
    _ggml.gguf_free(file)
    _ggml.ggml_free(ctx)
    return Loaded(n_embd, data)
