"""From pairs of passes to one difference an item: the contrast methods.

Context contrast reads the same response twice, with and without the user's other texts before it,
and takes the difference of the residual stream (CAA, arXiv 2312.06681; Context Steering, arXiv
2405.01768). SteerX (arXiv 2510.22256) keeps the rows of preference-driven tokens only, and takes
half of the contrast under a coherent description of the user in place of the raw history.

StyleVector (arXiv 2503.05213) reads the user's own text and the model's own reply to the same
request, and takes the difference of their mean rows: the last row alone is ruinous on small models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from steerx_edge.llamacpp.requests import GenerateRequest, ScoreRequest

if TYPE_CHECKING:
    from steerx_edge.llamacpp.engine import Engine

ContrastMethod = Literal["stylevector", "context-contrast"]

RowConvention = Literal["at", "predicts"]
"""Whether a token is represented by the row *at* it or by the row that *predicts* it."""


def row_weights(
    tokens: NDArray[np.bool_] | NDArray[np.floating], convention: RowConvention
) -> NDArray[np.float32]:
    """Weights that average the rows of tokens: (T + 1,) float32, summing to 1.

    Args:
        tokens: (T,) which tokens, or their weights; at least one above 0.
        convention: which row represents a token.
    """
    weights = np.zeros(len(tokens) + 1, dtype=np.float32)
    rows = weights[1:] if convention == "at" else weights[:-1]
    rows[:] = tokens / tokens.sum()
    return weights


def pooled(residual: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weighted mean over rows: (layer, row, n_embd) -> (layer, n_embd)."""
    mean: NDArray[np.float32] = np.einsum("lre,r->le", residual, weights)
    return mean


def halves(rows: NDArray[np.float32], described: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Average the rows with those under the description (SteerX).

    Args:
        rows: (item, layer, n_embd).
        described: the same rows, with the description in the context; None for the plain contrast
            method.
    """
    if described is None:
        return rows
    mean: NDArray[np.float32] = 0.5 * rows + 0.5 * described
    return mean


def reply_rows(
    engine: Engine,
    contexts: Sequence[Sequence[int]],
    n_tokens: Sequence[int],
    layers: Sequence[int],
    convention: RowConvention,
) -> NDArray[np.float32]:
    """Mean rows of the model's own greedy replies: (item, layer, n_embd) float32.

    A reply without a single token, which some requests have, gives rows that are not numbers.

    Args:
        engine: the model.
        contexts: prompts up to where the reply begins.
        n_tokens: how long each reply may be.
        layers: blocks to read.
        convention: which row represents a token.
    """
    replies = engine.analysis.generate_many(
        [GenerateRequest(context, n) for context, n in zip(contexts, n_tokens, strict=True)]
    )
    return mean_rows(engine, contexts, replies, layers, convention)


def mean_rows(
    engine: Engine,
    contexts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    layers: Sequence[int],
    convention: RowConvention,
) -> NDArray[np.float32]:
    """Mean rows of responses: (item, layer, n_embd) float32; not numbers for one without tokens.

    Args:
        engine: the model.
        contexts: what each response is read after.
        responses: tokens.
        layers: blocks to read.
        convention: which row represents a token.
    """
    written = [j for j, response in enumerate(responses) if response]
    results = engine.run_many(
        [
            ScoreRequest(
                contexts[j],
                responses[j],
                score=False,
                layers=tuple(layers),
                weights=row_weights(np.ones(len(responses[j]), np.bool_), convention)[None],
            )
            for j in written
        ]
    )
    rows = np.full((len(contexts), len(layers), engine.analysis.n_embd), np.nan, np.float32)
    for j, result in zip(written, results, strict=True):
        rows[j] = result.captured[:, 0]
    return rows
