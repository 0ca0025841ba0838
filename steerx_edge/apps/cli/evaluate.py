"""`steerx-edge evaluate`: measure the gain and the personal gain on held-out texts."""

from __future__ import annotations

import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click

from steerx_edge.apps.cli.common import error_console, open_engine, progress_bar
from steerx_edge.apps.cli.completion import complete_files
from steerx_edge.apps.cli.options import item_options, me_option, model_options
from steerx_edge.apps.cli.value_types import LayerList, PrefixLength


class ItemCounts(click.ParamType):  # type: ignore[type-arg]
    """Numbers of texts, each at least 2, such as `8,16,32`."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Parse and sort the numbers."""
        numbers = [re.fullmatch(r"\s*(\d{1,9})\s*", part) for part in str(value).split(",")]
        counts = {int(number[1]) for number in numbers if number}
        if not all(numbers) or min(counts) < 2:
            self.fail(
                f"'{value}' is not a list of numbers of texts, each at least 2, such as 8,16,32.",
                param,
                ctx,
            )
        return tuple(sorted(counts))


@click.command()
@click.argument("data", metavar="DATA", shell_complete=complete_files)
@click.option(
    "-o",
    "--output",
    metavar="FOLDER",
    help="Folder for figures, profiles and report.html. [default: the name of DATA plus "
    "-evaluation]",
)
@model_options
@me_option
@item_options()
@click.option("--users", metavar="IDS", help="Evaluate only these users, separated by commas.")
@click.option(
    "--half",
    type=click.Choice(["odd", "even"]),
    help="Evaluate every other user: choose settings on one half, report the other.",
)
@click.option(
    "--items",
    type=click.IntRange(min=2),
    metavar="N",
    help="Use only the last N texts of each history. [default: all]",
)
@click.option(
    "--min-items",
    type=click.IntRange(min=2),
    metavar="N",
    default=8,
    show_default=True,
    help="Skip users with fewer texts.",
)
@click.option(
    "--retrieve",
    type=click.IntRange(min=1),
    metavar="K",
    default=4,
    show_default=True,
    help="Past texts in the prompt, for the arms that have any.",
)
@click.option(
    "--prefix",
    type=PrefixLength(),
    metavar="TOKENS",
    default=0,
    show_default=True,
    help="Also measure prompts that begin with so many tokens of past texts.",
)
@click.option(
    "--draws",
    type=click.IntRange(min=0),
    metavar="K",
    default=2,
    show_default=True,
    help="Generic profiles per user, each learned from randomly drawn texts of other users.",
)
@click.option(
    "-n",
    "--n-predict",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    help="Maximum number of tokens per generated text.",
)
@click.option("--no-generate", is_flag=True, help="Only score the held-out texts, which is faster.")
@click.option(
    "--sweep", is_flag=True, help="Also score profiles at 0.25 to 2 times their strength."
)
@click.option(
    "--sweep-layers", type=LayerList(), help="Also learn a profile at each of these layers alone."
)
@click.option(
    "--sweep-items",
    type=ItemCounts(),
    help="Also learn from only the last N texts, for each N given, such as 8,16,32.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed for the draws of other users and the intervals.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="Users evaluated in parallel, each with -t threads.",
)
def evaluate(
    data: str,
    output: str | None,
    model: str | None,
    threads: int | None,
    n_gpu_layers: int,
    me: tuple[str, ...],
    response: str | None,
    prompt: str | None,
    users: str | None,
    half: Literal["odd", "even"] | None,
    items: int | None,
    min_items: int,
    retrieve: int,
    prefix: int,
    draws: int,
    n_predict: int,
    no_generate: bool,
    sweep: bool,
    sweep_layers: tuple[int, ...] | None,
    sweep_items: tuple[int, ...] | None,
    seed: int,
    processes: int,
) -> None:
    """Measure on DATA how much profiles help, and how much of the gain is personal.

    DATA is a per-author file such as LaMP's (X_questions.json with X_outputs.json beside it), or
    one user's history as for `learn`, of which the last fifth is held out. A profile is learned
    from each user's history. The held-out texts are scored with the user's own profile, with
    generic profiles learned from other users, with another user's profile, and with texts or a
    description in the prompt. If interrupted, rerun the same command to resume.
    """
    from steerx_edge.errors import SteerxError
    from steerx_edge.evaluation import STRENGTHS, Plan, read_sample
    from steerx_edge.evaluation import evaluate as run_evaluation
    from steerx_edge.evaluation.run import REPORT_FILE
    from steerx_edge.report.html import html_page
    from steerx_edge.report.terminal import PlainConsole, print_report

    plan = Plan(
        items=items,
        min_items=min_items,
        retrieve=retrieve,
        prefix=prefix,
        draws=draws,
        generate=0 if no_generate else n_predict,
        strengths=STRENGTHS if sweep else (),
        layers=sweep_layers or (),
        item_counts=sweep_items or (),
        seed=seed,
    )
    wanted = [name.strip() for name in users.split(",")] if users else []
    sample = read_sample(
        data, plan, me=me, response=response, prompt=prompt, users=wanted, half=half
    )
    folder = Path(output or f"{Path(data).stem}-evaluation")
    if threads is None and processes > 1:
        threads = max(1, (os.cpu_count() or 1) // processes)
    console = error_console()
    with progress_bar(console, "loading") as progress:
        evaluation = run_evaluation(
            partial(open_engine, model, threads, n_gpu_layers),
            sample,
            plan,
            folder,
            processes=processes,
            progress=progress,
        )
    page = folder / REPORT_FILE
    try:
        page.write_text(html_page(evaluation), "utf-8")
    except OSError as error:
        raise SteerxError(
            f"'{page}' cannot be written: {error.strerror}. Rerun the same command to resume."
        ) from error
    # A pipe has no width, so nothing is wrapped or cut.
    print_report(evaluation, PlainConsole(width=None if sys.stdout.isatty() else 200))
    console.print(f"Saved {page}.", soft_wrap=True)
