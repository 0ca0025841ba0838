"""`steerx-edge read`, and `learn --dry-run`."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from steerx_edge.apps.cli import main
from steerx_edge.history.readers import tables
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Found
from steerx_edge.history.reading import read_history

TABLE = """\
date,title,text
2024-01-03,The pot,"The pot drips a little,
and I do not mind it at all."
2024-01-01,The cup,"The cup is blue, cafÃ© blue, as the sea in the evening."
2024-01-02,The mug,Ok.
2024-01-04,Die Kanne,"Die Kanne ist leider schon wieder kaputt, und niemand hat sie repariert."
2024-01-05,The jug,"The jug was a present from my aunt, who likes jugs more than I do."
2024-01-06,The bowl,"I never liked the bowl, but it “came” with the house.\u2028So it stays."
2024-01-07,The spoon,"There are five spoons for six people, which is how we meet the neighbours."
"""


def run(*arguments: str | Path, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "texts.csv"
    path.write_text(TABLE, "utf-8")
    return path


@pytest.mark.usefixtures("history")
def test_what_is_printed() -> None:
    shown = run("read", "texts.csv").stdout
    assert shown.startswith(
        "texts.csv is a table (CSV), because its first line names the columns date, title, text; "
        "'text' holds the texts.\n\nKept 5 texts, written 2024-01-01 to 2024-01-07.\n"
    )
    assert "    request: Write about The cup\n    text:    The cup is blue, café blue" in shown
    assert "\nLeft out 2:\n       1  a word or less\n          texts.csv: line 5: Ok.\n" in shown
    assert "1  in another language\n          texts.csv: line 6: Die Kanne ist" in shown


@pytest.mark.parametrize("read", ["texts.csv", "."])
def test_a_file_that_is_read_is_not_overwritten(history: Path, read: str) -> None:
    sentence = "Error: 'texts.csv' is read, and would be overwritten. Choose another name.\n"
    assert run("read", read, "-o", "texts.csv", code=2).stderr.endswith(sentence)
    assert history.read_text("utf-8") == TABLE


@pytest.mark.usefixtures("history")
def test_learn_prints_the_same_without_learning() -> None:
    assert run("learn", "texts.csv", "--dry-run").stdout == run("read", "texts.csv").stdout
    as_json = run("learn", "texts.csv", "--dry-run", "--json").stdout
    assert as_json == run("read", "texts.csv", "--json").stdout
    assert "Missing option '-o' / '--output'" in run("learn", "texts.csv", code=2).stderr


@pytest.mark.usefixtures("history")
def test_json() -> None:
    shown = json.loads(run("read", "texts.csv", "--json").stdout)
    assert shown["dropped"] == {"a word or less": 1, "in another language": 1}
    assert (shown["kept"], shown["format"], shown["first"]) == (
        *(5, "a table (CSV)"),
        "2024-01-01T00:00:00+00:00",
    )
    assert shown["samples"]["dropped"]["a word or less"] == [
        {"where": "texts.csv: line 5", "excerpt": "Ok."}
    ]


def test_the_written_file_reads_back_to_the_same_items(history: Path) -> None:
    assert "Saved out.jsonl." in run("read", "texts.csv", "-o", "out.jsonl").stderr
    written = history.with_name("out.jsonl")
    items = read_history(history)
    assert read_history(written) == items
    assert [item.request for item in items][:2] == ["Write about The cup", "Write about The pot"]
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert json.loads(written.read_text().split("\n")[0])["written"] == "2024-01-01T00:00:00+00:00"
    assert sorted(path.name for path in history.parent.iterdir()) == ["out.jsonl", "texts.csv"]


def test_an_interrupt_leaves_the_old_file(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = tables.read

    def interrupted(source: Source, options: Options) -> Found:
        yield next(read(source, options))
        raise KeyboardInterrupt

    monkeypatch.setattr(tables, "read", interrupted)
    history.with_name("out.jsonl").write_text("old")
    result = run("read", "texts.csv", "-o", "out.jsonl", code=130)
    assert result.stderr == "Interrupted: out.jsonl was not written.\n"
    assert history.with_name("out.jsonl").read_text() == "old"
    assert sorted(path.name for path in history.parent.iterdir()) == ["out.jsonl", "texts.csv"]


def test_if_nothing_is_kept_it_is_shown_why_and_nothing_is_written(history: Path) -> None:
    history.write_text("text\nOk.\nYes.\n")
    result = run("read", "texts.csv", "-o", "out.jsonl", code=1)
    assert "2  a word or less\n" in result.stdout
    assert "no text of yours was found in it (left out: 2 a word or less)" in result.stderr
    assert not history.with_name("out.jsonl").exists()


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    ("output", "error"),
    [
        ("no/out.jsonl", "no/out.jsonl: cannot be written: there is no folder"),
        (".", ".: cannot be"),
    ],
)
def test_a_file_that_cannot_be_written(output: str, error: str) -> None:
    result = run("read", "texts.csv", "-o", output, code=1)
    assert error in result.stderr
    assert not result.stdout


@pytest.mark.usefixtures("history")
def test_no_text_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    run("read", "texts.csv", "-o", "out.jsonl")
    assert not caplog.messages


@pytest.mark.usefixtures("history")
def test_learn_says_in_a_line_what_it_read() -> None:
    said = run("learn", "texts.csv", "-o", "me.json", "-m", "none.gguf", code=1).stderr
    assert said.startswith(
        "Read a table (CSV): kept 5 texts, written 2024-01-01 to 2024-01-07; left out: 1 a word or "
        "less, 1 in another language.\n"
    )


@pytest.mark.parametrize("option", ["--user", "--response", "--prompt"])
def test_options_that_do_not_apply_are_refused(tmp_path: Path, option: str) -> None:
    path = tmp_path / "sent"
    path.write_text(
        "From mo Mon Jan  5 10:00:00 2026\nFrom: mo@example.org\nSubject: Tea\n\n"
        "Tea is ready, do come.\n"
    )
    run("read", path)
    error = run("read", path, option, "x", code=1).stderr
    assert error == (
        f"Error: {path} is a mailbox (mbox) and has no fields or users. Leave out {option[2:]} "
        f"({option}).\n"
    )
