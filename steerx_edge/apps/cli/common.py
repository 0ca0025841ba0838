"""What several commands do."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerx_edge.apps.cli.quiet import is_quiet
from steerx_edge.report.visible import visible

if TYPE_CHECKING:
    from steerx_edge.history.item import HistoryItem
    from steerx_edge.live import SteeringHandle
    from steerx_edge.live_prefix import LivePrefix
    from steerx_edge.llamacpp.engine import Engine
    from steerx_edge.profile import Profile
    from steerx_edge.report.terminal import PlainConsole


def load_profile(path: str, *, or_vector: bool = False) -> Profile:
    """Load a profile, and warn of parts that cannot be used.

    Args:
        path: of the profile.
        or_vector: take a control vector, too.

    Raises:
        ProfileError: it cannot be read, or is a control vector.
    """
    from steerx_edge.errors import ProfileError
    from steerx_edge.profile import Profile

    profile = Profile.load(path)
    if profile.control_vector is not None and not or_vector:
        raise ProfileError(f"{path} is a control vector. Import it for a model first.")
    for problem in profile.problems:
        say(f"Warning: {problem}")
    return profile


def open_engine(
    model: str | None, threads: int | None, n_gpu_layers: int, *, ctx_size: int = 4096
) -> Engine:
    """Load a model, with llama.cpp's log reduced to errors."""
    from steerx_edge.llamacpp.waiting import wait_briefly

    wait_briefly()

    from steerx_edge.llamacpp.engine import Engine
    from steerx_edge.llamacpp.log import log_errors
    from steerx_edge.llamacpp.model_search import chosen_model

    # Before llama.cpp starts, as most mistakes are made here.
    path, found = chosen_model(model)
    if found:
        say(f"Using {found.name} ({found.place}): {found.path}")
    log_errors(partial(say, nl=False, always=True))
    with hold_interrupts():  # an exception in the log callback would be lost
        return Engine(path, n_ctx=ctx_size, n_threads=threads, n_gpu_layers=n_gpu_layers)


def load_prefix(
    engine: Engine, profile: Profile, path: str, wanted: bool | None, system: str = ""
) -> LivePrefix | None:
    """Load the prefix next to a profile; None if there is none, or it is not wanted.

    Args:
        engine: the model.
        profile: as it was loaded from `path`.
        path: of the profile.
        wanted: whether it must be there; None to use it if it is there and can be used.
        system: the system message that may come before it.

    Raises:
        ProfileError: it is wanted and not there.
    """
    from steerx_edge.live_prefix import LivePrefix
    from steerx_edge.llamacpp.prompts import Message

    if wanted is False:
        return None
    if wanted:
        prefix: LivePrefix | None = LivePrefix.load(engine.llama, path)
    else:
        entry = profile.entry_for(engine.model_id)
        prefix, problem = LivePrefix.usable(engine.llama, entry, path)
        if problem:
            say(f"Warning: {problem}")
    if prefix is not None and system:
        prefix.add([Message(role="system", content=system)])
    return prefix


def check_room(engine: Engine, prompt: Sequence[int], prefix: LivePrefix | None) -> None:
    """Refuse a prompt that does not fit the context because it begins with a prefix.

    Raises:
        ModelError: it does not.
    """
    from steerx_edge.errors import ModelError
    from steerx_edge.llamacpp import compat

    n_ctx = compat.most_tokens(engine.llama)
    if prefix is not None and len(prompt) >= n_ctx:
        raise ModelError(
            f"The prompt has {len(prompt)} tokens with the profile's prefix, and the context "
            f"{n_ctx}. Raise it with -c, or leave out the prefix with --no-prefix."
        )


def steer_prompt(
    engine: Engine,
    profile: Profile,
    strength: float,
    in_context: Sequence[HistoryItem],
    prefix: LivePrefix | None = None,
) -> SteeringHandle:
    """Steer, with the strengths for a history in the prompt if the prompt holds texts."""
    from steerx_edge.live import SteeringHandle

    return SteeringHandle(
        engine.llama, profile, strength, with_history=bool(in_context), prefix=prefix
    )


def read_text(argument: str) -> str:
    """Return an argument, or standard input if it is `-`."""
    try:
        if argument == "-":
            return sys.stdin.buffer.read().decode("utf-8-sig")
        argument.encode()
    except UnicodeError as error:
        raise click.UsageError("The prompt is not UTF-8 text.") from error
    return argument


@contextmanager
def hold_interrupts() -> Iterator[None]:
    """Delay Ctrl-C until the block ends, such as while a file is saved."""
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if received:
        raise KeyboardInterrupt


def say(text: str, *, nl: bool = True, always: bool = False) -> None:
    """Print a message on standard error; control characters in it are made visible.

    With --quiet it is printed only if `always` is set, as for errors.
    """
    if always or not is_quiet():
        click.echo(visible(text), nl=nl, err=True)


def write_text(piece: str) -> None:
    """Print generated text on standard output; only a terminal is spared control characters."""
    click.echo(visible(piece) if sys.stdout.isatty() else piece, nl=False, color=True)


def error_console() -> PlainConsole:
    """Return a console on standard error."""
    from steerx_edge.report.terminal import PlainConsole

    return PlainConsole(stderr=True, quiet=is_quiet())


@contextmanager
def progress_bar(
    console: PlainConsole, first: str
) -> Iterator[Callable[[str, int, int | None], None]]:
    """Show a progress bar, and yield the function that updates it: step, done, total if known."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description:16}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        task = bar.add_task(first, total=None)
        yield lambda what, done, of: bar.update(task, description=what, completed=done, total=of)


def keep_what_is_read(output: str | None, *inputs: str | None) -> None:
    """Refuse to write over a file that is read, or one in a folder that is read.

    Raises:
        UsageError: names it.
    """
    if output is None or not os.path.exists(output):  # noqa: PTH110
        return
    target = Path(os.path.realpath(output))
    for path in inputs:
        if path is not None and target.is_relative_to(os.path.realpath(Path(path).expanduser())):
            raise click.UsageError(
                f"'{output}' is read, and would be overwritten. Choose another name."
            )


def put_facts(
    facts: Mapping[str, Any],
    html_path: str | None,
    as_json: bool,
    page: Callable[[Mapping[str, Any]], str],
    print_facts: Callable[[Mapping[str, Any], PlainConsole], None],
    *,
    holds: str = "texts",
) -> None:
    """Write the page, and print JSON or, without either, the view for the terminal.

    Args:
        facts: what is shown.
        html_path: the file of the page; None for no page.
        as_json: print the facts as JSON.
        page: makes the page.
        print_facts: prints the view.
        holds: what of the user's the page holds, for the message.
    """
    if html_path is not None:
        from steerx_edge.report.page import save_private

        save_private(html_path, page(facts))
        say(f"Wrote {html_path}. It holds your {holds} and is readable only by you (mode 0600).")
    if as_json:
        import json

        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    elif html_path is None:
        from steerx_edge.report.terminal import PlainConsole

        print_facts(facts, PlainConsole())
