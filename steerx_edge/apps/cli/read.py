"""`steerx-edge read`: show what of a history is learned from, and write it as JSON lines."""

from __future__ import annotations

import json
from contextlib import nullcontext

import click

from steerx_edge.apps.cli import INTERRUPTED
from steerx_edge.apps.cli.common import error_console, keep_what_is_read, progress_bar, say
from steerx_edge.apps.cli.options import item_options, me_option, user_option


@click.command()
@click.argument("history", metavar="HISTORY")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help='Write the texts as JSON lines with "prompt" and "response", to look through and correct '
    "them. learn reads this file to the letter.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the counts and samples as JSON.")
@me_option
@user_option
@item_options()
def read(
    history: str,
    output: str | None,
    as_json: bool,
    me: tuple[str, ...],
    user: str | None,
    response: str | None,
    prompt: str | None,
) -> None:
    """Show what learn would read of HISTORY, without a model.

    Prints what HISTORY is and why it was taken for that, how many texts are kept, how many things
    are left out for which reason, and a few samples of each. Nothing is kept unless -o is given.
    """
    print_history(history, output, me, user, response, prompt, as_json=as_json)


def print_history(
    history: str,
    output: str | None,
    me: tuple[str, ...],
    user: str | None,
    response: str | None,
    prompt: str | None,
    *,
    as_json: bool,
) -> None:
    """Do what `read` does, and `learn --dry-run`."""
    keep_what_is_read(output, history)
    from steerx_edge.history.opening import open_history
    from steerx_edge.history.reading import check_found
    from steerx_edge.history.tally import Tally
    from steerx_edge.report.history_file import HistoryFile, read_through
    from steerx_edge.report.reading import print_reading, reading_as_json
    from steerx_edge.report.terminal import PlainConsole

    try:
        tally = Tally()
        with nullcontext() if output is None else HistoryFile(output) as file:
            console = error_console()
            bar = progress_bar(console, "reading") if console.is_terminal else nullcontext(_silent)
            with bar as progress:
                opened = open_history(history, me=me, user=user, response=response, prompt=prompt)
                read_through(opened, tally, file, progress)
            if as_json:
                click.echo(json.dumps(reading_as_json(history, opened, tally), indent=1))
            else:
                print_reading(history, opened, tally, PlainConsole())
            check_found(history, opened, tally)
            if file is not None:
                file.save(tally)
                say(f"Saved {output}.")
    except KeyboardInterrupt:
        say("Interrupted." if output is None else f"Interrupted: {output} was not written.")
        raise click.exceptions.Exit(INTERRUPTED) from None


def _silent(_step: str, _done: int, _total: int | None) -> None:
    """Show no progress."""
