"""Writing GGUF files, and knowing what a reader will find in them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from gguf import (
    GGML_QUANT_VERSION,
    GGMLQuantizationType,
    GGUFWriter,
    LlamaFileType,
    quants,
)
from llama_cpp._ggml import libggml

from models.operations import Array

Quantization = Literal["F32", "F16", "Q8_0", "Q4_0", "Q4_K"]
QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)
QUANTIZATION_BLOCK = 32
_FILE_TYPES = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
    "Q4_0": LlamaFileType.MOSTLY_Q4_0,
    "Q4_K": LlamaFileType.MOSTLY_Q4_K_S,
}
# What llama.cpp's own converter and quantizer leave in float32 though it is no vector.
_NEVER_QUANTIZED = (
    "position_embd",
    "ffn_gate_inp",
    "shortconv.conv",
    "ssm_conv1d",
    "ssm_a",
    "ssm_d",
    "ssm_norm",
)


@contextmanager
def new_gguf(
    path: str | os.PathLike[str],
    *,
    architecture: str,
    name: str,
    quantization: Quantization,
    chat_template: str | None,
) -> Iterator[GGUFWriter]:
    """Collect metadata and tensors, and write them to a file when the block ends.

    Args:
        path: The file to write.
        architecture: llama.cpp's name of the architecture; prefixes its metadata keys.
        name: The model's name in the metadata.
        quantization: How matrices are stored.
        chat_template: Jinja template to put into the metadata.

    Yields:
        A writer that has the metadata given here.
    """
    writer = GGUFWriter(os.fspath(path), architecture)
    writer.add_name(name)
    writer.add_file_type(_FILE_TYPES[quantization])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    yield writer
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def add_tensors(
    writer: GGUFWriter, weights: Mapping[str, Array], quantization: Quantization
) -> dict[str, Array]:
    """Add weights to a GGUF file: matrices as `quantization` says, vectors in float32.

    Args:
        writer: The file being made.
        weights: GGUF tensor name -> (n,) or (..., n_out, n_in) weights; n_in a multiple of 32,
            of 256 for Q4_K.
        quantization: How matrices are stored.

    Returns:
        The same names with the weights that a reader of the file gets, rounding included.

    Raises:
        ValueError: If n_in is no such multiple.
    """
    stored = {}
    for name, weight in weights.items():
        stays_f32 = weight.ndim == 1 or any(part in name for part in _NEVER_QUANTIZED)
        kind = GGMLQuantizationType["F32" if stays_f32 else quantization]
        data = _quantize(np.ascontiguousarray(weight, dtype=np.float32), kind)
        writer.add_tensor(name, data, raw_dtype=kind)
        stored[name] = quants.dequantize(data, kind).astype(np.float64)
    return stored


def _quantize(weight: npt.NDArray[np.float32], kind: GGMLQuantizationType) -> npt.NDArray[Any]:
    """Quantize (..., n_in) weights; K-quants by ggml itself, since gguf only reads them."""
    if kind is not GGMLQuantizationType.Q4_K:
        return quants.quantize(weight, kind)
    n_in = weight.shape[-1]
    data = np.empty(quants.quant_shape_to_byte_shape(weight.shape, kind), dtype=np.uint8)
    libggml.ggml_quantize_chunk(
        ctypes.c_int(kind),
        ctypes.c_void_p(weight.ctypes.data),
        ctypes.c_void_p(data.ctypes.data),
        ctypes.c_int64(0),  # the first element
        ctypes.c_int64(weight.size // n_in),
        ctypes.c_int64(n_in),
        None,  # all columns matter alike
    )
    return data
