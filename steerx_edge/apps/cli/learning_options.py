"""Options of `learn` alone: what is learned, how strong it is, and for how long."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from steerx_edge.apps.cli.common import say
from steerx_edge.apps.cli.options import together
from steerx_edge.apps.cli.value_types import FiniteFloat, LayerList, PrefixLength
from steerx_edge.history.budget import LEAST_PREFIX, MOST_PREFIX

if TYPE_CHECKING:
    from steerx_edge.llamacpp.engine import Engine

learning_options = together(
    click.option(
        "--max-items",
        type=click.IntRange(min=2),
        metavar="N",
        help="Learn from the last N texts only. [default: all]",
    ),
    click.option(
        "--layers",
        type=LayerList(),
        help="Layers to consider for steering, counted from 0 and at least 1, such as 20 or "
        "10,12-14. [default: a few are tried]",
    ),
    click.option(
        "--strength",
        type=FiniteFloat(at_least_0=True),
        help="Strength of the directions, as a share of the residual norm; skips calibration. "
        "[default: chosen on held-out texts]",
    ),
    click.option(
        "--memory",
        type=click.Choice(["shared", "causal", "all", "none"]),
        default="causal",
        show_default=True,
        help="Tokens in the memory: those of words in two or more texts (shared), all weighted by "
        "causal effect (causal), all weighted equally (all), or none. See docs/profile.md.",
    ),
    click.option(
        "--prefix",
        type=PrefixLength(),
        is_flag=False,
        flag_value=MOST_PREFIX,
        default=0,
        metavar="[TOKENS]",
        help="Also save a prefix: some of your texts, evaluated in advance, at the start of every "
        f"prompt. It has at most TOKENS tokens ({MOST_PREFIX} if no number is given). If you write "
        "in two ways, there may be two sets of texts, and the request chooses. The file next to "
        "the profile stores these texts in plain form. [default: none]",
    ),
    click.option(
        "--max-size",
        type=click.IntRange(min=1),
        metavar="MB",
        default=256,
        show_default=True,
        help="Maximum size of the prefix.",
    ),
    click.option(
        "--minutes",
        type=FiniteFloat(at_least_0=True),
        help="Stop reading further texts after this time. The sample is always read. "
        "[default: no limit]",
    ),
)
"""--max-items, --layers, --strength, --memory, --prefix, --max-size, --minutes."""


def refuse_with_add(context: click.Context) -> None:
    """Refuse options that have no effect on texts that are added.

    Raises:
        UsageError: names the first one that is given.
    """
    for name in ("max_items", "layers", "strength", "memory", "prefix", "max_size"):
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(
                f"--{name.replace('_', '-')} cannot be combined with --add: new texts are read "
                "with the settings of the profile."
            )


def announce_prefix(engine: Engine, n_tokens: int, most_megabytes: int) -> int:
    """Say how large the prefix will be, before any work; refuse one that is too long or large.

    Returns:
        How many beginnings of prompts it may have, 1 or 2.

    Raises:
        UsageError: says what fits.
    """
    from steerx_edge.learning.prefix import longest_prefix, prefix_bytes

    longest = longest_prefix(engine)
    if n_tokens > longest:
        raise click.UsageError(f"--prefix is {n_tokens}. Give {LEAST_PREFIX} to {longest}, or 0.")
    megabytes = math.ceil(prefix_bytes(engine, n_tokens) / 1e6)
    if megabytes > most_megabytes:
        raise click.UsageError(
            f"--prefix {n_tokens} would take {megabytes} MB with this model, and --max-size is "
            f"{most_megabytes}. Give fewer tokens, or raise --max-size."
        )
    most = 2 if 2 * megabytes <= most_megabytes else 1
    twice = ", or twice that if your requests are of two kinds," if most == 2 else ""
    say(
        f"The prefix will take up to {megabytes} MB{twice} and hold some of your texts in "
        "plain form."
    )
    return most
