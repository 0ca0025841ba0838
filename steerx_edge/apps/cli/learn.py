"""`steerx-edge learn`: learn a profile from a history, or add texts to one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource

from steerx_edge.apps.cli import INTERRUPTED
from steerx_edge.apps.cli.common import (
    error_console,
    hold_interrupts,
    open_engine,
    progress_bar,
    say,
)
from steerx_edge.apps.cli.completion import complete_files
from steerx_edge.apps.cli.options import (
    item_options,
    json_option,
    me_option,
    model_options,
    user_option,
)
from steerx_edge.apps.cli.value_types import FiniteFloat, LayerList

if TYPE_CHECKING:
    from steerx_edge.history.item import HistoryItem
    from steerx_edge.learning.settings import Settings
    from steerx_edge.llamacpp.engine import Engine
    from steerx_edge.model_id import ModelId
    from steerx_edge.profile import Entry, Gain, Profile, TextSource

_SHOWN_WORDS = 12
_PREFIX, _LEAST_PREFIX = 1024, 64  # tokens
_MEMORY = ".memory.00000000.gguf"  # the end of the name of a memory, with eight digits
_CTX_SIZE = 256  # of the generation context, which learning does not use


@click.command()
@click.argument("history", metavar="HISTORY", shell_complete=complete_files)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    shell_complete=complete_files,
    help="The profile to write, such as me.json. [required, unless with --dry-run]",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only print what would be learned from, as read does, and learn nothing.",
)
@model_options
@me_option
@user_option
@item_options()
@click.option(
    "--max-items",
    type=click.IntRange(min=2),
    metavar="N",
    help="Learn from the last N texts only. [default: all]",
)
@click.option(
    "--layers",
    type=LayerList(),
    help="Layers to consider for steering, counted from 0 and at least 1, such as 20 or 10,12-14. "
    "[default: a few are tried]",
)
@click.option(
    "--strength",
    type=FiniteFloat(at_least_0=True),
    help="Strength of the directions, as a share of the residual norm; skips calibration. "
    "[default: chosen on held-out texts]",
)
@click.option(
    "--memory",
    type=click.Choice(["shared", "causal", "all", "none"]),
    default="causal",
    show_default=True,
    help="Tokens in the memory: those of words in two or more texts (shared), all weighted by "
    "causal effect (causal), all weighted equally (all), or none. See docs/profile.md.",
)
@click.option(
    "--prefix",
    type=click.IntRange(min=0),
    is_flag=False,
    flag_value=_PREFIX,
    default=0,
    metavar="[TOKENS]",
    help="Also save a prefix: some of your texts, evaluated in advance, at the start of every "
    f"prompt. It has at most TOKENS tokens ({_PREFIX} if no number is given). The file next to the "
    "profile stores these texts in plain form. [default: none]",
)
@click.option(
    "--max-size",
    type=click.IntRange(min=1),
    metavar="MB",
    default=256,
    show_default=True,
    help="Maximum size of the prefix.",
)
@click.option(
    "--minutes",
    type=FiniteFloat(at_least_0=True),
    help="Stop reading further texts after this time. The sample is always read. "
    "[default: no limit]",
)
@click.option(
    "--add",
    is_flag=True,
    help="Add new texts to the profile in -o. HISTORY may hold all your texts or only the new "
    "ones; texts read before are skipped.",
)
@json_option
@click.pass_context
def learn(
    context: click.Context,
    history: str,
    output: str | None,
    dry_run: bool,
    model: str | None,
    threads: int | None,
    n_gpu_layers: int,
    me: tuple[str, ...],
    user: str | None,
    response: str | None,
    prompt: str | None,
    max_items: int | None,
    layers: tuple[int, ...] | None,
    strength: float | None,
    memory: Literal["shared", "causal", "all", "none"],
    prefix: int,
    max_size: int,
    minutes: float | None,
    add: bool,
    as_json: bool,
) -> None:
    """Learn how you write from HISTORY and save it as a profile.

    HISTORY is a file, a folder or an archive of your texts, such as documents and notes, or JSON
    lines with "prompt" and "response"; read shows what is learned from. If the profile exists, its
    entry for this model is replaced and its entries for other models are kept.

    From a long history, a sample is read first and the profile saved; then the other texts are
    read. If interrupted, rerun the same command to resume.
    """
    if dry_run:
        from steerx_edge.apps.cli.read import print_history

        print_history(history, None, me, user, response, prompt, as_json=as_json)
        return
    if output is None:
        raise click.MissingParameter(param_hint="'-o' / '--output'", param_type="option")
    if add:
        _refuse_with_add(context)
    saved = _Saved(output, as_json)
    try:
        items, saved.source = _read(history, me, user, response, prompt)
        saved.existing = _existing_profile(Path(output), memory)
        if add and saved.existing is None:
            from steerx_edge.errors import ProfileError

            raise ProfileError(
                f"There is no profile '{output}' to add to. Leave out --add to learn one."
            )
        engine = open_engine(model, threads, n_gpu_layers, ctx_size=_CTX_SIZE + prefix)
        with hold_interrupts():  # as in open_engine
            _ = engine.analysis
        saved.use(engine)
        if prefix:
            _announce_prefix(engine, prefix, max_size)
        seconds = None if minutes is None else 60 * minutes
        if add:
            _add(engine, items, saved, seconds)
            saved.print_json()
            return

        from steerx_edge.learning.settings import Settings
        from steerx_edge.learning.texts import chosen

        settings = Settings(max_items=max_items, layers=layers, memory=memory)
        if strength is not None:
            settings = replace(settings, strength=strength, calibrate=False)
        _learn(engine, items, settings, saved, seconds)
        _save_prefix(engine, chosen(items, max_items), prefix, output)
        saved.print_json()
    except KeyboardInterrupt:
        say(saved.when_interrupted())
        raise click.exceptions.Exit(INTERRUPTED) from None


def _read(
    history: str, me: tuple[str, ...], user: str | None, response: str | None, prompt: str | None
) -> tuple[list[HistoryItem], TextSource]:
    """Read a history; of what a program wrote, say what is left out."""
    from steerx_edge.history.reading import survey
    from steerx_edge.profile import TextSource
    from steerx_edge.report.reading import reading_in_a_line

    found = survey(history, me=me, user=user, response=response, prompt=prompt)
    if found.why:
        say(reading_in_a_line(found.format, found.tally))
    days = [written.date().isoformat() for written in found.tally.dates or ()]
    return found.items, TextSource(found.format, found.tally.kept, *days)


def _refuse_with_add(context: click.Context) -> None:
    for name in ("max_items", "layers", "strength", "memory", "prefix", "max_size"):
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(
                f"--{name.replace('_', '-')} cannot be combined with --add: new texts are read "
                "with the settings of the profile."
            )


def _announce_prefix(engine: Engine, n_tokens: int, most_megabytes: int) -> None:
    """Say how large the prefix will be, before any work; refuse one that is too long or large."""
    from steerx_edge.learning.prefix import most_prefix_tokens, prefix_bytes

    most = most_prefix_tokens(engine)
    if not _LEAST_PREFIX <= n_tokens <= most:
        raise click.UsageError(f"--prefix is {n_tokens}. Give {_LEAST_PREFIX} to {most}, or 0.")
    megabytes = prefix_bytes(engine, n_tokens) / 1e6
    if megabytes > most_megabytes:
        raise click.UsageError(
            f"--prefix {n_tokens} would take {megabytes:.0f} MB with this model, and --max-size is "
            f"{most_megabytes}. Give fewer tokens, or raise --max-size."
        )
    say(f"The prefix will take up to {megabytes:.0f} MB and hold some of your texts in plain form.")


def _save_prefix(engine: Engine, items: Sequence[HistoryItem], n_tokens: int, output: str) -> None:
    """Save the prefix; one of a profile that was replaced is removed."""
    from steerx_edge.learning.prefix import chosen_prefix, prefix_of
    from steerx_edge.profile import prefix_files
    from steerx_edge.profile.prefix_file import prefix_path

    path = prefix_path(output, engine.model_id.fingerprint)
    if not n_tokens:
        if path.name in {file.name for file in prefix_files(output)}:
            path.unlink()
            say(f"Removed {path}, the prefix of the profile that was replaced.")
        return
    texts = chosen_prefix(engine, items, n_tokens)
    if not texts:
        say(f"No text is short enough for a prefix of {n_tokens} tokens: none was saved.")
        return
    with hold_interrupts():
        prefix = prefix_of(engine, texts)
        prefix.save(output)
    say(
        f"Saved {path}: {len(texts)} texts in {len(prefix.tokens)} tokens, {prefix.size}. Keep it "
        "as private as the texts."
    )


def _learn(
    engine: Engine,
    items: Sequence[HistoryItem],
    settings: Settings,
    saved: _Saved,
    seconds: float | None,
) -> None:
    """Learn a new entry."""
    from steerx_edge.learning.checkpoint import unfinished_path
    from steerx_edge.learning.duration import estimated_seconds
    from steerx_edge.learning.learn import learn as learn_profile
    from steerx_edge.learning.texts import chosen

    console = error_console()
    n_used = len(chosen(items, settings.max_items))
    console.print(f"Learning from {n_used} of {len(items)} texts with {engine.model_id.name}.")
    if n_used < min(len(items), settings.max_items or len(items)):
        console.print("Skipped duplicate texts.")
    console.print(_duration(estimated_seconds(engine, items, settings)))
    output, fuller = saved.output, saved.n_texts_for(engine.model_id)
    n_to_read = n_used if settings.calibrate else 0
    with progress_bar(console, "effects") as progress:

        def save_sample(profile: Profile) -> None:
            n_sample = profile.entries[0].counts["items"]
            if fuller > n_sample:
                console.print(
                    f"Learned from a sample of {n_sample} texts; reading {n_used - n_sample} more. "
                    f"Until then {output} keeps the profile learned from {fuller} texts. If "
                    "interrupted, rerun the same command to resume."
                )
                return
            saved.save(profile)
            console.print(
                f"Saved {output}, learned from a sample of {n_sample} texts; reading "
                f"{n_used - n_sample} more. Press Ctrl-C to stop; rerun the same command to resume."
            )

        def is_fuller(profile: Profile) -> bool:
            return profile.entries[0].counts["items"] >= min(n_to_read, fuller)

        learned = learn_profile(
            engine,
            items,
            settings,
            progress=progress,
            resume=unfinished_path(),
            usable_profile=save_sample,
            save=lambda profile: saved.save(profile) if is_fuller(profile) else None,
            seconds=seconds,
        )
    (entry,) = learned.entries
    n_read = entry.counts["items"]
    if not is_fuller(learned):
        console.print(
            f"Time is up: read {n_read} of {n_to_read} texts. {output} keeps the profile learned "
            f"from {fuller} texts; rerun the same command to read the rest."
        )
        return
    _report(console, entry, saved.output, n_to_read)


def _add(
    engine: Engine, items: Sequence[HistoryItem], saved: _Saved, seconds: float | None
) -> None:
    """Add new texts to the existing profile."""
    from steerx_edge.learning.adding import base_of, learn_more, unread
    from steerx_edge.learning.checkpoint import unfinished_path
    from steerx_edge.learning.duration import estimated_seconds_more

    if saved.existing is None:
        return
    console, output = error_console(), saved.output
    entry = saved.existing.entry_for(engine.model_id)
    new, known = unread(items, base_of(engine, entry).ledger)
    if not new:
        console.print(f"No new texts: all {len(known)} were read before.")
        return
    console.print(
        f"Adding {len(new)} new texts to {output} with {engine.model_id.name}; {len(known)} were "
        "read before."
    )
    console.print(_duration(estimated_seconds_more(engine, new)))
    with progress_bar(console, "further texts") as progress:
        added = learn_more(
            engine,
            saved.existing,
            items,
            progress=progress,
            resume=unfinished_path(),
            save=saved.save,
            seconds=seconds,
        )
    n_before = entry.counts.get("items", 0)
    _report(console, added.entry_for(engine.model_id), saved.output, n_before + len(new))


class _Saved:
    """The output file, and what this run has saved to it."""

    def __init__(self, output: str, as_json: bool) -> None:
        self.existing: Profile | None = None
        self.output = output
        self.source: TextSource | None = None
        self._as_json = as_json
        self._engine: Engine | None = None
        self._n_texts = 0

    def use(self, engine: Engine) -> None:
        """The model that is learned on."""
        self._engine = engine

    def n_texts_for(self, model: ModelId) -> int:
        """Return how many texts the existing entry for this model was learned from."""
        entries = self.existing.entries if self.existing else ()
        known = [each for each in entries if each.model.fingerprint == model.fingerprint]
        return known[0].counts.get("items", 0) if known else 0

    def save(self, learned: Profile) -> None:
        """Save the learned entry; what others changed in the file meanwhile is kept."""
        from steerx_edge.errors import ProfileError

        if self._engine is not None:
            from steerx_edge.editing import carried
            from steerx_edge.llamacpp.vocabulary import Vocabulary

            learned = carried(learned, self.existing, Vocabulary(self._engine.llama.model))
            learned = self._with_source(learned, learned.entry_for(self._engine.model_id))
        with hold_interrupts():
            try:
                self.existing = learned.save_changes(self.output, since=self.existing)
            except ProfileError as error:
                from steerx_edge.learning.checkpoint import has_unfinished

                kept = "The work is kept: rerun the same command to resume, or with another -o."
                raise ProfileError(f"{error}. {kept}" if has_unfinished() else str(error)) from None
            self._n_texts = learned.entries[-1].counts.get("items", 0)

    def _with_source(self, learned: Profile, entry: Entry) -> Profile:
        """Note what this run read, after what earlier ones did."""
        if self.source is None or self.source in entry.sources:
            return learned
        return learned.with_entry(replace(entry, sources=(*entry.sources, self.source)))

    def print_json(self) -> None:
        """Print the entry as it is in the file, without its vectors, if that was asked for."""
        from steerx_edge.report.entry import entry_as_json

        if self._as_json and self.existing and self._engine:
            click.echo(entry_as_json(self.existing.entry_for(self._engine.model_id)))

    def when_interrupted(self) -> str:
        """Return the message to print after Ctrl-C."""
        if self._n_texts:
            state = f"{self.output} holds the profile learned from {self._n_texts} texts"
        elif self.existing:
            state = f"{self.output} was not changed"
        else:
            state = f"nothing was saved to {self.output} yet"
        return f"Interrupted: {state}; rerun the same command to resume."


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return "Estimated time: less than a minute."
    return f"Estimated time: {minutes} minute{'s' if minutes > 1 else ''}."


def _existing_profile(path: Path, memory: str) -> Profile | None:
    """Load the profile in -o, if there is one; before the work, so that no work is lost."""
    from steerx_edge.errors import ProfileError
    from steerx_edge.profile import Profile, check_writable

    try:
        existing = Profile.load(path) if path.exists() else None
    except ProfileError as error:
        raise ProfileError(
            f"{error}. It was not changed: choose another file with -o, or remove it."
        ) from error
    if existing and existing.control_vector:
        raise ProfileError(f"{path}: this is a control vector. Choose another file with -o.")
    try:
        check_writable(path, beside=_MEMORY if memory != "none" else "")
    except ProfileError as error:
        raise ProfileError(f"{error}. Choose another file with -o.") from error
    return existing


def _report(console: Any, entry: Entry, output: str, n_to_read: int) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (
        ("word", "left"),
        ("effect (nats/text)", "right"),
        ("95% interval", "right"),
        ("texts", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for word in entry.words[:_SHOWN_WORDS]:
        table.add_row(
            word.word,
            f"{word.effect:+.2f}",
            f"{word.low:+.2f} to {word.high:+.2f}",
            str(word.items),
        )
    origins = {"model": "by the model", "statistics": "from measured style", "user": "by you"}
    counts = entry.counts
    console.print(table)
    console.print(f"\nDescription ({origins[entry.description.origin]}):")
    console.print(entry.description.text)
    console.print(
        f"\n{counts['anchors']} of {counts['tokens']} tokens in {counts['items']} texts are "
        f"anchors: your other texts make them much more probable.\n{summary(entry)}"
    )
    if counts["items"] < n_to_read:
        console.print(f"Time is up: read {counts['items']} of {n_to_read} texts.")
    if entry.memory and entry.memory.level != "shared":
        console.print(
            "The memory file lies beside the profile. Your texts can be read back from it with the "
            "model: keep it as private as the texts."
        )
    console.print(f"Saved {output}.")


def summary(entry: Entry) -> str:
    """Return what the profile adds to the model, and the measured gain; a line for each."""
    parts = [
        f"direction at layer {layer} ({strength:g} of the residual norm)"
        for layer, strength in zip(entry.layers, entry.strengths, strict=True)
        if strength
    ]
    if entry.logit_bias and (bias := entry.logit_bias.at()):
        parts.append(f"logit bias on {len(bias)} tokens")
    if entry.memory and entry.memory.strength:
        parts.append(
            f"memory of {entry.memory.rows} tokens (level {entry.memory.level}, strength "
            f"{entry.memory.strength:g})"
        )
    lines = [f"Steering: {'; '.join(parts) or 'none, all strengths are 0'}."]
    if parts and entry.gate:
        lines.append("Requests unlike those of your texts are answered without steering.")
    if entry.gain is None:
        return "\n".join(lines)
    measured = f"measured on {entry.gain.items} held-out texts"
    if not parts:
        lines.insert(
            0,
            f"No reliable preference found: the best setting gained {shown(entry.gain)}, "
            f"{measured}.",
        )
        return "\n".join(lines)
    lines.append(f"Expected gain: {shown(entry.gain)}, {measured}.")
    if entry.with_history:
        gain = entry.with_history.gain
        lines.append(
            f"With your texts in the prompt (--history), gain over the prompt alone: {shown(gain)}"
            f"{'.' if gain.low > 0 else ', which is not reliable, so steering is off then.'}"
        )
    return "\n".join(lines)


def shown(gain: Gain) -> str:
    """Return a gain with its interval."""
    return f"{gain.mean:+.3f} nats/token (95% interval {gain.low:+.3f} to {gain.high:+.3f})"
