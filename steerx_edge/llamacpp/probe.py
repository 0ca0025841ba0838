"""Whether an architecture exposes its residual stream, and can be steered."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from steerx_edge.errors import ModelError
from steerx_edge.llamacpp.interventions import Add
from steerx_edge.llamacpp.requests import Dimensions, ScoreRequest, ScoreResult


def check_architecture(
    name: str, dimensions: Dimensions, run: Callable[[ScoreRequest], ScoreResult]
) -> None:
    """Find out whether residual rows can be read and are where they should be, and are steered.

    A vector added to one block must show up, exactly, in that block's rows and in no row before
    the first steered one.

    Args:
        name: of the architecture.
        dimensions: of context and model.
        run: runs a request, and adds by the control vector.

    Raises:
        ModelError: the architecture hides its rows, or ignores control vectors.
    """
    n_layer = dimensions.n_layer
    layers = tuple(range(n_layer))
    context, response = [1 % dimensions.n_vocab, 2 % dimensions.n_vocab], [3 % dimensions.n_vocab]
    try:
        plain = run(ScoreRequest(context, response, layers=layers)).captured
    except ModelError as error:
        raise ModelError(
            f"The architecture '{name}' does not expose its residual stream in this llama.cpp, "
            f"so nothing can be learned from it. {error}"
        ) from error
    if n_layer < 2:
        raise ModelError(f"A model of {n_layer} layer(s) has no block that can be steered.")
    layer = n_layer // 2
    vector = np.linspace(-1, 1, dimensions.n_embd, dtype=np.float32) * np.abs(plain[layer]).max()
    added = (Add((layer,), vector[None]),)
    steered = run(ScoreRequest(context, response, layers=layers, interventions=added)).captured
    moved = steered[layer] - plain[layer]
    if not np.allclose(moved, vector, atol=1e-3 * np.abs(vector).max()) or not np.allclose(
        steered[:layer], plain[:layer], rtol=1e-3, atol=1e-3
    ):
        raise ModelError(
            f"The architecture '{name}' ignores control vectors in this llama.cpp, so it "
            "cannot be steered."
        )
