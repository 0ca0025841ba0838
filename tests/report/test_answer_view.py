"""Where the tokens of an answer come from: in the terminal, as a table, in JSON."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import pytest

from steerx_edge.report.answer_facts import origin_of
from steerx_edge.report.answer_page import answer_page
from steerx_edge.report.answer_terminal import GATED_NOTE, NOTHING_NOTE, print_answer, token_table
from steerx_edge.report.terminal import PlainConsole
from tests.support.explained import an_answer


def printed(facts: dict[str, Any]) -> str:
    console = PlainConsole(file=io.StringIO(), width=100)
    print_answer(facts, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


@pytest.mark.parametrize(
    ("added", "origin"),
    [
        ((0.2, 0.2, 0.2), "model"),
        ((0.1, 0.2, math.log(2) - 0.3 + 1e-9), "memory"),
        ((-1, 3, 2), "logit_bias"),
        ((2, 1, -2), "directions"),
        ((5, -3, -2), "model"),
    ],
)
def test_the_part_that_added_most(added: tuple[float, float, float], origin: str) -> None:
    parts = dict(zip(("directions", "logit_bias", "memory"), added, strict=True))
    assert origin_of(parts) == origin


def test_facts_can_be_written_as_json() -> None:
    facts = an_answer()
    assert json.loads(json.dumps(facts)) == facts
    token = facts["steered"][1]
    assert (
        token["model"] + sum(token[part] for part in ("directions", "logit_bias", "memory"))
        == (token["log_prob"])
    )
    assert [each["text"] for each in facts["steered"]] == [
        "so",
        " then",
        ",",
        "",
        "🙂",
        "\n",
        "‹end›",
    ]


def test_both_answers_with_marks() -> None:
    text = printed(an_answer())
    assert "--- without the profile\nDear Ana\n" in text
    assert "--- with the profile\nso then[m],[b][d]🙂\n‹end›[m]\n" in text
    row = next(line for line in text.splitlines() if "2 ' then'" in line)
    assert row.split()[-5:] == ["-9.00", "+0.50", "+1.00", "+6.00", "-1.50"]
    assert "2 ' then' from: 75% text 5: right» then«,⏎the chair; 25% a text that" in text


def test_texts_that_are_not_at_hand_are_asked_for() -> None:
    text = printed(an_answer(texts=None))
    assert "Give your texts with --history" in text
    assert "from:" not in text


@pytest.mark.parametrize(("has_steering", "note"), [(True, GATED_NOTE), (False, NOTHING_NOTE)])
def test_it_is_said_why_an_answer_was_not_steered(has_steering: bool, note: str) -> None:
    facts = {**an_answer(), "is_steered": False, "has_steering": has_steering}
    assert printed(facts).endswith(f"\n{note}\n")
    assert note in answer_page(facts)


def test_the_table_of_some_origins() -> None:
    facts = an_answer()
    assert len(token_table(facts, {"model", "directions", "logit_bias", "memory"}).rows) == 7
    assert [row[0] for row in token_table(facts, {"memory"}).rows] == ["2 ' then'", "7 ‹end›"]
