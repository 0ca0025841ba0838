"""The figures of one user: real texts scored, and new texts generated, under each arm."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from steerx_edge.evaluation.arms import WITHOUT_PROFILE, Arms, ArmsOf, Condition
from steerx_edge.evaluation.prompts import Prompts
from steerx_edge.evaluation.text_metrics import Attribution, copied, overlap, request_fit
from steerx_edge.history.item import User
from steerx_edge.history.words import pieces
from steerx_edge.learning.calibration.fluency import repeated_four_grams
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import GenerateRequest, ScoreRequest
from steerx_edge.steering.requests import by_context, steered

if TYPE_CHECKING:
    pass

Row = dict[str, Any]
"""The figures of one unit, as they are stored; see docs/evaluation.md."""

Unit = tuple[str, str]
"""A user's id and a method's name; BASELINES for the arms without a profile."""

BASELINES = ""

MAX_OTHER_REQUESTS = 8
"""A text is compared with at most this many of the user's other requests."""

_Key = TypeVar("_Key", bound=Hashable)


class Evaluator:
    """Measures units on one engine.

    Args:
        arms: the arms of every user.
    """

    def __init__(self, arms: ArmsOf) -> None:
        self._engine, self._sample, self._plan = arms.engine, arms.sample, arms.plan
        self._arms = arms
        self._prompts = Prompts(arms.engine, arms.plan.retrieve, arms.plan.prefix)

    def learn_own(self, unit: Unit) -> None:
        """Learn a user's profile, unless it is there: it will be swapped in for another user."""
        user, method = unit
        self._arms.own(self._sample.by_id[user], method)

    def measure(self, unit: Unit) -> Row:
        """The figures of a unit."""
        name, method = unit
        user = self._sample.by_id[name]
        row: Row = {"user": name, "method": method}
        if method == BASELINES:
            row |= {"items": len(user.history), "queries": len(user.queries)}
            arms, points = self._arms.baselines(user), self._arms.prompt_sweep(user)
        else:
            arms = self._arms.with_profiles(user, method)
            # Measured again it would differ: see docs/evaluation.md on rounding.
            row["same"] = {
                arm: plain
                for arm, plain in WITHOUT_PROFILE.items()
                if arm in arms and not any(condition.steering for condition in arms[arm])
            }
            arms = {arm: arms[arm] for arm in arms if arm not in row["same"]}
            points = self._arms.sweep(user, method, arms)
        effective = {
            point: conditions
            for point, conditions in points.items()
            if any(condition.prompts or condition.steering for condition in conditions)
        }
        row["arms"], log_probs = self._scored(user, arms, effective)
        row["sweep"] = [
            {"over": point[0], "at": point[1], "arm": point[2]}
            | ({"log_prob": log_probs[point]} if point in effective else {"same": "unsteered"})
            for point in points
        ]
        if self._plan.generate:
            texts = self._generated(user, arms)
            if method == BASELINES:
                texts["real"] = [query.response for query in user.queries]
            for arm, figures in self._text_figures(user, texts).items():
                row["arms"].setdefault(arm, {}).update(figures)
        return row

    def _scored(
        self, user: User, arms: Arms, points: Mapping[_Key, Sequence[Condition]]
    ) -> tuple[dict[str, dict[str, float]], dict[_Key, float]]:
        """Log-probabilities of the user's texts and of neutral ones by arm, and by point."""
        keyed: dict[Any, Sequence[Condition]] = {**arms, **points}
        log_probs = self._means({key: self._score_requests(user, keyed[key]) for key in keyed})
        neutral = self._means(
            {
                arm: self._neutral_requests(conditions)
                for arm, conditions in arms.items()
                if not any(condition.prompts for condition in conditions)
            }
        )
        figures = {arm: {"log_prob": log_probs[arm]} for arm in arms}
        for arm, log_prob in neutral.items():
            figures[arm]["neutral"] = log_prob
        return figures, {point: log_probs[point] for point in points}

    def _score_requests(self, user: User, conditions: Sequence[Condition]) -> list[ScoreRequest]:
        """The user's real texts."""
        texts = [self._prompts.tokens(query.response) for query in user.queries]
        return [
            request
            for condition in conditions
            for request in self._steered(condition, self._prompts.contexts(user, condition), texts)
        ]

    def _neutral_requests(self, conditions: Sequence[Condition]) -> list[ScoreRequest]:
        contexts, texts = zip(*self._prompts.neutral, strict=True)
        return [
            request
            for condition in conditions
            for request in self._steered(condition, contexts, texts)
        ]

    def _steered(
        self,
        condition: Condition,
        contexts: Sequence[list[int]],
        texts: Sequence[Sequence[int]],
    ) -> list[ScoreRequest]:
        steerings = by_context(self._engine, condition.steering, contexts)
        return [
            steered(ScoreRequest(context, text), steering)
            for context, text, steering in zip(contexts, texts, steerings, strict=True)
        ]

    def _means(self, passes: Mapping[_Key, Sequence[ScoreRequest]]) -> dict[_Key, float]:
        """Log-probability: the mean over a key's passes of the mean over tokens."""
        return {key: float(np.mean(scores)) for key, scores in self._scores(passes).items()}

    def _scores(self, passes: Mapping[_Key, Sequence[ScoreRequest]]) -> dict[_Key, list[float]]:
        """Log-probability per token of each of a key's passes."""
        # All at once, so that what they begin with is evaluated once.
        results = iter(
            self._engine.run_many([request for requests in passes.values() for request in requests])
        )
        return {
            key: [float(next(results).scored.mean(dtype=np.float64)) for _ in requests]
            for key, requests in passes.items()
        }

    def _generated(self, user: User, arms: Arms) -> dict[str, list[str]]:
        """Greedy answers to the user's queries."""
        n_tokens = min(self._plan.generate, self._prompts.quarter)  # as many after every prompt
        requests = []
        for conditions in arms.values():
            contexts = self._prompts.contexts(user, conditions[0])
            steerings = by_context(self._engine, conditions[0].steering, contexts)
            requests += [
                steered(GenerateRequest(context, n_tokens), steering)
                for context, steering in zip(contexts, steerings, strict=True)
            ]
        texts = iter(self._engine.generate_many(requests))
        return {arm: [next(texts).strip() for _ in user.queries] for arm in arms}

    def _text_figures(
        self, user: User, texts: Mapping[str, Sequence[str]]
    ) -> dict[str, dict[str, float]]:
        """By arm, the means over texts that answer the user's queries."""
        prompts = self._compared_prompts(user)
        fits = self._scores(
            {
                (arm, i): [ScoreRequest(prompt, tokens) for prompt in prompts[i]]
                for arm, written in texts.items()
                for i, text in enumerate(written)
                if (tokens := self._prompts.tokens(text))
            }
        )
        figures = {}
        for arm, written in texts.items():
            by_text = []
            for i, (query, text) in enumerate(zip(user.queries, written, strict=True)):
                of_text = self._text_figure(user, query.response, text)
                # An empty text is as probable after every request.
                of_text |= request_fit(fits.get((arm, i), [0.0] * len(prompts[i])))
                if (arm, i) in fits:
                    of_text["surprise"] = -fits[arm, i][0]
                by_text.append(of_text)
            history = [item.response for item in self._arms.learned_from(user, arm)]
            figures[arm] = {**_means_by_name(by_text), **copied(written, history)}
        return figures

    def _compared_prompts(self, user: User) -> list[list[list[int]]]:
        """Of each query: the prompt of its request, of none, and of some other queries' requests.

        A query without a request has one prompt.
        """
        prompts = self._prompts.contexts(user, Condition())
        none = self._engine.prompt(messages_for(""))
        compared = []
        for i, own in enumerate(prompts):
            others: list[list[int]] = []
            for prompt in (*prompts[i + 1 :], *prompts[:i]):
                if prompt not in (own, none, *others) and len(others) < MAX_OTHER_REQUESTS:
                    others.append(prompt)
            compared.append([own] if own == none else [own, none, *others])
        return compared

    def _text_figure(self, user: User, real: str, text: str) -> dict[str, float]:
        figures = {**overlap(real, text), "repeats": repeated_four_grams(pieces(text))}
        if self._attribution:
            rank = self._attribution.rank(user.id, text)
            figures |= {"top1": float(rank == 1), "mrr": 1 / rank}
        return figures

    @cached_property
    def _attribution(self) -> Attribution | None:
        texts = {user.id: [item.response for item in user.history] for user in self._sample.people}
        return Attribution(texts) if len(texts) > 1 else None


def _means_by_name(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each figure over those that have it."""
    names = dict.fromkeys(name for each in figures for name in each)
    return {
        name: float(np.mean([each[name] for each in figures if name in each])) for name in names
    }
