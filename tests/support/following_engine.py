"""An engine for evaluations whose every figure can be computed by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from steerx_edge.evaluation import Evaluation, Plan, Sample, evaluate
from steerx_edge.learning.settings import Settings
from steerx_edge.llamacpp.requests import GenerateRequest, ScoreRequest
from steerx_edge.model_id import ModelId
from steerx_edge.profile import Entry, LogitBias
from tests.support.entries import a_with_history, an_entry
from tests.support.users import WORDS, a_sample

PLAN = Plan(items=5, min_items=2, retrieve=2, generate=0)
MODEL = ModelId("sha256:" + "0" * 64, "follower", "fake", 4, 8, 1, "F32")


def chars(tokens: Sequence[int]) -> str:
    return "".join(map(chr, tokens))


class FollowingEngine:
    """Finds a text about a word half a nat more probable when it is told of that word.

    Told by a profile: in proportion to the items it was learned from. Told by the prompt: by
    texts in it. What it writes is about the word it was told of, or "nothing".
    """

    def __init__(self, n_ctx: int = 4000) -> None:
        self.analysis = SimpleNamespace(n_ctx=n_ctx, n_layer=4)
        self.model_id = MODEL
        self.passes: list[ScoreRequest] = []
        self.written: list[GenerateRequest] = []
        self.calls = 0

    def tokenize(self, text: str) -> list[int]:
        return list(map(ord, text))

    def pieces(self, tokens: Sequence[int]) -> list[bytes]:
        return [chr(token).encode() for token in tokens]

    def prompt(self, messages: Sequence[Any]) -> list[int]:
        return list(map(ord, "\n".join(message["content"] for message in messages)))

    def run_many(self, requests: Sequence[ScoreRequest]) -> list[Any]:
        self.passes += requests
        self.calls += 1
        return [
            SimpleNamespace(scored=np.full(len(request.response), self.score(request)))
            for request in requests
        ]

    def score(self, request: ScoreRequest) -> float:
        told = self.told(request)
        text = chars(request.response)
        return -3 + sum(0.5 * told[word] for word in WORDS if word in text)

    def told(self, request: ScoreRequest | GenerateRequest) -> Counter[str]:
        shown = chars(request.context)
        told: Counter[str] = Counter({word: 1 for word in WORDS if f"{word} sang" in shown})
        for place, share in request.logit_bias.items():
            told[WORDS[place]] += share  # type: ignore[assignment]
        return told

    def generate_many(self, requests: Sequence[GenerateRequest]) -> list[str]:
        self.written += requests
        best = [
            max(self.told(request).items(), key=lambda each: each[1], default="")
            for request in requests
        ]
        return [f"one {word[0]} more" if word else "nothing" for word in best]


def entry_of(words: Counter[str], strength: float = 1.0) -> Entry:
    """A profile whose logit bias names what it was learned from, by places in WORDS.

    Half as strong with texts in the prompt.
    """
    shares = {WORDS.index(word): count / words.total() for word, count in words.items()}
    places = sorted(shares)
    return an_entry(
        MODEL,
        (2,),
        np.eye(1, 8),
        strengths=np.zeros(1, np.float32),
        logit_bias=LogitBias(
            np.array(places, np.int32),
            np.array([shares[place] for place in places], np.float32),
            strength,
        )
        if shares
        else None,
        with_history=a_with_history(strengths=[0], logit_bias=strength / 2),
    )


ONE = {"words": Settings(strength=1.0)}


def follow(
    folder: Path,
    sample: Sample | None = None,
    plan: Plan = PLAN,
    *,
    methods: Any = ONE,
    engine: FollowingEngine | None = None,
    **options: Any,
) -> tuple[Evaluation, FollowingEngine]:
    engine = engine or FollowingEngine()
    sample = sample or a_sample()
    done = evaluate(lambda: engine, sample, plan, folder, methods=methods, **options)  # type: ignore[arg-type, return-value]
    return done, engine


def means(evaluation: Evaluation, name: str = "gain") -> dict[str, float]:
    return {
        line.arm: line.figures[name].mean for line in evaluation.lines() if name in line.figures
    }
