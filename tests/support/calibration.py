"""Texts, candidate directions and models for calibration: random, or scripted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.ablation import Text
from steerx_edge.learning.calibration import HeldOutScores, Setting
from steerx_edge.learning.candidates import Candidate
from steerx_edge.learning.effects import Effects
from steerx_edge.learning.memory_rows import MemoryRows
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.interventions import Add
from steerx_edge.llamacpp.requests import GenerateRequest, ScoreRequest, ScoreResult, asked_for
from steerx_edge.steering.logit_bias import TokenCounts
from steerx_edge.steering.memory import KeySpace, TextOffers

N_VOCAB, N_EMBD = 448, 64
FIRST_WORD = 259  # above the control tokens and single bytes
FOLDS = ((0, 3), (1, 4), (2,))  # of five texts
QUARTERS = ((0, 4), (1, 5), (2, 6), (3, 7))  # of eight texts
NEUTRAL_ITEMS = [
    HistoryItem("It rained all day.", "Was it dry?"),
    HistoryItem("Nothing is ever late here.", "Is it late?"),
    HistoryItem("A table has four legs.", "How many?"),
]


def unsteered_scores(engine: Any, *args: Any, **options: Any) -> HeldOutScores:
    """Held-out scores for which the unsteered passes are done."""
    scores = HeldOutScores(engine, *args, **options)
    scores.score([()])
    return scores


# ---------------------------------------------------------------- random


def random_texts(n: int, seed: int = 0) -> list[Text]:
    """Texts of random tokens."""
    rng = np.random.default_rng(seed)

    def tokens(least: int, most: int) -> list[int]:
        drawn: list[int] = rng.integers(FIRST_WORD, N_VOCAB, rng.integers(least, most)).tolist()
        return drawn

    return [Text([1, *tokens(3, 7)], tokens(5, 9)) for _ in range(n)]


def similar_texts(n: int, words: Sequence[int], n_tokens: int, seed: int = 0) -> list[Text]:
    """Texts that draw all their tokens from few words."""
    rng = np.random.default_rng(seed)
    return [
        replace(text, response=rng.choice(words, n_tokens).tolist())
        for text in random_texts(n, seed)
    ]


def random_candidates(n: int, seed: int = 1) -> list[Candidate]:
    """Three candidate directions from n texts each, two of them on block 1, one on block 3."""
    rng = np.random.default_rng(seed)
    places = (("stylevector", 1), ("context-contrast", 1), ("stylevector", 3))
    return [
        Candidate(
            method,
            layer,
            (rng.normal(size=N_EMBD) + rng.normal(size=(n, N_EMBD))).astype(np.float32),
            norm=6.0 + layer,
        )
        for method, layer in places
    ]


def random_counts(n_folds: int, seed: int = 2) -> TokenCounts:
    """Token counts by fold."""
    rng = np.random.default_rng(seed)
    shape = (n_folds, N_VOCAB)
    return TokenCounts(
        rng.poisson(2, shape).astype(np.float32), rng.gamma(2, 1, shape).astype(np.float32)
    )


def counts_of(engine: Engine, texts: Sequence[Text], folds: Sequence[Sequence[int]]) -> TokenCounts:
    """Token counts by fold, as the ablation passes give them."""
    requests = [ScoreRequest(text.context, text.response, expected=True) for text in texts]
    expected = np.stack([asked_for(each.expected) for each in engine.run_many(requests)])
    used = np.stack([np.bincount(text.response, minlength=N_VOCAB) for text in texts])
    by_fold = [
        np.stack([rows[list(fold)].sum(axis=0) for fold in folds]).astype(np.float32)
        for rows in (used, expected)
    ]
    return TokenCounts(*by_fold)


def rows_of(engine: Engine, texts: Sequence[Text]) -> MemoryRows:
    """What a memory holds of texts, with random effects."""
    space = KeySpace.fit(np.concatenate(final_rows(engine, texts)))
    rows = MemoryRows(space, "causal", engine.end_of_turn)
    add_rows(engine, rows, texts)
    return rows


def add_rows(engine: Engine, rows: MemoryRows, texts: Sequence[Text]) -> None:
    """Add texts with random effects."""
    rng = np.random.default_rng(3)
    for text, final in zip(texts, final_rows(engine, texts), strict=True):
        nats = rng.normal(size=len(text.response)).astype(np.float32)
        effects = Effects(text.response, engine.pieces(text.response), nats)
        rows.add(effects, "", rows.keys(final))


def final_rows(engine: Engine, texts: Sequence[Text]) -> list[NDArray[np.float32]]:
    """Final normed rows of each text, (T + 1, n_embd)."""
    requests = [ScoreRequest(text.context, text.response, final=True) for text in texts]
    return [asked_for(result.final) for result in engine.run_many(requests)]


# ---------------------------------------------------------------- scripted

NEUTRAL_REQUEST, NEUTRAL_TOKEN = 99, 8
LIKE_OWN = NEUTRAL_ITEMS[-1].request
"""Where a test says so, the gate takes this neutral request for one of the person's."""


def is_neutral(request: ScoreRequest | GenerateRequest) -> bool:
    """Whether a request is a neutral text's."""
    return request.context[0] == NEUTRAL_REQUEST


