"""One loaded model: tokenize, score, capture, generate."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llama_cpp
import numpy as np
from jinja2 import TemplateError
from llama_cpp import Llama
from numpy.typing import NDArray

from steerx_edge.errors import ModelError
from steerx_edge.llamacpp import compat
from steerx_edge.llamacpp.analysis import AnalysisContext
from steerx_edge.llamacpp.context import CLOSED
from steerx_edge.llamacpp.locks import ContextLock
from steerx_edge.llamacpp.models import find_model, identify
from steerx_edge.llamacpp.prompts import Message, PromptFormat, encoded
from steerx_edge.llamacpp.requests import GenerateRequest, ScoreRequest, ScoreResult
from steerx_edge.llamacpp.vocabulary import Vocabulary

if TYPE_CHECKING:
    from steerx_edge.llamacpp.interventions import Intervention
    from steerx_edge.model_id import ModelId

ANALYSIS_CONTEXT = 2048
"""Most tokens of one analysis pass."""


class Engine:
    """A model that can be read as well as run.

    Threads may share an engine: passes wait for each other, and so do calls of `generate`.
    Processes may not: a forked child makes an engine of its own. Do not close the model while it
    generates.

    Args:
        model: path of a GGUF file, or a `llama_cpp.Llama`, whose weights are shared and whose
            context is used for generation only.
        n_ctx: context size for generation, 0 for that of the model; of a path only.
        n_threads: threads; of a path only. Default, and below 1: the physical cores, roughly.
        n_gpu_layers: layers put on the GPU, -1 for all; of a path only.
        seed: of sampling; of a path only.

    Raises:
        ModelError: the model cannot be loaded, or the seed has more than 32 bits.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Llama,
        *,
        n_ctx: int = 4096,
        n_threads: int | None = None,
        n_gpu_layers: int = 0,
        seed: int | None = None,
    ) -> None:
        if isinstance(model, Llama):
            self.llama = model
        else:
            self.llama = load_llama(
                find_model(model),
                n_ctx=n_ctx,
                n_threads=n_threads,
                n_gpu_layers=n_gpu_layers,
                seed=seed,
            )
        self.prompts = PromptFormat(self.llama)
        self._analysis: AnalysisContext | None = None
        self._making = ContextLock()  # of the analysis context
        self._generating = ContextLock()
        self._latest: object = None  # stands for the stream that was begun last
        self._model_id: ModelId | None = None

    @property
    def analysis(self) -> AnalysisContext:
        """The analysis context, created and probed on first use."""
        with self._making.held():
            if self._analysis is None:
                if self.llama.model is None:
                    raise ModelError(CLOSED)
                n_train = llama_cpp.llama_model_n_ctx_train(self.llama.model)
                self._analysis = AnalysisContext(self.llama, min(ANALYSIS_CONTEXT, n_train))
            return self._analysis

    @property
    def model_id(self) -> ModelId:
        """The identity of this model, as profiles store it."""
        if self._model_id is None:
            self._model_id = identify(self.llama)
        return self._model_id

    @cached_property
    def end_tokens(self) -> list[int]:
        """Tokens that end a text or a turn."""
        vocab = llama_cpp.llama_model_get_vocab(self.llama.model)
        return [
            token
            for token in range(self.llama.n_vocab())
            if llama_cpp.llama_vocab_is_eog(vocab, token)
        ]

    @cached_property
    def end_of_turn(self) -> int:
        """The token that ends an answer: as the chat template writes it, else the model's own."""
        ends = {*self.end_tokens}
        asked = Message(role="user", content="a")
        answered = self.prompt([asked, Message(role="assistant", content="b"), asked])
        # A thinking block of the prompt may be absent from an earlier turn.
        n_common = Llama.longest_token_prefix(answered, self.prompt([asked]))
        for token in answered[n_common:]:
            if token in ends:
                return token
        return self.llama.token_eos()

    def tokenize(self, text: str) -> list[int]:
        """Token ids of plain text: nothing in it is taken for a control token.

        Raises:
            ModelError: the text holds half a character, which no encoding takes.
        """
        return self.llama.tokenize(encoded(text), add_bos=False, special=False)

    def pieces(self, tokens: Sequence[int]) -> list[bytes]:
        """The bytes of each token; a character may be spread over several."""
        vocabulary = Vocabulary(self.llama.model)
        return [vocabulary.piece(token) for token in tokens]

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a chat, up to where the answer begins."""
        return self.prompts.tokens(messages)

    def raw_prompt(self, text: str) -> list[int]:
        """Token ids of a text without a chat template; control tokens in it are parsed.

        Raises:
            ModelError: the text holds half a character, which no encoding takes.
        """
        return self.llama.tokenize(encoded(text), add_bos=True, special=True)

    def run(self, request: ScoreRequest) -> ScoreResult:
        """One teacher-forced pass: scores and residual rows together."""
        return self.analysis.run(request)

    def run_many(
        self, requests: Sequence[ScoreRequest], done: Callable[[int], None] | None = None
    ) -> list[ScoreResult]:
        """Passes side by side, with what they begin with evaluated once; results as of `run`.

        Args:
            requests: in any order.
            done: called now and then with how many are done.

        Raises:
            ModelError: a pass does not fit, or llama.cpp fails.
        """
        return self.analysis.run_many(requests, done)

    def generate_many(self, requests: Sequence[GenerateRequest]) -> list[str]:
        """Generate texts side by side, each with interventions of its own.

        In the analysis context: the Llama, and what steers it, are not touched.

        Raises:
            ModelError: a context does not fit, or llama.cpp fails.
        """
        return [
            b"".join(self.pieces(tokens)).decode(errors="ignore")
            for tokens in self.analysis.generate_many(requests)
        ]

    def score(
        self,
        context: Sequence[int],
        response: Sequence[int],
        *,
        interventions: tuple[Intervention, ...] = (),
    ) -> NDArray[np.float32]:
        """Log-probability of each response token after `context`: (T,) float32, in nats.

        Raises:
            ModelError: the texts do not fit the analysis context, or llama.cpp fails.
        """
        return self.run(ScoreRequest(context, response, interventions=interventions)).scored

    def capture(
        self,
        context: Sequence[int],
        response: Sequence[int],
        layers: Sequence[int],
        *,
        weights: NDArray[np.floating] | None = None,
    ) -> NDArray[np.float32]:
        """Residual rows of a text, as of `ScoreRequest`: (layer, slot, n_embd) float32.

        Raises:
            ModelError: the texts do not fit the analysis context, or llama.cpp fails.
        """
        request = ScoreRequest(
            context, response, score=False, layers=tuple(layers), weights=weights
        )
        return self.run(request).captured

    def stream(
        self,
        prompt: Sequence[int],
        *,
        max_tokens: int = 256,
        temperature: float = 0.8,
        seed: int | None = None,
        **sampling: Any,
    ) -> Iterator[str]:
        """Generate after the prompt's tokens, piece by piece, in the model's own context.

        A stream that is begun, in whatever thread, ends one that was left half-way.

        Args:
            prompt: token ids.
            max_tokens: at most so many; -1 for as many as fit the context.
            temperature: 0 is greedy.
            seed: of sampling, 0 to 2**32 - 2; -1 and 2**32 - 1 stand for a random one.
            sampling: further arguments of `Llama.create_completion`.

        Raises:
            ModelError: the prompt is empty or does not fit the context, the seed has more than 32
                bits, llama.cpp fails, or another stream was begun meanwhile.
        """
        n_ctx = compat.most_tokens(self.llama)
        room = n_ctx - len(prompt)
        if not prompt:
            raise ModelError("The prompt is empty: there is nothing to continue.")
        if room < 1:
            raise ModelError(
                f"The prompt has {len(prompt)} tokens and the context {n_ctx}. "
                "Raise it with -c, or shorten the prompt."
            )
        if max_tokens == 0:
            return
        chunks: Any = self.llama.create_completion(
            prompt=list(prompt),
            max_tokens=room if max_tokens < 0 else min(max_tokens, room),
            temperature=temperature,
            seed=None if seed is None else llama_seed(seed),
            stream=True,
            **sampling,
        )
        this = object()
        with self._generating.held():
            self._latest = this
        try:
            while (chunk := self._next(this, chunks)) is not None:
                yield chunk["choices"][0]["text"]
        except RuntimeError as error:
            # llama-cpp-python ends no text within a character, be the context full or not.
            if self.llama.n_tokens < n_ctx - 1:
                raise ModelError(f"llama.cpp failed while generating: {error}.") from error

    def _next(self, stream: object, chunks: Iterator[Any]) -> Any:
        with self._generating.held():
            if self._latest is not stream:
                raise ModelError(
                    "Another text was started on this engine, which generates one at a time. Use "
                    "`generate`, which waits, or one engine for each text."
                )
            return next(chunks, None)

    def generate(self, prompt: Sequence[int], **options: Any) -> str:
        """The whole of `stream`. Calls from several threads wait for each other."""
        with self._generating.held():
            return "".join(self.stream(prompt, **options))

    def close(self) -> None:
        """Free the analysis context; the Llama stays open."""
        analysis, self._analysis = self._analysis, None
        if analysis is not None:
            analysis.close()


class _OwnLlama(Llama):
    """Loaded and freed only while llama.cpp may work: an interpreter that ends waits for both."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._lock = ContextLock()
        with self._lock.held():
            super().__init__(*args, **options)

    def close(self) -> None:
        self._lock.free(super().close, vars(self))


