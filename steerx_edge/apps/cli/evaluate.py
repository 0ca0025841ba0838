"""`steerx-edge evaluate`: does it help, and is it personal? On real users' held-out texts."""

from __future__ import annotations

import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click

from steerx_edge.apps.cli.common import model_options, open_engine
from steerx_edge.apps.cli.learn import LayerList


class ItemCounts(click.ParamType):  # type: ignore[type-arg]
    """`8,16,32`: numbers of texts, each at least 2."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Read numbers, in any order."""
        numbers = [re.fullmatch(r"\s*(\d{1,9})\s*", part) for part in str(value).split(",")]
        counts = {int(number[1]) for number in numbers if number}
        if not all(numbers) or min(counts) < 2:
            self.fail(
                f"'{value}' is no list of numbers of texts, each at least 2, such as 8,16,32.",
                param,
                ctx,
            )
        return tuple(sorted(counts))


@click.command()
@click.argument("data", metavar="DATA")
@click.option(
    "-o",
    "--output",
    metavar="FOLDER",
    help="Where figures, profiles and report.html go. [default: the name of DATA, -evaluation]",
)
@model_options
@click.option(
    "--response", metavar="FIELD", help="The field with the users' texts, where not detected."
)
@click.option(
    "--prompt",
    metavar="TEMPLATE",
    help="The request that goes with a text, such as 'Write a tasting note for {title}.'",
)
@click.option("--users", metavar="IDS", help="Only these users, by commas.")
@click.option(
    "--half",
    type=click.Choice(["odd", "even"]),
    help="Only every other user of the file: choose on one half, report the other.",
)
@click.option(
    "--items",
    type=click.IntRange(min=2),
    help="Use only so many of the last texts of each history. [default: all]",
)
@click.option(
    "--min-items",
    type=click.IntRange(min=2),
    default=8,
    show_default=True,
    help="Leave out, and count, users with fewer texts.",
)
@click.option(
    "--retrieve",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Past texts in the prompt, where there are any.",
)
@click.option(
    "--draws",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Generic profiles for each user, from texts drawn of all others.",
)
@click.option(
    "-n",
    "--n-predict",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    help="Tokens of a generated text at most.",
)
@click.option("--no-generate", is_flag=True, help="Score the real texts only, which is faster.")
@click.option("--sweep", is_flag=True, help="Also score 0.25 to 2 times the profiles' strength.")
@click.option("--sweep-layers", type=LayerList(), help="Also learn at each of these blocks alone.")
@click.option(
    "--sweep-items",
    type=ItemCounts(),
    help="Also learn from so many of the last texts alone, such as 8,16,32.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the draws of other users, and of the intervals.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Users measured side by side, each with -t threads.",
)
def evaluate(
    data: str,
    output: str | None,
    model: str | None,
    threads: int | None,
    n_gpu_layers: int,
    response: str | None,
    prompt: str | None,
    users: str | None,
    half: Literal["odd", "even"] | None,
    items: int | None,
    min_items: int,
    retrieve: int,
    draws: int,
    n_predict: int,
    no_generate: bool,
    sweep: bool,
    sweep_layers: tuple[int, ...] | None,
    sweep_items: tuple[int, ...] | None,
    seed: int,
    processes: int,
) -> None:
    """Measure on DATA how much profiles help, and how much of that is personal.

    DATA is a per-author file such as LaMP's (of an official pair, X_questions.json with
    X_outputs.json beside it), or one person's history as `learn` reads it, whose last fifth is then
    held out. Profiles are learned from each user's history, and the texts that are held out scored:
    with the user's own profile, with generic ones learned from other users, with one other user's,
    and with texts or a description in the prompt. Interrupted, the same command goes on where it
    was.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    from steerx_edge.evaluation import STRENGTHS, Plan, read_sample
    from steerx_edge.evaluation import evaluate as run_evaluation
    from steerx_edge.report.html import html_page
    from steerx_edge.report.terminal import print_report

    plan = Plan(
        items=items,
        min_items=min_items,
        retrieve=retrieve,
        draws=draws,
        generate=0 if no_generate else n_predict,
        strengths=STRENGTHS if sweep else (),
        layers=sweep_layers or (),
        item_counts=sweep_items or (),
        seed=seed,
    )
    wanted = [name.strip() for name in users.split(",")] if users else []
    sample = read_sample(data, plan, response=response, prompt=prompt, users=wanted, half=half)
    folder = Path(output or f"{Path(data).stem}-evaluation")
    if threads is None and processes > 1:
        threads = max(1, (os.cpu_count() or 1) // processes)
    console = Console(stderr=True, highlight=False)
    with Progress(
        TextColumn("{task.description:12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as bar:
        task = bar.add_task("loading", total=None)
        evaluation = run_evaluation(
            partial(open_engine, model, threads, n_gpu_layers),
            sample,
            plan,
            folder,
            processes=processes,
            progress=lambda what, done, of: bar.update(
                task, description=what, completed=done, total=of
            ),
        )
    page = folder / "report.html"
    page.write_text(html_page(evaluation), "utf-8")
    # A pipe has no width: nothing is wrapped or cut for it.
    print_report(evaluation, Console(highlight=False, width=None if sys.stdout.isatty() else 200))
    console.print(f"Saved {page}.", markup=False, soft_wrap=True)
