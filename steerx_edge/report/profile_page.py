"""A profile as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steerx_edge.report import trials_view
from steerx_edge.report.page import asset, escaped, html_table, page
from steerx_edge.report.profile_view import (
    entry_sections,
    entry_title,
    file_line,
    similarity_table,
)
from steerx_edge.report.tables import Table
from steerx_edge.report.trials_charts import chart


def profile_page(facts: Mapping[str, Any]) -> str:
    """Show the facts of `profile_facts`; words and gains with bars for their intervals."""
    body = [f"<h1>{escaped(facts['file'])}</h1><p>{escaped(file_line(facts))}</p>"]
    for entry in facts["entries"]:
        body.append(f"<section><h1>{escaped(entry_title(entry))}</h1>")
        for section in entry_sections(entry):
            body.append(f"<h2>{escaped(section.title)}</h2>")
            body += [f"<p>{escaped(line)}</p>" for line in section.lines]
            if section.title == trials_view.TITLE:
                body.append(_trials(entry))
            else:
                body += [_table(table, entry) for table in section.tables]
        body.append("</section>")
    table = similarity_table(facts)
    if table:
        body.append(html_table(table))
    return page(f"steerx-edge: {facts['file']}", "".join(body), style=asset("profile.css"))


def _trials(entry: Mapping[str, Any]) -> str:
    """Draw what calibration tried: charts, all their figures in tables, and the directions."""
    curves = trials_view.curves(entry)
    parts = []
    if curves:
        parts.append(f'<div class="charts">{"".join(map(chart, curves))}</div>')
        tables = "".join(html_table(trials_view.curve_table(curve)) for curve in curves)
        parts.append(f"<details><summary>The figures as tables</summary>{tables}</details>")
    directions = trials_view.directions_table(entry)
    if directions:
        parts.append(_with_intervals(directions, entry["trials"]["directions"]))
    return "".join(parts)


def _table(table: Table, entry: Mapping[str, Any]) -> str:
    """Write a table, with a bar in each row if its figures have intervals."""
    if "95% interval" not in table.columns:
        return html_table(table)
    history = entry["with_history"]
    gains = [each for each in (entry["gain"], history and history["gain"]) if each]
    words = [{"mean": word["effect"], **word} for word in entry["words"]]
    return _with_intervals(table, words if table.columns[0] == "word" else gains)


def _with_intervals(table: Table, figures: Sequence[Mapping[str, Any]]) -> str:
    """Write a table with a bar in each row, for the interval of its figure."""
    low = min(0.0, *(each["low"] for each in figures))
    high = max(0.0, *(each["high"] for each in figures))
    span = (high - low) or 1.0
    bars = [
        _bar([(value - low) / span for value in (each["low"], each["mean"], each["high"], 0.0)])
        for each in figures
    ]
    return _with_bars(table, bars)


def _with_bars(table: Table, bars: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{escaped(column)}</th>' for column in table.columns)
    rows = "".join(
        f'<tr><th scope="row">{escaped(row[0])}</th>'
        + "".join(f"<td>{escaped(cell)}</td>" for cell in row[1:])
        + f'<td class="bar">{bar}</td></tr>'
        for row, bar in zip(table.rows, bars, strict=True)
    )
    return (
        f'<h3>{escaped(table.title)}</h3><div class="scroll"><table class="bars"><thead><tr>{head}'
        f'<td class="bar"></td></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _bar(shares: Sequence[float]) -> str:
    """Draw an interval on a scale from 0 to 1: low, mean, high, and where 0 nats is.

    The figures stand beside it.
    """
    x = [round(2 + 96 * share, 2) for share in shares]
    return (
        '<svg aria-hidden="true" viewBox="0 0 100 12" preserveAspectRatio="none">'
        f'<line class="zero" x1="{x[3]}" x2="{x[3]}" y1="0" y2="12"/>'
        f'<line class="own line" x1="{x[0]}" x2="{x[2]}" y1="6" y2="6"/>'
        f'<line class="own mean" x1="{x[1]}" x2="{x[1]}" y1="2" y2="10"/></svg>'
    )
