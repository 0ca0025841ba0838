"""The final normed row of a token, beside its logits, in a model's own context."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import llama_cpp
import numpy as np
from llama_cpp import Llama
from numpy.typing import NDArray


def evaluate_with_row(
    llama: Llama, tokens: Sequence[int], evaluate: Callable[[Sequence[int]], None]
) -> None:
    """Call `evaluate` with one token so that llama.cpp gives its final normed row, too."""
    llama_cpp.llama_set_embeddings(llama.ctx, True)
    try:
        evaluate(tokens)
    finally:
        usual = bool(llama.context_params.embeddings)
        llama_cpp.llama_set_embeddings(llama.ctx, usual)


def final_row(llama: Llama, n_embd: int) -> NDArray[np.float32]:
    """(n_embd,) of the token that was evaluated last, until the next one is."""
    pointer = llama_cpp.llama_get_embeddings_ith(llama.ctx, -1)
    row: NDArray[np.float32] = np.ctypeslib.as_array(pointer, (n_embd,))
    return row
