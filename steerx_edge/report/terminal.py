"""Reports and profiles as tables in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from steerx_edge.report.profile_view import (
    entry_sections,
    entry_title,
    file_line,
    similarity_table,
)
from steerx_edge.report.tables import Table, about, tables
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
        print_table(table, console)


def print_profile(facts: Mapping[str, Any], console: PlainConsole) -> None:
    """Print the facts of `profile_facts`."""
    console.print(file_line(facts), soft_wrap=True)
    for entry in facts["entries"]:
        console.print(f"\n{entry_title(entry)}", style="bold underline", soft_wrap=True)
        for section in entry_sections(entry):
            console.print(f"\n{section.title}", style="bold", soft_wrap=True)
            for line in section.lines:
                console.print(line, soft_wrap=True)
            for table in section.tables:
                print_table(table, console)
    table_of_others = similarity_table(facts)
    if table_of_others:
        print_table(table_of_others, console)


def print_table(table: Table, console: PlainConsole) -> None:
    """Print a table under its title; the first column holds names, the others figures."""
    printed = RichTable(
        title=f"\n{table.title}", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD
    )
    for i, column in enumerate(table.columns):
        printed.add_column(column, justify="right" if i else "left", overflow="fold")
    for row in table.rows:
        printed.add_row(*row)
    console.print(printed)
