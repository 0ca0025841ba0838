"""`steerx-edge doctor`: whether it works on this machine, how fast, and what to do if not."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from steerx_edge.apps.cli.common import open_engine
from steerx_edge.apps.cli.completion import complete_files
from steerx_edge.apps.cli.options import (
    item_options,
    json_option,
    me_option,
    model_options,
    user_option,
)
from steerx_edge.report.visible import visible

if TYPE_CHECKING:
    from steerx_edge.llamacpp.doctor import Checked, Problem, System

_CTX_SIZE = 1024


@click.command()
@click.argument("history", required=False, metavar="[HISTORY]", shell_complete=complete_files)
@model_options
@me_option
@user_option
@item_options()
@json_option
def doctor(
    history: str | None,
    model: str | None,
    threads: int | None,
    n_gpu_layers: int,
    me: tuple[str, ...],
    user: str | None,
    response: str | None,
    prompt: str | None,
    as_json: bool,
) -> None:
    """Check llama.cpp, the model and its speed, and say what to do about problems.

    With HISTORY, also estimate how long learning from it takes. The exit status is 1 if something
    will not work.
    """
    from steerx_edge.errors import SteerxError
    from steerx_edge.llamacpp.doctor import Problem, examine, system
    from steerx_edge.llamacpp.model_search import reason_for

    found, problems = system()
    checked = seconds = n_texts = None
    try:
        engine = open_engine(model, threads, n_gpu_layers, ctx_size=_CTX_SIZE)
        checked = examine(engine)
        problems += checked.problems
        if history is not None:
            from steerx_edge.history.reading import read_history
            from steerx_edge.learning.duration import estimated_seconds
            from steerx_edge.learning.settings import Settings

            items = read_history(history, me=me, user=user, response=response, prompt=prompt)
            n_texts = len(items)
            seconds = estimated_seconds(engine, items, Settings()) if checked.steerable else None
    except SteerxError as error:
        problems.append(Problem(str(error)))
    if as_json:
        click.echo(
            json.dumps(_plain(found, checked, reason_for(model), seconds, problems), indent=2)
        )
    else:
        for name, value in _lines(found, checked, reason_for(model), n_texts, seconds):
            click.echo(f"{name:17} {visible(value)}")
        for problem in problems:
            click.echo(f"\n{'Problem' if problem.stops else 'Note'}: {visible(problem.text)}")
        if not problems:
            click.echo("\nNo problems were found.")
    if any(problem.stops for problem in problems):
        raise click.exceptions.Exit(1)


def _lines(
    found: System,
    checked: Checked | None,
    reason: str,
    n_texts: int | None,
    seconds: float | None,
) -> list[tuple[str, str]]:
    lines = [
        ("llama-cpp-python", found.llama_cpp_python),
        ("llama.cpp has", ", ".join(found.features)),
        ("GPU offload", "yes" if found.gpu_offload else "no"),
        ("devices", "; ".join(found.devices) or "unknown"),
        ("cores", str(found.cores)),
    ]
    if checked is None:
        return lines
    kinds = ["keeps a recurrent state"] if checked.recurrent else []
    if checked.sliding_window:
        kinds.append(f"sliding window of {checked.sliding_window} tokens")
    lines += [
        ("model", f"{checked.name}, {checked.path} ({reason})"),
        (
            "architecture",
            ", ".join(
                [checked.architecture, f"{checked.layers} layers of {checked.width}", *kinds]
            ),
        ),
        ("can be steered", "yes" if checked.steerable else "no"),
        ("threads", str(checked.threads)),
        (
            "speed",
            f"reads {checked.read_per_second:.0f} and writes {checked.written_per_second:.0f} "
            "tokens/s",
        ),
    ]
    if seconds is not None:
        minutes = max(1, round(seconds / 60))
        lines.append(("learning", f"about {minutes} min. for {n_texts} texts"))
    return lines


def _plain(
    found: System,
    checked: Checked | None,
    reason: str,
    seconds: float | None,
    problems: list[Problem],
) -> dict[str, Any]:
    model = None
    if checked is not None:
        model = asdict(checked) | {"reason": reason}
        del model["problems"]
    return {
        "ok": not any(problem.stops for problem in problems),
        "system": asdict(found),
        "model": model,
        "learn_seconds": None if seconds is None else round(seconds, 1),
        "problems": [problem._asdict() for problem in problems],
    }
