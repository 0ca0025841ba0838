"""What calibration tried: the short table, the full ones, and the charts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steerx_edge.profile import Profile, Trial
from steerx_edge.report.profile_facts import profile_facts
from steerx_edge.report.profile_page import profile_page
from steerx_edge.report.profile_view import entry_sections
from steerx_edge.report.trials_charts import chart
from steerx_edge.report.trials_view import (
    TITLE,
    Curve,
    curve_table,
    curves,
    directions_table,
    short_table,
)
from tests.support.entries import a_full_entry, a_missing_memory, some_trials


def facts_of(**changes: Any) -> dict[str, Any]:
    facts: dict[str, Any] = profile_facts("me.json", Profile((a_full_entry(**changes),)))
    return facts


def entry_of(**changes: Any) -> dict[str, Any]:
    entry: dict[str, Any] = facts_of(**changes)["entries"][0]
    return entry


def short(**changes: Any) -> list[tuple[str, ...]]:
    table = short_table(entry_of(**changes))
    assert table is not None
    return list(table.rows)


def points_of(*gains: float, loss: float | None = None) -> list[dict[str, Any]]:
    return [
        {"at": at / 10, "mean": g, "low": g - 1, "high": g + 1, "items": 4, "loss": loss}
        for at, g in enumerate(gains)
    ]


def test_the_terminal_shows_none_the_best_and_the_chosen_with_its_neighbors() -> None:
    names = [row[0] for row in short()]
    assert names == [
        "memory 0",
        "memory 0.2",
        "memory 0.3 (chosen)",
        "memory 0.45",  # the best, too
        "logit bias 0",
        "logit bias 0.25",
        "logit bias 0.5 (chosen)",
        "logit bias 0.75",
        "with your texts, memory 0",
        "with your texts, memory 0.4 (chosen)",
        "with your texts, memory 0.6",
        "with your texts, logit bias 0",
        "with your texts, logit bias 0.25 (chosen)",
        "8 texts in the memory",
        "12 texts in the memory",
        "layer 2 at 0.15 (context-contrast) and layer 5 at 0.3 (context-contrast)",
        "no direction",
    ]
    far = [row[0] for row in short(memory=a_missing_memory(strength=0.1))]
    assert far[:4] == ["memory 0", "memory 0.1 (chosen)", "memory 0.2", "memory 0.45"]


def test_figures_of_a_row() -> None:
    assert short()[2] == ("memory 0.3 (chosen)", "+0.050", "+0.020 to +0.090", "+0.0012", "16")
    assert short()[8][3] == ""  # with texts, the loss is not bounded


@pytest.mark.parametrize(
    ("strengths", "names"),
    [
        ([0.15, 0, 0.3], ["no direction", "layer 2 at 0.15 (context-contrast) and … (chosen)"]),
        ([0, 0, 0], ["no direction (chosen)", "layer 2 at 0.15 (context-contrast) and …"]),
        ([0.15, 0, 0.2], ["no direction", "layer 2 at 0.15 (context-contrast) and …"]),
    ],
)
def test_the_directions_of_the_profile_are_marked(strengths: list[float], names: list[str]) -> None:
    table = directions_table(entry_of(strengths=np.array(strengths, np.float32)))
    assert table is not None
    other = "layer 5 at 0.3 (context-contrast)"
    assert [row[0].replace(other, "…") for row in table.rows] == names


def test_where_nothing_was_reliable_nothing_is_chosen() -> None:
    nothing = {"strengths": np.zeros(3), "logit_bias": None, "memory": None, "with_history": None}
    facts = entry_of(**nothing)
    assert not any("chosen" in row[0] for row in short(**nothing))
    sections = {section.title: section.lines for section in entry_sections(facts)}
    assert "best setting, which was not reliable" in sections[TITLE][0]


def test_a_profile_that_does_not_say_so() -> None:
    facts = entry_of(trials=None)
    assert short_table(facts) is directions_table(facts) is None
    assert curves(facts) == []
    sections = {section.title: section.lines for section in entry_sections(facts)}
    assert sections[TITLE][0].startswith("It is not known")
    assert "<svg role" not in profile_page(facts_of(trials=None))


def test_tables_hold_every_point() -> None:
    (memory, *_) = curves(entry_of())
    table = curve_table(memory)
    assert [row[0] for row in table.rows] == ["0", "0.1", "0.2", "0.3 (chosen)", "0.45", "0.6"]
    assert table.columns[0] == "strength of the memory"


def numbers(name: str, drawing: str) -> list[float]:
    return [float(x) for x in re.findall(rf'{name}="([-\d.]+)"', drawing)]


def test_charts_are_drawn_to_scale() -> None:
    drawing = chart(Curve("M", "m", "strength", points_of(0, 1, 4, loss=0.5), chosen=0.1))
    (gains,) = re.findall(r'class="own line" points="([^"]+)"', drawing)
    (losses,) = re.findall(r'class="generic dashed line" points="([^"]+)"', drawing)
    (x0, y0), (x1, y1), (x2, y2) = ([float(v) for v in each.split(",")] for each in gains.split())
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y2 - y0 == pytest.approx(4 * (y1 - y0), abs=0.5)
    assert float(losses.split()[0].split(",")[1]) - y0 == pytest.approx((y1 - y0) / 2, abs=0.2)
    (zero,) = re.findall(r'class="zero" x1="\S+" x2="\S+" y1="([\d.]+)"', drawing)
    assert float(zero) == y0  # a gain of 0 lies on the line
    (chosen,) = re.findall(r'class="zero dotted" x1="([\d.]+)"', drawing)
    assert float(chosen) == x1


def test_numbers_of_texts_are_on_a_log_scale() -> None:
    points = [
        {**point, "at": at} for point, at in zip(points_of(0, 1, 2), (8, 16, 32), strict=True)
    ]
    drawing = chart(Curve("T", "texts", "texts", points, is_number=True))
    xs = numbers("cx", drawing)[-3:]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)


def test_a_chart_says_in_words_what_it_shows() -> None:
    drawing = chart(curves(entry_of())[0])
    assert "<title>Gain by strength of the memory</title>" in drawing
    (said,) = re.findall("<desc>(.*?)</desc>", drawing)
    assert said.startswith(
        "Nats/token. 0: gain +0.010, 95% interval -0.020 to +0.050, loss on neutral text +0.0012;"
    )
    assert said.endswith("Chosen: 0.3.")
    for label in ("nats/token", "strength of the memory", "chosen", "loss on neutral text"):
        assert f">{label}</text>" in drawing


@pytest.mark.parametrize("nats", [0.0, 5e-324, 3.4e38, -3.4e38])
@pytest.mark.parametrize("at", [0.0, 1e-45, 3.4e38])
def test_any_profile_can_be_drawn(nats: float, at: float, tmp_path: Path) -> None:
    curve = (Trial(nats, nats, nats, 1, at=at, loss=nats),)
    trials = some_trials(memory=curve, texts=curve)
    path = tmp_path / "me.json"
    Profile((a_full_entry(trials=trials),)).save(path)
    drawing = profile_page(profile_facts(str(path), Profile.load(path)))
    assert not re.search(r'"(nan|inf)', drawing)
