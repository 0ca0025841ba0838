"""`steerx-edge export`: the directions of a profile as a GGUF control vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from steerx_edge.apps.cli.common import load_profile, say
from steerx_edge.apps.cli.completion import complete_files, complete_models
from steerx_edge.apps.cli.options import new_file

if TYPE_CHECKING:
    from steerx_edge.profile import Entry, Profile


@click.command()
@click.argument("profile_path", metavar="PROFILE", shell_complete=complete_files)
@click.argument("output", metavar="FILE", callback=new_file, shell_complete=complete_files)
@click.option(
    "-m",
    "--model",
    metavar="FILE",
    shell_complete=complete_models,
    help="Export the entry for this GGUF model, if the profile has several.",
)
@click.option(
    "--model-id",
    metavar="ID",
    help="Export the entry whose model has this name, or a fingerprint that begins so.",
)
def export(profile_path: str, output: str, model: str | None, model_id: str | None) -> None:
    """Write the directions of PROFILE to FILE, a GGUF control vector for llama.cpp.

    The vectors have their full strength: use them with scale 1. A control vector can hold nothing
    else; what is left out is named.
    """
    if model is not None and model_id is not None:
        raise click.UsageError("-m and --model-id cannot be combined.")

    from steerx_edge.profile.exporting import write_control_vector

    entry = _chosen(load_profile(profile_path), model, model_id)
    omitted = write_control_vector(output, entry)
    say(
        f"Wrote {output} for {entry.model}. Left out, as a control vector cannot hold it: "
        f"{', '.join(omitted)}."
    )
    if entry.positions == "generated":
        say(
            "llama.cpp adds a control vector to every token of the prompt too; this profile was "
            "chosen to steer only the last one and the generated ones."
        )


def _chosen(profile: Profile, model: str | None, model_id: str | None) -> Entry:
    """Return the entry that is meant.

    Raises:
        ProfileError: there is none, or several.
    """
    from steerx_edge.errors import ProfileError
    from steerx_edge.llamacpp.model_search import chosen_model
    from steerx_edge.llamacpp.models import fingerprint

    entries = list(profile.entries)
    known = ", ".join(str(entry.model) for entry in entries)
    if model is not None:
        wanted = fingerprint(chosen_model(model)[0])
        entries = [entry for entry in entries if entry.model.fingerprint == wanted]
    elif model_id is not None:
        start = f"sha256:{model_id.removeprefix('sha256:')}"
        entries = [
            entry
            for entry in entries
            if entry.model.name == model_id or entry.model.fingerprint.startswith(start)
        ]
    if not entries:
        raise ProfileError(f"The profile has no entry for that model. It has {known}.")
    if len(entries) > 1:
        raise ProfileError(f"Choose one of the profile's models with -m or --model-id: {known}.")
    return entries[0]
