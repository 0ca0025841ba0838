"""Memories for tiny models, and the mixture of steering/memory.py one token at a time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from llama_cpp import Llama

from models import TinyModel
from models.operations import Array
from steerx_edge.llamacpp.analysis import AnalysisContext
from steerx_edge.llamacpp.requests import ScoreRequest, asked_for
from steerx_edge.steering.memory import KeySpace, Memory, run_hashes
from tests.support.steered_reference import unit

Text = tuple[Sequence[int], Sequence[int]]
"""What a text answers, and its tokens."""

Run = tuple[int, ...]


def memory_of(
    llama: Llama,
    texts: Sequence[Text],
    *,
    end: int = 2,
    seed: int | None = None,
    single: Sequence[Run] = (),
) -> Memory:
    """A memory of texts and their ends, by the final rows of an unsteered model.

    Args:
        llama: the model.
        texts: at least one.
        end: the token that ends a text.
        seed: of random weights; by default all are 1.
        single: runs of four tokens that are not completed.
    """
    random = np.random.default_rng(0).integers(5, llama.n_vocab(), 250).tolist()
    with closing(AnalysisContext(llama, 512)) as analysis:
        passes = [ScoreRequest([1], random), *(ScoreRequest(*text) for text in texts)]
        results = analysis.run_many([replace(each, score=False, final=True) for each in passes])
    rows = [asked_for(result.final) for result in results]
    space = KeySpace.fit(rows[0])
    keys = [space.keys(each) for each in rows[1:]]
    stored = [np.round(each * (127 / np.abs(each).max())).astype(np.int8) for each in keys]
    tokens = [token for _, text in texts for token in (*text, end)]
    weights = (
        np.ones(len(tokens)) if seed is None else np.random.default_rng(seed).random(len(tokens))
    )
    return Memory(
        space,
        np.concatenate(stored),
        np.array(tokens, np.int32),
        weights.astype(np.float32),
        np.unique(run_hashes(np.array(single, np.int64).reshape(-1, 4))),
        end,
    )


def normed(model: TinyModel, residual: Array) -> Array:
    """Final rows, which the reference's output matrix is applied to, from the last block's."""
    return model.network.norm(model.network.output_norm, residual)


def mixture(
    memory: Memory,
    strength: float,
    row: npt.ArrayLike,
    before: Sequence[int],
    p: Array,
    single: Sequence[Run] = (),
) -> Array:
    """The next token's distribution (n_vocab,) from the model's own.

    Args:
        memory: without its hashes of runs.
        strength: of the memory.
        row: (n_embd,) the final row.
        before: the text so far.
        p: (n_vocab,) the model's own distribution.
        single: the runs of four tokens that are not completed.
    """
    q = unit(row) - memory.space.mean
    q = unit(unit(q) @ memory.space.basis.astype(np.float64))
    near = [float(q @ unit(key)) for key in memory.keys]
    nearest = sorted(range(len(near)), key=lambda i: -near[i])[:64]
    total = sum(np.exp((near[i] - near[nearest[0]]) / 0.045) for i in nearest)
    gate = min(1.0, max(0.0, (near[nearest[0]] - 0.3) / 0.4))
    offered = np.zeros(len(p))
    for i in nearest:
        share = np.exp((near[i] - near[nearest[0]]) / 0.045) / total
        offered[memory.tokens[i]] += share * memory.weights[i]
    text = list(before)
    for token in np.flatnonzero(offered):
        three = [*text[-2:], token]
        holds = any(text[i : i + 3] == three for i in range(len(text) - 2))
        if holds or (*text[-3:], token) in single:
            offered[token] = 0
    six = [text[i : i + 6] for i in range(len(text) - 5)]
    if six and six[-1] in six[:-1]:
        offered, gate = np.zeros(len(p)), 1.0
        offered[memory.end] = 1
    weight = min(0.95, strength * gate)
    mixed: Array = (1 - weight * offered.sum()) * p + weight * offered
    return mixed
