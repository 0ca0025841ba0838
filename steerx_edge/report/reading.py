"""What was read of a history: how much is kept, how much is left out and why, with samples."""

from __future__ import annotations

from typing import Any

from steerx_edge.history.opening import OpenedHistory
from steerx_edge.history.tally import Tally
from steerx_edge.report.terminal import PlainConsole

_SHOWN = 90  # characters of a sample


def print_reading(path: str, opened: OpenedHistory, tally: Tally, console: PlainConsole) -> None:
    """Print counts and samples. The samples are the person's own text: print them nowhere else."""
    because = f", because {opened.why}" if opened.why else ""
    console.print(f"{path} is {opened.format}{because}.", soft_wrap=True)
    console.print(f"\nKept {_counted(tally.kept, 'text')}{_dates(tally)}.", style="bold")
    for text in tally.examples:
        console.print(f"  {text.where}", style="dim", soft_wrap=True)
        if text.item.request:
            console.print(f"    request: {_shortened(text.item.request)}", soft_wrap=True)
        console.print(f"    text:    {_shortened(text.item.response)}", soft_wrap=True)
    if not tally.dropped:
        return
    console.print(f"\nLeft out {tally.dropped.total()}:", style="bold")
    for reason, n in tally.dropped.most_common():
        console.print(f"  {n:6}  {reason}", soft_wrap=True)
        for sample in tally.samples[reason]:
            excerpt = f": {_shortened(sample.excerpt)}" if sample.excerpt else ""
            console.print(f"          {sample.where}{excerpt}", style="dim", soft_wrap=True)


def reading_in_a_line(name: str, tally: Tally) -> str:
    """Return the format and the counts as one sentence, without samples."""
    reasons = ", ".join(f"{n} {reason}" for reason, n in tally.dropped.most_common())
    left_out = f"; left out: {reasons}" if reasons else ""
    return f"Read {name}: kept {_counted(tally.kept, 'text')}{_dates(tally)}{left_out}."


def reading_as_json(path: str, opened: OpenedHistory, tally: Tally) -> dict[str, Any]:
    """Return what `print_reading` prints, as values of JSON."""
    dates = tally.dates
    return {
        "history": path,
        "format": opened.format,
        "why": opened.why,
        "kept": tally.kept,
        "dropped": dict(tally.dropped.most_common()),
        "first": dates[0].isoformat() if dates else None,
        "last": dates[1].isoformat() if dates else None,
        "samples": {
            "kept": [
                {"where": each.where, "prompt": each.item.request, "response": each.item.response}
                for each in tally.examples
            ],
            "dropped": {
                reason: [{"where": each.where, "excerpt": each.excerpt} for each in samples]
                for reason, samples in tally.samples.items()
            },
        },
    }


def _dates(tally: Tally) -> str:
    if tally.dates is None:
        return ""
    first, last = (date.date().isoformat() for date in tally.dates)
    return f", written {first} to {last}"


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"
