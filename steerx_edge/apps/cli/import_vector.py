"""`steerx-edge import`: a GGUF control vector as a profile."""

from __future__ import annotations

import click

from steerx_edge.apps.cli.common import open_engine, say
from steerx_edge.apps.cli.completion import complete_files
from steerx_edge.apps.cli.options import model_options, new_profile_option

_CTX_SIZE = 256  # of a context that is not used


@click.command("import")
@click.argument("path", metavar="FILE", shell_complete=complete_files)
@new_profile_option
@model_options
def import_vector(
    path: str, output: str, model: str | None, threads: int | None, n_gpu_layers: int
) -> None:
    """Save a GGUF control vector of any program as a profile for one model.

    It is applied as llama.cpp applies it: direction.N is added to the output of block N, counted
    from 0, of every row.
    """
    from steerx_edge.profile import Profile, check_writable
    from steerx_edge.profile.control_vector_file import read_control_vector

    vector = read_control_vector(path)
    check_writable(output)
    engine = open_engine(model, threads, n_gpu_layers, ctx_size=_CTX_SIZE)
    found = engine.model_id
    engine.llama.close()
    entry = vector.entry_for(found)
    Profile((entry,)).save(output)
    say(f"{path} was written by {vector.producer.name}. {vector.producer.meaning}")
    if ignored := vector.too_high(found):
        say(
            f"Left out direction.{ignored[0]}"
            + (f" to direction.{ignored[-1]}" if len(ignored) > 1 else "")
            + f", as llama.cpp does: {found.name} has blocks 0 to {found.n_layer - 1}."
        )
    if vector.fingerprint not in ("", found.fingerprint):
        say("It was exported for another model file, so it may do less here.")
    if vector.model_hint not in ("", found.architecture):
        say(f"Its model hint is '{vector.model_hint}'; this model is '{found.architecture}'.")
    n = len(entry.layers)
    say(f"Saved {output} for {found}, with {n} direction{'s' if n > 1 else ''}.")
