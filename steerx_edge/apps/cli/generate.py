"""`steerx-edge generate`: one prompt, one answer in the user's manner."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import click

from steerx_edge.apps.cli.common import (
    PastTexts,
    describe_option,
    history_options,
    load_profile,
    model_options,
    open_engine,
    read_text,
    sampling_options,
    strength_option,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from steerx_edge.history.item import HistoryItem


@click.command()
@click.option("--profile", "profile_path", required=True, metavar="FILE", help="Your profile.")
@click.option(
    "-p", "--prompt", required=True, metavar="TEXT", help="The prompt; - reads standard input."
)
@strength_option
@history_options
@describe_option
@sampling_options
@model_options
@click.option("--system", default="", metavar="TEXT", help="System message.")
@click.option("--raw", is_flag=True, help="Continue the prompt as it is, without a chat template.")
@click.option("--no-steer", is_flag=True, help="Generate without steering, to compare.")
@click.option(
    "--compare",
    is_flag=True,
    help="Print both, without and with the profile; with --history or --describe also what these "
    "do alone.",
)
def generate(
    profile_path: str,
    prompt: str,
    strength: float,
    past: PastTexts | None,
    describe: bool,
    n_predict: int,
    temp: float,
    seed: int | None,
    ctx_size: int,
    model: str | None,
    threads: int | None,
    n_gpu_layers: int,
    system: str,
    raw: bool,
    no_steer: bool,
    compare: bool,
) -> None:
    """Generate with your profile. The text goes to standard output as it is made."""
    if no_steer and compare:
        raise click.UsageError("--no-steer and --compare exclude each other.")
    if raw and (system or past or describe):
        raise click.UsageError(
            "--raw has no place for --system, --history and --describe; put it in the prompt."
        )

    profile = load_profile(profile_path)
    text = read_text(prompt)
    if not text.strip():
        raise click.UsageError("The prompt is empty.")
    engine = open_engine(model, threads, n_gpu_layers, ctx_size=ctx_size)
    # Also without steering: it is what the user asked about.
    entry = profile.entry_for(engine.model_id)

    from steerx_edge.llamacpp.prompts import messages_for
    from steerx_edge.steering.live import steer

    def prompt_tokens(history: Sequence[HistoryItem] = (), description: str = "") -> list[int]:
        if raw:
            return engine.raw_prompt(text)
        return engine.prompt(
            messages_for(text, history=history, description=description, system=system)
        )

    description = entry.description.text if describe else ""
    shown: list[HistoryItem] = []
    if past:
        for_answer = min(n_predict if n_predict >= 0 else ctx_size, ctx_size // 2)
        shown = past.before(
            text, lambda items: len(prompt_tokens(items, description)) + for_answer < ctx_size
        )
    tokens = prompt_tokens(shown, description)
    added = ["the description"] if describe else []
    if past:
        added.append(f"{len(shown)} of your texts")
    seed = random.randrange(2**31) if seed is None else seed  # noqa: S311 - the same for all

    def answer(tokens: Sequence[int], title: str) -> None:
        if compare:
            click.secho(f"--- {title}", bold=True)
            # A prompt that is evaluated in other parts is rounded otherwise: start afresh, so that
            # an answer that the profile leaves alone is the same to the letter.
            engine.llama.reset()  # type: ignore[no-untyped-call]
        for piece in engine.stream(tokens, max_tokens=n_predict, temperature=temp, seed=seed):
            click.echo(piece, nl=False)
        click.echo()

    if compare:
        answer(prompt_tokens(), "without the profile")
    if no_steer or (compare and added):
        answer(tokens, f"with {' and '.join(added)} in the prompt")
    if not no_steer:
        with steer(engine.llama, profile, strength, with_history=bool(shown)):
            answer(
                tokens, f"with {'that and ' if added else ''}{profile_path}, strength {strength:g}"
            )
