"""The neutral texts that come with the package."""

from __future__ import annotations

import json
from pathlib import Path

from steerx_edge.evaluation.text_metrics import copied
from steerx_edge.learning import neutral
from steerx_edge.learning.neutral import neutral_items

FILE = Path(neutral.__file__).with_name("neutral_evaluation.jsonl")


def test_passages_are_short_and_differ_in_kind_and_request() -> None:
    lines = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()]
    items = neutral_items("evaluation")
    assert [(item.request, item.response) for item in items] == [
        (line["prompt"], line["response"]) for line in lines
    ]
    assert len({line["kind"] for line in lines}) == len({item.request for item in items}) == 16
    assert all(40 <= len(item.response.split()) <= 70 for item in items)


def test_no_passage_shares_six_words_in_a_row_with_those_of_calibration() -> None:
    calibrated_with = [item.response for item in neutral_items("calibration")]
    assert len(calibrated_with) == 16
    for item in neutral_items("evaluation"):
        assert copied([item.response], calibrated_with) == {"leaked": 0, "habit": 0}
