"""`steerx-edge learn`: a history in, a profile out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource

from steerx_edge.apps.cli import INTERRUPTED
from steerx_edge.apps.cli.common import FiniteFloat, hold_interrupts, model_options, open_engine

if TYPE_CHECKING:
    from rich.console import Console

    from steerx_edge.history.item import HistoryItem
    from steerx_edge.learning.settings import Settings
    from steerx_edge.llamacpp.engine import Engine
    from steerx_edge.model_id import ModelId
    from steerx_edge.profile import Entry, Gain, Profile

_SHOWN_WORDS = 12
_CTX_SIZE = 256  # of a context that is never used: learning has its own


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
@click.option(
    "--add",
    is_flag=True,
    help="Keep the profile in -o and read only the texts that are new. Give all your texts again, "
    "or only the new ones.",
)
@click.pass_context
def learn(
    context: click.Context,
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
    add: bool,
) -> None:
    """Learn how you write from HISTORY and save it as a profile.

    HISTORY is JSON lines with "prompt" and "response" (or "text" alone), a per-author file such as
    LaMP's, or a text file with empty lines between the texts. If the profile exists already, the
    entry for this model is replaced and those for other models are kept.

    Of a long history a sample is read first and the profile saved; then all other texts are read.
    If interrupted, rerun the same command to resume.
    """
    if add:
        _refuse_with_add(context)
    saved = _Saved(output)
    try:
        from steerx_edge.history.readers import read_history

        items = read_history(history, user=user, response=response, prompt=prompt)
        saved.existing = _existing_profile(Path(output))
        if add and saved.existing is None:
            from steerx_edge.errors import ProfileError

            raise ProfileError(f"There is no '{output}' to add to: leave out --add to learn it.")
        engine = open_engine(model, threads, n_gpu_layers, ctx_size=_CTX_SIZE)
        with hold_interrupts():  # as in open_engine: llama.cpp's log is written now
            _ = engine.analysis
        seconds = None if minutes is None else 60 * minutes
        if add:
            _add(engine, items, saved, seconds)
            return

        from steerx_edge.learning.settings import Settings

        settings = Settings(max_items=max_items, layers=layers, memory=memory)
        if strength is not None:
            settings = replace(settings, strength=strength, calibrate=False)
        _learn(engine, items, settings, saved, seconds)
    except KeyboardInterrupt:
        click.echo(saved.when_interrupted(), err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None


def _refuse_with_add(context: click.Context) -> None:
    for name in ("max_items", "layers", "strength", "memory"):
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(
                f"--{name.replace('_', '-')} cannot be given with --add: texts are added as the "
                "profile was learned."
            )


def _learn(
    engine: Engine,
    items: Sequence[HistoryItem],
    settings: Settings,
    saved: _Saved,
    seconds: float | None,
) -> None:
    """Learn anew."""
    from rich.markup import escape

    from steerx_edge.learning.checkpoint import user_path
    from steerx_edge.learning.duration import estimated_seconds
    from steerx_edge.learning.learn import learn as learn_profile
    from steerx_edge.learning.texts import chosen

    console = _console()
    n_used = len(chosen(items, settings.max_items))
    console.print(f"Learning from {n_used} of {len(items)} texts with {engine.model_id.name}.")
    if n_used < min(len(items), settings.max_items or len(items)):
        console.print("Skipped duplicate texts.")
    console.print(_duration(estimated_seconds(engine, items, settings)))
    output, fuller = escape(saved.output), saved.n_texts_for(engine.model_id)
    with _bar(console, "effects") as progress:

        def save_sample(profile: Profile) -> None:
            n_sample = profile.entries[0].counts["items"]
            if fuller > n_sample:
                console.print(
                    f"Read a sample of {n_sample} texts; reading {n_used - n_sample} more. Until "
                    f"then {output} keeps what was learned from {fuller} texts before. If "
                    "interrupted, rerun the same command to resume."
                )
                return
            saved.save(profile)
            console.print(
                f"Saved {output} from a sample of {n_sample} texts; reading "
                f"{n_used - n_sample} more. Ctrl-C keeps it; rerun the same command to resume."
            )

        learned = learn_profile(
            engine,
            items,
            settings,
            progress=progress,
            resume=user_path() / "unfinished",
            usable_profile=save_sample,
            seconds=seconds,
        )
    (entry,) = learned.entries
    n_read, n_to_read = entry.counts["items"], n_used if settings.calibrate else 0
    if n_read < min(n_to_read, fuller):
        console.print(
            f"Time is up: read {n_read} of {n_to_read} texts. {output} keeps what was learned from "
            f"{fuller} texts before; rerun the same command to read on."
        )
        return
    saved.save(learned)
    _report(console, entry, saved.output, n_to_read)


def _add(
    engine: Engine, items: Sequence[HistoryItem], saved: _Saved, seconds: float | None
) -> None:
    """Add what is new to the profile that there is."""
    from rich.markup import escape

    from steerx_edge.learning.adding import base_of, learn_more, unread
    from steerx_edge.learning.checkpoint import user_path
    from steerx_edge.learning.duration import estimated_seconds_more

    if saved.existing is None:
        return
    console, output = _console(), escape(saved.output)
    entry = saved.existing.entry_for(engine.model_id)
    new, known = unread(items, base_of(engine, entry).ledger)
    if not new:
        console.print(f"Nothing new: all {len(known)} texts were read before.")
        return
    console.print(
        f"Adding {len(new)} new texts to {output} with {engine.model_id.name}; {len(known)} others "
        "were read before."
    )
    console.print(_duration(estimated_seconds_more(engine, new)))
    with _bar(console, "further texts") as progress:
        added = learn_more(
            engine,
            saved.existing,
            items,
            progress=progress,
            resume=user_path() / "unfinished",
            seconds=seconds,
        )
    saved.save(added)
    n_before = entry.counts.get("items", 0)
    _report(console, added.entry_for(engine.model_id), saved.output, n_before + len(new))


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False)


@contextmanager
def _bar(console: Console, first: str) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar, and what moves it."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description:16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        task = bar.add_task(first, total=None)
        yield lambda what, done, of: bar.update(task, description=what, completed=done, total=of)


class _Saved:
    """What of this run is in the output file."""

    def __init__(self, output: str) -> None:
        self.existing: Profile | None = None
        self.output = output
        self._n_texts = 0

    def n_texts_for(self, model: ModelId) -> int:
        """How many texts an earlier run learned from with this model."""
        entries = self.existing.entries if self.existing else ()
        known = [each for each in entries if each.model.fingerprint == model.fingerprint]
        return known[0].counts.get("items", 0) if known else 0

    def save(self, learned: Profile) -> None:
        """Save the entries that were learned, beside those of other models."""
        profile = self.existing or learned
        for entry in learned.entries:
            profile = profile.with_entry(entry)
        with hold_interrupts():
            profile.save(self.output)
            self._n_texts = learned.entries[-1].counts.get("items", 0)

    def when_interrupted(self) -> str:
        """What is left, in one sentence."""
        if self._n_texts:
            holds = f"{self.output} holds what was learned from {self._n_texts} texts"
        elif self.existing:
            holds = f"{self.output} is as it was"
        else:
            holds = f"nothing was saved to {self.output} yet"
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
    if entry.memory and entry.memory.level != "shared":
        console.print(
            "Whoever has the memory, which lies beside the profile, and the model can read your "
            "texts back: keep it as you keep them."
        )
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
    if entry.logit_bias and (bias := entry.logit_bias.at()):
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
