"""Letting a person change a text in their editor."""

from __future__ import annotations

import click


def change_in_editor(text: str) -> str | None:
    """Open `$VISUAL` or `$EDITOR`, and return the text as it was saved; None if it was not saved.

    Raises:
        ClickException: the editor is not there or failed; names it, and says how to choose another.
    """
    try:
        return click.edit(text, extension=".txt")
    except click.ClickException as error:
        editor = error.message.partition(": Editing failed")[0]
        raise click.ClickException(
            f"The editor '{editor}' failed, so nothing was changed. Set VISUAL or EDITOR to "
            "another one, such as nano."
        ) from error
