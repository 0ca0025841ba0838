"""Texts divided at their words."""

from __future__ import annotations

import pytest

from steerx_edge.explaining.words import Segment, segments


def test_tokens_of_a_word_belong_together() -> None:
    assert segments([b"so", b" hon", b"estly", b",", b"\n\n", b"Mo"]) == [
        Segment("so", "so", 0, 1),
        Segment(" honestly", "honestly", 1, 3),
        Segment(",", ",", 3, 4),
        Segment("\n\n", "", 4, 5),
        Segment("Mo", "Mo", 5, 6),
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("text", ["naïve 🙂 puns", "今日は良い天気。", "", " \n ", "a👩‍👩‍👧b"])
def test_nothing_is_lost_or_doubled(text: str, size: int) -> None:
    data = text.encode()
    pieces = [data[begin : begin + size] for begin in range(0, len(data), size)]
    found = segments(pieces)
    assert "".join(each.text for each in found) == text
    assert [at for each in found for at in range(each.begin, each.end)] == [*range(len(pieces))]


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    assert [each.text for each in segments([b"so\xff", b" it"])] == ["so\ufffd", " it"]
