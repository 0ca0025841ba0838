"""A llama.cpp context that calls the hook, with nothing of steerx_edge around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import llama_cpp
import numpy as np
import pytest
from llama_cpp import Llama
from numpy.typing import NDArray

from steerx_edge import _native

Rows = NDArray[np.float32]

N_LAYER, N_EMBD, N_VOCAB = 4, 64, 448
ALL_LAYERS = (0, 1, 2, 3)
TOKENS = [int(token) for token in np.random.default_rng(0).integers(3, N_VOCAB, size=12)]
ALL, NONE = [True] * len(TOKENS), [False] * len(TOKENS)
F32_MAX = 1e-4  # of tests/tiny_models/test_models_reference.py


def i32(*values: int) -> NDArray[np.int32]:
    return np.array(values, dtype=np.int32)


def f32(*values: float) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def find_functions() -> _native.LlamaApi:
    return _native.LlamaApi([llama_cpp.llama_cpp._lib._handle])


class Context:
    """A llama.cpp context that calls the hook."""

    def __init__(
        self,
        llama: Llama,
        *,
        n_ubatch: int = 64,
        n_seq_max: int = 1,
        kv_unified: bool = True,
        hooks: _native.ResidualHooks | None = None,
    ) -> None:
        self.hooks = hooks or _native.ResidualHooks(find_functions(), N_LAYER, N_EMBD)
        self.model = llama.model
        parameters = type(llama.context_params).from_buffer_copy(llama.context_params)
        parameters.n_ctx = parameters.n_batch = 64
        parameters.n_ubatch = n_ubatch
        parameters.n_seq_max = n_seq_max
        parameters.kv_unified = kv_unified
        parameters.cb_eval = llama_cpp.ggml_backend_sched_eval_callback(self.hooks.callback)
        parameters.cb_eval_user_data = self.hooks.user_data
        self.address: Any = llama_cpp.llama_init_from_model(llama.model, parameters)
        self._batch = llama_cpp.llama_batch_init(64, 0, 1)

    def close(self) -> None:
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self.address)

    def decode(
        self,
        tokens: Sequence[int] = TOKENS,
        outputs: Sequence[bool] = ALL,
        sequences: Sequence[int] | None = None,
    ) -> None:
        """Evaluate one batch, each of its sequences from position 0."""
        sequences = sequences or [0] * len(tokens)
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.address), True)
        self._batch.n_tokens = len(tokens)
        for row, (token, output) in enumerate(zip(tokens, outputs, strict=True)):
            self._batch.token[row] = token
            self._batch.pos[row] = sequences[:row].count(sequences[row])
            self._batch.n_seq_id[row] = 1
            self._batch.seq_id[row][0] = sequences[row]
            self._batch.logits[row] = output
        assert llama_cpp.llama_decode(self.address, self._batch) == 0

    def logits(self, row: int) -> NDArray[np.float32]:
        pointer = llama_cpp.llama_get_logits_ith(self.address, row)
        logits: Rows = np.ctypeslib.as_array(pointer, (N_VOCAB,)).copy()
        return logits

    def arm(
        self,
        values: Rows,
        *,
        layers: Sequence[int] = ALL_LAYERS,
        picks: Sequence[tuple[int, int, float]] | None = None,
        outputs: Sequence[bool] = ALL,
        tokens: Sequence[int] = TOKENS,
        writes: Sequence[_native.Write] = (),
        hook_point: str = "l_out",
        stop: bool = False,
    ) -> None:
        """Arm the hook; picks are (row, slot, weight), by default every row to its own slot."""
        if picks is None:
            picks = [(row, row, 1.0) for row in range(len(outputs))]
        places = np.cumsum(outputs) - 1
        read = _native.Read(
            hook_point=hook_point,
            layers=layers,
            rows=i32(*(row for row, _, _ in picks)),
            slots=i32(*(slot for _, slot, _ in picks)),
            weights=f32(*(weight for _, _, weight in picks)),
            values=values,
        )
        self.hooks.arm(
            tokens=i32(*tokens),
            output_row=np.where(outputs, places, -1).astype(np.int32),
            writes=writes,
            reads=[read],
            stop_after_last_layer=stop,
        )

    def refuse(self, message: str, *, n_slots: int = len(TOKENS), **plan: Any) -> None:
        """Arm and decode, and see that nothing is read and the pass is refused."""
        values = np.zeros((len(plan.get("layers", ALL_LAYERS)), n_slots, N_EMBD), np.float32)
        decode = {name: plan.pop(name) for name in ("decoded", "sequences") if name in plan}
        self.arm(values, **plan)
        self.decode(
            outputs=decode.get("decoded", plan.get("outputs", ALL)),
            sequences=decode.get("sequences"),
        )
        with pytest.raises(RuntimeError, match=message):
            self.hooks.finish()
        assert not values.any()

    def read(self, *, n_slots: int = len(TOKENS), **plan: Any) -> Rows:
        """Arm, decode, finish; (layer, slot, n_embd)."""
        values = np.zeros((len(plan.get("layers", ALL_LAYERS)), n_slots, N_EMBD), np.float32)
        self.arm(values, **plan)
        self.decode(outputs=plan.get("outputs", ALL))
        self.hooks.finish()
        return values


@pytest.fixture
def open_context(tiny_llama: Llama) -> Iterator[Callable[..., Context]]:
    opened: list[Context] = []

    def open_one(**options: Any) -> Context:
        opened.append(Context(tiny_llama, **options))
        return opened[-1]

    yield open_one
    for context in opened:
        context.close()


@pytest.fixture
def context(open_context: Callable[..., Context]) -> Context:
    return open_context()
