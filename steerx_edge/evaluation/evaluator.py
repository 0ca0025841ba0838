"""The figures of one user: real texts scored, and written anew, under each arm."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from steerx_edge.evaluation.sample import Plan, Sample, drawn_items, stranger
from steerx_edge.evaluation.text_metrics import Attribution, copied, overlap, repeats, request_fit
from steerx_edge.history.item import HistoryItem, User
from steerx_edge.history.retrieval import Retriever
from steerx_edge.learning.learn import learn
from steerx_edge.learning.neutral import neutral_items
from steerx_edge.learning.settings import MIN_ITEMS, Settings
from steerx_edge.llamacpp.interventions import Add
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import GenerateRequest, ScoreRequest, asked_for
from steerx_edge.profile import Entry, Profile

if TYPE_CHECKING:
    from steerx_edge.llamacpp.engine import Engine

Row = dict[str, Any]
"""The figures of one unit, as they are stored; see docs/evaluation.md."""

Unit = tuple[str, str]
"""A user's id and a method's name; BASELINES for what no profile takes part in."""

BASELINES = ""

MAX_OTHER_REQUESTS = 8
"""A text is compared with at most this many of the user's other requests."""

_Point = tuple[str, float, str]  # of a sweep: over what, at which value, which arm
_Key = TypeVar("_Key", bound=Hashable)

WITHOUT_PROFILE = {
    "own": "unsteered",
    "generic": "unsteered",
    "swapped": "unsteered",
    "prompt + own": "prompt",
}
"""What an arm is where its profile does nothing."""


def steered(entry: Entry, strength: float = 1.0) -> dict[str, Any]:
    """The arguments with which a `ScoreRequest` or `GenerateRequest` is steered by an entry.

    Nothing where the entry does nothing.
    """
    steering: dict[str, Any] = {}
    vectors = entry.vectors(strength)
    if vectors.any():
        steering["interventions"] = (Add(entry.layers, vectors, entry.positions),)
    if bias := entry.token_bias(strength):
        steering["logit_bias"] = bias
    if entry.memory and (memory := entry.memory.active(strength)):
        steering["memory"] = memory
    return steering


def fitting(engine: Engine, entry: Entry, contexts: Sequence[Sequence[int]]) -> list[bool]:
    """Which answers an entry steers: those after contexts that its gate lets through."""
    if entry.gate is None or not contexts:
        return [True] * len(contexts)
    return list(map(bool, entry.gate.is_open(opening_rows(engine, contexts))))


