"""What calibration tried, as curves and tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steerx_edge.report.tables import Table

TITLE = "What calibration tried"
_COLUMNS = ("", "gain", "95% interval", "neutral text loses", "texts")
_DIRECTIONS_SHOWN = 4
_NOT_KNOWN = (
    "It is not known: the profile does not hold it. Profiles that are learned with calibration by "
    "this version do."
)


@dataclass(frozen=True)
class Curve:
    """The held-out gain over one strength, or over the number of texts.

    Attributes:
        title: what is varied, and with which prompt.
        name: the same in a row of a table, before the strength.
        axis: what the horizontal axis shows.
        points: as the trials of `profile_facts` are, increasing in `at`; at least one.
        chosen: the strength that the profile has; None where it has no such part.
        is_number: whether `at` is a number of texts, not a strength.
    """

    title: str
    name: str
    axis: str
    points: Sequence[Mapping[str, Any]]
    chosen: float | None = None
    is_number: bool = False

    def is_chosen(self, point: Mapping[str, Any]) -> bool:
        """Whether the profile has the strength of this point."""
        return self.chosen is not None and math.isclose(point["at"], self.chosen, abs_tol=1e-9)


def curves(facts: Mapping[str, Any]) -> list[Curve]:
    """The curves that an entry of `profile_facts` holds."""
    trials = facts["trials"] or {}
    history = facts["with_history"] or {}

    def chosen(part: str) -> float | None:
        if not facts["steers"]:
            return None
        return float(facts[part]["strength"]) if facts[part] else 0.0

    found = [
        Curve(
            f"{name}{', with your texts in the prompt' if at_history else ''}",
            f"{'with your texts, ' if at_history else ''}{name.lower()}",
            f"strength of the {name.lower()}",
            trials.get(f"{part}_with_history" if at_history else part, ()),
            history.get(part) if at_history else chosen(part),
        )
        for at_history in (False, True)
        for part, name in (("memory", "Memory"), ("logit_bias", "Logit bias"))
    ]
    texts = "texts in the memory"
    found.append(Curve("Number of texts", texts, texts, trials.get("texts", ()), is_number=True))
    return [curve for curve in found if curve.points]


def lines(facts: Mapping[str, Any]) -> list[str]:
    """Say what the figures mean, or that there are none."""
    if not facts["trials"]:
        return [_NOT_KNOWN]
    found = [
        "Gain on held-out texts, nats/token, if one strength is changed and all else stays "
        + ("as chosen." if facts["steers"] else "as in the best setting, which was not reliable.")
    ]
    if facts["trials"]["directions"]:
        found.append("Directions were tried before texts beyond the sample were read.")
    if facts["trials"]["texts"]:
        found.append(
            "By number of texts: with a memory of so many texts, spread evenly over all. "
            "Directions and logit bias are those of all texts."
        )
    return found


def short_table(facts: Mapping[str, Any]) -> Table | None:
    """Of each curve the first strength, the best, and the chosen one with its neighbors.

    None if nothing is known.
    """
    if not facts["trials"]:
        return None
    rows = [
        (_name(curve, point), *_figures(point))
        for curve in curves(facts)
        for point in _telling(curve)
    ]
    by_gain = sorted(facts["trials"]["directions"], key=lambda trial: -trial["mean"])
    rows += [_directions_row(facts, trial) for trial in by_gain[:_DIRECTIONS_SHOWN]]
    return Table("Gain at other strengths, nats/token", _COLUMNS, rows)


def curve_table(curve: Curve) -> Table:
    """All points of a curve."""
    columns = (curve.axis, *_COLUMNS[1:])
    return Table(
        curve.title,
        columns,
        [(f"{point['at']:g}{_mark(curve, point)}", *_figures(point)) for point in curve.points],
    )


def directions_table(facts: Mapping[str, Any]) -> Table | None:
    """All directions that were tried, in that order; None if nothing is known of any."""
    trials = facts["trials"]
    if not trials or not trials["directions"]:
        return None
    rows = [_directions_row(facts, trial) for trial in trials["directions"]]
    return Table("Directions that were tried", _COLUMNS, rows)


def _telling(curve: Curve) -> list[Mapping[str, Any]]:
    """All numbers of texts; of strengths the first, the best, and the chosen with its neighbors."""
    points = curve.points
    if curve.is_number:
        return list(points)
    best = max(range(len(points)), key=lambda i: points[i]["mean"])
    places = {0, best}
    for i, point in enumerate(points):
        if curve.is_chosen(point):
            places |= {i - 1, i, i + 1}
    return [points[i] for i in sorted(places) if 0 <= i < len(points)]


def _name(curve: Curve, point: Mapping[str, Any]) -> str:
    if curve.is_number:
        return f"{point['at']:g} {curve.name}"
    return f"{curve.name} {point['at']:g}{_mark(curve, point)}"


def _mark(curve: Curve, point: Mapping[str, Any]) -> str:
    return " (chosen)" if curve.is_chosen(point) else ""


def _figures(point: Mapping[str, Any]) -> tuple[str, ...]:
    loss = "" if point["loss"] is None else f"{point['loss']:+.4f}"
    interval = f"{point['low']:+.3f} to {point['high']:+.3f}"
    return f"{point['mean']:+.3f}", interval, loss, str(point["items"])


def _directions_row(facts: Mapping[str, Any], trial: Mapping[str, Any]) -> tuple[str, ...]:
    each = [
        f"layer {layer} at {strength:.3g} ({method})"
        for layer, method, strength in zip(
            trial["layers"], trial["contrast_methods"], trial["strengths"], strict=True
        )
    ]
    name = " and ".join(each) or "no direction"
    own = {
        layer["layer"]: (layer["contrast_method"], layer["strength"])
        for layer in facts["layers"]
        if layer["strength"]
    }
    tried = dict(
        zip(
            trial["layers"],
            zip(trial["contrast_methods"], trial["strengths"], strict=True),
            strict=True,
        )
    )
    is_chosen = (
        facts["steers"]
        and own.keys() == tried.keys()
        and all(
            own[at][0] == tried[at][0] and math.isclose(own[at][1], tried[at][1], rel_tol=1e-5)
            for at in own
        )
    )
    return (f"{name}{' (chosen)' if is_chosen else ''}", *_figures(trial))
