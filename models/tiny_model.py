"""A GGUF file together with a NumPy forward pass that says what it must compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.operations import Array, log_softmax
from models.transformer import Transformer


class Trace(NamedTuple):
    """What a forward pass went through.

    Attributes:
        residual: (n_layer, n_tokens, n_embd) output of each block, llama.cpp's `l_out-<layer>`.
        logits: (n_tokens, n_vocab).
    """

    residual: Array
    logits: Array


@dataclass(frozen=True)
class TinyModel:
    """A model small enough to know exactly.

    Attributes:
        path: The GGUF file.
        network: The same weights, as the file stores them, ready to be computed with.
    """

    path: Path
    network: Transformer

    @property
    def n_layer(self) -> int:
        """Number of blocks."""
        return self.network.n_layer

    @property
    def n_embd(self) -> int:
        """Width of the residual stream."""
        return self.network.n_embd

    @property
    def n_vocab(self) -> int:
        """Number of tokens in the vocabulary."""
        return self.network.n_vocab

    def forward(
        self, tokens: Sequence[int], steering: Mapping[int, npt.ArrayLike] | None = None
    ) -> Trace:
        """Compute every block's output and the logits of one sequence from position 0.

        Args:
            tokens: (n_tokens,) token ids.
            steering: 0-based layer -> (n_embd,) vector, or (n_tokens, n_embd) rows, added to that
                block's output as llama.cpp adds a control vector.

        Returns:
            The trace; its residual rows include the steering.

        Raises:
            ValueError: If steering names a layer that the model does not have.
            NotImplementedError: If the architecture is not one of `models.REFERENCED`.
        """
        steering = steering or {}
        if unknown := set(steering) - set(range(self.n_layer)):
            raise ValueError(f"no such layers: {sorted(unknown)}; the model has {self.n_layer}")
        residual = self.network.embed(np.asarray(tokens, dtype=np.intp))
        outputs = []
        for layer in range(self.n_layer):
            residual = self.network.block(layer, residual)
            residual = residual + np.asarray(steering.get(layer, 0.0), dtype=np.float64)
            outputs.append(residual)
        return Trace(np.stack(outputs), self.network.logits(residual))

    def log_probabilities(self, tokens: Sequence[int]) -> Array:
        """Score each token but the first, given those before it.

        Args:
            tokens: (n_tokens,) token ids.

        Returns:
            (n_tokens - 1,) log p(tokens[t + 1] | tokens[: t + 1]), in nats.
        """
        log_probability = log_softmax(self.forward(tokens).logits[:-1])
        return log_probability[np.arange(len(tokens) - 1), np.asarray(tokens[1:], dtype=np.intp)]
