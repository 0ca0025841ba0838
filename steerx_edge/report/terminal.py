"""A report as tables in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from steerx_edge.report.tables import about, tables
from steerx_edge.report.visible import visible

if TYPE_CHECKING:
    from rich.text import Text

    from steerx_edge.evaluation.figures import Evaluation


class PlainConsole(Console):
    """A console that takes every string as plain text: no markup, no emoji codes, no escapes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a string that is printed, or a cell, renderable."""
        return super().render_str(visible(text), **options)


def print_report(evaluation: Evaluation, console: PlainConsole) -> None:
    """Print what was measured, on whom, and the tables."""
    for line in about(evaluation):
        console.print(line, soft_wrap=True)
    for table in tables(evaluation):
        printed = RichTable(
            title=f"\n{table.title}", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD
        )
        for i, column in enumerate(table.columns):
            printed.add_column(column, justify="right" if i else "left")
        for row in table.rows:
            printed.add_row(*row)
        console.print(printed)
