"""Two answers to a prompt in the terminal, and where the tokens of the steered one come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from steerx_edge.report.answer_facts import END, PARTS
from steerx_edge.report.tables import Table
from steerx_edge.report.terminal import PlainConsole, print_table
from steerx_edge.report.visible import visible

NAMES = {
    "model": "model",
    "directions": "direction",
    "logit_bias": "logit bias",
    "memory": "memory",
}

_MARKS = {"model": "", "directions": "d", "logit_bias": "b", "memory": "m"}
_STYLES = {
    "model": "",
    "directions": "black on #b7e4c7",
    "logit_bias": "black on #ffd3ad",
    "memory": "black on #b9d4ff",
}

GATED_NOTE = (
    "The request gate left this answer unsteered: the request is unlike those of your texts."
)
"""Said of an answer that the profile would have changed."""

NOTHING_NOTE = "Nothing was steered: the strength is 0, or all strengths in the profile are 0."
"""Said of an answer that the profile could not change."""


def print_answer(facts: Mapping[str, Any], console: PlainConsole) -> None:
    """Print both answers of `answer_facts`, and a table of the tokens that the profile caused."""
    console.print("--- without the profile", style="bold")
    console.print("".join(token["text"] for token in facts["unsteered"]), soft_wrap=True)
    console.print("\n--- with the profile", style="bold")
    line = Text()
    for token in facts["steered"]:
        shown = visible(token["text"])
        mark = _MARKS[token["origin"]]
        bare = shown.rstrip("\n")  # a mark stands on the line of what it marks
        line.append(bare, style=_STYLES[token["origin"]])
        line.append(f"[{mark}]" if mark else "", style="bold")
        line.append(shown[len(bare) :])
    console.print(line, soft_wrap=True)
    if not facts["is_steered"]:
        console.print(f"\n{unsteered_note(facts)}", soft_wrap=True)
        return
    console.print(
        "\n[d], [b], [m]: the direction, the logit bias or the memory added most, and together "
        "they at least doubled the token's probability.",
        soft_wrap=True,
    )
    table = token_table(facts, {"directions", "logit_bias", "memory"})
    if table.rows:
        print_table(table, console)
    for line_of_sources in source_lines(facts):
        console.print(line_of_sources, soft_wrap=True)


def unsteered_note(facts: Mapping[str, Any]) -> str:
    """Why an answer was not steered."""
    return GATED_NOTE if facts["has_steering"] else NOTHING_NOTE


def token_table(facts: Mapping[str, Any], origins: set[str]) -> Table:
    """The tokens of the steered answer with some origins, and what each part added."""
    return Table(
        "Log-probability under the model, and what each part adds, nats",
        ("token", "model", "direction", "logit bias", "memory", "sum"),
        [
            (
                f"{at + 1} {_quoted(token['text'])}",
                f"{token['model']:.2f}",
                *(f"{token[part]:+.2f}" for part in PARTS),
                f"{token['log_prob']:.2f}",
            )
            for at, token in enumerate(facts["steered"])
            if token["origin"] in origins
        ],
    )


def source_lines(facts: Mapping[str, Any]) -> list[str]:
    """Where the tokens that came from the memory stand in the user's texts, a line each."""
    lines = []
    for at, token in enumerate(facts["steered"]):
        if token["origin"] != "memory" or not token["sources"]:
            continue
        lines.append(f"{at + 1} {_quoted(token['text'])} from: {_sources(token['sources'])}")
    if lines and not facts["has_sources"]:
        return ["Give your texts with --history to see which of them the memory took these from."]
    return lines


def _sources(sources: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(
        f"{each['share']:.0%} "
        + (
            ", ".join(
                f"text {text['number']}: "
                f"{_line(text['before'])}»{_line(text['token'])}«{_line(text['after'])}"
                for text in each["texts"]
            )
            or "a text that is not in the history"
        )
        for each in sources
    )


def _quoted(text: str) -> str:
    return text if text == END else repr(text)


def _line(text: str) -> str:
    """On one line."""
    return text.replace("\n", "⏎")
