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
from typing import TYPE_CHECKING, Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from steerx_edge.errors import ModelError
from steerx_edge.llamacpp import compat
from steerx_edge.llamacpp.models import identify, is_recurrent

if TYPE_CHECKING:
    from llama_cpp import Llama

_BYTES = ctypes.POINTER(ctypes.c_uint8)
_SEQUENCE = 0  # the one that llama-cpp-python evaluates
_MOST_KEPT = 4
"""Prefixes that are kept: each other system message makes another one."""

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


class KeptPrefixes:
    """Prefixes of prompts whose KV cells are kept, for a Llama's own context.

    The caller sees to it that nothing is steered while a prefix is evaluated.

    Args:
        llama: the model; not used from another thread meanwhile.
    """

    def __init__(self, llama: Llama) -> None:
        self._llama = llama
        self._states: dict[tuple[int, ...], NDArray[np.uint8]] = {}
        is_windowed = llama_cpp.llama_model_n_swa(llama.model) > 0
        self._rolls_back = not is_recurrent(llama.model) and not (
            is_windowed and not llama.context_params.swa_full
        )

    @property
    def rolls_back(self) -> bool:
        """Whether the context can be taken back to the end of a prefix after it went on."""
        return self._rolls_back

    def keep(self, tokens: Sequence[int], state: NDArray[np.uint8]) -> None:
        """Keep the state of a context that holds these tokens, made by the same: see `made_by`."""
        self._states[tuple(tokens)] = state
        while len(self._states) > _MOST_KEPT:
            del self._states[next(iter(self._states))]

    def evaluate(self, tokens: Sequence[int]) -> None:
        """Evaluate a prefix and keep it, unless it is kept already.

        Raises:
            ModelError: it does not fit the context, or llama.cpp fails.
        """
        if tuple(tokens) in self._states:
            return
        llama, n_ctx = self._llama, compat.most_tokens(self._llama)
        if len(tokens) >= n_ctx:
            raise ModelError(
                f"The prefix has {len(tokens)} tokens and the context {n_ctx}. Raise it with -c, "
                "or learn a shorter one with --prefix."
            )
        compat.empty(llama)
        llama.eval(tokens)
        self.keep(tokens, state_of(llama, len(tokens)))

    def put_back(self, prompt: Sequence[int]) -> int:
        """Let the context begin with the longest kept prefix of a prompt.

        Returns:
            How many tokens of the prompt that is; 0 where none is kept.
        """
        kept = max(
            (tokens for tokens in self._states if tuple(prompt[: len(tokens)]) == tokens),
            key=len,
            default=(),
        )
        if kept and not self._holds(kept) and not self._restore(kept):
            return 0
        return len(kept)

    def _holds(self, tokens: tuple[int, ...]) -> bool:
        llama, n = self._llama, len(tokens)
        there = llama.n_tokens >= n if self._rolls_back else llama.n_tokens == n
        return there and tuple(llama.input_ids[:n].tolist()) == tokens

    def _restore(self, tokens: tuple[int, ...]) -> bool:
        """Put a state back; without it, the prompt is evaluated as any other."""
        llama, state = self._llama, self._states[tokens]
        compat.empty(llama)
        data: Any = state.ctypes.data_as(_BYTES)
        if not llama_cpp.llama_state_seq_set_data(llama.ctx, data, state.nbytes, _SEQUENCE):
            compat.empty(llama)
            del self._states[tokens]
            return False
        compat.holds(llama, tokens)
        return True
