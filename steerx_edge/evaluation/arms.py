"""Arms: the prompts and steerings that one user's texts are scored and generated under."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerx_edge.evaluation.sample import Plan, Sample, drawn_items, swapped_user
from steerx_edge.history.item import HistoryItem, User
from steerx_edge.learning.learn import learn
from steerx_edge.learning.settings import MIN_ITEMS, Settings
from steerx_edge.profile import Entry, Profile
from steerx_edge.steering.steering import Steering

if TYPE_CHECKING:
    from steerx_edge.llamacpp.engine import Engine

Point = tuple[str, float, str]
"""Of a sweep: over what, at which value, which arm."""

WITHOUT_PROFILE = {
    "own": "unsteered",
    "generic": "unsteered",
    "swapped": "unsteered",
    "prompt + own": "prompt",
    "prefix + own": "prefix",
}
"""The arm that an arm equals where its profile does nothing."""


@dataclass(frozen=True)
class Condition:
    """The prompt and the steering that a text is scored or generated under.

    Args:
        entry: the profile, or None.
        strength: relative strength.
        with_history: use the profile's strengths for texts in the prompt.
        history: what in-context texts are retrieved from; may be empty.
        prefix: what the texts are chosen from that the prompt begins with; may be empty.
        description: put in the prompt; may be empty.
    """

    entry: Entry | None = None
    strength: float = 1.0
    with_history: bool = False
    history: Sequence[HistoryItem] = ()
    prefix: Sequence[HistoryItem] = ()
    description: str = ""

    @cached_property
    def steering(self) -> Steering:
        """What the profile does."""
        if self.entry is None:
            return Steering()
        return self.entry.steering(self.strength, with_history=self.with_history)

    @property
    def prompts(self) -> bool:
        """Whether it changes the prompt."""
        return bool(self.history or self.prefix or self.description)


Arms = Mapping[str, Sequence[Condition]]
"""By name. Figures of several conditions are averaged; texts are generated under the first."""


class ArmsOf:
    """The arms of users, with profiles that are learned once and kept.

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
        self.engine = engine
        self.sample = sample
        self.plan = plan
        self._methods = methods
        self._profiles = profiles

    def baselines(self, user: User) -> Arms:
        """Arms without a profile."""
        drawn = [Condition(history=items) for items in self._drawn(user)]
        arms = {
            "unsteered": [Condition()],
            "prompt": [Condition(history=user.history)],
            "others' prompt": drawn,
        }
        if self.plan.prefix:
            arms |= {
                "prefix": [Condition(prefix=user.history)],
                "others' prefix": [Condition(prefix=items) for items in self._drawn(user)],
            }
        return {arm: conditions for arm, conditions in arms.items() if conditions}

    def with_profiles(self, user: User, method: str) -> Arms:
        """Arms with what a method learns."""
        own = self.own(user, method)
        other = swapped_user(self.sample, user, self.plan.seed)
        generic = [
            self._learned(user, method, f"generic{draw}", items)
            for draw, items in enumerate(self._drawn(user))
        ]
        arms = {
            "description": [Condition(description=own.description.text)],
            "own": [Condition(own)],
            "generic": [Condition(entry) for entry in generic],
            "swapped": [Condition(self.own(other, method))] if other else [],
            "prompt + own": [Condition(own, with_history=True, history=user.history)],
        }
        if self.plan.prefix:
            arms["prefix + own"] = [Condition(own, with_history=True, prefix=user.history)]
        return {arm: conditions for arm, conditions in arms.items() if conditions}

    def prompt_sweep(self, user: User) -> dict[Point, Sequence[Condition]]:
        """Points of the sweep without a profile."""
        return {
            ("items", n, "prompt"): [Condition(history=user.history[-n:])]
            for n in self._item_counts(user)
        }

    def sweep(self, user: User, method: str, arms: Arms) -> dict[Point, Sequence[Condition]]:
        """Points of the sweep with profiles."""
        points: dict[Point, Sequence[Condition]] = {}
        for strength in self.plan.strengths:
            for arm in ("own", "generic"):
                if arm in arms and strength not in (0, 1):  # unsteered, and the arms themselves
                    changed = [replace(each, strength=strength) for each in arms[arm]]
                    points["strength", strength, arm] = changed
        for layer in self.plan.layers:
            points["layer", layer, "own"] = [Condition(self.own(user, method, layer))]
        for n in self._item_counts(user):
            entry = self._learned(user, method, f"items{n}", user.history[-n:])
            points["items", n, "own"] = [Condition(entry)]
        return points

    def _item_counts(self, user: User) -> list[int]:
        return [n for n in self.plan.item_counts if n < len(user.history)]

    def _drawn(self, user: User) -> list[list[HistoryItem]]:
        draws = range(self.plan.draws)
        drawn = (drawn_items(self.sample, user, draw, self.plan.seed) for draw in draws)
        return [items for items in drawn if len(items) > 1]

    def own(self, user: User, method: str, layer: int | None = None) -> Entry:
        """The profile of a user's own history, learned unless it is there."""
        if layer is None:
            return self._learned(user, method, "own", user.history)
        return self._learned(user, method, f"layer{layer}", user.history, layers=(layer,))

    def _learned(
        self, user: User, method: str, kind: str, items: Sequence[HistoryItem], **changed: Any
    ) -> Entry:
        number = list(self.sample.by_id).index(user.id)
        path = self._profiles / f"{method}-{number}-{kind}.json"
        if path.exists():
            return Profile.load(path).entry_for(self.engine.model_id)
        n_items = self.plan.items or max(MIN_ITEMS, len(items))
        settings = replace(self._methods[method], max_items=n_items, **changed)
        profile = learn(self.engine, items, settings)
        profile.save(path)
        return profile.entry_for(self.engine.model_id)

    def learned_from(self, user: User, arm: str) -> Sequence[HistoryItem]:
        """The items behind an arm's profile or prompt; of several draws the first."""
        if arm in ("generic", "others' prompt", "others' prefix"):
            return self._drawn(user)[0]
        if arm == "swapped" and (other := swapped_user(self.sample, user, self.plan.seed)):
            return other.history
        return user.history
