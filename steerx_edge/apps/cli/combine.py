"""`steerx-edge combine`: a weighted sum of profiles."""

from __future__ import annotations

import math

import click

from steerx_edge.apps.cli.common import load_profile, say
from steerx_edge.apps.cli.completion import complete_files
from steerx_edge.apps.cli.options import new_profile_option


class _Weights(click.ParamType):  # type: ignore[type-arg]
    """Finite numbers, separated by commas."""

    name = "numbers"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Parse numbers."""
        try:
            weights = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            weights = ()
        if not weights or not all(math.isfinite(weight) for weight in weights):
            self.fail(f"'{value}' is not a list of numbers such as 0.7,0.3.", param, ctx)
        return weights


@click.command()
@click.argument(
    "paths", metavar="PROFILE...", nargs=-1, required=True, shell_complete=complete_files
)
@click.option(
    "--weights",
    type=_Weights(),
    metavar="NUMBERS",
    required=True,
    help="A weight for each profile, such as 0.7,0.3; below 0 to subtract.",
)
@new_profile_option
def combine(paths: tuple[str, ...], weights: tuple[float, ...], output: str) -> None:
    """Save the weighted sum of profiles or control vectors as a profile.

    Directions are summed layer by layer, and logit biases token by token. All else is that of the
    first profile.
    """
    if len(paths) < 2:
        raise click.UsageError("Give at least two profiles.")
    if len(weights) != len(paths):
        raise click.UsageError(
            f"--weights has {len(weights)} numbers for {len(paths)} profiles. Give one for each."
        )

    from steerx_edge.profile.combining import combine as sum_of
    from steerx_edge.profile.combining import left_out

    profiles = [load_profile(path, or_vector=True) for path in paths]
    combined = sum_of(profiles, weights)
    combined.save(output)
    for note in left_out(profiles, combined):
        say(note)
    models = ", ".join(str(entry.model) for entry in combined.entries)
    say(f"Saved {output} for {models}.")
