"""`steerx-edge learn`: a history in, a profile out."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from steerx_edge.cli.common import FiniteFloat, hold_interrupts, model_options, open_engine

if TYPE_CHECKING:
    from steerx_edge.profile import Entry, Gain, Profile

_SHOWN_WORDS = 12
_CTX_SIZE = 256  # of a context that is never used: learning has its own
_INTERRUPTED = 130  # exit status, as of a shell's command that Ctrl-C ended


class LayerList(click.ParamType):  # type: ignore[type-arg]
    """`12` or `10,12-14`: increasing 0-based blocks."""

    name = "layers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Read numbers and ranges."""
        layers: list[int] = []
        for part in str(value).split(","):
            match = re.fullmatch(r"\s*(\d{1,4})(?:-(\d{1,4}))?\s*", part)
            if not match:
                self.fail(f"'{value}' is no list of layers such as 12 or 10,12-14.", param, ctx)
            first, last = int(match[1]), int(match[2] or match[1])
            layers.extend(range(first, last + 1))
        if not layers:
            self.fail(f"'{value}' names no layer.", param, ctx)
        return tuple(layers)


@click.command()
@click.argument("history", metavar="HISTORY")
@click.option(
    "-o", "--output", required=True, metavar="FILE", help="The profile to write, such as me.json."
)
@model_options
@click.option("--user", metavar="ID", help="Which user, where HISTORY holds several.")
@click.option(
    "--response", metavar="FIELD", help="The field with your own text, where it is not detected."
)
@click.option(
    "--prompt",
    metavar="TEMPLATE",
    help="The request that goes with a text, such as 'Write a tasting note for {title}.'",
)
@click.option(
    "--max-items",
    type=click.IntRange(min=2),
    help="Of a longer history, learn from so many of the last texts. [default: all]",
)
@click.option(
    "--layers",
    type=LayerList(),
    help="Blocks that may be steered, from 1, such as 20 or 10,12-14. [default: a few are tried]",
)
@click.option(
    "--strength",
    type=FiniteFloat(min=0),
    help="What is added at a layer, as a share of the typical residual norm there: no calibration. "
    "[default: chosen on texts held out]",
)
@click.option(
    "--memory",
    type=click.Choice(["shared", "causal", "all", "none"]),
    default="causal",
    show_default=True,
    help="Which of your words the memory holds: only those in two or more texts; all, weighted by "
    "how far you caused them; all, with equal weight; or none. See docs/profile.md.",
)
@click.option(
    "--minutes",
    type=FiniteFloat(min=0),
    help="Read no further texts after so long. The sample is always read and calibrated on. "
    "[default: read all]",
)
def learn(
    history: str,
    output: str,
    model: str | None,
    threads: int | None,
    n_gpu_layers: int,
    user: str | None,
    response: str | None,
    prompt: str | None,
    max_items: int | None,
    layers: tuple[int, ...] | None,
    strength: float | None,
    memory: Literal["shared", "causal", "all", "none"],
    minutes: float | None,
) -> None:
    """Learn how you write from HISTORY and save it as a profile.

    HISTORY is JSON lines with "prompt" and "response" (or "text" alone), a per-author file such as
    LaMP's, or a text file with empty lines between the texts. If the profile exists already, the
    entry for this model is replaced and those for other models are kept.

    Of a long history a sample is read first and the profile saved; then all other texts are read.
    If interrupted, rerun the same command to resume.
    """
    saved = _Saved(output)
    try:
        from steerx_edge.history import read_history

        items = read_history(history, user=user, response=response, prompt=prompt)
        saved.existing = _existing_profile(Path(output))
        engine = open_engine(model, threads, n_gpu_layers, ctx_size=_CTX_SIZE)

        from rich.console import Console
        from rich.markup import escape
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        from steerx_edge.checkpoint import user_path
        from steerx_edge.duration import estimated_seconds
        from steerx_edge.learning import learn as learn_profile
        from steerx_edge.reading import chosen
        from steerx_edge.settings import Settings

        settings = Settings(max_items=max_items, layers=layers, memory=memory)
        if strength is not None:
            settings = replace(settings, strength=strength, calibrate=False)
        console = Console(stderr=True, highlight=False)
        n_used = len(chosen(items, max_items))
        console.print(f"Learning from {n_used} of {len(items)} texts with {engine.model_id.name}.")
        if n_used < min(len(items), max_items or len(items)):
            console.print("Skipped duplicate texts.")
        console.print(_duration(estimated_seconds(engine, items, settings)))
        with Progress(
            TextColumn("{task.description:16}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        ) as bar:
            task = bar.add_task("effects", total=None)

            def save_sample(profile: Profile) -> None:
                saved.save(profile)
                console.print(
                    f"Saved {escape(output)} from a sample of {saved.n_texts} texts; reading "
                    f"{n_used - saved.n_texts} more. Ctrl-C keeps it; rerun the same command to "
                    "resume."
                )

            learned = learn_profile(
                engine,
                items,
                settings,
                progress=lambda what, done, of: bar.update(
                    task, description=what, completed=done, total=of
                ),
                resume=user_path() / "unfinished",
                usable_profile=save_sample,
                seconds=None if minutes is None else 60 * minutes,
            )
        saved.save(learned)
        _report(console, learned.entries[0], output, n_used if settings.calibrate else 0)
    except KeyboardInterrupt:
        click.echo(saved.when_interrupted(), err=True)
        raise click.exceptions.Exit(_INTERRUPTED) from None


class _Saved:
    """What of this run is in the output file."""

    def __init__(self, output: str) -> None:
        self.existing: Profile | None = None
        self.n_texts = 0
        self._output = output

    def save(self, learned: Profile) -> None:
        """Save the entry that was learned, beside those of other models."""
        (entry,) = learned.entries
        profile = self.existing.with_entry(entry) if self.existing else learned
        with hold_interrupts():
            profile.save(self._output)
            self.n_texts = entry.counts["items"]

    def when_interrupted(self) -> str:
        """What is left, in one sentence."""
        holds = (
            f"{self._output} holds what was learned from {self.n_texts} texts"
            if self.n_texts
            else f"nothing was saved to {self._output} yet"
        )
        return f"Interrupted: {holds}; rerun the same command to resume."


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return "Less than a minute."
    return f"About {minutes} minute{'s' if minutes > 1 else ''}."


def _existing_profile(path: Path) -> Profile | None:
    """What -o holds already; found out before the work, so that nothing is lost after it."""
    from steerx_edge.errors import ProfileError
    from steerx_edge.profile import Profile

    if path.exists():
        try:
            return Profile.load(path)
        except ProfileError as error:
            raise ProfileError(
                f"{error} It is left as it is: name another file with -o, or remove it."
            ) from error
    if not path.absolute().parent.is_dir():
        raise ProfileError(
            f"'{path}' cannot be written: there is no folder '{path.absolute().parent}'."
        )
    return None


def _report(console: Any, entry: Entry, output: str, n_to_read: int) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (
        ("word", "left"),
        ("effect (nats a text)", "right"),
        ("95% interval", "right"),
        ("texts", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for word in entry.words[:_SHOWN_WORDS]:
        table.add_row(
            escape(word.word),
            f"{word.effect:+.2f}",
            f"{word.low:+.2f} to {word.high:+.2f}",
            str(word.items),
        )
    author = {"model": "the model", "statistics": "measured facts", "user": "you"}
    counts = entry.counts
    console.print(table)
    console.print(f"\nDescription (by {author[entry.description.origin]}):")
    console.print(escape(entry.description.text))
    console.print(
        f"\n{counts['anchors']} of {counts['tokens']} tokens in {counts['items']} texts are "
        f"anchors: your other texts make them much more probable.\n{_carried(entry)}"
    )
    if counts["items"] < n_to_read:
        console.print(f"Time is up: read {counts['items']} of {n_to_read} texts.")
    console.print(f"Saved {escape(output)}.")


def _carried(entry: Entry) -> str:
    """What the profile will do, and what that gave where it was measured."""
    does = []
    steered = [
        f"layer {layer} by {strength:g}"
        for layer, strength in zip(entry.layers, entry.strengths, strict=True)
        if strength
    ]
    if steered:
        does.append(f"steers {' and '.join(steered)} of the residual norm")
    if bias := entry.tilt_bias():
        does.append(f"makes {len(bias)} tokens more or less probable")
    if entry.memory and entry.memory.strength:
        does.append(
            f"remembers {entry.memory.rows} tokens of your texts (level {entry.memory.level}, "
            f"strength {entry.memory.strength:g})"
        )
    said = f"It {', and '.join(does) or 'changes nothing: its strengths are 0'}."
    if does and entry.gate:
        said += "\nAnswers to requests unlike those of your texts are left alone."
    if entry.gain is None:
        return said
    measured = f"measured on {entry.gain.items} texts held out"
    if not does:
        return (
            f"No reliable preference found: the best setting gave {_shown(entry.gain)}, "
            f"{measured}.\n{said}"
        )
    said += f"\nExpected gain: {_shown(entry.gain)}, {measured}."
    if entry.with_history:
        beside = entry.with_history
        helps = beside.gain.low > 0
        said += (
            f"\nWith texts of yours in the prompt (generate --history), over these alone: "
            f"{_shown(beside.gain)}{'' if helps else '; so it then changes nothing'}."
        )
    return said


def _shown(gain: Gain) -> str:
    return f"{gain.mean:+.3f} nats/token (95% interval {gain.low:+.3f} to {gain.high:+.3f})"
