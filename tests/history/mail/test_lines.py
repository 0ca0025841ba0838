"""Lines: their depth of quotation, and those that a program broke."""

from __future__ import annotations

import pytest

from steerx_edge.history.mail.lines import Line, fixed_lines, flowed_lines, unwrapped


def test_depth_of_fixed_lines() -> None:
    assert fixed_lines("own\n> one\n>two\n> > deep\n>>> deeper\n>\n > own") == [
        Line("own"),
        Line("one", 1),
        Line("two", 1),
        Line("deep", 2),
        Line("deeper", 3),
        Line("", 1),
        Line(" > own"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one \ntwo\nthree", [Line("one two"), Line("three")]),
        # A quote of another depth, and a signature, begin a line of their own.
        (">one \ntwo", [Line("one", 1), Line("two")]),
        ("> one \n> two\n>> three", [Line("one two", 1), Line("three", 2)]),
        ("one \n-- \ntwo", [Line("one"), Line("--"), Line("two")]),
        # One space at the beginning is stuffing.
        (" From here\n > there\n  in", [Line("From here"), Line("> there"), Line(" in")]),
        # Some programs quote with spaces.
        ("> > one", [Line("one", 2)]),
    ],
)
def test_flowed_lines(text: str, expected: list[Line]) -> None:
    assert flowed_lines(text, delete_space=False) == expected


def test_delsp_joins_without_a_space() -> None:
    assert flowed_lines("お茶を \n飲む", delete_space=True) == [Line("お茶を飲む")]
    assert flowed_lines("お茶を \n飲む", delete_space=False) == [Line("お茶を 飲む")]


LONG = "The tea that you sent arrived on Monday, and there was so much of it"  # 68 characters


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([LONG, "that we gave it away."], [f"{LONG} that we gave it away."]),
        # There was place for the word.
        ([LONG, "as we see, for all of us."], [LONG, "as we see, for all of us."]),
        ([LONG, "- that is all of it."], [LONG, "- that is all of it."]),
        ([LONG, "", "that we gave it away."], [LONG, "", "that we gave it away."]),
        ([f"{LONG}.", "Yours, Mo"], [f"{LONG}.", "Yours, Mo"]),
        # Where a line is longer than any width of a program, line ends are the person's.
        ([LONG, "that was it.", LONG * 2], [LONG, "that was it.", LONG * 2]),
    ],
)
def test_unwrapped(lines: list[str], expected: list[str]) -> None:
    assert unwrapped(lines) == expected
