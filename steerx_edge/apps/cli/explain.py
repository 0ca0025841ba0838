"""`steerx-edge explain`: the effects of a history's words, and where an answer comes from."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import click

from steerx_edge.apps.cli.common import (
    check_room,
    error_console,
    keep_what_is_read,
    load_prefix,
    load_profile,
    open_engine,
    progress_bar,
    put_facts,
    read_text,
)
from steerx_edge.apps.cli.completion import complete_files
from steerx_edge.apps.cli.options import (
    item_options,
    me_option,
    model_options,
    profile_option,
    sampling_options,
    user_option,
)
from steerx_edge.apps.cli.value_types import FiniteFloat

if TYPE_CHECKING:
    from steerx_edge.history.item import HistoryItem

_TEXTS = 50
_TOKENS = 256


@click.command()
@click.argument("history", metavar="[HISTORY]", required=False, shell_complete=complete_files)
@profile_option
@click.option(
    "-p",
    "--prompt",
    metavar="TEXT",
    help="Explain an answer to this prompt; - reads standard input.",
)
@click.option(
    "-n",
    "--n-predict",
    type=click.IntRange(min=-2),
    metavar="N",
    help=f"With HISTORY: explain the last N texts. [default: {_TEXTS}] With -p: the maximum number "
    f"of tokens to generate; -1 and -2 fill the context. [default: {_TOKENS}]",
)
@click.option("--html", "html_path", metavar="FILE", help="Write one self-contained page.")
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
@click.option(
    "--history",
    "texts_path",
    metavar="FILE",
    help="With -p: your texts, as for learn, to see which of them the memory took tokens from. "
    "They are not put in the prompt.",
)
@me_option
@user_option
@item_options("--request")
@click.option(
    "--strength",
    type=FiniteFloat(),
    default=1.0,
    show_default=True,
    help="With -p: scale steering; 1 is as learned.",
)
@click.option(
    "--prefix/--no-prefix",
    default=None,
    help="With -p: begin the prompt with the texts that learn --prefix saved. [default: if there "
    "are any]",
)
@sampling_options(temperature=0.0)
@click.option("--system", default="", metavar="TEXT", help="With -p: system message.")
@model_options
def explain(
    history: str | None,
    profile_path: str,
    prompt: str | None,
    n_predict: int | None,
    html_path: str | None,
    as_json: bool,
    texts_path: str | None,
    me: tuple[str, ...],
    user: str | None,
    response: str | None,
    request: str | None,
    strength: float,
    prefix: bool | None,
    temp: float,
    seed: int | None,
    ctx_size: int,
    system: str,
    model: str | None,
    threads: int | None,
    n_gpu_layers: int,
) -> None:
    """Explain what was learned from your texts, or with -p an answer.

    With HISTORY, show the effect of every word of the last texts (how much more probable your
    other texts make it) and whether the memory holds it. With -p, answer the prompt without and
    with the profile, and trace every token of the steered answer to the model, the direction, the
    logit bias or the memory.
    """
    if (history is None) == (prompt is None):
        raise click.UsageError("Give either HISTORY or -p PROMPT.")
    if history is not None and texts_path is not None:
        raise click.UsageError("--history needs -p.")
    if history is not None and n_predict is not None and n_predict < 1:
        raise click.UsageError(f"-n is {n_predict}. Give 1 text or more.")
    keep_what_is_read(html_path, history, texts_path, profile_path)
    if html_path is not None:
        from steerx_edge.profile import check_writable

        check_writable(html_path)
    profile = load_profile(profile_path)
    items = _read(history or texts_path, me, user, response, request)
    text = read_text(prompt) if prompt is not None else ""
    if prompt is not None and not text.strip():
        raise click.UsageError("The prompt is empty.")
    engine = open_engine(model, threads, n_gpu_layers, ctx_size=ctx_size)
    entry = profile.entry_for(engine.model_id)
    if prompt is None:
        from steerx_edge.explaining.texts import explain_texts
        from steerx_edge.report.texts_facts import texts_facts
        from steerx_edge.report.texts_page import texts_page
        from steerx_edge.report.texts_terminal import print_texts

        with progress_bar(error_console(), "texts") as progress:
            texts = explain_texts(engine, entry, items or (), n_predict or _TEXTS, progress)
        put_facts(
            texts_facts(profile_path, entry, texts), html_path, as_json, texts_page, print_texts
        )
        return

    from steerx_edge.explaining.answers import answers_to
    from steerx_edge.explaining.sources import sources_of
    from steerx_edge.llamacpp.prompts import messages_for
    from steerx_edge.report.answer_facts import answer_facts
    from steerx_edge.report.answer_page import answer_page
    from steerx_edge.report.answer_terminal import print_answer

    live = load_prefix(engine, profile, profile_path, prefix, system)
    beginning = live.items_for(text) if live else ()
    tokens = engine.prompt(messages_for(text, history=beginning, system=system))
    check_room(engine, tokens, live)
    answers = answers_to(
        engine,
        profile,
        tokens,
        strength=strength,
        prefix=live,
        max_tokens=_TOKENS if n_predict is None else n_predict,
        temperature=temp,
        seed=random.randrange(2**31) if seed is None else seed,  # noqa: S311
    )
    if items is None:
        found = sources_of(engine, answers, None)
    else:
        with progress_bar(error_console(), "your texts") as progress:
            found = sources_of(engine, answers, items, progress)
    about = f"{profile_path}, strength {strength:g}. Model: {entry.model}."
    facts = answer_facts(text, about, answers, found)
    put_facts(facts, html_path, as_json, answer_page, print_answer)


def _read(
    path: str | None,
    me: tuple[str, ...],
    user: str | None,
    response: str | None,
    request: str | None,
) -> list[HistoryItem] | None:
    if path is None:
        if me or any(option is not None for option in (user, response, request)):
            raise click.UsageError("--me, --user, --response and --request need your texts.")
        return None
    from steerx_edge.history.reading import read_history

    return list(read_history(path, me=me, user=user, response=response, prompt=request))
