"""`steerx-edge forget`: delete the memory of a profile, or what it holds of some texts."""

from __future__ import annotations

import click

from steerx_edge.apps.cli.common import load_profile, open_engine, running_options

_CTX_SIZE = 256  # of a context that is never used: texts are read in another one


@click.command()
@click.option("--profile", "profile_path", required=True, metavar="FILE", help="Your profile.")
@click.option(
    "--text",
    "text_path",
    metavar="FILE",
    help="Forget only these texts: a file as learn reads it, with the requests that it was learned "
    "with. [default: forget everything]",
)
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    metavar="FILE",
    help="GGUF model that the memory is for; once for each. [default: as of learn]",
)
@running_options
@click.option("--user", metavar="ID", help="Which user, where the file of --text holds several.")
@click.option("--response", metavar="FIELD", help="The field with your own text, as of learn.")
@click.option("--prompt", metavar="TEMPLATE", help="The request of a text, as of learn.")
def forget(
    profile_path: str,
    text_path: str | None,
    models: tuple[str, ...],
    threads: int | None,
    n_gpu_layers: int,
    user: str | None,
    response: str | None,
    prompt: str | None,
) -> None:
    """Delete the memory of a profile, or with --text what it holds of some texts.

    The rest of the profile stays: the words, the description and the vectors.
    """
    from steerx_edge.errors import ProfileError

    if text_path is None:
        if models or any(option is not None for option in (user, response, prompt)):
            raise click.UsageError("-m, --user, --response and --prompt need --text.")
        from steerx_edge.profile import forget as forget_all

        removed = forget_all(profile_path)
        said = f"Removed {' and '.join(removed)}" if removed else "There is no memory file"
        click.echo(f"{said}. {profile_path} has no memory now.", err=True)
        return

    from steerx_edge.history.readers import read_history
    from steerx_edge.llamacpp.models import find_model, fingerprint

    profile = load_profile(profile_path)
    items = read_history(text_path, user=user, response=response, prompt=prompt)
    held = [entry for entry in profile.entries if entry.memory and entry.memory.memory]
    if not held:
        raise ProfileError(f"{profile_path}: there is no memory to forget texts from.")
    paths = [find_model(model) for model in models or (None,)]
    known = {fingerprint(path) for path in paths}
    for entry in held:
        if entry.model.fingerprint not in known:
            raise ProfileError(
                f"{profile_path} also has a memory for {entry.model}: name that model with -m as "
                "well. Nothing was removed."
            )

    from steerx_edge.forgetting import forget_texts

    n_rows = sum(entry.memory.rows for entry in held if entry.memory)
    n_removed = 0
    for path in paths:
        engine = open_engine(str(path), threads, n_gpu_layers, ctx_size=_CTX_SIZE)
        profile, n = forget_texts(engine, profile, items)
        n_removed += n
        engine.llama.close()
    if not n_removed:
        raise ProfileError(
            f"The memory holds none of {text_path}, as far as can be told: its texts must be as "
            "learn read them, with the same requests. Nothing was removed."
        )
    profile.save(profile_path)
    click.echo(
        f"Removed {n_removed} of {n_rows} rows. The words, the description and the vectors in "
        f"{profile_path} were learned from the text as well: learn again without it to replace "
        "them.",
        err=True,
    )
