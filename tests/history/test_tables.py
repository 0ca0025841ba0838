"""Tables with named columns."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from steerx_edge.errors import HistoryError
from steerx_edge.history.reading import read_history, survey

REVIEWS = """\
Date,Title,Author,Review
2024-01-02,Pot,Kim,"A fine pot, though it ""drips"" a little
on the table."
2024-01-01,Cup,Ana,"Somebody else's opinion, not ours."
2024-01-03,Mug,kim,Heavy and blue.
2024-01-04,Jug,Kim,
a broken row
2024-01-05T10:00:00Z,Bowl,Kim,A bowl is a bowl.
"""


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def test_what_is_kept_and_what_is_not(tmp_path: Path) -> None:
    found = survey(write(tmp_path / "reviews.csv", REVIEWS), me="Kim")
    assert found.format == "a table (CSV)"
    assert found.why == (
        "its first line names the columns Date, Title, Author, Review; 'Review' holds the texts"
    )
    assert [(item.request, item.response) for item in found.items] == [
        ("Write about Pot", 'A fine pot, though it "drips" a little\non the table.'),
        ("Write about Mug", "Heavy and blue."),
        ("Write about Bowl", "A bowl is a bowl."),
    ]
    assert found.texts[2].written == datetime(2024, 1, 5, 10, tzinfo=timezone.utc)
    assert found.texts[1].where.endswith("reviews.csv: line 5")
    assert found.dropped == {
        "by somebody else": 1,
        "empty": 1,
        "row with too few or too many columns": 1,
    }


ROWS = [("message", "prompt"), ("It is warm here.", "Ask."), ("It is cold there.", "Ask again.")]


@pytest.mark.parametrize(
    ("name", "delimiter", "encoding", "before"),
    [
        ("a.csv", ",", "utf-8-sig", ""),
        ("a.csv", ";", "cp1252", ""),
        ("a.csv", ";", "utf-8", "sep=;\n"),
        ("a.tsv", "\t", "utf-16", ""),
        ("a.csv", "|", "utf-8", ""),
    ],
)
def test_delimiters_and_encodings(
    tmp_path: Path, name: str, delimiter: str, encoding: str, before: str
) -> None:
    rows = [*ROWS, ("Schöne Grüße für Sie!", "Grüßen.")]
    lines = "\r\n".join(delimiter.join(row) for row in rows)
    items = read_history(write(tmp_path / name, before + lines, encoding))
    assert [(item.response, item.request) for item in items] == rows[1:]


def test_an_older_encoding_is_detected(tmp_path: Path) -> None:
    text = "Сегодня холодно, и мы пьём чай дома, а потом пойдём гулять в парк."
    (item,) = read_history(write(tmp_path / "a.csv", f"id;text\n1;{text}\n", "cp1251"))
    assert item.response == text


def test_a_table_without_a_name_of_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "id\ttext\n" + "".join(f"{i}\tTea {i}x y z\n" for i in "abc"))
    assert [item.response for item in read_history(path)] == [
        "Tea ax y z",
        "Tea bx y z",
        "Tea cx y z",
    ]


def test_a_long_cell_that_is_cut_off_where_the_file_is_looked_at(tmp_path: Path) -> None:
    lines = [
        "id,text,kind",
        "1,It is warm here.,a",
        f'2,"{"So I said no. " * 6000}\n",b',
        "3,No cake.,c",
    ]
    found = survey(write(tmp_path / "a.csv", "\n".join(lines)))
    assert found.texts[0].item.response == "It is warm here."
    assert found.texts[-1].item.response == "No cake."
    assert len(found.texts) > 2


def test_one_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text\nIt is warm here.\nAnd cold there.\n")
    assert [item.response for item in read_history(path)] == ["It is warm here.", "And cold there."]


@pytest.mark.parametrize(
    ("options", "items"),
    [
        ({"response": "Title", "prompt": "Name it, {Author}."}, [("Name it, Kim.", "Big pot")]),
        ({"response": "Title"}, [("", "Big pot"), ("", "Big cup")]),
        ({"response": "Title", "me": "Ana"}, [("", "Big cup")]),
    ],
)
def test_columns_that_are_given(
    tmp_path: Path, options: dict[str, Any], items: list[tuple[str, str]]
) -> None:
    path = write(tmp_path / "a.csv", "Title,Author,Text\nBig pot,Kim,x\nBig cup,Ana,y\n")
    found = [(item.request, item.response) for item in read_history(path, **options)]
    assert found[: len(items)] == items


@pytest.mark.parametrize(
    ("text", "options", "error"),
    [
        ("a,b\n1,2\n", {}, "does not say which column is the text. Name the one .*: a, b."),
        ("a,b\n1,2\n", {"response": "c"}, "has no column 'c'. Name the one .*: a, b."),
        ("text,from\nHi,Ana\nHo,Kim\n", {}, "'from' names 2 people, such as 'Ana' .1., 'Kim' .1."),
        ("text,from\nHi,Ana\nHo,Kim\n", {"me": "Lee"}, "Say which of them you are"),
        ("text\nHi\n", {"user": "u"}, "is a table, which has no users"),
        ("Hello, you.\n", {}, "does not begin with the names of its columns"),
        ("text,b\nHi,1\n", {"prompt": "{c}"}, "line 2 has no field 'c'"),
    ],
)
def test_errors_name_the_columns(
    tmp_path: Path, text: str, options: dict[str, Any], error: str
) -> None:
    with pytest.raises(HistoryError, match=error):
        read_history(write(tmp_path / "a.csv", text), **options)
