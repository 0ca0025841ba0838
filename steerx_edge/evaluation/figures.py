"""What the rows of an evaluation say: means and medians over users, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from steerx_edge.evaluation.evaluator import BASELINES, Row
from steerx_edge.learning.effects import bootstrap_mean_interval

WORSE = -0.01
"""Nats per token: a user whose gain is below is worse off than unsteered."""

CONTRASTS = {
    "own - generic": ("own", "generic"),
    "own - swapped": ("own", "swapped"),
    "prompt - others' prompt": ("prompt", "others' prompt"),
    "prompt + own - prompt": ("prompt + own", "prompt"),
    "prefix - others' prefix": ("prefix", "others' prefix"),
    "prefix + own - prefix": ("prefix + own", "prefix"),
}
"""Differences of two arms: what is personal, and what a profile adds to the prompt."""


@dataclass(frozen=True)
class Figure:
    """Mean and median over users, and the mean's 95% bootstrap interval; a single user has none."""

    mean: float
    median: float
    low: float | None
    high: float | None
    users: int


@dataclass(frozen=True)
class Line:
    """One arm, or the difference of two, of one method; BASELINES for those without a profile."""

    method: str
    arm: str
    figures: Mapping[str, Figure]


Over = Literal["strength", "layer", "items"]
"""What a sweep goes over."""

Sweep = Mapping[str, Mapping[float, Figure]]
"""Gain by arm, and by strength, layer or number of items, infinity standing for all items."""


@dataclass(frozen=True)
class Evaluation:
    """Figures of all users.

    Args:
        header: what they are of.
        rows: of each user and method, and of each user without a method.
    """

    header: Row
    rows: Sequence[Row]

    def by_user(self, method: str) -> dict[str, dict[str, dict[str, float]]]:
        """Figures of each user by arm, the baselines' too, and differences of arms.

        Beside what a row holds: `gain` over unsteered and `worse`, 1 where it is below WORSE.
        """
        return {user: self._user_figures(user, method) for user in self.header["users"]}

    def lines(self) -> list[Line]:
        """Figures over users, of the baselines and then of each method."""
        lines: dict[tuple[str, str], Line] = {}
        for method in self.header["methods"]:
            users = list(self.by_user(method).values())
            baselines = {name for row in self.rows if not row["method"] for name in row["arms"]}
            arms = dict.fromkeys(arm for figures in users for arm in figures)
            for arm in arms:
                of_baselines = all(part in baselines for part in CONTRASTS.get(arm, (arm,)))
                place = (BASELINES if of_baselines else method, arm)
                lines[place] = Line(*place, self._figures([user.get(arm, {}) for user in users]))
        return sorted(lines.values(), key=lambda line: line.method != BASELINES)

    def sweep(self, method: str, over: Over) -> Sweep:
        """Gain by arm, and by strength, layer or number of items; own profiles come first.

        A point counts only users who have that many items, so there are fewer of them further out.
        """
        gains: dict[str, dict[float, list[float]]] = {}
        users = self.by_user(method)
        points = [
            (users[row["user"]]["unsteered"]["log_prob"], point)
            for kind in (method, BASELINES)
            for row in self.rows
            if row["method"] == kind
            for point in row["sweep"]
            if point["over"] == over
        ]
        for unsteered, point in points:
            by_place = gains.setdefault(point["arm"], {})
            # A profile that does nothing was not scored.
            gain = point.get("log_prob", unsteered) - unsteered
            by_place.setdefault(point["at"], []).append(gain)
        for arm, by_place in gains.items():
            learned = {user: of[arm]["gain"] for user, of in users.items() if arm in of}
            if over == "strength":
                # Profiles that do nothing have no points.
                for at in by_place:
                    by_place[at] += [0.0] * (len(learned) - len(by_place[at]))
                by_place |= {0.0: [0.0] * len(learned), 1.0: list(learned.values())}
            if over == "items":
                for row in self.rows:
                    if row["method"] == BASELINES and row["items"] in by_place:
                        by_place[row["items"]].append(learned[row["user"]])
                by_place[math.inf] = list(learned.values())
        return {
            arm: {place: self._figure(by_place[place]) for place in sorted(by_place)}
            for arm, by_place in gains.items()
        }

    def _user_figures(self, user: str, method: str) -> dict[str, dict[str, float]]:
        arms: dict[str, dict[str, float]] = {}
        for row in self.rows:
            if row["user"] == user and row["method"] in (BASELINES, method):
                arms |= {arm: dict(figures) for arm, figures in row["arms"].items()}
                arms |= {arm: dict(arms[plain]) for arm, plain in row.get("same", {}).items()}
        unsteered = dict(arms["unsteered"])
        for arm, figures in arms.items():
            if arm != "unsteered" and "log_prob" in figures:
                figures["gain"] = figures["log_prob"] - unsteered["log_prob"]
            if arm != "unsteered" and "neutral" in figures:
                figures["neutral"] -= unsteered["neutral"]
        for name, (one, other) in CONTRASTS.items():
            if one in arms and other in arms:
                shared = [figure for figure in arms[one] if figure in arms[other]]
                arms[name] = {each: arms[one][each] - arms[other][each] for each in shared}
        for figures in arms.values():
            if "gain" in figures:
                figures["worse"] = float(figures["gain"] < WORSE)
        return arms

    def _figures(self, users: Sequence[Mapping[str, float]]) -> dict[str, Figure]:
        names = dict.fromkeys(name for figures in users for name in figures)
        return {name: self._figure([u[name] for u in users if name in u]) for name in names}

    def _figure(self, values: Sequence[float]) -> Figure:
        mean, median = float(np.mean(values)), float(np.median(values))
        if len(values) < 2:
            return Figure(mean, median, None, None, len(values))
        column = np.array(values, dtype=np.float64)[:, None]
        (low,), (high,) = bootstrap_mean_interval(column, seed=self.header["seed"])
        return Figure(mean, median, float(low), float(high), len(values))
