"""Interventions as NumPy computes them, alone on rows and within a tiny model's forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models import TinyModel, Trace
from models.operations import Array, log_softmax
from steerx_edge.llamacpp.interventions import Add, Clamp, Gate, Intervention, Rotate, SetComponent


def changed_rows(intervention: Intervention, layer: int, rows: Array) -> Array:
    """What an intervention makes of rows (n, n_embd) after block `layer`."""
    rows = changed = np.asarray(rows, dtype=np.float64)
    if layer not in intervention.layers:
        return rows
    place = intervention.layers.index(layer)
    match intervention:
        case Add():
            changed = rows + intervention.vectors[place]
        case SetComponent():
            u = unit(intervention.directions[place])
            changed = rows - np.outer(rows @ u, u) + intervention.values[place] * u
        case Rotate():
            u = unit(intervention.directions[place])
            norms = np.linalg.norm(rows, axis=1, keepdims=True)
            across = rows - np.outer(rows @ u, u)
            across /= np.linalg.norm(across, axis=1, keepdims=True)
            angles = np.maximum(angle_to(rows, u) - intervention.angle, 0)[:, None]
            changed = norms * (np.cos(angles) * u + np.sin(angles) * across)
        case Gate():
            cosines = np.cos(angle_to(rows, intervention.conditions[place]))
            inner = changed_rows(intervention.inner, layer, rows)
            changed = np.where(cosines[:, None] > intervention.threshold, inner, rows)
        case Clamp():
            change = changed_rows(intervention.inner, layer, rows) - rows
            most = intervention.share * np.linalg.norm(rows, axis=1, keepdims=True)
            size = np.linalg.norm(change, axis=1, keepdims=True)
            changed = rows + change * np.minimum(1, most / np.maximum(size, 1e-300))
    return changed


def unit(vector: npt.ArrayLike) -> Array:
    rows: Array = np.asarray(vector, dtype=np.float64)
    units: Array = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return units


def angle_to(rows: Array, direction: npt.ArrayLike) -> Array:
    """The angle between each row (n, n_embd) and the direction: (n,) radians."""
    rows, u = np.asarray(rows, dtype=np.float64), unit(direction)
    along = rows @ u
    angles: Array = np.arctan2(np.linalg.norm(rows - along[:, None] * u, axis=1), along)
    return angles


def steered_forward(
    model: TinyModel,
    tokens: Sequence[int],
    changes: Sequence[tuple[Intervention, npt.NDArray[np.bool_]]],
) -> Trace:
    """The forward pass with interventions, in this order, on masked (n_tokens,) rows."""
    residual = model.network.embed(np.asarray(tokens, dtype=np.intp))
    outputs = []
    for layer in range(model.n_layer):
        residual = model.network.block(layer, residual)
        for intervention, mask in changes:
            residual = np.where(
                mask[:, None], changed_rows(intervention, layer, residual), residual
            )
        outputs.append(residual)
    return Trace(np.stack(outputs), model.network.logits(residual))


def scores_of(trace: Trace, tokens: Sequence[int], n_context: int) -> Array:
    """Log-probabilities of the tokens after the first `n_context`: (T,)."""
    log_p = log_softmax(trace.logits[n_context - 1 : -1])
    return log_p[np.arange(len(log_p)), np.asarray(tokens[n_context:], dtype=np.intp)]