def opening_rows(engine: Engine, contexts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Final normed rows that predict the first token after each context: (n, n_embd)."""
    jobs = [ScoreRequest(context, (), score=False, final=True) for context in contexts]
    return np.stack([asked_for(result.final)[0] for result in engine.run_many(jobs)])


@dataclass(frozen=True)
class _Condition:
    """Under what a text is scored or written."""

    entry: Entry | None = None
    strength: float = 1.0
    history: Sequence[HistoryItem] = ()  # what is retrieved from
    description: str = ""

    @property
    def steering(self) -> dict[str, Any]:
        return steered(self.entry, self.strength) if self.entry else {}

    @property
    def prompts(self) -> bool:
        """Whether it changes the prompt."""
        return bool(self.history or self.description)


Arms = Mapping[str, Sequence[_Condition]]
"""By name. Figures of several conditions are averaged; texts are written under the first."""


class Evaluator:
    """Measures units on one engine.

    Args:
        engine: the model.
        sample: the users.
        plan: what is measured.
        methods: settings by name.
        profiles: a folder for what is learned.
    """

    def __init__(
        self,
        engine: Engine,
        sample: Sample,
        plan: Plan,
        methods: Mapping[str, Settings],
        profiles: Path,
    ) -> None:
        self._engine = engine
        self._sample = sample
        self._plan = plan
        self._methods = methods
        self._profiles = profiles
        self._n_ctx = engine.analysis.n_ctx

    def learn_own(self, unit: Unit) -> None:
        """Learn a user's profile, unless it is there: it will be swapped in for another user."""
        user, method = unit
        self._own(self._sample.by_id[user], method)

    def measure(self, unit: Unit) -> Row:
        """The figures of a unit."""
        name, method = unit
        user = self._sample.by_id[name]
        row: Row = {"user": name, "method": method}
        if method == BASELINES:
            row |= {"items": len(user.history), "queries": len(user.queries)}
            arms = self._baselines(user)
            points: dict[_Point, Sequence[_Condition]] = {
                ("items", n, "prompt"): [_Condition(history=user.history[-n:])]
                for n in self._item_counts(user)
            }
        else:
            arms = self._method_arms(user, method)
            # Measured again it would differ: see docs/evaluation.md on rounding.
            row["same"] = {
                arm: plain
                for arm, plain in WITHOUT_PROFILE.items()
                if arm in arms and not any(condition.steering for condition in arms[arm])
            }
            arms = {arm: arms[arm] for arm in arms if arm not in row["same"]}
            points = self._sweep(user, method, arms)
        effective = {
            point: conditions
            for point, conditions in points.items()
            if any(condition.prompts or condition.steering for condition in conditions)
        }
        scored: dict[Any, Sequence[_Condition]] = {**arms, **effective}
        log_probs = self._means({key: self._passes(user, scored[key]) for key in scored})
        neutral = self._means(
            {
                arm: self._neutral_passes(conditions)
                for arm, conditions in arms.items()
                if not any(condition.prompts for condition in conditions)
            }
        )
        row["arms"] = {arm: {"log_prob": log_probs[arm]} for arm in arms}
        for arm in neutral:
            row["arms"][arm]["neutral"] = neutral[arm]
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

    def _baselines(self, user: User) -> Arms:
        drawn = [_Condition(history=items) for items in self._drawn(user)]
        arms = {
            "unsteered": [_Condition()],
            "prompt": [_Condition(history=user.history)],
            "others' prompt": drawn,
        }
        return {arm: conditions for arm, conditions in arms.items() if conditions}

    def _method_arms(self, user: User, method: str) -> Arms:
        own = self._own(user, method)
        other = stranger(self._sample, user, self._plan.seed)
        generic = [
            self._learned(user, method, f"generic{draw}", items)
            for draw, items in enumerate(self._drawn(user))
        ]
        arms = {
            "description": [_Condition(description=own.description.text)],
            "own": [_Condition(own)],
            "generic": [_Condition(entry) for entry in generic],
            "swapped": [_Condition(self._own(other, method))] if other else [],
            "prompt + own": [_Condition(own.beside_history(), history=user.history)],
        }
        return {arm: conditions for arm, conditions in arms.items() if conditions}

    def _sweep(self, user: User, method: str, arms: Arms) -> dict[_Point, Sequence[_Condition]]:
        points: dict[_Point, Sequence[_Condition]] = {}
        for strength in self._plan.strengths:
            for arm in ("own", "generic"):
                if arm in arms and strength not in (0, 1):  # unsteered, and the arms themselves
                    changed = [replace(each, strength=strength) for each in arms[arm]]
                    points["strength", strength, arm] = changed
        for layer in self._plan.layers:
            points["layer", layer, "own"] = [_Condition(self._own(user, method, layer))]
        for n in self._item_counts(user):
            entry = self._learned(user, method, f"items{n}", user.history[-n:])
            points["items", n, "own"] = [_Condition(entry)]
        return points

    def _item_counts(self, user: User) -> list[int]:
        return [n for n in self._plan.item_counts if n < len(user.history)]

    def _drawn(self, user: User) -> list[list[HistoryItem]]:
        draws = range(self._plan.draws)
        drawn = (drawn_items(self._sample, user, draw, self._plan.seed) for draw in draws)
        return [items for items in drawn if len(items) > 1]

    def _own(self, user: User, method: str, layer: int | None = None) -> Entry:
        if layer is None:
            return self._learned(user, method, "own", user.history)
        return self._learned(user, method, f"layer{layer}", user.history, layers=(layer,))

    def _learned(
        self, user: User, method: str, kind: str, items: Sequence[HistoryItem], **changed: Any
    ) -> Entry:
        number = list(self._sample.by_id).index(user.id)
        path = self._profiles / f"{method}-{number}-{kind}.json"
        if path.exists():
            return Profile.load(path).entry_for(self._engine.model_id)
        n_items = self._plan.items or max(MIN_ITEMS, len(items))
        settings = replace(self._methods[method], max_items=n_items, **changed)
        profile = learn(self._engine, items, settings)
        profile.save(path)
        return profile.entry_for(self._engine.model_id)

    def _passes(self, user: User, conditions: Sequence[_Condition]) -> list[ScoreRequest]:
        """The user's real texts."""
        return [
            ScoreRequest(context, self._cut(query.response, 4), **steering)
            for condition in conditions
            for query, (context, steering) in zip(
                user.queries,
                self._steered(condition, self._contexts(user, condition)),
                strict=True,
            )
        ]

    def _neutral_passes(self, conditions: Sequence[_Condition]) -> list[ScoreRequest]:
        contexts = [context for context, _ in self._neutral]
        return [
            ScoreRequest(context, tokens, **steering)
            for condition in conditions
            for (context, steering), (_, tokens) in zip(
                self._steered(condition, contexts), self._neutral, strict=True
            )
        ]

    def _steered(
        self, condition: _Condition, contexts: Sequence[list[int]]
    ) -> list[tuple[list[int], dict[str, Any]]]:
        """Each context, with what steers the text after it."""
        steering = condition.steering
        fit = [True] * len(contexts)
        if condition.entry and steering:
            fit = fitting(self._engine, condition.entry, contexts)
        return [
            (context, steering if fits else {}) for context, fits in zip(contexts, fit, strict=True)
        ]

    @cached_property
    def _neutral(self) -> list[tuple[list[int], list[int]]]:
        """The prompt of each neutral text's request, and the text."""
        return [
            (
                self._engine.prompt(messages_for(self._text(item.request, 4))),
                self._cut(item.response, 4),
            )
            for item in neutral_items("evaluation")
        ]

    def _means(self, passes: Mapping[_Key, Sequence[ScoreRequest]]) -> dict[_Key, float]:
        """Log-probability: the mean over a key's passes of the mean over tokens."""
        return {key: float(np.mean(scores)) for key, scores in self._scores(passes).items()}

    def _scores(self, passes: Mapping[_Key, Sequence[ScoreRequest]]) -> dict[_Key, list[float]]:
        """Log-probability per token of each of a key's passes."""
        # All at once, so that what they begin with is evaluated once.
        results = iter(self._engine.run_many([job for jobs in passes.values() for job in jobs]))
        return {
            key: [float(next(results).scored.mean(dtype=np.float64)) for _ in jobs]
            for key, jobs in passes.items()
        }

    def _generated(self, user: User, arms: Arms) -> dict[str, list[str]]:
        """Greedy answers to the user's queries."""
        n_tokens = min(self._plan.generate, self._n_ctx // 4)  # as many after every prompt
        jobs = [
            GenerateRequest(context, n_tokens, **steering)
            for conditions in arms.values()
            for context, steering in self._steered(
                conditions[0], self._contexts(user, conditions[0])
            )
        ]
        texts = iter(self._engine.generate_many(jobs))
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
                if (tokens := self._cut(text, 4))
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
            history = [item.response for item in self._learned_from(user, arm)]
            figures[arm] = {**_means_by_name(by_text), **copied(written, history)}
        return figures

    def _compared_prompts(self, user: User) -> list[list[list[int]]]:
        """Of each query: the prompt of its request, of none, and of some other queries' requests.

        A query without a request has one prompt.
        """
        prompts = self._contexts(user, _Condition())
        none = self._engine.prompt(messages_for(""))
        compared = []
        for i, own in enumerate(prompts):
            others: list[list[int]] = []
            for prompt in (*prompts[i + 1 :], *prompts[:i]):
                if prompt not in (own, none, *others) and len(others) < MAX_OTHER_REQUESTS:
                    others.append(prompt)
            compared.append([own] if own == none else [own, none, *others])
        return compared

    def _learned_from(self, user: User, arm: str) -> Sequence[HistoryItem]:
        """The items that an arm's profile or prompt was made from; others' arms have others' items.

        Of several draws those of the first, under which texts are written.
        """
        if arm in ("generic", "others' prompt"):
            return self._drawn(user)[0]
        if arm == "swapped" and (other := stranger(self._sample, user, self._plan.seed)):
            return other.history
        return user.history

    def _text_figure(self, user: User, real: str, text: str) -> dict[str, float]:
        figures = {**overlap(real, text), "repeats": repeats(text)}
        if self._attribution:
            rank = self._attribution.rank(user.id, text)
            figures |= {"top1": float(rank == 1), "mrr": 1 / rank}
        return figures

    @cached_property
    def _attribution(self) -> Attribution | None:
        texts = {user.id: [item.response for item in user.history] for user in self._sample.people}
        return Attribution(texts) if len(texts) > 1 else None

    def _contexts(self, user: User, condition: _Condition) -> list[list[int]]:
        """The prompt before each held-out text, in three quarters of the analysis context.

        Every arm scores the same tokens, so what does not fit is left out of the prompt: the least
        relevant items first.
        """
        retriever = Retriever(condition.history)
        room = self._n_ctx - self._n_ctx // 4
        contexts = []
        for query in user.queries:
            found = retriever.retrieve(query.request, self._plan.retrieve)
            shown = [self._shortened(condition.history[i]) for i in reversed(found)]
            request = self._text(query.request, 4)
            while True:
                messages = messages_for(request, history=shown, description=condition.description)
                context = self._engine.prompt(messages)
                if len(context) <= room or not shown:
                    break
                shown = shown[1:]
            contexts.append(context)
        return contexts

    def _shortened(self, item: HistoryItem) -> HistoryItem:
        request, response = self._text(item.request, 8), self._text(item.response, 8)
        return replace(item, request=request, response=response)

    def _text(self, text: str, share: int) -> str:
        """A text, or what of it fits one `share`-th of the analysis context."""
        tokens = self._cut(text, share)
        if len(tokens) < self._n_ctx // share:
            return text
        return b"".join(self._engine.pieces(tokens)).decode(errors="ignore")

    def _cut(self, text: str, share: int) -> list[int]:
        return self._engine.tokenize(text)[: self._n_ctx // share]


def _means_by_name(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each figure over those that have it."""
    names = dict.fromkeys(name for each in figures for name in each)
    return {
        name: float(np.mean([each[name] for each in figures if name in each])) for name in names
    }
