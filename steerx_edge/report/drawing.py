"""What plots are drawn with: an axis, and text."""

from __future__ import annotations

import math
from collections.abc import Iterable

from steerx_edge.report.page import escaped

_LEAST_SPAN = 1e-12
"""Values that are closer to each other, as a share of the largest, are drawn as one."""


class Axis:
    """Maps values to coordinates, with a margin at both ends.

    Args:
        values: all of them fit on the axis; at least one.
        begin: coordinate of the low end.
        end: coordinate of the high end.
    """

    def __init__(self, values: Iterable[float], begin: float, end: float) -> None:
        values = list(values)
        span, scale = max(values) - min(values), max(1.0, *map(abs, values))
        room = 0.05 * (span if span > _LEAST_SPAN * scale else scale)
        self._low, self._high = min(values) - room, max(values) + room
        self._begin, self._end = begin, end

    def __call__(self, value: float) -> float:
        """Return the coordinate of a value."""
        share = (value - self._low) / (self._high - self._low)
        return round(self._begin + share * (self._end - self._begin), 1)

    def ticks(self) -> list[float]:
        """Return four to ten round values."""
        range_ = self._high - self._low
        power: float = 10.0 ** math.floor(math.log10(range_ / 4))
        step = next(step for step in (power, 2 * power, 5 * power) if range_ / step < 10)
        first, last = math.ceil(self._low / step), math.floor(self._high / step)
        return [i * step for i in range(first, last + 1)]


def svg_text(x: float, y: float, text: str, anchor: str) -> str:
    """Write a text into a drawing; anchor is start, middle or end."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escaped(text)}</text>'
