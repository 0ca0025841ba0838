"""The effects of words in the terminal and in JSON."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest

from steerx_edge.explaining.held import Held
from steerx_edge.report.terminal import PlainConsole
from steerx_edge.report.texts_facts import texts_facts
from steerx_edge.report.texts_page import texts_page
from steerx_edge.report.texts_terminal import about_text, print_texts, step_of
from tests.support.entries import a_full_entry
from tests.support.explained import a_text

PIECES = ("Mo", " writes", ",", "\n", "honest", "ly")
NATS = (5, -1.5, 0, 2, 0.75, 0.5)


def facts_of(**fields: Any) -> dict[str, Any]:
    return texts_facts("me.json", a_full_entry(), [a_text(PIECES, NATS, 6, **fields)])


def printed(facts: dict[str, Any], **how: Any) -> str:
    console = PlainConsole(file=io.StringIO(), width=60, **how)
    print_texts(facts, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_words_have_the_sums_of_their_tokens() -> None:
    facts = facts_of()
    assert json.loads(json.dumps(facts)) == facts
    (text,) = facts["texts"]
    assert [(word["word"], word["effect"]) for word in text["words"]] == [
        ("Mo", 5.0),
        ("writes", -1.5),
        (",", 0.0),
        ("", 2.0),
        ("honestly", 1.25),
    ]
    word = text["words"][-1]
    assert (word["control"], word["treatment"]) == (-10.0, -8.75)
    assert [token["text"] for token in word["tokens"]] == ["honest", "ly"]
    assert (text["number"], text["effect"]) == (7, pytest.approx(6.75 / 6, abs=1e-4))


def test_effects_are_readable_without_colours() -> None:
    text = printed(facts_of())
    assert "\x1b" not in text
    assert "Mo[+5.0] writes[-1.5],\nhonestly[+1.2]\n" in text
    assert "Request: Write to Ana.\n" in text


def test_effects_are_coloured_where_there_are_colours() -> None:
    text = printed(facts_of(), force_terminal=True, color_system="truecolor")
    blue, orange = "\x1b[30;48;2;61;134;245mMo", "\x1b[30;48;2;255;185;125mwrites"
    assert blue in text
    assert orange in text


@pytest.mark.parametrize(
    ("effect", "step"), [(0.2, 0), (0.25, 1), (-0.6, -2), (1, 3), (2.5, 4), (99, 5), (-4, -5)]
)
def test_steps_of_shading(effect: float, step: int) -> None:
    assert step_of(effect) == step


def test_the_line_about_a_text() -> None:
    fates = ("kept", "request", "single", "absent", "kept", "kept", "kept")
    held = Held(np.arange(7), np.zeros(7, np.float32), fates)  # type: ignore[arg-type]
    (text,) = facts_of(held=held)["texts"]
    assert about_text(text) == (
        "6 tokens, effect +1.12 nats/token, gain +0.50 nats/token; 3 in the memory; 1 in the "
        "memory with weight 0: the word is in the request; 1 not in the memory: the word occurs "
        "in one text only (level shared); 1 not in the memory: its row was removed, or the text "
        "has changed."
    )
    (text,) = facts_of(held=None, gain=None)["texts"]
    assert about_text(text) == (
        "6 tokens, effect +1.12 nats/token; the profile has no memory that can be used."
    )


def test_control_characters_are_shown_not_obeyed() -> None:
    hostile = ("a\x1b[31m", " [b]b\u202e[/b]")
    facts = texts_facts("me.json", a_full_entry(), [a_text(hostile, (0, 0))])
    text = printed(facts)
    assert r"a\x1b[31m [b]b\u202e[/b]" in text
    assert "\x1b" not in text
    page = texts_page(facts)
    assert "\\\\x1b[31m" in page  # in JSON
    assert "\u202e" not in page
    assert "\\u202e" not in page.replace("\\\\u202e", "")
