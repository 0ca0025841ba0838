"""Run requests that score a response and read its rows, many in parallel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steerx_edge import _native
from steerx_edge.errors import ModelError
from steerx_edge.llamacpp.context import HookedContext
from steerx_edge.llamacpp.decoding import Span, evaluate
from steerx_edge.llamacpp.requests import ScoreRequest, ScoreResult, asked_for
from steerx_edge.llamacpp.sequences import RunningSequence, prepare

_NOT_NUMBERS = (
    "The model returned {} with NaN: its file may be damaged, or the control vector far too strong."
)


def run_many(
    context: HookedContext,
    requests: Sequence[ScoreRequest],
    done: Callable[[int], None] | None,
    *,
    in_graph: bool,
) -> list[ScoreResult]:
    """Run requests side by side; see `AnalysisContext.run_many`."""
    sequences = prepare(requests, context, in_graph=in_graph)
    scorer = _Scorer(context)
    n_done = 0
    with context.held(), closing(evaluate(context, sequences, scorer.score)) as evaluated:
        for members in evaluated:
            for i in members:
                _complete(sequences[i])
            n_done += len(members)
            if done is not None:
                done(n_done)
    return [sequence.result for sequence in sequences]


def _complete(sequence: RunningSequence) -> None:
    """Check the rows of a pass, and apply the memory to its scores."""
    request, result, final = sequence.request, sequence.result, sequence.final
    for name, rows in [("residual", result.residual), ("final", final)]:
        if rows is not None and not np.isfinite(rows).all():
            raise ModelError(_NOT_NUMBERS.format(f"{name} rows"))
    if request.memory is not None:
        rows = asked_for(final)[:-1]
        result.scored[:] = request.memory.log_prob(rows, request.response, result.scored)
    sequence.final = None  # kept for many passes, they would take too much memory


class _Scorer:
    """Scores tokens from the logits of the last decode call."""

    def __init__(self, context: HookedContext) -> None:
        self._context = context
        self._latest: tuple[ScoreRequest, NDArray[np.float32] | None] | None = None

    def score(self, spans: Sequence[Span]) -> None:
        """Score the rows of a decode call, where their request asks for it."""
        for span in spans:
            if span.sequence.request.score:
                self._score(span)

    def _score(self, span: Span) -> None:
        (sequence, segment), context = span, self._context
        request, result = sequence.request, sequence.result
        tokens, body = sequence.plan.tokens, sequence.plan.body
        begin, end = segment.begin, min(segment.end, len(tokens) - 1)  # the last predicts nothing
        if begin < body or begin >= end:
            return
        rows = slice(begin - body, end - body)

        def part(array: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if array is None else array[rows]

        factors = self._factors(request)
        biased = None if factors is None else np.empty((len(factors), end - begin), np.float32)
        _native.score_tokens(
            context.api,
            context.address,
            n_vocab=context.dimensions.n_vocab,
            batch_index=np.arange(segment.offset, segment.offset + end - begin, dtype=np.int32),
            target=tokens[begin + 1 : end + 1],
            n_threads=context.n_threads,
            log_prob=result.scored[rows],
            entropy=part(result.entropy),
            top_token=part(result.top_token),
            top_log_prob=part(result.top_log_prob),
            expected=result.expected,
            bias_factors=factors,
            biased=biased,
        )
        if biased is not None:
            if request.logit_bias:
                result.scored[rows], biased = biased[-1], biased[:-1]
            if result.biased is not None:
                result.biased[:, rows] = biased
        if not np.isfinite(result.scored[rows]).all():
            raise ModelError(_NOT_NUMBERS.format("log-probabilities"))

    def _factors(self, request: ScoreRequest) -> NDArray[np.float32] | None:
        """The bias factors of a request, reused if it has the same biases as the previous one.

        They are as large as rows of logits. Comparing values is cheaper than computing them, and
        free if requests have the same array, which must not change while they run.
        """
        if self._latest is not None:
            latest, factors = self._latest
            if latest.logit_bias == request.logit_bias and _equal(latest.biases, request.biases):
                return factors
        factors = logit_bias_factors(request, self._context.dimensions.n_vocab)
        self._latest = request, factors
        return factors


def _equal(one: NDArray[np.float32] | None, other: NDArray[np.float32] | None) -> bool:
    return one is other or (one is not None and other is not None and np.array_equal(one, other))


def logit_bias_factors(request: ScoreRequest, n_vocab: int) -> NDArray[np.float32] | None:
    """Exp of everything that is added to the logits, `logit_bias` last: (bias, n_vocab)."""
    biases = [] if request.biases is None else list(request.biases)
    if request.logit_bias:
        bias = np.zeros(n_vocab, np.float32)
        bias[list(request.logit_bias)] = list(request.logit_bias.values())
        biases.append(bias)
    return np.exp(np.stack(biases), dtype=np.float32) if biases else None
