"""Watch a Llama generate one answer: end it, count its tokens, note their log-probabilities."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from steerx_edge.apps.server.work import Usage, Work
from steerx_edge.llamacpp import compat
from steerx_edge.llamacpp.compat import LogitsProcessorList

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

    from steerx_edge.llamacpp.engine import Engine


class StoppedError(Exception):
    """The answer is no longer wanted."""


class Recording:
    """What happens between `__enter__` and `__exit__`, on a Llama that may be steered.

    Log-probabilities are those of the model with the profile and the client's logit bias, before
    temperature, penalties and grammar.

    Args:
        engine: the model.
        work: what is asked of it.
        is_cancelled: asked before each token.

    Attributes:
        is_full: the answer ended with the context.
    """

    def __init__(self, engine: Engine, work: Work, is_cancelled: Callable[[], bool]) -> None:
        self._engine, self._llama = engine, engine.llama
        self._work, self._is_cancelled = work, is_cancelled
        self._bias = np.fromiter(work.logit_bias, np.intp)
        self._added = np.fromiter(work.logit_bias.values(), np.float32)
        self._prompt, self._cached = 0, 0
        self._row: NDArray[np.float32] | None = None
        self._tokens = 0
        self.is_full = False
        self._noted: list[dict[str, Any]] = []
        self._began = self._first = self._last = time.perf_counter()

    def __enter__(self) -> Self:
        self._generate = self._llama.generate
        self._replaced = compat.replace_methods(self._llama, generate=self._watched)
        return self

    def __exit__(self, *_: object) -> None:
        compat.restore_methods(self._llama, self._replaced)

    @property
    def usage(self) -> Usage:
        """What the answer took so far."""
        return Usage(
            self._prompt,
            self._tokens,
            self._cached,
            self._first - self._began,
            self._last - self._first,
        )

    def logprobs(self) -> list[dict[str, Any]]:
        """Those of the tokens since the last call, as in chats of OpenAI."""
        noted, self._noted = self._noted, []
        return noted

    def _watched(
        self, tokens: Sequence[int], *args: Any, **options: Any
    ) -> Generator[int, Sequence[int] | None, None]:
        """`Llama.generate`."""
        before = self._llama.input_ids[: self._llama.n_tokens].tolist()
        self._prompt = len(tokens)
        self._cached = min(self._llama.longest_token_prefix(before, tokens), len(tokens) - 1)
        given = options.get("logits_processor") or ()
        options["logits_processor"] = LogitsProcessorList([*given, self._change])
        self._began = self._first = self._last = time.perf_counter()
        with closing(self._generate(tokens, *args, **options)) as stream:
            for token in stream:
                self._last = time.perf_counter()
                if not self._tokens:
                    self._first = self._last
                if self._is_cancelled():
                    raise StoppedError
                if token not in self._ends:
                    self._tokens += 1
                    self._note(token)
                yield token
                if self._llama.n_tokens >= compat.most_tokens(self._llama):
                    self.is_full = True
                    yield self._ends[0]  # else llama-cpp-python goes on to the end of a character
                    return

    @property
    def _ends(self) -> Sequence[int]:
        return self._engine.end_tokens

    def _change(self, _ids: NDArray[np.intc], logits: NDArray[np.single]) -> NDArray[np.single]:
        """The last logits processor."""
        logits[self._bias] += self._added
        if self._tokens < self._work.min_tokens:
            logits[self._ends] = -np.inf
        if self._work.top_logprobs is not None:
            self._row = logits.astype(np.float32)
        return logits

    def _note(self, token: int) -> None:
        row, top = self._row, self._work.top_logprobs
        if row is None or top is None:
            return
        highest = row.max()
        row = row - (highest + np.log(np.exp(row - highest).sum()))
        best = np.argpartition(row, -top)[-top:] if top else np.empty(0, np.intp)
        best = best[np.argsort(-row[best])]
        others = [self._described(int(each), row) for each in best]
        self._noted.append({**self._described(token, row), "top_logprobs": others})

    def _described(self, token: int, row: NDArray[np.float32]) -> dict[str, Any]:
        (piece,) = self._engine.pieces([token])
        return {
            "token": piece.decode(errors="replace"),
            "logprob": max(float(row[token]), -9999.0),  # JSON has no infinity
            "bytes": list(piece),
        }
