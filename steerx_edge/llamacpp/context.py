"""A second llama.cpp context on weights that are already loaded, with a hook on its graph.

It has a batch and KV cells for several sequences, and knows nothing about requests.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from steerx_edge import _native
from steerx_edge.errors import ModelError
from steerx_edge.llamacpp import compat
from steerx_edge.llamacpp.control_vector import ControlVector, set_control_vector
from steerx_edge.llamacpp.locks import ContextLock
from steerx_edge.llamacpp.models import is_recurrent
from steerx_edge.llamacpp.planning import Limits, Restored, Segment
from steerx_edge.llamacpp.requests import Dimensions
from steerx_edge.llamacpp.stored_prompts import StoredPrompts

if TYPE_CHECKING:
    from llama_cpp import Llama

MICRO_BATCH = 256
"""Tokens of one decode call: one micro-batch, so that rows come in the order of the tokens. More
are no faster on a CPU, and attention over a long context takes memory for each of them."""

MAX_SEQUENCES = 16
"""The most sequences that are evaluated in parallel."""

MOST_OUTPUTS = 128
"""Rows with logits in one decode call. More are no faster: the output weights are read once a call.
llama.cpp holds each row twice, as computed and as given out."""

LOGITS_BYTES = 75 << 20
"""Bound on the logits given out at a time: 128 rows of 151,936 tokens, 64 of 262,144."""

_TILE = 32
"""Batch sizes that are a multiple of this are faster: llama.cpp multiplies quantized weights in
tiles."""

STORED_BYTES = 96 << 20
"""Bound on stored KV cells, or a tenth of a model that is larger than ten times this."""

_BYTES = ctypes.POINTER(ctypes.c_uint8)
_State: TypeAlias = NDArray[np.uint8]

CLOSED = "The model was closed. Make a new engine from an open one."


class HookedContext:
    """A llama_context, its batch, and the hook that it calls.

    It holds no reference to the Llama it is created from, so the two may be collected in any order;
    this context is freed first. Hold the lock (`held`) to call any method except `close`.

    Args:
        llama: the model; its context parameters (KV type, RoPE, threads) are taken over.
        n_ctx: tokens of the KV cache.
        kv_unified: one KV cache for all sequences; split, a decode call takes one sequence only.

    Attributes:
        dimensions: of context and model.
        limits: of what is evaluated at a time.
        shares: whether sequences can share the KV cells of a prefix.
        stored: prompts whose KV cells are kept outside the context.
        may_stop: whether a decode call can stop before the logits.

    Raises:
        ModelError: llama.cpp lacks a function we need, or the context cannot be made.
    """

    def __init__(self, llama: Llama, n_ctx: int, *, kv_unified: bool) -> None:
        if llama.model is None:
            raise ModelError(CLOSED)
        self._model: int = llama.model
        n_layer: int = llama_cpp.llama_model_n_layer(self._model)
        n_embd: int = llama_cpp.llama_model_n_embd(self._model)
        self.dimensions = Dimensions(n_ctx, n_layer, n_embd, llama.n_vocab())
        self.n_threads: int = llama.n_threads_batch
        # Recurrent models keep no cells to share, and compute sequences of a batch in an order of
        # their own, as llama.cpp does with a cache for each sequence.
        is_ordered = kv_unified and not is_recurrent(self._model)
        self.limits = limits_of(n_ctx, llama.n_vocab(), side_by_side=is_ordered)
        self.shares = is_ordered and self.limits.outputs > 1
        self.stored = StoredPrompts((), 0)
        self.may_stop = compat.may_stop_early(llama)
        self.api = compat.find_functions()
        self._hooks = _native.ResidualHooks(self.api, n_layer, n_embd)
        self._is_steered = False
        self._may_hold_nan = True  # in its KV cells
        self._lock = ContextLock()
        self._address: Any = None
        params = self._params(llama, kv_unified)
        with self._lock.held():
            self._address = llama_cpp.llama_init_from_model(self._model, params)
        if not self._address:
            raise ModelError(
                f"llama.cpp could not make an analysis context of {n_ctx} tokens for this model: "
                "there may be too little memory. Try a smaller one (n_ctx)."
            )
        self._batch = llama_cpp.llama_batch_init(params.n_batch, 0, params.n_seq_max)
        # Closing the model must free this context first: it points into the model.
        compat.before_model_is_freed(llama, self.close)

    def _params(self, llama: Llama, kv_unified: bool) -> Any:
        params = compat.context_params(llama)
        params.n_ctx = self.dimensions.n_ctx
        params.n_batch = params.n_ubatch = self.limits.call
        params.n_seq_max = self.limits.sequences + self.shares  # and one to keep a prefix in
        params.n_outputs_max = params.n_outputs_max_per_seq = self.limits.outputs
        params.swa_full = True  # a prefix is shared whole, not its last window only
        params.n_threads = params.n_threads_batch
        params.kv_unified = kv_unified
        params.embeddings = False
        params.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_UNSPECIFIED
        params.cb_eval = llama_cpp.ggml_backend_sched_eval_callback(self._hooks.callback)
        params.cb_eval_user_data = self._hooks.user_data
        return params

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock, from `begin` to the last decode call. Raises as `address` does."""
        _ = self.address
        with self._lock.held():
            yield

    @property
    def address(self) -> Any:
        """Address of the open llama_context.

        Raises:
            ModelError: it was closed, or belongs to the process that this one was forked from.
        """
        if not self._address:
            raise ModelError(CLOSED)
        self._lock.check()
        return self._address

    @property
    def vocab(self) -> Any:
        """Address of the model's llama_vocab."""
        return llama_cpp.llama_model_get_vocab(self._model)

    @contextmanager
    def storing(self, prompts: Iterable[Sequence[int]]) -> Iterator[None]:
        """Keep the KV cells of these prompts outside the context, as long as there is room."""
        size = llama_cpp.llama_model_size(self._model)
        self.stored = StoredPrompts(prompts, max(STORED_BYTES, size // 10))
        try:
            yield
        finally:
            self.stored = StoredPrompts((), 0)

    def begin(self) -> None:
        """Empty the KV cache, and clean up after an interrupted evaluation."""
        self.end()
        # The contents of masked cells do not matter, unless they are NaN.
        llama_cpp.llama_memory_clear(self._memory, self._may_hold_nan)
        self._may_hold_nan = True

    def holds_numbers(self) -> None:
        """Note that nothing was changed since `begin`, so no cell holds NaN."""
        self._may_hold_nan = False

    def end(self) -> None:
        """Remove the hook's plan and the control vector."""
        self._hooks.cancel()
        self.set_control(None)

    def keep(self, kept: Sequence[int], n_before: int) -> None:
        """Empty the KV cache, except for the prefixes that the next sequences take over.

        Args:
            kept: for each of the next sequences, how many tokens.
            n_before: how many sequences there are.
        """
        memory, spare = self._memory, self.limits.sequences
        if not kept[0]:
            llama_cpp.llama_memory_clear(memory, False)
            return
        llama_cpp.llama_memory_seq_cp(memory, n_before - 1, spare, 0, kept[0])
        llama_cpp.llama_memory_seq_keep(memory, spare)
        for number, n_tokens in enumerate(kept):
            if n_tokens:
                llama_cpp.llama_memory_seq_cp(memory, spare, number, 0, n_tokens)
        llama_cpp.llama_memory_seq_rm(memory, spare, -1, -1)

    def restore(self, state: _State, restored: Restored) -> None:
        """Give stored cells to a sequence, which has none yet, and to those that share them.

        Raises:
            ModelError: llama.cpp fails.
        """
        data = state.ctypes.data_as(_BYTES)
        if not llama_cpp.llama_state_seq_set_data(
            self.address, data, state.nbytes, restored.number
        ):
            raise ModelError("llama.cpp could not restore the KV cells of a prompt.")
        for follower, n_tokens in restored.followers:
            llama_cpp.llama_memory_seq_cp(self._memory, restored.number, follower, 0, n_tokens)

    def state(self, number: int, n_tokens: int, fits: Callable[[int], bool]) -> _State | None:
        """Copy the first cells of a sequence; None where they do not fit.

        Args:
            number: which sequence.
            n_tokens: how many cells.
            fits: whether so many bytes fit.
        """
        memory, spare = self._memory, self.limits.sequences
        llama_cpp.llama_memory_seq_cp(memory, number, spare, 0, n_tokens)
        try:
            size = llama_cpp.llama_state_seq_get_size(self.address, spare)
            if not fits(size):
                return None
            state = np.empty(size, np.uint8)
            data = state.ctypes.data_as(_BYTES)
            llama_cpp.llama_state_seq_get_data(self.address, data, size, spare)
            return state
        finally:
            llama_cpp.llama_memory_seq_rm(memory, spare, -1, -1)

    @property
    def _memory(self) -> Any:
        return llama_cpp.llama_get_memory(self.address)

    def set_control(self, control: ControlVector | None) -> None:
        """Set the control vector for all rows from now on; None removes it."""
        if control is not None or self._is_steered:
            self._is_steered = True  # in case this is interrupted
            set_control_vector(self.address, self._model, control)
        self._is_steered = control is not None

    def decode(
        self,
        segments: Sequence[Segment],
        tokens: NDArray[np.int32],
        outputs: NDArray[np.bool_],
        *,
        writes: Sequence[_native.Write],
        reads: Sequence[_native.Read],
        stop: bool,
    ) -> None:
        """Evaluate one batch, with the hook if there is anything to read or change.

        Args:
            segments: where each part of the batch belongs.
            tokens: (n,) the batch.
            outputs: (n,) whose logits are wanted.
            writes: changes, in this order.
            reads: what is read, after all changes.
            stop: end after the last layer read, without logits.

        Raises:
            ModelError: llama.cpp fails, or a row cannot be read or changed.
        """
        self._fill_batch(segments, tokens, outputs)
        if reads or writes:
            self._hooks.arm(
                tokens=tokens,
                output_row=np.where(outputs, np.cumsum(outputs) - 1, -1).astype(np.int32),
                writes=writes,
                reads=reads,
                stop_after_last_layer=stop,
            )
        status = llama_cpp.llama_decode(self.address, self._batch)
        if status != 0:
            raise ModelError(f"llama.cpp could not evaluate a batch (llama_decode gave {status}).")
        try:
            self._hooks.finish()
        except RuntimeError as error:
            raise ModelError(f"The residual stream could not be read: {error}.") from error

    def _fill_batch(
        self, segments: Sequence[Segment], tokens: NDArray[np.int32], outputs: NDArray[np.bool_]
    ) -> None:
        batch, n = self._batch, len(tokens)
        batch.n_tokens = n
        np.ctypeslib.as_array(batch.token, (n,))[:] = tokens
        np.ctypeslib.as_array(batch.logits, (n,))[:] = outputs
        n_owners = np.ctypeslib.as_array(batch.n_seq_id, (n,))
        positions = np.ctypeslib.as_array(batch.pos, (n,))
        for part in segments:
            rows = range(part.offset, part.offset + part.end - part.begin)
            positions[rows.start : rows.stop] = np.arange(part.begin, part.end)
            n_owners[rows.start : rows.stop] = part.last - part.first + 1
            for row in rows:
                for place, number in enumerate(range(part.first, part.last + 1)):
                    batch.seq_id[row][place] = number

    def close(self) -> None:
        """Free the llama_context after the current pass; may be called from any thread."""
        self._lock.free(self._free, self._hooks)

    def _free(self) -> None:
        address, self._address = self._address, None
        if address:
            llama_cpp.llama_free(address)
            llama_cpp.llama_batch_free(self._batch)


def limits_of(n_ctx: int, n_vocab: int, *, side_by_side: bool) -> Limits:
    """The most that one context evaluates at a time.

    Args:
        n_ctx: its tokens.
        n_vocab: size of the vocabulary, and so of a row of logits.
        side_by_side: whether llama.cpp evaluates several sequences in the order of their tokens.
    """
    call = max(1, min(MICRO_BATCH, n_ctx))
    outputs = max(1, min(call, MOST_OUTPUTS, LOGITS_BYTES // (4 * n_vocab)))
    if outputs > _TILE:
        outputs -= outputs % _TILE
    return Limits(
        sequences=min(MAX_SEQUENCES, outputs - 1) if side_by_side and outputs > 1 else 1,
        cells=n_ctx,
        group=4 * call,
        call=call,
        outputs=outputs,
    )
