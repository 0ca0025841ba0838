"""llama.cpp's own samplers, for text that is generated in the analysis context."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp


class Sampler:
    """A chain of llama.cpp samplers, freed with the object.

    Args:
        temperature: 0 takes the most probable token.
        seed: of sampling.
    """

    def __init__(self, temperature: float, seed: int) -> None:
        self._chain: Any = llama_cpp.llama_sampler_chain_init(
            llama_cpp.llama_sampler_chain_default_params()
        )
        links = []
        if temperature > 0:
            links.append(llama_cpp.llama_sampler_init_temp(temperature))
            links.append(llama_cpp.llama_sampler_init_dist(seed))
        else:
            links.append(llama_cpp.llama_sampler_init_greedy())
        for link in links:
            llama_cpp.llama_sampler_chain_add(self._chain, link)

    def __call__(self, context: ctypes.c_void_p, row: int) -> int:
        """The next token after a row of the last batch that has logits."""
        return int(llama_cpp.llama_sampler_sample(self._chain, context, row))

    def __del__(self) -> None:
        llama_cpp.llama_sampler_free(self._chain)
