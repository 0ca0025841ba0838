"""Runs that are interrupted, resumed, refused, or spread over processes."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from models import TinyModel
from steerx_edge.apps.cli.common import open_engine
from steerx_edge.errors import HistoryError, SteerxError
from steerx_edge.evaluation import evaluate, run, text_metrics
from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.settings import Settings
from steerx_edge.llamacpp.engine import Engine
from tests.support.following_engine import PLAN, follow
from tests.support.users import WORDS, a_sample, a_user

ROWS = run.ROWS_FILE

pytestmark = pytest.mark.usefixtures("learned")


def interrupted(folder: Path, after: int, **options: Any) -> None:
    def progress(what: str, done: int, _: int) -> None:
        if (what, done) == ("measuring", after):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(folder, progress=progress, **options)


@pytest.mark.parametrize("cut", [0, 40])
def test_an_interrupted_run_goes_on_where_it_was(
    tmp_path: Path, learned: list[Sequence[HistoryItem]], cut: int
) -> None:
    whole, _ = follow(tmp_path / "whole")
    interrupted(tmp_path / "part", 3)
    rows = tmp_path / "part" / ROWS
    kept = rows.read_bytes()
    rows.write_bytes(kept[: len(kept) - cut])  # as if killed while it wrote
    n_kept = 3 if cut == 0 else 2
    learned.clear()
    measured: list[Any] = []
    done, _ = follow(tmp_path / "part", progress=lambda *step: measured.append(step))
    assert done == whole
    assert ("measuring", 8 - n_kept, 8 - n_kept) in measured
    assert not [items for items in learned if items in [u.history for u in a_sample().people]]
    assert rows.read_bytes() == (tmp_path / "whole" / ROWS).read_bytes()


def test_a_finished_run_is_not_measured_again(
    tmp_path: Path, learned: list[Sequence[HistoryItem]]
) -> None:
    first, _ = follow(tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    learned.clear()
    again, engine = follow(tmp_path)
    assert again == first
    assert not learned
    assert not engine.passes
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"plan": dataclasses.replace(PLAN, seed=7)}, "seed was 0 and is 7 now"),
        ({"sample": a_sample(reported=["kettle"])}, "users was .* now"),
        ({"sample": a_sample(*map(a_user, (*WORDS[:3], "clack")))}, "digest differs, users"),
        ({"methods": {"words": Settings(strength=2.0)}}, "methods differs"),
    ],
)
def test_another_evaluation_is_refused(tmp_path: Path, changed: Any, said: str) -> None:
    follow(tmp_path)
    before = (tmp_path / ROWS).read_bytes()
    with pytest.raises(SteerxError, match=f"holds another evaluation: {said}.*--output"):
        follow(tmp_path, **changed)
    assert (tmp_path / ROWS).read_bytes() == before


@pytest.mark.parametrize("content", ["Dear diary, ...\n", '{"user_id": "a"}\n', "[1]\n"])
def test_a_file_that_is_no_evaluation_is_left_as_it_is(tmp_path: Path, content: str) -> None:
    (tmp_path / ROWS).write_text(content)
    with pytest.raises(SteerxError, match="it holds something else"):
        follow(tmp_path)
    assert (tmp_path / ROWS).read_text() == content


def test_a_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(SteerxError, match=r"cannot be saved in .*out/rows\.jsonl"):
        follow(tmp_path / "out")


@pytest.mark.parametrize("name", [run.SUMMARY_FILE, run.REPORT_FILE, run.PROFILES])
def test_files_of_something_else_are_not_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a thesis")
    with pytest.raises(SteerxError, match=f"{name}' is of something else"):
        follow(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "a thesis"


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    store = run.Store(tmp_path / ROWS, {"format": "test"})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(
            SteerxError, match=r"cannot be written: File too large\. Rerun the same"
        ):
            store.add({"user": "a", "method": ""})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_the_summary_has_a_line_for_each_arm(tmp_path: Path) -> None:
    done, _ = follow(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / run.SUMMARY_FILE).read_text().splitlines()]
    assert [line["arm"] for line in lines] == [line.arm for line in done.lines()]
    own = next(line for line in lines if line["arm"] == "own")
    half = dict.fromkeys(("mean", "median", "low", "high"), 0.5)
    assert own["figures"]["gain"] == {**half, "users": 4}


def test_what_is_not_installed_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_metrics, "find_spec", lambda _: None)
    with pytest.raises(SteerxError, match="--no-generate"):
        follow(tmp_path, plan=dataclasses.replace(PLAN, generate=1))
    assert not list(tmp_path.iterdir())
    follow(tmp_path)


def test_a_layer_that_cannot_be_steered_is_said_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(SteerxError, match=r"Layers \[4\]"):
        follow(tmp_path, plan=dataclasses.replace(PLAN, layers=(1, 4)))
    assert not list(tmp_path.iterdir())


def open_here_and_die_elsewhere(path: str, parent: int) -> Engine:
    if os.getpid() != parent:
        os._exit(9)
    return open_engine(path, 1, 0)


@pytest.mark.slow
def test_a_process_that_dies_is_no_hang(tmp_path: Path, tiny_chat: TinyModel) -> None:
    opened = partial(open_here_and_die_elsewhere, str(tiny_chat.path), os.getpid())
    with pytest.raises(SteerxError, match="with fewer --processes"):
        evaluate(opened, a_sample(), PLAN, tmp_path, processes=2)


def test_an_error_in_a_process_is_the_error_of_the_run(
    tmp_path: Path, tiny_chat: TinyModel
) -> None:
    opened = partial(open_engine, str(tiny_chat.path), 1, 0)
    sample = a_sample(a_user("kettle", 1), a_user("rabbit", 1))
    with pytest.raises(HistoryError, match="There is only one text to learn from"):
        evaluate(opened, sample, PLAN, tmp_path, processes=2)
