"""`steerx-edge forget`: delete the memory of a profile, or the rows of some texts in it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from steerx_edge.apps.cli.common import load_profile, open_engine, say
from steerx_edge.apps.cli.completion import complete_files, complete_models
from steerx_edge.apps.cli.options import (
    item_options,
    me_option,
    profile_option,
    running_options,
    user_option,
)

if TYPE_CHECKING:
    from steerx_edge.history.item import HistoryItem
    from steerx_edge.profile import Entry

_CTX_SIZE = 256  # of the generation context, which forgetting does not use


@click.command()
@profile_option
@click.option(
    "--text",
    "text_path",
    metavar="FILE",
    shell_complete=complete_files,
    help="Forget only these texts: a file as for learn, with the requests they were learned with. "
    "[default: forget everything]",
)
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    metavar="FILE",
    shell_complete=complete_models,
    help="GGUF model of the memory; repeat it for each model. [default: as for learn]",
)
@running_options
@me_option
@user_option
@item_options()
def forget(
    profile_path: str,
    text_path: str | None,
    models: tuple[str, ...],
    threads: int | None,
    n_gpu_layers: int,
    me: tuple[str, ...],
    user: str | None,
    response: str | None,
    prompt: str | None,
) -> None:
    """Delete what lies next to a profile: its memory, its prefix and its drafts.

    With --text, only what they hold of some texts; a prefix that holds one of these is deleted as a
    whole. The rest of the profile stays: the words, the description and the directions.
    """
    if text_path is None:
        if models or me or any(option is not None for option in (user, response, prompt)):
            raise click.UsageError("-m, --me, --user, --response and --prompt need --text.")
        from steerx_edge.profile import forget as forget_all
        from steerx_edge.profile import forget_drafts, prefix_files

        removed = [
            *forget_all(profile_path),
            *_without_prefixes(prefix_files(profile_path)),
            *forget_drafts(profile_path),
        ]
        done = f"Removed {' and '.join(removed)}" if removed else "Found no memory file"
        say(f"{done}. {profile_path} has no memory now.")
        return

    from steerx_edge.history.reading import read_history

    items = read_history(text_path, me=me, user=user, response=response, prompt=prompt)
    _forget_texts(profile_path, text_path, items, models, threads, n_gpu_layers)


def _forget_texts(
    profile_path: str,
    text_path: str,
    items: Sequence[HistoryItem],
    models: Sequence[str],
    threads: int | None,
    n_gpu_layers: int,
) -> None:
    from steerx_edge.errors import ProfileError
    from steerx_edge.forgetting import forget_texts
    from steerx_edge.profile import check_writable, forget_drafts_of, prefix_files

    before = profile = load_profile(profile_path)
    check_writable(profile_path)
    if profile.problems:
        raise ProfileError(
            f"{' '.join(profile.problems)} Nothing was removed. Without --text, forget removes the "
            "memory as a whole."
        )
    prefixes = [path for path in prefix_files(profile_path) if _may_hold(path, items)]
    held = [entry for entry in profile.entries if entry.memory and entry.memory.memory]
    n_removed = n_tokens = n_missing = 0
    for path in _models_of(profile_path, held, models):
        engine = open_engine(str(path), threads, n_gpu_layers, ctx_size=_CTX_SIZE)
        forgotten = forget_texts(engine, profile, items)
        profile = forgotten.profile
        n_removed += forgotten.n_removed
        n_tokens += forgotten.n_tokens
        n_missing += forgotten.n_missing
        engine.llama.close()
    if n_removed:
        profile.save_changes(profile_path, since=before)
    n_drafts = forget_drafts_of(profile_path, [item.response for item in items])
    if not (n_removed or prefixes or n_drafts):
        if not held:
            raise ProfileError(f"{profile_path} has no memory to remove texts from.")
        raise ProfileError(
            f"No rows of {text_path} were found in the memory. Give its texts as learn read them, "
            "with the same requests. Nothing was removed."
        )
    if n_removed:
        n_rows = sum(entry.memory.rows for entry in held if entry.memory)
        say(
            f"Removed {n_removed} of {n_rows} rows. The words, the description and the directions "
            f"in {profile_path} were learned from the removed texts too: learn again without them "
            "to replace these."
        )
    if n_removed and n_missing:
        say(
            f"Warning: no rows were found for {n_missing} of the {n_tokens} tokens of these texts. "
            "What the memory holds of them may stay: give the texts as learn read them, with the "
            "same requests."
        )
    if prefixes:
        names = " and ".join(_without_prefixes(prefixes))
        say(f"Removed {names}, which held these texts. Learn again with --prefix for another one.")
    if n_drafts:
        say("Removed the drafts that held these texts.")


def _models_of(profile_path: str, held: Sequence[Entry], models: Sequence[str]) -> list[Path]:
    """The model files of all memories.

    Raises:
        ProfileError: one is missing.
    """
    from steerx_edge.errors import ProfileError
    from steerx_edge.llamacpp.model_search import chosen_model
    from steerx_edge.llamacpp.models import fingerprint

    if not held:
        return []
    paths = [chosen_model(model)[0] for model in models or (None,)]
    known = {fingerprint(path) for path in paths}
    for entry in held:
        if entry.model.fingerprint not in known:
            raise ProfileError(
                f"{profile_path} also has a memory for {entry.model}. Name that model with -m too. "
                "Nothing was removed."
            )
    return paths


def _without_prefixes(paths: Sequence[Path]) -> list[str]:
    """Remove prefix files, and what links of their names lead to; return their names."""
    for path in paths:
        Path(os.path.realpath(path)).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    return [path.name for path in paths]


def _may_hold(path: Path, items: Sequence[HistoryItem]) -> bool:
    """Whether a prefix file holds one of these texts, or cannot tell."""
    from steerx_edge.errors import ProfileError
    from steerx_edge.profile.prefix_file import read_prefix
    from steerx_edge.steering.ledger import plain

    try:
        held = [plain(item.response) for item in read_prefix(path).items]
    except ProfileError:
        return True
    texts = [plain(item.response) for item in items]
    # Long texts are cut in a prefix, and a text may be given in parts.
    return any(text and (text in own or own in text) for own in held for text in texts)
