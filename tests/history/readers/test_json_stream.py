"""JSON that is read value by value."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers import json_stream
from steerx_edge.history.readers.json_stream import json_values
from steerx_edge.history.readers.source import Source
from tests.support.exports import write

VALUE = {
    "a": {"b": [1, 234, {"c": "“é”, ]}"}, []], "d": {}},
    "e": [[5], "six", None],
    "f": -1.5e3,
}
VALUES = {
    ("a", "b", 0): 1,
    ("a", "b", 1): 234,
    ("a", "b", 2): {"c": "“é”, ]}"},
    ("a", "b", 3): [],
    ("a", "d"): {},
    ("e",): [[5], "six", None],
    ("f",): -1500.0,
}
OPENED = {(), ("a",), ("a", "b")}


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_each_value_has_its_place(
    tmp_path: Path, chunk: int, indent: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    path = write(tmp_path / "a", json.dumps(VALUE, indent=indent))
    assert list(json_values(Source(path), OPENED.__contains__)) == list(VALUES.items())


def test_what_is_opened_may_be_empty_or_no_container(tmp_path: Path) -> None:
    path = write(tmp_path / "a", '{"a": {}, "b": [], "c": 5}')
    assert list(json_values(Source(path), lambda _: True)) == [(("c",), 5)]
    assert list(json_values(Source(write(path, " 12 ")), lambda _: True)) == [((), 12)]


@pytest.mark.parametrize(
    "text", ["", "[1, 2", "[1, 2}", "[1, 2 3]", '[1, 2, {"a"}]', "[1, 2, " + "[" * 100_000]
)
def test_values_before_a_damage_are_read(tmp_path: Path, text: str) -> None:
    found = json_values(Source(write(tmp_path / "a", text)), lambda place: not place)
    n_read = 2 if text else 0
    assert [value for _, value in islice(found, n_read)] == [1, 2][:n_read]
    with pytest.raises(HistoryError, match=f"is damaged after {n_read} records"):
        next(found)
