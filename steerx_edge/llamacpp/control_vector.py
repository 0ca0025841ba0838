"""llama.cpp's in-graph control vector: a vector added to the output of some blocks, on every row.

`layer` is always the 0-based block whose output is meant. Block 0 cannot be steered: llama.cpp's
buffer starts at block 1.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from steerx_edge.errors import ModelError


@dataclass(frozen=True)
class ControlVector:
    """Vectors in units of the residual stream.

    Args:
        layers: 0-based blocks, strictly increasing, each at least 1.
        vectors: (layer, n_embd) float32.
    """

    layers: tuple[int, ...]
    vectors: NDArray[np.float32]


def check_layers(layers: Sequence[int], n_layer: int) -> None:
    """Raise ModelError unless all of the layers can be steered in a model of n_layer blocks."""
    if not layers or list(layers) != sorted(set(layers)) or layers[0] < 1 or layers[-1] >= n_layer:
        raise ModelError(
            f"Layers {list(layers)} cannot be steered: give increasing ones, 1 to {n_layer - 1}."
        )


def set_control_vector(llama_context: int, model: int, control: ControlVector | None) -> None:
    """Steer every row that `llama_context` evaluates from now on; None ends it.

    Args:
        llama_context: address of a llama_context.
        model: address of its llama_model.
        control: what to add, or None.

    Raises:
        ModelError: the vector does not fit the model.
    """
    n_layer = llama_cpp.llama_model_n_layer(model)
    n_embd = llama_cpp.llama_model_n_embd(model)
    if control is None:
        status = llama_cpp.llama_set_adapter_cvec(llama_context, None, 0, n_embd, 0, 0)
    else:
        layers = list(control.layers)
        check_layers(layers, n_layer)
        if control.vectors.shape != (len(layers), n_embd):
            raise ModelError(
                f"A control vector of shape {control.vectors.shape} does not fit this model: "
                f"expected {(len(layers), n_embd)}."
            )
        # The whole buffer is sent: llama.cpp keeps old values in layers a shorter one leaves out.
        buffer = np.zeros((n_layer - 1, n_embd), dtype=np.float32)
        buffer[np.asarray(layers) - 1] = control.vectors
        data = buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        status = llama_cpp.llama_set_adapter_cvec(
            llama_context, data, buffer.size, n_embd, min(layers), max(layers)
        )
    if status != 0:
        raise ModelError(f"llama.cpp refused the control vector (status {status}).")
