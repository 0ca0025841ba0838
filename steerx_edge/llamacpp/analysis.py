"""The analysis context: a second context on a model's weights, for scoring and generation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import llama_cpp

from steerx_edge.llamacpp import generation, scoring
from steerx_edge.llamacpp.context import HookedContext
from steerx_edge.llamacpp.probe import check_architecture
from steerx_edge.llamacpp.requests import GenerateRequest, ScoreRequest, ScoreResult

if TYPE_CHECKING:
    from llama_cpp import Llama


class AnalysisContext:
    """Runs requests on the weights of `llama`, and never touches its own context.

    Keeps `llama` alive. Closing `llama`, from any thread, closes this context after the current
    pass. Do not use it in a forked child or a signal handler. Calls from several threads wait for
    each other.

    Args:
        llama: the model; its context parameters (KV type, RoPE, threads) are taken over.
        n_ctx: tokens of the longest pass, and of all passes that run in parallel.
        kv_unified: one KV cache for all sequences; split, a decode call takes one sequence only.

    Attributes:
        n_ctx: as given.
        n_layer: blocks of the model.
        n_embd: numbers of a row of the residual stream.
        n_vocab: tokens of the vocabulary.
        limits: of what is evaluated at a time.
        in_graph: whether plain additions to generated positions, or to all, are made by the control
            vector, and not by a hook. The results are the same; passes that differ in it do not run
            side by side. By default, where layers are on a device.

    Raises:
        ModelError: llama.cpp lacks a function we need, the context cannot be made, or the model's
            architecture does not expose its residual stream or ignores control vectors.
    """

    def __init__(self, llama: Llama, n_ctx: int, *, kv_unified: bool = True) -> None:
        self._llama = llama
        self._context = context = HookedContext(llama, n_ctx, kv_unified=kv_unified)
        self.n_ctx, self.n_layer, self.n_embd, self.n_vocab = context.dimensions
        self.limits = context.limits
        self.in_graph = True  # for the probe
        try:
            name = llama.metadata.get("general.architecture", "unknown")
            check_architecture(name, context.dimensions, self.run)
        except BaseException:
            self.close()
            raise
        # A hook costs as little, and passes side by side can differ; but a device's rows would
        # travel. See docs/performance.md.
        self.in_graph = (
            llama.model_params.n_gpu_layers != 0 and llama_cpp.llama_supports_gpu_offload()
        )

    def run(self, request: ScoreRequest) -> ScoreResult:
        """Run one request.

        Raises:
            ModelError: it does not fit, or llama.cpp fails.
        """
        return self.run_many([request])[0]

    def run_many(
        self, requests: Sequence[ScoreRequest], done: Callable[[int], None] | None = None
    ) -> list[ScoreResult]:
        """Run requests side by side: the results of `run`, in less time.

        A context that several requests begin with is evaluated once. Each request has interventions
        of its own.

        Args:
            requests: in any order.
            done: called now and then with how many are done.

        Raises:
            ModelError: a request does not fit, or llama.cpp fails.
        """
        return scoring.run_many(self._context, requests, done, in_graph=self.in_graph)

    def generate_many(self, requests: Sequence[GenerateRequest]) -> list[list[int]]:
        """Generate side by side, each with interventions of its own; the Llama is not touched.

        Returns:
            The tokens of each, without the one that ended it.

        Raises:
            ModelError: a context does not fit, or llama.cpp fails.
        """
        return generation.generate_many(self._context, requests, in_graph=self.in_graph)

    def storing(self, prompts: Iterable[Sequence[int]]) -> AbstractContextManager[None]:
        """Evaluate prompts once for all passes until the end of a `with` block.

        Their KV cells are copied out of the context, as long as there is room: 96 MiB, or a tenth
        of a larger model.

        Args:
            prompts: tokens that contexts begin with.
        """
        return self._context.storing(prompts)

    def close(self) -> None:
        """Free the context. It cannot be used afterwards."""
        self._context.close()

    def __del__(self) -> None:
        if hasattr(self, "_context"):  # else it could not be made
            self.close()
