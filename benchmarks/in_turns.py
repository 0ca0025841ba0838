"""Timing in turns: A, B, C, A, B, C ..., so that what slows the machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

clock: Callable[[], float] = time.perf_counter
"""What tells the time; `time.process_time` where the machine is busy and one thread works."""


@dataclass(frozen=True)
class Ratio:
    """Of two times, round by round.

    Args:
        median: over the rounds.
        low: first quartile.
        high: third quartile.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def seconds_in_turns(
    tasks: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds of each task in each round; every other round runs in reverse order.

    To warm up, each task is run once before, uncounted.
    """
    for task in tasks.values() if warm_up else ():
        task()
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds):
        names = list(tasks) if number % 2 == 0 else list(tasks)[::-1]
        for name in names:
            begin = clock()
            tasks[name]()
            times[name].append(clock() - begin)
    return times


def ratio(ones: list[float], others: list[float]) -> Ratio:
    """Round by round, ones / others."""
    ratios = [one / other for one, other in zip(ones, others, strict=True)]
    if len(ratios) == 1:
        return Ratio(ratios[0], ratios[0], ratios[0])
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Ratio(median, low, high)