def load_llama(
    path: Path,
    *,
    n_ctx: int,
    n_threads: int | None,
    n_gpu_layers: int,
    seed: int | None,
) -> Llama:
    """Load a GGUF file quietly.

    Raises:
        ModelError: llama.cpp cannot load it.
    """
    cores = os.cpu_count() or 1
    threads = n_threads or 0
    if threads < 1:
        threads = cores if cores <= 4 else cores // 2
    try:
        return _OwnLlama(
            str(path),
            n_ctx=n_ctx,
            n_threads=threads,
            n_threads_batch=threads,
            n_gpu_layers=n_gpu_layers,
            seed=llama_seed(seed),
            verbose=False,
        )
    except (ValueError, RuntimeError, TemplateError) as error:
        raise ModelError(
            f"llama.cpp could not load '{path}': {error}. The file may be damaged, too large for "
            "memory, or of an architecture that this llama-cpp-python does not support."
        ) from error


def llama_seed(seed: int | None) -> int:
    """The seed as llama.cpp takes it, below its sign for "none given"; for that one it draws one.

    Raises:
        ModelError: the seed has more than 32 bits.
    """
    if seed is not None and not -1 <= seed <= llama_cpp.LLAMA_DEFAULT_SEED:
        raise ModelError(
            f"The seed {seed} has more than 32 bits. Give one from 0 to "
            f"{llama_cpp.LLAMA_DEFAULT_SEED - 1}, or -1 for a random one."
        )
    if seed in (None, -1, llama_cpp.LLAMA_DEFAULT_SEED):
        return random.randrange(llama_cpp.LLAMA_DEFAULT_SEED)  # noqa: S311 - for variety, not for secrets
    return seed
