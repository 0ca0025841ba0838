"""`steerx-edge show`: what a profile holds."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import click

from steerx_edge.apps.cli.common import keep_what_is_read, load_profile, open_engine, put_facts
from steerx_edge.apps.cli.completion import complete_models
from steerx_edge.apps.cli.options import running_options

if TYPE_CHECKING:
    from steerx_edge.llamacpp.engine import Engine
    from steerx_edge.profile import Profile

_CTX_SIZE = 256  # of the generation context, which is not used


@click.command()
@click.argument("profile_path", metavar="PROFILE")
@click.option(
    "-m",
    "--model",
    metavar="FILE",
    shell_complete=complete_models,
    help="GGUF model of the profile, which shows tokens of the logit bias as text: a file, or a "
    "name that `steerx-edge models` lists. [default: none]",
)
@running_options
@click.option(
    "--with",
    "others",
    multiple=True,
    metavar="FILE",
    help="Another profile to compare with; repeat it for several.",
)
@click.option("--html", "html_path", metavar="FILE", help="Write one self-contained page.")
@click.option("--json", "as_json", is_flag=True, help="Print everything but the vectors as JSON.")
def show(
    profile_path: str,
    model: str | None,
    threads: int | None,
    n_gpu_layers: int,
    others: tuple[str, ...],
    html_path: str | None,
    as_json: bool,
) -> None:
    """Show what a profile holds: words, gain, strengths, memory, and what it tells others.

    No model is needed.
    """
    from steerx_edge.profile import Profile
    from steerx_edge.report.profile_facts import profile_facts
    from steerx_edge.report.profile_page import profile_page
    from steerx_edge.report.terminal import print_profile

    keep_what_is_read(html_path, profile_path, *others)
    profile = load_profile(profile_path)
    compared = {path: Profile.load(path) for path in others}
    if model is None:
        facts = profile_facts(profile_path, profile, others=compared)
    else:
        engine = open_engine(model, threads, n_gpu_layers, ctx_size=_CTX_SIZE)
        with closing(engine.llama):
            pieces = {_fingerprint(engine, profile): engine.pieces}
            facts = profile_facts(profile_path, profile, others=compared, pieces=pieces)
    put_facts(facts, html_path, as_json, profile_page, print_profile, holds="words")


def _fingerprint(engine: Engine, profile: Profile) -> str:
    """Of the model, which must be one of the profile's."""
    return profile.entry_for(engine.model_id).model.fingerprint
