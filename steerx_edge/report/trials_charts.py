"""What calibration tried, as line charts for a page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from steerx_edge.report.drawing import Axis, svg_text
from steerx_edge.report.page import escaped
from steerx_edge.report.trials_view import Curve

_WIDTH, _HEIGHT = 400, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 390, 46, 222


def chart(curve: Curve) -> str:
    """Draw gain with intervals, and what neutral text loses, over what was varied.

    Lines differ by dashes and marks as well as by color, and each mark names its figures.
    """
    points = curve.points
    across = Axis([_place(curve, point) for point in points], _LEFT, _RIGHT)
    losses = [point for point in points if point["loss"] is not None]
    ends = [value for point in points for value in (point["low"], point["high"])]
    up = Axis([0.0, *ends, *(point["loss"] for point in losses)], _BOTTOM, _TOP)
    marks = [*_grid(up), *_below(curve, across), *_legend(with_loss=bool(losses))]
    for point in points:
        x = across(_place(curve, point))
        marks.append(
            f'<line class="own" x1="{x}" x2="{x}" y1="{up(point["low"])}" '
            f'y2="{up(point["high"])}"/>'
        )
        if curve.is_chosen(point):
            marks.append(
                f'<line class="zero dotted" x1="{x}" x2="{x}" y1="{_TOP}" y2="{_BOTTOM}"/>'
                + svg_text(x, _TOP - 6, "chosen", "middle")
            )
    for kind, name, drawn in (("own", "mean", points), ("generic dashed", "loss", losses)):
        line = " ".join(f"{across(_place(curve, point))},{up(point[name])}" for point in drawn)
        marks.append(f'<polyline class="{kind} line" points="{line}"/>')
    marks += [_mark("generic", across(_place(curve, p)), up(p["loss"]), _said(p)) for p in losses]
    marks += [_mark("own", across(_place(curve, p)), up(p["mean"]), _said(p)) for p in points]
    return (
        f"<figure><figcaption>{escaped(curve.title)}</figcaption>"
        f'<svg role="img" viewBox="0 0 {_WIDTH} {_HEIGHT}">'
        f"<title>{escaped(f'Gain by {curve.axis}')}</title>"
        f"<desc>{escaped(_described(curve))}</desc>{''.join(marks)}</svg></figure>"
    )


def _place(curve: Curve, point: Mapping[str, Any]) -> float:
    """Where a point is across: numbers of texts on a log scale."""
    at = float(point["at"])
    return math.log2(max(at, 1.0)) if curve.is_number else at


def _grid(up: Axis) -> list[str]:
    marks = [svg_text(4, _TOP - 32, "nats/token", "start")]
    for tick in up.ticks():
        y, kind = up(tick), "grid" if tick else "zero"
        marks.append(f'<line class="{kind}" x1="{_LEFT}" x2="{_RIGHT}" y1="{y}" y2="{y}"/>')
        marks.append(svg_text(_LEFT - 8, y + 4, f"{tick:+.3g}" if tick else "0", "end"))
    return marks


def _below(curve: Curve, across: Axis) -> list[str]:
    numbers = [
        svg_text(across(_place(curve, point)), _BOTTOM + 18, f"{point['at']:g}", "middle")
        for point in curve.points
    ]
    return [*numbers, svg_text((_LEFT + _RIGHT) / 2, _BOTTOM + 38, curve.axis, "middle")]


def _legend(*, with_loss: bool) -> list[str]:
    y = _TOP - 36
    marks = [_mark("own", 110, y, ""), svg_text(120, y + 4, "gain, 95% interval", "start")]
    if with_loss:
        marks.append(_mark("generic", 250, y, ""))
        marks.append(svg_text(260, y + 4, "loss on neutral text", "start"))
    return marks


def _mark(kind: str, x: float, y: float, said: str) -> str:
    title = f"<title>{escaped(said)}</title>" if said else ""
    return f'<circle class="{kind} mark" cx="{x}" cy="{y}" r="4.5">{title}</circle>'


def _said(point: Mapping[str, Any]) -> str:
    loss = "" if point["loss"] is None else f", loss on neutral text {point['loss']:+.4f}"
    return (
        f"{point['at']:g}: gain {point['mean']:+.3f}, 95% interval {point['low']:+.3f} to "
        f"{point['high']:+.3f}{loss}"
    )


def _described(curve: Curve) -> str:
    """All figures, for those who do not see the chart."""
    chosen = "" if curve.chosen is None else f" Chosen: {curve.chosen:g}."
    return f"Nats/token. {'; '.join(map(_said, curve.points))}.{chosen}"
