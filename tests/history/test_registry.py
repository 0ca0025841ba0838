"""Readers: which one is taken, what becomes of what it finds, and how others add theirs."""

from __future__ import annotations

import zipfile
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import pytest

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem
from steerx_edge.history.opening import open_history
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Dropped, Found, Text
from steerx_edge.history.reading import read_history, survey


class Diary:
    """Reads lines `year text` of a made-up program, and drops those that begin with `#`."""

    NAME = "a diary"

    @staticmethod
    def recognize(source: Source) -> str:
        return "it begins with 'DIARY'" if source.beginning.startswith(b"DIARY") else ""

    @staticmethod
    def read(source: Source, options: Options) -> Found:
        for line in source.text.splitlines()[1:]:
            year, text = line.split(" ", 1)
            if options.me and options.me[0] not in text:
                yield Dropped("by somebody else", str(source), text)
            else:
                written = datetime(int(year), 1, 1, tzinfo=timezone.utc)
                yield Text(HistoryItem(text), str(source), written)


CONTENT = "DIARY\n2021 A long walk by the sea, Kim\n2020 Nothing happened at all today, Lee\n"


@pytest.fixture
def diary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    class Point:
        name, value = "diary", "diaries:Diary"

        @staticmethod
        def load() -> type[Diary]:
            return Diary

    monkeypatch.setattr("steerx_edge.history.readers.entry_points", lambda **_: [Point])
    path = tmp_path / "diary.txt"
    path.write_text(CONTENT)
    return path


def test_another_package_adds_a_reader(diary: Path) -> None:
    opened = open_history(diary)
    assert (opened.format, opened.why) == ("a diary", "it begins with 'DIARY'")
    assert [item.response for item in read_history(diary)] == [
        "Nothing happened at all today, Lee",  # the oldest first
        "A long walk by the sea, Kim",
    ]


def test_what_is_left_out_is_counted_with_samples(diary: Path) -> None:
    found = survey(diary, me="Kim")
    assert len(found.items) == 1
    assert found.dropped == {"by somebody else": 1}
    assert found.samples["by somebody else"][0].excerpt == "Nothing happened at all today, Lee"


def test_if_nothing_is_left_the_error_says_what_was_dropped(diary: Path) -> None:
    with pytest.raises(HistoryError, match=r"is a diary, but no text of yours .* 2 by somebody"):
        read_history(diary, me="Ana")


@pytest.mark.parametrize("archived", [False, True])
def test_each_file_in_a_folder_is_read_in_its_own_format(diary: Path, archived: bool) -> None:
    folder = diary.parent
    (folder / "a.jsonl").write_text('{"text": "An item of its own."}\n')
    (folder / "b.bin").write_bytes(b"\x89PNG\0")
    path = folder
    if archived:
        path = folder / "all.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("a.jsonl", "b.bin", "diary.txt"):
                archive.write(folder / name, f"export/{name}")
            archive.writestr("__MACOSX/export/._a.jsonl", b"\0")
    found = survey(path)
    assert len(found.items) == 3
    assert found.dropped == {"file that could not be read": 1}


def test_a_reader_that_cannot_be_loaded_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = metadata.EntryPoint("diary", "no_such_module", "steerx_edge.readers")
    monkeypatch.setattr("steerx_edge.history.readers.entry_points", lambda **_: [point])
    with pytest.raises(HistoryError, match="The reader 'diary' of no_such_module cannot be loaded"):
        read_history(tmp_path / "a.txt")
