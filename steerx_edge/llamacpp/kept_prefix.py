"""The beginning of prompts, evaluated once and put back into a Llama's own context when it is gone.

llama-cpp-python re-uses the KV cells that a prompt has in common with the one before. So a prefix
that all prompts begin with is evaluated once, as long as nothing else is. This keeps a copy of its
cells, as llama.cpp gives out the state of a sequence, and puts it back where they are missing.

llama.cpp checks of a state that its layers, types and sizes fit, and not what it was computed from:
see `made_by`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from steerx_edge.errors import ModelError
from steerx_edge.llamacpp import compat
from steerx_edge.llamacpp.models import identify, is_recurrent

if TYPE_CHECKING:
    from llama_cpp import Llama

_Tokens: TypeAlias = tuple[int, ...]
_BYTES = ctypes.POINTER(ctypes.c_uint8)
_SEQUENCE = 0  # the one that llama-cpp-python evaluates
_MOST_KEPT = 4
"""Prefixes that are kept beside those that stay: each other system message makes another one."""

_PARAMETERS = (
    "type_k",
    "type_v",
    "flash_attn_type",
    "attention_type",
    "rope_scaling_type",
    "rope_freq_base",
    "rope_freq_scale",
    "yarn_ext_factor",
    "yarn_attn_factor",
    "yarn_beta_fast",
    "yarn_beta_slow",
    "yarn_orig_ctx",
    "swa_full",
    "offload_kqv",
    "kv_unified",
)


def made_by(llama: Llama) -> dict[str, str]:
    """What the KV cells of some tokens depend on: they may be used where all of this is equal."""
    params = compat.context_params(llama)
    found = {name: str(getattr(params, name)) for name in _PARAMETERS}
    # Some models compute other rotations in a long context.
    by_length = any("rope.scaling.original_context" in key for key in llama.metadata)
    return {
        "model": identify(llama).fingerprint,
        "llama_cpp_python": compat.installed_version(),
        "n_gpu_layers": str(llama.model_params.n_gpu_layers),
        "n_ctx": str(llama.n_ctx()) if by_length else "any",
        "lora": f"{llama.lora_path or ''} {llama.lora_scale if llama.lora_path else ''}",
        **found,
    }


def state_of(llama: Llama, n_tokens: int) -> NDArray[np.uint8]:
    """A copy of the state of a context that holds exactly these tokens.

    Raises:
        ModelError: it holds others, or llama.cpp fails.
    """
    if llama.n_tokens != n_tokens:
        raise ModelError(f"The context holds {llama.n_tokens} tokens, not {n_tokens}.")
    context = llama.ctx
    state = np.empty(llama_cpp.llama_state_seq_get_size(context, _SEQUENCE), np.uint8)
    data = state.ctypes.data_as(_BYTES)
    size = llama_cpp.llama_state_seq_get_data(context, data, state.nbytes, _SEQUENCE)
    if not size:
        raise ModelError("llama.cpp could not copy the state of the context.")
    return state[:size]


def evaluated_state(llama: Llama, tokens: Sequence[int]) -> NDArray[np.uint8]:
    """Evaluate tokens in an empty context, and copy its state.

    Raises:
        ModelError: llama.cpp fails.
    """
    compat.empty(llama)
    try:
        llama.eval(tokens)
    except RuntimeError as error:
        raise ModelError(f"llama.cpp could not evaluate the prefix: {error}.") from error
    return state_of(llama, len(tokens))


class KeptPrefixes:
    """Prefixes of prompts whose KV cells are kept, for a Llama's own context.

    The caller sees to it that nothing is steered while a prefix is evaluated.

    Args:
        llama: the model; not used from another thread meanwhile.

    Attributes:
        rolls_back: whether the context can be taken back to the end of a prefix, after it went on.
            Where not, a prompt is to be evaluated from there, without `Llama.generate`'s reset.
    """

    def __init__(self, llama: Llama) -> None:
        self._llama = llama
        self._states: dict[_Tokens, NDArray[np.uint8] | None] = {}
        self._staying: set[_Tokens] = set()
        is_windowed = llama_cpp.llama_model_n_swa(llama.model) > 0
        self.rolls_back = not is_recurrent(llama.model) and not (
            is_windowed and not llama.context_params.swa_full
        )

    def stay(self, tokens: Sequence[int], state: NDArray[np.uint8] | None = None) -> None:
        """Keep a prefix for good.

        Args:
            tokens: of the prefix.
            state: of a context that holds it, made by the same as this Llama: see `made_by`. None
                to have it evaluated when a prompt begins so.
        """
        self._staying.add(tuple(tokens))
        self._states[tuple(tokens)] = state

    def add(self, tokens: Sequence[int]) -> None:
        """Keep a prefix from its first evaluation on, until others were added more recently."""
        self._states[tuple(tokens)] = self._states.pop(tuple(tokens), None)
        passing = [each for each in self._states if each not in self._staying]
        for tokens_of_oldest in passing[:-_MOST_KEPT]:
            del self._states[tokens_of_oldest]

    def evaluated(self, tokens: Sequence[int]) -> NDArray[np.uint8]:
        """The state of a context that holds a prefix that stays, evaluated if it was not yet.

        Raises:
            ModelError: llama.cpp fails.
        """
        state = self._states[tuple(tokens)]
        if state is None:
            state = self._states[tuple(tokens)] = evaluated_state(self._llama, tokens)
        return state

    def begin(self, prompt: Sequence[int]) -> int:
        """Let the context begin with the longest prefix of a prompt, evaluated or put back.

        Returns:
            How many tokens of the prompt that is; 0 where no prefix fits.

        Raises:
            ModelError: llama.cpp fails.
        """
        fitting = (tokens for tokens in self._states if tuple(prompt[: len(tokens)]) == tokens)
        tokens: _Tokens = max(fitting, key=len, default=())
        if tokens and not (self._holds(tokens) or self._restore(tokens)):
            self._states[tokens] = evaluated_state(self._llama, tokens)
        return len(tokens)

    def _holds(self, tokens: _Tokens) -> bool:
        llama, n = self._llama, len(tokens)
        there = llama.n_tokens >= n if self.rolls_back else llama.n_tokens == n
        return (
            there
            and self._states[tokens] is not None
            and tuple(llama.input_ids[:n].tolist()) == tokens
        )

    def _restore(self, tokens: _Tokens) -> bool:
        """Put a state back, where there is one that fits."""
        llama, state = self._llama, self._states[tokens]
        if state is None:
            return False
        compat.empty(llama)
        data: Any = state.ctypes.data_as(_BYTES)
        if not llama_cpp.llama_state_seq_set_data(llama.ctx, data, state.nbytes, _SEQUENCE):
            return False
        memory = llama_cpp.llama_get_memory(llama.ctx)
        if llama_cpp.llama_memory_seq_pos_max(memory, _SEQUENCE) != len(tokens) - 1:
            return False
        compat.holds(llama, tokens)
        return True
