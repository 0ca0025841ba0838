"""`steerx-edge generate`: answer one prompt with a profile."""

from __future__ import annotations

import random
import shlex
from functools import partial
from typing import TYPE_CHECKING

import click

from steerx_edge.apps.cli.common import (
    check_room,
    load_prefix,
    load_profile,
    open_engine,
    read_text,
    say,
    steer_prompt,
    write_text,
)
from steerx_edge.apps.cli.options import PastTexts, writing_options
from steerx_edge.report.visible import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from steerx_edge.history.item import HistoryItem
    from steerx_edge.llamacpp.engine import Engine


@click.command()
@click.option(
    "-p", "--prompt", required=True, metavar="TEXT", help="The prompt; - reads standard input."
)
@writing_options
@click.option("--raw", is_flag=True, help="Continue the prompt without a chat template.")
@click.option("--no-steer", is_flag=True, help="Generate without steering.")
@click.option(
    "--compare",
    is_flag=True,
    help="Print the answers without and with the profile. With --history or --describe, also print "
    "the answer to that prompt without steering.",
)
@click.option(
    "--keep-drafts",
    is_flag=True,
    help="Save the prompt and the answer next to the profile, in me.drafts.jsonl for me.json. Add "
    "your final text with steerx-edge feedback.",
)
def generate(
    profile_path: str,
    prompt: str,
    strength: float,
    past: PastTexts | None,
    prefix: bool | None,
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
    keep_drafts: bool,
) -> None:
    """Generate with your profile. The text goes to standard output as it is generated."""
    _check(raw, no_steer, compare, keep_drafts, bool(system or past or describe or prefix))

    profile = load_profile(profile_path, or_vector=True)
    text = read_text(prompt)
    if not text.strip():
        raise click.UsageError("The prompt is empty.")
    engine = open_engine(model, threads, n_gpu_layers, ctx_size=ctx_size)
    ctx_size = engine.llama.n_ctx()
    # With --no-steer too: a profile for another model is a mistake there as well.
    entry = profile.entry_for(engine.model_id)

    from steerx_edge.llamacpp.prompts import messages_for

    wanted = False if raw or (no_steer and not prefix) else prefix
    live = load_prefix(engine, profile, profile_path, wanted, system)
    beginning = live.items_for(text) if live else ()

    def prompt_tokens(history: Sequence[HistoryItem] = (), description: str = "") -> list[int]:
        if raw:
            return engine.raw_prompt(text)
        return engine.prompt(
            messages_for(text, history=history, description=description, system=system)
        )

    description = entry.description.text if describe else ""
    added = [f"a prefix of {len(beginning)} texts"] if beginning else []
    added += ["the description"] if describe else []
    in_context: list[HistoryItem] = []
    if past:
        for_answer = min(n_predict if n_predict >= 0 else ctx_size, ctx_size // 2)
        in_context = past.in_context(
            text,
            lambda items: (
                len(prompt_tokens([*beginning, *items], description)) + for_answer < ctx_size
            ),
        )
        added.append(f"{len(in_context)} of your texts")
    texts = [*beginning, *in_context]
    tokens = prompt_tokens(texts, description)
    check_room(engine, tokens, live)
    with_added = f"with {' and '.join(added)} in the prompt" if added else ""
    # All answers are sampled with the same seed.
    seed = random.randrange(2**31) if seed is None else seed  # noqa: S311
    answer = partial(
        _answer, engine, titled=compare, max_tokens=n_predict, temperature=temp, seed=seed
    )
    if compare:
        answer(prompt_tokens(), "without the profile")
    if no_steer or (compare and added):
        draft = answer(tokens, with_added)
    if not no_steer:
        with steer_prompt(engine, profile, strength, texts, live):
            how = f"{profile_path}, strength {strength:g}"
            draft = answer(tokens, f"{with_added}, and {how}" if added else f"with {how}")
    if keep_drafts:
        _keep(profile_path, text, draft)


def _check(raw: bool, no_steer: bool, compare: bool, keep_drafts: bool, is_extended: bool) -> None:
    """Refuse options that do not go together; `is_extended`: something is added to the prompt."""
    if no_steer and compare:
        raise click.UsageError("--no-steer and --compare cannot be combined.")
    if keep_drafts and (raw or compare):
        raise click.UsageError("--keep-drafts cannot be combined with --raw or --compare.")
    if raw and is_extended:
        raise click.UsageError(
            "--raw cannot be combined with --system, --history, --prefix or --describe. Put "
            "everything in the prompt."
        )


def _keep(profile_path: str, request: str, proposed: str) -> None:
    from steerx_edge.profile import feedback

    feedback(profile_path, proposed=proposed, final=None, request=request)
    say(
        "Kept this draft. When you have edited it: steerx-edge feedback "
        f"{shlex.quote(profile_path)} --final FILE"
    )


def _answer(
    engine: Engine,
    tokens: Sequence[int],
    title: str,
    *,
    titled: bool,
    max_tokens: int,
    temperature: float,
    seed: int,
) -> str:
    """Print an answer as it is generated, under its title if it is one of several; return it."""
    if titled:
        click.secho(visible(f"--- {title}"), bold=True)
        # Rounding depends on how a prompt is split into batches. Start each answer afresh, so that
        # an answer the gate leaves alone is the same to the letter.
        engine.llama.reset()  # type: ignore[no-untyped-call]
    text = ""
    for piece in engine.stream(tokens, max_tokens=max_tokens, temperature=temperature, seed=seed):
        write_text(piece)
        text += piece
    click.echo()
    return text