def is_like_own(request: ScoreRequest | GenerateRequest) -> bool:
    """Whether a request is the person's, or LIKE_OWN."""
    return not is_neutral(request) or list(request.context[1:]) == [*map(ord, LIKE_OWN)]


def row_for_gate(request: ScoreRequest) -> tuple[float, ...]:
    """A final row by which the gate is closed to [0], and open to LIKE_OWN."""
    if request.interventions:
        return (1, 0, 0, 0)  # the gate takes unsteered rows
    if request.context == [0]:
        return (0, 0, 1, 0)
    like_own = is_like_own(request)
    return (float(like_own), 0, 0, float(is_neutral(request) and like_own))


def size_of(request: ScoreRequest | GenerateRequest) -> float:
    """The length of what is added in all: for scripted candidates, their strengths."""
    vectors = [each.vectors for each in request.interventions if isinstance(each, Add)]
    assert len(vectors) == len(request.interventions)
    return sum(float(np.linalg.norm(each)) for each in vectors)


def strength_of(setting: Setting) -> float:
    """The strengths of all candidate directions together."""
    return sum(strength for _, strength in setting.strengths)


class ScriptedRows:
    """Rows whose memory offers each token the share that a final row says, plus `more`."""

    more = 0.0

    def memory(self, without: Collection[int]) -> Any:  # noqa: ARG002
        """The same memory, whatever is left out."""

        def offers(rows: NDArray[np.float32]) -> Any:
            ones = np.ones(len(rows), np.float32)
            own = np.minimum(rows[:, 1].astype(np.float32) + np.float32(self.more), 1)
            return SimpleNamespace(of_text=lambda _: TextOffers(own, ones, ones))

        return SimpleNamespace(offers=offers)


class ScriptedEngine:
    """An engine that gives scores and texts as told.

    It has four texts, the one of [j] in fold j, and three neutral ones, and candidate directions of
    unit length on blocks 1, 1 and 3.

    Args:
        score: the log-probability of each token of a request.
        write: the tokens of a reply.
        biased: what each strength of the logit bias adds to the score.
        row: the final row: 1 if the request is like the person's, else 0; the share that a memory
            offers; further values.
    """

    counts = TokenCounts(
        np.ones((4, 1), np.float32), np.full((4, 1), (4 / np.e - 1) / 3, np.float32)
    )
    """Any three folds give a value of 1 nat, but for rounding; all four give 1.12."""

    def __init__(
        self,
        score: Callable[[ScoreRequest], float],
        write: Callable[[GenerateRequest], list[int]] = lambda _: list(range(40)),
        *,
        biased: Callable[[float], float] = lambda _: 0.0,
        row: Callable[[ScoreRequest], tuple[float, ...]] = lambda request: (
            float(not is_neutral(request)),
            0.0,
        ),
    ) -> None:
        self.score, self.write, self.biased, self.row = score, write, biased, row
        self.scored: list[ScoreRequest] = []
        self.written: list[GenerateRequest] = []
        self.analysis = SimpleNamespace(generate_many=self._generate_many)
        self.texts = [Text([j], [7, 7, 7]) for j in range(4)]
        self.candidates = [
            Candidate(method, layer, np.ones((4, 1), np.float32), 1.0)
            for method, layer in (("stylevector", 1), ("context-contrast", 1), ("stylevector", 3))
        ]

    def prompt(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Of a neutral text."""
        return [NEUTRAL_REQUEST, *map(ord, messages[-1]["content"])]

    def tokenize(self, _text: str) -> list[int]:
        """Of a neutral text."""
        return [NEUTRAL_TOKEN] * 3

    def _generate_many(self, requests: Sequence[GenerateRequest]) -> list[list[int]]:
        self.written += requests
        return [self.write(request) for request in requests]

    def run_many(
        self, requests: Sequence[ScoreRequest], done: Callable[[int], None] | None = None
    ) -> list[ScoreResult]:
        """Scores as told."""
        results = []
        for n, request in enumerate(requests, 1):
            self.scored.append(request)
            log_prob = np.full(len(request.response), self.score(request), np.float32)
            biased = None
            if request.biases is not None:
                added = [np.float32(self.biased(float(each[0]))) for each in request.biases]
                biased = np.stack([log_prob + each for each in added])
            row = np.array(self.row(request), np.float32)
            final = np.tile(row, (len(log_prob) + 1, 1))
            results.append(ScoreResult(log_prob=log_prob, biased=biased, final=final))
            if done is not None:
                done(n)
        return results

    def held_out(
        self,
        counts: TokenCounts | None = None,
        rows: Any = None,
        *,
        gated: bool = True,
    ) -> HeldOutScores:
        """The scores of its texts, for which nothing is scored yet."""
        engine: Any = self
        folds = [[j] for j in range(len(self.texts))]
        return HeldOutScores(engine, self.texts, folds, self.candidates, counts, rows, gated)

    def unsteered(
        self,
        counts: TokenCounts | None = None,
        rows: Any = None,
        *,
        gated: bool = True,
    ) -> HeldOutScores:
        """The same with the unsteered passes done."""
        scores = self.held_out(counts, rows, gated=gated)
        scores.score([()])
        return scores
