"""The heat map of a history as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steerx_edge.report.page import asset, embedded, escaped, page
from steerx_edge.report.profile_view import plural
from steerx_edge.report.texts_facts import said_of
from steerx_edge.report.texts_terminal import about_text
from steerx_edge.report.visible import visible

_BODY = """
<noscript><p>This page needs JavaScript, which it holds itself; it loads nothing.</p></noscript>
<p>Each word is shaded by its effect: how much more probable your other texts make it. Blue words
are more probable with them, orange words (dotted) less. Point at a word, or press Tab and the
arrow keys.</p>
<p class="legend" aria-hidden="true"><span class="w n5">−4</span><span class="w n4">−2</span><span
class="w n3">−1</span><span class="w n2">−½</span><span class="w n1">−¼</span><span
class="w">0</span><span class="w p1">+¼</span><span class="w p2">+½</span><span
class="w p3">+1</span><span class="w p4">+2</span><span class="w p5">+4</span> nats</p>
<form id="controls">
<label>Search <input id="search" type="search" autocomplete="off"></label>
<label>Show <select id="filter"><option value="all">all texts</option>
<option value="read">texts that were learned from</option>
<option value="unread">texts that were not</option>
<option value="out">texts with tokens that are not in the memory, or weigh 0</option>
<option value="worse">texts with a gain below 0</option></select></label>
<label>Sort <select id="sort"><option value="latest">latest first</option>
<option value="earliest">earliest first</option>
<option value="effect">by effect, highest first</option>
<option value="gain">by gain, highest first</option></select></label>
<output id="shown" for="search filter sort"></output>
</form>
<div id="map"><main id="texts"></main>
<aside id="details" aria-label="The word"><p>No word is chosen.</p></aside></div>
"""


def texts_page(facts: Mapping[str, Any]) -> str:
    """Show the texts of `texts_facts`: shaded words, and details of the one pointed at."""
    title = f"Your texts and {facts['profile']}"
    n = plural(len(facts["texts"]), "text")
    about = f"{n}; model: {facts['model']}. This page holds your texts: keep it private."
    return page(
        title,
        f"<h1>{escaped(title)}</h1><p>{escaped(about)}</p>{_BODY}{embedded(_compact(facts))}",
        style=asset("words.css"),
        script=asset("words.js") + asset("texts.js"),
    )


def _compact(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The same, small: texts are 500, their tokens 50,000."""
    said: dict[str, int] = {}  # sentences, by their numbers
    texts = [
        {
            "number": text["number"],
            "about": about_text(text),
            "request": visible(text["request"]),
            "effect": text["effect"],
            "gain": text["gain"],
            "read": text["was_read"],
            "out": bool(text["memory"])
            and any(n for fate, n in text["memory"].items() if fate != "kept"),
            "words": [
                [
                    visible(word["text"]),
                    visible(word["word"]),
                    [
                        [
                            visible(token["text"]),
                            token["control"],
                            token["effect"],
                            said.setdefault(said_of(text, token["fate"]), len(said)),
                            token["weight"],
                        ]
                        for token in word["tokens"]
                    ],
                ]
                for word in text["words"]
            ],
        }
        for text in facts["texts"]
    ]
    words = {
        visible(word): [each["effect"], each["low"], each["high"], each["count"], each["items"]]
        for word, each in facts["profile_words"].items()
    }
    return {"texts": texts, "words": words, "said": list(said), "level": facts["level"]}
