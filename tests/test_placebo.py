"""The placebo authors that come with the package."""

from __future__ import annotations

import json
from pathlib import Path

from steerx_edge import placebo
from steerx_edge.placebo import placebo_items

FILE = Path(placebo.__file__).with_name("placebo.jsonl")
DEMO = Path(__file__).parents[1] / "docs" / "demo"


def test_every_passage_is_of_another_source_in_the_public_domain_and_answers_a_request() -> None:
    lines = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()]
    assert len({line["source"] for line in lines}) == len(lines) == 12
    assert all(int(line["source"][-4:]) < 1929 for line in lines)
    items = placebo_items()
    assert [item.response for item in items] == [line["response"] for line in lines]
    assert all(item.request.startswith("Write a paragraph about ") for item in items)
    assert all(50 < len(item.response.split()) < 100 for item in items)


def test_none_is_by_the_author_of_the_demo() -> None:
    demo = " ".join(path.read_text("utf-8") for path in DEMO.glob("*.jsonl"))
    assert demo
    for item in placebo_items():
        assert not any(sentence in demo for sentence in item.response.split(". "))
