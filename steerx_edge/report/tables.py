"""The sentences and tables in a report of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from steerx_edge.evaluation.figures import CONTRASTS, WORSE

if TYPE_CHECKING:
    from steerx_edge.evaluation.figures import Evaluation, Figure, Line, Over, Sweep

LABELS = {
    "unsteered": "unsteered",
    "prompt": "own texts in the prompt",
    "others' prompt": "others' texts in the prompt",
    "description": "description in the prompt",
    "own": "own profile",
    "generic": "generic profile",
    "swapped": "another user's profile",
    "prompt + own": "own texts in the prompt + own profile",
    "prefix": "own texts as a prefix",
    "others' prefix": "others' texts as a prefix",
    "prefix + own": "own texts as a prefix + own profile",
    "real": "the real texts",
    "own - generic": "personal: own - generic profile",
    "own - swapped": "own - another user's profile",
    "prompt - others' prompt": "personal: own - others' texts in the prompt",
    "prompt + own - prompt": "own profile over the prompt alone",
    "prefix - others' prefix": "personal: own - others' texts as a prefix",
    "prefix + own - prefix": "own profile over the prefix alone",
}

SWEEPS: Mapping[Over, str] = {
    "strength": " (1 is as learned)",
    "layer": "",
    "items": " (the last ones of each history)",
}
"""What a sweep varies, with a note for its title."""


@dataclass(frozen=True)
class Table:
    """Rows of text: a name, then figures."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def about(evaluation: Evaluation) -> list[str]:
    """Return a few sentences on what was measured, and on whom."""
    header = evaluation.header
    users = len(header["users"])
    texts = sum(row["queries"] for row in evaluation.rows if "queries" in row)
    items = [row["items"] for row in evaluation.rows if "items" in row]
    n_items = " to ".join(map(str, sorted({min(items), max(items)})))
    lines = [
        f"{header['data']}: {texts} held-out texts of {users} of {header['people']} users, "
        f"{n_items} items of history each. Model: {header['model']['name']} "
        f"({header['model']['quantization']}). Seed {header['seed']}.",
        "Means and medians over users, with 95% bootstrap intervals of the means over users."
        if users > 1
        else "Only one user, so there are no intervals.",
    ]
    for reason, ids in header["left_out"].items():
        some = ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")
        lines.append(f"Skipped, {reason}: {len(ids)} ({some}).")
    if header["people"] == 1:
        lines.append("No other users, so the personal gain is not known.")
    return lines


def tables(evaluation: Evaluation, *, medians: bool = False) -> list[Table]:
    """Return the gains on real texts, then the tables for generated texts and sweeps, if any.

    Args:
        evaluation: the figures.
        medians: show the median of every figure, in brackets; by default only gains have one.
    """
    lines = evaluation.lines()
    shown = partial(_shown, medians=medians)
    gains = Table(
        "Real texts, nats/token: gain over unsteered",
        (
            "",
            "log-prob.",
            "gain",
            "median",
            "95% interval",
            f"users below {WORSE:g}",
            "neutral text",
        ),
        [
            (
                label(evaluation, line),
                "" if line.arm in CONTRASTS else shown(line, "log_prob", "{:.3f}"),
                _shown(line, "gain", "{:+.3f}"),
                _median(line.figures.get("gain")),
                _interval(line.figures.get("gain")),
                _shown(line, "worse", "{:.0%}"),
                "" if line.arm == "unsteered" else shown(line, "neutral", "{:+.3f}"),
            )
            for line in lines
            if "log_prob" in line.figures
        ],
    )
    written = [line for line in lines if "repeats" in line.figures and line.arm not in CONTRASTS]
    generated = Table(
        "Generated texts",
        ("", "ROUGE-1", "ROUGE-L", "METEOR", "top-1", "MRR", "perplexity", "repeated 4-grams"),
        [
            (
                label(evaluation, line),
                *(
                    shown(line, name, "{:.3f}")
                    for name in ("rouge1", "rougeL", "meteor", "top1", "mrr")
                ),
                shown(line, "surprise", "{:.1f}", change=math.exp),
                shown(line, "repeats", "{:.1%}"),
            )
            for line in written
        ],
    )
    on_topic = Table(
        "Topic and copying of generated texts",
        ("", "topic", "own request", "leaked 6-grams", "habit 6-grams"),
        [
            (
                label(evaluation, line),
                shown(line, "topic", "{:+.3f}"),
                shown(line, "own_request", "{:.0%}"),
                shown(line, "leaked", "{:.1%}"),
                shown(line, "habit", "{:.1%}"),
            )
            for line in written
        ],
    )
    sweeps = [
        _sweep_table(method, over, sweep)
        for method in evaluation.header["methods"]
        for over in SWEEPS
        if (sweep := evaluation.sweep(method, over))
    ]
    return [table for table in (gains, generated, on_topic, *sweeps) if table.rows]


def _sweep_table(method: str, over: Over, sweep: Sweep) -> Table:
    first = next(iter(sweep.values()))
    counted = over == "items"  # where the number of users differs from row to row
    return Table(
        f"Gain by {over} ({method}){SWEEPS[over]}",
        (
            over,
            *(["users"] if counted else []),
            *(cell for arm in sweep for cell in (LABELS[arm], "median", "95% interval")),
        ),
        [
            (
                place(at),
                *([str(figure.users)] if counted else []),
                *(
                    cell
                    for figure in (by_place[at] for by_place in sweep.values())
                    for cell in (f"{figure.mean:+.3f}", _median(figure), _interval(figure))
                ),
            )
            for at, figure in first.items()
        ],
    )


def place(at: float) -> str:
    """Format a number of items, a layer or a strength; infinity means all items."""
    return f"{at:g}" if math.isfinite(at) else "all"


def label(evaluation: Evaluation, line: Line) -> str:
    """Return the name of a line, with its method if there are several."""
    several = len(evaluation.header["methods"]) > 1
    return f"{line.method}: {LABELS[line.arm]}" if line.method and several else LABELS[line.arm]


def _shown(
    line: Line,
    name: str,
    form: str,
    *,
    change: Callable[[float], float] = lambda value: value,
    medians: bool = False,
) -> str:
    figure = line.figures.get(name)
    if figure is None:
        return ""
    mean, median = (form.format(change(value)) for value in (figure.mean, figure.median))
    return f"{mean} ({median})" if medians else mean


def _median(figure: Figure | None) -> str:
    return f"{figure.median:+.3f}" if figure else ""


def _interval(figure: Figure | None) -> str:
    if figure is None or figure.low is None or figure.high is None:
        return ""
    return f"{figure.low:+.3f} to {figure.high:+.3f}"
