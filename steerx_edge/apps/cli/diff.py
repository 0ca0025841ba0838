"""`steerx-edge diff`: what two profiles differ in."""

from __future__ import annotations

import click

from steerx_edge.apps.cli.common import load_profile
from steerx_edge.apps.cli.completion import complete_files
from steerx_edge.apps.cli.options import json_option
from steerx_edge.report.visible import visible


@click.command()
@click.argument("first", metavar="A", shell_complete=complete_files)
@click.argument("second", metavar="B", shell_complete=complete_files)
@json_option
def diff(first: str, second: str, as_json: bool) -> None:
    """Compare two profiles: versions of one, or those of two people.

    For each model that both have entries for: the description, words with their effects, edits,
    strengths, expected gain, the memory, and how alike directions and logit biases are.
    """
    from steerx_edge.profile.difference import difference
    from steerx_edge.report.difference import difference_as_json, difference_as_text

    found = difference(load_profile(first), load_profile(second))
    click.echo(
        difference_as_json(found) if as_json else visible(difference_as_text(found, first, second))
    )
