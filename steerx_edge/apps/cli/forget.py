"""`steerx-edge forget`: delete the memory of a profile, or the rows of some texts in it."""

from __future__ import annotations

import click

from steerx_edge.apps.cli.common import (
    item_options,
    load_profile,
    open_engine,
    profile_option,
    running_options,
    say,
    user_option,
)

_CTX_SIZE = 256  # of the generation context, which forgetting does not use


@click.command()
@profile_option
@click.option(
    "--text",
    "text_path",
    metavar="FILE",
    help="Forget only these texts: a file as for learn, with the requests they were learned with. "
    "[default: forget everything]",
)
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    metavar="FILE",
    help="GGUF model of the memory; repeat it for each model. [default: as for learn]",
)
@running_options
@user_option
@item_options()
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
    """Delete the memory of a profile, or with --text the rows of some texts in it.

    The rest of the profile stays: the words, the description and the directions.
    """
    from steerx_edge.errors import ProfileError

    if text_path is None:
        if models or any(option is not None for option in (user, response, prompt)):
            raise click.UsageError("-m, --user, --response and --prompt need --text.")
        from steerx_edge.profile import forget as forget_all

        removed = forget_all(profile_path)
        done = f"Removed {' and '.join(removed)}" if removed else "Found no memory file"
        say(f"{done}. {profile_path} has no memory now.")
        return

    from steerx_edge.history.readers import read_history
    from steerx_edge.llamacpp.models import find_model, fingerprint
    from steerx_edge.profile import check_writable

    before = profile = load_profile(profile_path)
    check_writable(profile_path)
    items = read_history(text_path, user=user, response=response, prompt=prompt)
    held = [entry for entry in profile.entries if entry.memory and entry.memory.memory]
    if not held:
        raise ProfileError(f"{profile_path} has no memory to remove texts from.")
    paths = [find_model(model) for model in models or (None,)]
    known = {fingerprint(path) for path in paths}
    for entry in held:
        if entry.model.fingerprint not in known:
            raise ProfileError(
                f"{profile_path} also has a memory for {entry.model}. Name that model with -m too. "
                "Nothing was removed."
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
            f"No rows of {text_path} were found in the memory. Give its texts as learn read them, "
            "with the same requests. Nothing was removed."
        )
    profile.save_changes(profile_path, since=before)
    say(
        f"Removed {n_removed} of {n_rows} rows. The words, the description and the directions in "
        f"{profile_path} were learned from the removed texts too: learn again without them to "
        "replace these.",
    )
