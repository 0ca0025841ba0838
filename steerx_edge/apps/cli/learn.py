"""`steerx-edge learn`: learn a profile from a history, or add texts to one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import click

from steerx_edge.apps.cli import INTERRUPTED
from steerx_edge.apps.cli.common import (
    error_console,
    hold_interrupts,
    open_engine,
    progress_bar,
    say,
)
from steerx_edge.apps.cli.completion import complete_files
from steerx_edge.apps.cli.learning_options import announce_prefix, learning_options, refuse_with_add
from steerx_edge.apps.cli.options import (
    item_options,
    json_option,
    me_option,
    model_options,
    user_option,
)

if TYPE_CHECKING:
    from steerx_edge.history.item import HistoryItem
    from steerx_edge.learning.saving import SavedProfile
    from steerx_edge.learning.settings import Settings
    from steerx_edge.llamacpp.engine import Engine
    from steerx_edge.profile import Profile, TextSource

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
@learning_options
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
        refuse_with_add(context)
    from steerx_edge.learning.saving import SavedProfile, existing_profile

    saved = SavedProfile(output, hold_interrupts)
    try:
        items, saved.source = _read(history, me, user, response, prompt)
        saved.existing = existing = existing_profile(output, with_memory=memory != "none")
        if add and existing is None:
            from steerx_edge.errors import ProfileError

            raise ProfileError(
                f"There is no profile '{output}' to add to. Leave out --add to learn one."
            )
        engine = open_engine(model, threads, n_gpu_layers, ctx_size=_CTX_SIZE + prefix)
        with hold_interrupts():  # as in open_engine
            _ = engine.analysis
        most_prefixes = announce_prefix(engine, prefix, max_size) if prefix else 0
        seconds = None if minutes is None else 60 * minutes
        if add and existing is not None:
            _add(engine, items, existing, saved, seconds)
        else:
            from steerx_edge.learning.settings import Settings
            from steerx_edge.learning.texts import chosen

            settings = Settings(max_items=max_items, layers=layers, memory=memory)
            if strength is not None:
                settings = replace(settings, strength=strength, calibrate=False)
            _learn(engine, items, settings, saved, seconds)
            _save_prefix(engine, chosen(items, max_items), prefix, most_prefixes, saved)
        if as_json and saved.existing:
            from steerx_edge.report.entry import entry_as_json

            click.echo(entry_as_json(saved.existing.entry_for(engine.model_id)))
    except KeyboardInterrupt:
        say(saved.when_interrupted())
        raise click.exceptions.Exit(INTERRUPTED) from None


def _read(
    history: str, me: tuple[str, ...], user: str | None, response: str | None, prompt: str | None
) -> tuple[list[HistoryItem], TextSource]:
    """Read a history; of what a program wrote, say what is left out."""
    from steerx_edge.history.reading import survey
    from steerx_edge.learning.saving import source_of
    from steerx_edge.report.reading import reading_in_a_line

    found = survey(history, me=me, user=user, response=response, prompt=prompt)
    if found.why:
        say(reading_in_a_line(found.format, found.tally))
    return found.items, source_of(found)


def _save_prefix(
    engine: Engine, items: Sequence[HistoryItem], n_tokens: int, most: int, saved: SavedProfile
) -> None:
    """Save the prefix of a profile that was saved; one of a profile that it replaced is removed."""
    from steerx_edge.report.learning import prefix_saved

    if not saved.n_texts:
        if n_tokens:
            say("No prefix was saved either: run the command again without --minutes.")
        return
    prefix = None
    if n_tokens:
        prefix = saved.save_prefix(engine, items, n_tokens, most=most)
        say(prefix_saved(saved.path, prefix, n_tokens))
    if prefix is None and (removed := saved.remove_prefix(engine)):
        say(f"Removed {removed}, the prefix of the profile that was replaced.")


def _learn(
    engine: Engine,
    items: Sequence[HistoryItem],
    settings: Settings,
    saved: SavedProfile,
    seconds: float | None,
) -> None:
    """Learn a new entry."""
    from steerx_edge.learning.checkpoint import unfinished_path
    from steerx_edge.learning.duration import estimated_seconds
    from steerx_edge.learning.learn import learn as learn_profile
    from steerx_edge.learning.texts import chosen
    from steerx_edge.report import learning as said

    console, output, n_most = error_console(), saved.path, settings.max_items
    n_used = len(chosen(items, n_most))
    seconds_needed = estimated_seconds(engine, items, settings)
    console.print(said.beginning(engine.model_id.name, n_used, len(items), n_most, seconds_needed))
    n_wanted = n_used if settings.calibrate else 0

    def save_sample(profile: Profile) -> None:
        n_sample = profile.entries[0].counts["items"]
        n_kept = saved.n_texts_for(engine)
        if saved.save_if_fuller(engine, profile, n_wanted):
            console.print(said.sample_saved(output, n_sample, n_used - n_sample))
        else:
            console.print(said.sample_not_saved(output, n_sample, n_used - n_sample, n_kept))

    def save_all(profile: Profile) -> None:
        saved.save_if_fuller(engine, profile, n_wanted)

    with progress_bar(console, "effects") as progress:
        (entry,) = learn_profile(
            engine,
            items,
            settings,
            progress=progress,
            resume=unfinished_path(),
            usable_profile=save_sample,
            save=save_all,
            seconds=seconds,
        ).entries
    if entry.counts["items"] < min(n_wanted, n_kept := saved.n_texts_for(engine)):
        console.print(said.not_saved(output, entry.counts["items"], n_wanted, n_kept))
    else:
        said.print_learned(entry, output, n_wanted, console)


def _add(
    engine: Engine,
    items: Sequence[HistoryItem],
    existing: Profile,
    saved: SavedProfile,
    seconds: float | None,
) -> None:
    """Add new texts to the existing profile."""
    from steerx_edge.learning.adding import base_of, learn_more, unread
    from steerx_edge.learning.checkpoint import unfinished_path
    from steerx_edge.learning.duration import estimated_seconds_more
    from steerx_edge.report import learning as said

    console = error_console()
    entry = existing.entry_for(engine.model_id)
    new, known = unread(items, base_of(engine, entry).ledger)
    if not new:
        console.print(f"No new texts: all {len(known)} were read before.")
        return
    needed = estimated_seconds_more(engine, new)
    console.print(said.adding(saved.path, engine.model_id.name, len(new), len(known), needed))
    with progress_bar(console, "further texts") as progress:
        added = learn_more(
            engine,
            existing,
            items,
            progress=progress,
            resume=unfinished_path(),
            save=lambda profile: saved.save(engine, profile),
            seconds=seconds,
        )
    n_before = entry.counts.get("items", 0)
    said.print_learned(added.entry_for(engine.model_id), saved.path, n_before + len(new), console)
