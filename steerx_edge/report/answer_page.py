"""Two answers to a prompt as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steerx_edge.report.answer_facts import END, PARTS
from steerx_edge.report.answer_terminal import NAMES, token_table, unsteered_note
from steerx_edge.report.page import asset, embedded, escaped, html_table, page
from steerx_edge.report.visible import visible

_LEGEND = (
    '<p class="legend" aria-hidden="true"><span class="w">model</span> '
    '<span class="w directions">direction</span> <span class="w logit_bias">logit bias</span> '
    '<span class="w memory">memory</span></p>'
)
_NOTE = (
    "A token is marked by the part of the profile that added most to its log-probability, if all "
    "parts together at least doubled its probability; the others come from the model. Point at a "
    "token, or press Tab and the arrow keys."
)


def answer_page(facts: Mapping[str, Any]) -> str:
    """Show the answers of `answer_facts` side by side, and details of the token pointed at."""
    note = _NOTE if facts["is_steered"] else unsteered_note(facts)
    unsteered = "".join(token["text"] for token in facts["unsteered"])
    body = (
        f"<h1>Where the answer comes from</h1><p>{escaped(facts['about'])}</p>"
        f'<h2>Prompt</h2><p class="text">{escaped(facts["prompt"])}</p>'
        f'<p>{escaped(note)}</p>{_LEGEND}<div id="map"><main class="answers">'
        f'<section><h2>Without the profile</h2><p class="text">{escaped(unsteered)}</p></section>'
        f'<section><h2>With the profile</h2><p class="words" role="group" '
        f'aria-label="Tokens of the answer">{_tokens(facts)}</p></section></main>'
        '<aside id="details" aria-label="The token"><p>No token is chosen.</p></aside></div>'
        f"<details><summary>All tokens as a table</summary>"
        f"{html_table(token_table(facts, {'model', *PARTS}))}</details>{embedded(_compact(facts))}"
    )
    return page(
        "Where the answer comes from",
        body,
        style=asset("words.css") + asset("answer.css"),
        script=asset("words.js") + asset("answer.js"),
    )


def _tokens(facts: Mapping[str, Any]) -> str:
    parts = []
    for at, token in enumerate(facts["steered"]):
        text = visible(token["text"])
        bare = text.lstrip() or text
        index = "-1" if at else "0"
        parts.append(
            f'{escaped(text[: len(text) - len(bare)])}<span class="w {token["origin"]}" '
            f'tabindex="{index}">{escaped(bare.replace(chr(10), "⏎" + chr(10)))}</span>'
        )
    return "".join(parts)


def _compact(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the details show; nats are rounded."""
    return {
        "names": NAMES,
        "hasSources": facts["has_sources"],
        "tokens": [
            {
                "text": END if token["text"] == END else visible(token["text"]),
                "origin": token["origin"],
                "steps": [
                    ["model", round(token["model"], 4)],
                    *([part, round(token[part], 4)] for part in PARTS),
                ],
                "sum": round(token["log_prob"], 4),
                "sources": [
                    {
                        "share": each["share"],
                        "texts": [
                            [
                                text["number"],
                                *(visible(text[name]) for name in ("before", "token", "after")),
                            ]
                            for text in each["texts"]
                        ],
                    }
                    for each in token["sources"]
                ],
            }
            for token in facts["steered"]
        ],
    }
