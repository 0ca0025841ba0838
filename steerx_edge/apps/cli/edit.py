"""`steerx-edge edit`: correct what a profile holds."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from steerx_edge.apps.cli.common import load_profile, read_text, say
from steerx_edge.apps.cli.completion import complete_files, complete_models
from steerx_edge.apps.cli.editor import change_in_editor
from steerx_edge.apps.cli.options import item_options, me_option, user_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from steerx_edge.editing import Touched, Wish
    from steerx_edge.profile import Action, Entry, Profile

_DONE = {"drop": "Dropped", "never": "Dropped", "pin": "Pinned"}


@click.command()
@click.argument("profile_path", metavar="PROFILE", shell_complete=complete_files)
@click.option(
    "--description",
    metavar="TEXT",
    help="Describe your writing in your own words; - reads standard input. An empty text lets the "
    "next learn describe it anew.",
)
@click.option(
    "--drop",
    multiple=True,
    metavar="WORD",
    help="Add nothing for this word: no logit bias, no rows of the memory. Repeat it for others.",
)
@click.option(
    "--never",
    multiple=True,
    metavar="WORD",
    help="Drop this word or phrase, and let no answer contain it.",
)
@click.option(
    "--pin",
    multiple=True,
    metavar="WORD",
    help="Offer this word wherever you used it, and never make it rarer.",
)
@click.option("--undo", multiple=True, metavar="WORD", help="Undo the edit of this word.")
@click.option(
    "--text",
    "text_path",
    metavar="FILE",
    help="Remove these texts from the memory, as forget --text does.",
)
@click.option("--list", "listed", is_flag=True, help="List the edits.")
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    metavar="FILE",
    shell_complete=complete_models,
    help="GGUF model of the profile; repeat it for each. Only the vocabulary is read. "
    "[default: looked for, see models]",
)
@me_option
@user_option
@item_options()
def edit(
    profile_path: str,
    description: str | None,
    drop: tuple[str, ...],
    never: tuple[str, ...],
    pin: tuple[str, ...],
    undo: tuple[str, ...],
    text_path: str | None,
    listed: bool,
    models: tuple[str, ...],
    **reading: str | tuple[str, ...] | None,
) -> None:
    """Correct the profile in PROFILE: its description, and what it does with words.

    Edits take effect at once, nothing is learned again. They are kept when the profile is learned
    again or added to. Without options, an editor opens ($EDITOR).
    """
    from steerx_edge.editing import Wish, decided_twice

    if text_path is None and any(reading.values()):
        raise click.UsageError("--me, --user, --response and --prompt need --text.")
    profile = load_profile(profile_path)
    given: dict[Action, tuple[str, ...]] = {"drop": drop, "never": never, "pin": pin}
    wishes = [Wish.of(action, word) for action, words in given.items() for word in words]
    if twice := decided_twice(wishes):
        raise click.UsageError(f"'{twice}' has two of --drop, --never and --pin. Give one of them.")
    text = None if description is None else read_text(description)
    if description == "-" and not (text or "").strip():
        raise click.UsageError(
            "Standard input is empty. Give an empty --description to have it learned anew."
        )
    if text_path is None and text is None and not wishes and not undo and not listed:
        from steerx_edge.report.edit_sheet import read_sheet, sheet_of

        if not (sys.stdin.isatty() or os.environ.get("EDITOR") or os.environ.get("VISUAL")):
            raise click.UsageError("Without a terminal, say what to edit, such as --drop WORD.")
        sheet = sheet_of(profile)
        text, wishes, undo = read_sheet(profile, change_in_editor(sheet) or sheet)
        if text is None and not wishes and not undo:
            say("Nothing was changed.")
            return
    if text is not None or wishes or undo:
        _change(profile_path, profile, text, wishes, undo, models)
    if text_path is not None:
        from steerx_edge.apps.cli.forget import forget

        how = {"threads": None, "n_gpu_layers": 0, "models": models, **reading}
        click.get_current_context().invoke(
            forget, profile_path=profile_path, text_path=text_path, **how
        )
    if listed:
        _list(load_profile(profile_path))


def _change(
    path: str,
    profile: Profile,
    text: str | None,
    wishes: Sequence[Wish],
    undo: Sequence[str],
    models: Sequence[str],
) -> None:
    """Apply everything to the entries of all models at once."""
    from steerx_edge.editing import check_undo, described, edited, tokenized, undone
    from steerx_edge.llamacpp.log import log_errors
    from steerx_edge.llamacpp.model_search import model_file
    from steerx_edge.profile import change

    check_undo(profile, undo)
    log_errors(lambda _text: None)  # a vocabulary alone makes llama.cpp complain
    edits = tokenized(profile, wishes, partial(model_file, given=models)) if wishes else {}

    def changed(entry: Entry) -> Entry:
        entry = edited(undone(entry, undo), edits.get(entry.model.fingerprint, ()))
        return entry if text is None else described(entry, text)

    after = change(path, changed)
    for word in undo:
        say(f"Undid the edit of '{word}'.")
    if text is not None:
        say(
            "Saved your description; it is kept when the profile is learned again."
            if text.strip()
            else "The description is learned again by the next learn."
        )
    for wish in wishes:
        _report(after, wish)


def _report(profile: Profile, wish: Wish) -> None:
    from steerx_edge.editing import touched

    found = touched(profile, wish.word)
    if wish.action == "never":
        say(f"No answer will contain '{wish.word}'.")
    if wish.action != "never" or any(found):
        say(f"{_DONE[wish.action]} '{wish.word}': {_counted(found)}.")
    is_known = all(entry.memory and entry.memory.memory for entry in profile.entries)
    if wish.action != "never" and is_known and not (found.words or found.rows):
        say(f"You never used '{wish.word}' in what the profile was learned from. Is it misspelled?")
    texts = [entry.description.text.casefold() for entry in profile.entries]
    if wish.action != "pin" and any(wish.word.casefold() in text for text in texts):
        say(f"The description still mentions '{wish.word}': change it with --description.")


def _counted(found: Touched) -> str:
    counts = zip(found, ("listed word", "biased token", "row of the memory"), strict=True)
    plural = {"row of the memory": "rows of the memory"}
    return ", ".join(
        f"{n} {name if n == 1 else plural.get(name, name + 's')}" for n, name in counts
    )


def _list(profile: Profile) -> None:
    for entry in profile.entries:
        click.echo(f"{entry.model}")
        click.echo(f"  description by {entry.description.origin}")
        for edit in entry.edits:
            click.echo(f"  {edit.action:5} {edit.word}")
        if not entry.edits:
            click.echo("  no word was edited")
