"""`steerx-edge feedback`: keep what you made of a model's text, and learn from it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from steerx_edge.apps.cli.common import (
    error_console,
    hold_interrupts,
    load_profile,
    open_engine,
    progress_bar,
    say,
)
from steerx_edge.apps.cli.options import model_options

if TYPE_CHECKING:
    from steerx_edge.profile import Drafts, Profile

_CTX_SIZE = 256  # of the generation context, which learning does not use


@click.command()
@click.argument("profile_path", metavar="PROFILE")
@click.option(
    "--final",
    "final_path",
    metavar="FILE",
    help="What you made of the model's text; - reads standard input.",
)
@click.option("--rejected", is_flag=True, help="You used nothing of the model's text.")
@click.option(
    "--proposed",
    "proposed_path",
    metavar="FILE",
    help="The model's text; - reads standard input. [default: the latest that generate "
    "--keep-drafts kept]",
)
@click.option("--request", metavar="TEXT", help="What the model was asked, with --proposed.")
@click.option(
    "--apply",
    "is_applied",
    is_flag=True,
    help="Learn from what you edited. The profile changes only if held-out drafts become more "
    "probable.",
)
@model_options
@click.pass_context
def feedback(
    context: click.Context,
    profile_path: str,
    final_path: str | None,
    rejected: bool,
    proposed_path: str | None,
    request: str | None,
    is_applied: bool,
    model: str | None,
    threads: int | None,
    n_gpu_layers: int,
) -> None:
    """Keep what you made of a model's text, and learn from it with --apply.

    The texts are kept as they are in a file next to PROFILE: me.drafts.jsonl for me.json. Without
    options, say what it holds.
    """
    is_told = final_path is not None or rejected
    _check(context, final_path, rejected, proposed_path, request, is_applied)
    if is_told:
        final = "" if final_path is None else _text_of(final_path)
        if final_path is not None and not final.strip():
            raise click.UsageError("The text of --final is empty. If you wrote none: --rejected.")
        _keep(profile_path, proposed_path, request or "", final)
    if is_applied:
        _apply(profile_path, model, threads, n_gpu_layers)
    else:
        _report(profile_path)


def _check(
    context: click.Context,
    final_path: str | None,
    rejected: bool,
    proposed_path: str | None,
    request: str | None,
    is_applied: bool,
) -> None:
    """Refuse options that do not go together."""
    if final_path is not None and rejected:
        raise click.UsageError("--final and --rejected cannot be combined.")
    if proposed_path is not None and final_path is None and not rejected:
        raise click.UsageError("--proposed needs --final or --rejected.")
    if request is not None and proposed_path is None:
        raise click.UsageError("--request needs --proposed: a kept draft has its request.")
    if proposed_path == final_path == "-":
        raise click.UsageError("Only one of --proposed and --final can be -.")
    if context.get_parameter_source("model") is ParameterSource.COMMANDLINE and not is_applied:
        raise click.UsageError("-m needs --apply: keeping a draft takes no model.")


def _text_of(path: str) -> str:
    """Return the text of a file, or of standard input."""
    from steerx_edge.errors import HistoryError

    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeError as error:
        raise HistoryError(f"'{path}' is not UTF-8 text.") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise HistoryError(f"'{path}' cannot be read: {reason}.") from error


def _keep(profile_path: str, proposed_path: str | None, request: str, final: str) -> None:
    from steerx_edge.errors import ProfileError
    from steerx_edge.profile import feedback as keep
    from steerx_edge.profile import read_drafts

    if proposed_path is not None:
        keep(profile_path, proposed=_text_of(proposed_path), final=final, request=request)
        return
    waiting = read_drafts(profile_path).waiting
    if not waiting:
        raise ProfileError(
            f"No draft next to {profile_path} waits for feedback. Keep one with generate "
            "--keep-drafts, or give the model's text with --proposed."
        )
    keep(profile_path, proposed=waiting[-1].proposed, final=final, request=waiting[-1].request)


def _apply(profile_path: str, model: str | None, threads: int | None, n_gpu_layers: int) -> None:
    from steerx_edge.learning.checkpoint import unfinished_path
    from steerx_edge.learning.feedback import FEWEST, learn_from_drafts
    from steerx_edge.profile import check_writable, read_drafts
    from steerx_edge.report.learning import shown

    profile = load_profile(profile_path)
    check_writable(profile_path)
    drafts = read_drafts(profile_path)
    _warn(drafts)
    engine = open_engine(model, threads, n_gpu_layers, ctx_size=_CTX_SIZE)

    def save(learned: Profile) -> None:
        with hold_interrupts():
            learned.save_changes(profile_path, since=profile)

    with progress_bar(error_console(), "held-out drafts") as progress:
        found = learn_from_drafts(
            engine, profile, drafts.kept, progress=progress, resume=unfinished_path(), save=save
        )
    if found.before is None or found.change is None:
        say(
            f"{_counted(found.n_new, 'edited draft')} not learned from yet; {FEWEST} are needed. "
            f"{profile_path} was not changed."
        )
        return
    say(
        f"On {found.n_new} held-out drafts, {profile_path} gains {shown(found.before)}. With the "
        f"other drafts added: {shown(found.change)} on top of that."
    )
    if not found.is_taken:
        say(f"That is no improvement: {profile_path} was not changed. The drafts stay.")
        return
    say(f"Saved {profile_path}.")


def _report(profile_path: str) -> None:
    """Say what the file of drafts holds."""
    from steerx_edge.profile import read_drafts
    from steerx_edge.profile.drafts_file import drafts_path

    drafts = read_drafts(profile_path)
    name = drafts_path(profile_path).name
    if not drafts.kept and not drafts.n_bad:
        say(f"There are no drafts next to {profile_path}.")
        return
    say(
        f"{name} holds {_counted(len(drafts.kept), 'draft')}: {len(drafts.edited)} edited, "
        f"{len(drafts.unchanged)} unchanged, {len(drafts.rejected)} rejected, "
        f"{len(drafts.waiting)} without feedback."
    )
    _warn(drafts)


def _warn(drafts: Drafts) -> None:
    if drafts.n_bad:
        say(f"Warning: skipped {_counted(drafts.n_bad, 'line')} that cannot be read.")


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
