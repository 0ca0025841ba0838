"""A report as tables in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steerx_edge.report.tables import about, tables

if TYPE_CHECKING:
    from rich.console import Console

    from steerx_edge.evaluation.figures import Evaluation


def print_report(evaluation: Evaluation, console: Console) -> None:
    """Print what was measured, on whom, and the tables."""
    from rich import box
    from rich.markup import escape as plain
    from rich.table import Table as RichTable

    for line in about(evaluation):
        console.print(plain(line), soft_wrap=True)
    for table in tables(evaluation):
        printed = RichTable(
            title=f"\n{table.title}", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD
        )
        for i, column in enumerate(table.columns):
            printed.add_column(column, justify="right" if i else "left")
        for row in table.rows:
            printed.add_row(*map(plain, row))
        console.print(printed)
