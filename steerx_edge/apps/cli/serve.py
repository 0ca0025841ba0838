"""`steerx-edge serve`: a server for programs that speak to llama.cpp, OpenAI or Ollama."""

from __future__ import annotations

from pathlib import Path

import click

from steerx_edge.apps.cli.common import say
from steerx_edge.apps.cli.options import ctx_size_option, model_options

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@click.command()
@click.option(
    "--profiles",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder with profiles. me.json is served as MODEL@me.",
)
@click.option("--alias", metavar="NAME", help="Name of the model. [default: that of its file]")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    envvar="LLAMA_ARG_HOST",
    show_envvar=True,
    help="Address to listen on. Others than this machine's own need --api-key.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    envvar="LLAMA_ARG_PORT",
    show_envvar=True,
    help="Port to listen on; 0 for a free one.",
)
@click.option(
    "--api-key",
    metavar="KEY",
    envvar="LLAMA_API_KEY",
    show_envvar=True,
    help="Key that clients must send. Better given as the variable LLAMA_API_KEY.",
)
@ctx_size_option
@model_options
def serve(
    profiles: Path,
    alias: str | None,
    host: str,
    port: int,
    api_key: str | None,
    ctx_size: int,
    model: str | None,
    threads: int | None,
    n_gpu_layers: int,
) -> None:
    """Serve a model and your profiles to other programs.

    It answers as the servers of OpenAI, llama.cpp and Ollama do. Each profile is a model of its
    own. Press Ctrl-C to end it.
    """
    if not api_key and host not in _LOOPBACK:
        raise click.UsageError(f"--host {host} lets other machines in, so it needs --api-key.")
    if alias is not None and (not alias.isprintable() or "@" in alias or not alias):
        raise click.UsageError(f"--alias {alias!r} is empty, or holds an @ or control characters.")
    if not profiles.is_dir():
        raise click.UsageError(
            f"--profiles '{profiles}' is not a folder. Give the one with me.json."
        )
    from steerx_edge.errors import SteerxError

    try:
        from steerx_edge.apps.server.serving import serve as run
    except ImportError as error:
        raise SteerxError(
            f"The server needs the package '{error.name}': pip install 'steerx-edge[server]'."
        ) from error
    from steerx_edge.apps.server.work import ModelOptions

    options = ModelOptions(model, profiles, alias, ctx_size, threads, n_gpu_layers)
    run(options, host, port, api_key or None, say)
