"""A report as one self-contained HTML page, with plots in SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from steerx_edge.report.drawing import Axis, svg_text
from steerx_edge.report.page import escaped, html_table, page
from steerx_edge.report.tables import LABELS, SWEEPS, about, label, place, tables

if TYPE_CHECKING:
    from steerx_edge.evaluation.figures import Evaluation, Figure, Over, Sweep


def html_page(evaluation: Evaluation) -> str:
    """Return the report as one HTML page."""
    methods = evaluation.header["methods"]
    plots = [_plot("Gain over unsteered, nats/token", _gain_plot(evaluation))]
    for method in methods:
        name = f" ({method})" if len(methods) > 1 else ""
        plots.append(_plot(f"Gain of each user, nats/token{name}", _user_plot(evaluation, method)))
        for over in SWEEPS:
            sweep = evaluation.sweep(method, over)
            if sweep:
                plots.append(_plot(f"Gain by {over}, nats/token{name}", _sweep_plot(sweep, over)))
    first, *others = tables(evaluation, medians=True)
    title = f"steerx-edge evaluation: {evaluation.header['data']}"
    body = "".join(
        [
            f"<h1>{escaped(title)}</h1>",
            *(f"<p>{escaped(line)}</p>" for line in about(evaluation)),
            "<p>Figures in brackets are medians over users.</p>",
            html_table(first),
            *plots,
            *map(html_table, others),
        ]
    )
    return page(title, body)


_WIDTH = 760
_LEFT = 290  # left edge of the plotting area, beside the names of the rows
_ROW = 22
_MARGIN = 34


def _plot(title: str, drawing: str) -> str:
    return f"<h2>{escaped(title)}</h2>{drawing}"


def _gain_plot(evaluation: Evaluation) -> str:
    """Draw a row for each arm: mean and interval."""
    lines = [line for line in evaluation.lines() if "gain" in line.figures]
    ends = [end for line in lines for end in _ends(line.figures["gain"])]
    axis = Axis([0.0, *ends], _LEFT, _WIDTH - 20)
    marks = []
    for i, line in enumerate(lines):
        figure, y = line.figures["gain"], (i + 0.75) * _ROW
        low, high = _ends(figure)
        name = label(evaluation, line)
        kind = line.arm if line.arm in ("own", "generic", "swapped") else "zero"
        marks += [
            svg_text(_LEFT - 12, y + 4, name, "end"),
            f'<line class="{kind} line" x1="{axis(low)}" x2="{axis(high)}" y1="{y}" y2="{y}"/>',
            _mark("own" if kind == "zero" else kind, axis(figure.mean), y, f"{figure.mean:+.3f}"),
        ]
    return _rows_svg(axis, 0, len(lines), marks, "Gain of each arm with its interval")


def _user_plot(evaluation: Evaluation, method: str) -> str:
    """Draw a row for each user, highest gain first: own, generic and swapped profile."""
    users = sorted(
        evaluation.by_user(method).items(), key=lambda user: (-user[1]["own"]["gain"], user[0])
    )
    arms = [arm for arm in ("swapped", "generic", "own") if any(arm in of for _, of in users)]
    gains = [of[arm]["gain"] for _, of in users for arm in arms if arm in of]
    axis = Axis([0.0, *gains], _LEFT, _WIDTH - 20)
    marks = _legend(list(reversed(arms)))
    for i, (name, of) in enumerate(users, start=1):
        y = (i + 0.75) * _ROW
        marks.append(
            svg_text(_LEFT - 12, y + 4, name if len(name) < 40 else f"{name[:39]}…", "end")
        )
        for arm in arms:
            if arm in of:
                gain = of[arm]["gain"]
                marks.append(_mark(arm, axis(gain), y, f"{name}, {LABELS[arm]}: {gain:+.3f}"))
    return _rows_svg(axis, 1, len(users), marks, "Gain of each user by profile")


def _sweep_plot(sweep: Sweep, over: Over) -> str:
    """Draw the gain against strength, layer or number of items; a line for each arm."""
    height = 320
    figures = [figure for by_place in sweep.values() for figure in by_place.values()]
    across = _across([at for by_place in sweep.values() for at in by_place], over)
    ends = [end for figure in figures for end in _ends(figure)]
    up = Axis([0.0, *ends], height - _MARGIN, 1.5 * _ROW)
    marks = _legend(list(sweep))
    for tick in up.ticks():
        kind = "grid" if tick else "zero"
        y = up(tick)
        marks.append(f'<line class="{kind}" x1="60" x2="{_WIDTH - 20}" y1="{y}" y2="{y}"/>')
        marks.append(svg_text(52, y + 4, f"{tick:+.3g}" if tick else "0", "end"))
    for at in next(iter(sweep.values())):
        marks.append(svg_text(across[at], height - 12, place(at), "middle"))
    for i, (arm, by_place) in enumerate(sweep.items()):
        aside = 5 * i  # keeps intervals apart
        points = " ".join(
            f"{across[at] + aside},{up(figure.mean)}" for at, figure in by_place.items()
        )
        marks.append(f'<polyline class="{arm} line" points="{points}"/>')
        for at, figure in by_place.items():
            low, high = _ends(figure)
            x = across[at] + aside
            said = f"{over} {place(at)}: {figure.mean:+.3f}, users: {figure.users}"
            marks.append(
                f'<line class="{arm}" x1="{x}" x2="{x}" y1="{up(low)}" y2="{up(high)}"/>'
                + _mark(arm, x, up(figure.mean), said)
            )
    return _svg(height, marks, f"Gain by {over}")


def _across(places: Sequence[float], over: Over) -> dict[float, float]:
    """Map places to x: numbers of items on a log scale, with all items one doubling further."""
    values = {at: at for at in places}
    if over == "items":
        last = max(filter(math.isfinite, places))
        values = {at: math.log2(at if math.isfinite(at) else 2 * last) for at in places}
    axis = Axis(values.values(), 60, _WIDTH - 20)
    return {at: axis(value) for at, value in values.items()}


def _ends(figure: Figure) -> tuple[float, float]:
    if figure.low is None or figure.high is None:
        return figure.mean, figure.mean
    return figure.low, figure.high


def _rows_svg(axis: Axis, above: int, n_rows: int, marks: list[str], name: str) -> str:
    """Draw rows of marks on a grid, below `above` empty rows, with the axis at the bottom."""
    top, bottom = (above + 0.2) * _ROW, (above + n_rows + 0.5) * _ROW
    grid = []
    for tick in axis.ticks():
        x, kind = axis(tick), "grid" if tick else "zero"
        grid.append(f'<line class="{kind}" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/>')
        grid.append(svg_text(x, bottom + 16, f"{tick:+.3g}" if tick else "0", "middle"))
    return _svg(bottom + _MARGIN - 10, grid + marks, name)


def _legend(arms: Sequence[str]) -> list[str]:
    return [
        _mark(arm, _LEFT + 10 + 150 * i, 0.7 * _ROW, LABELS[arm])
        + svg_text(_LEFT + 20 + 150 * i, 0.7 * _ROW + 4, LABELS[arm], "start")
        for i, arm in enumerate(arms)
    ]


def _mark(arm: str, x: float, y: float, said: str) -> str:
    """Draw a dot, ring, cross or square: arms differ by shape as well as by colour."""
    title = f"<title>{escaped(said)}</title>"
    if arm in ("swapped", "prompt"):
        lines = "l8,8m0,-8l-8,8" if arm == "swapped" else "h8v8h-8z"
        return f'<path class="{arm} mark" d="M{x - 4},{y - 4}{lines}">{title}</path>'
    return f'<circle class="{arm} mark" cx="{x}" cy="{y}" r="4.5">{title}</circle>'


def _svg(height: float, marks: Sequence[str], name: str) -> str:
    return (
        f'<svg role="img" aria-label="{escaped(name)}" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}">{"".join(marks)}</svg>'
    )
