"""The report: figures in the right cells, and a self-contained page."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from steerx_edge.evaluation import Evaluation
from steerx_edge.report.html import html_page
from steerx_edge.report.tables import LABELS, about, tables
from steerx_edge.report.terminal import PlainConsole, print_report

VOID = {"meta", "br"}
HOSTILE = "<script>'</script>&[b] :smile: \x1b[31m\udc80"
SHOWN = HOSTILE.replace("\x1b", r"\x1b").replace("\udc80", r"\udc80")


def rows_of(user: str, method: str, gain: float, items: int = 9) -> list[dict[str, Any]]:
    text = {
        "rouge1": 0.25,
        "rougeL": 0.2,
        "meteor": 0.15,
        "repeats": 0.125,
        "top1": 1.0,
        "mrr": 1.0,
        "surprise": 2.0,
        "topic": 0.75,
        "own_request": 0.5,
        "leaked": 0.0625,
        "habit": 0.025,
    }
    return [
        {
            "user": user,
            "method": "",
            "items": items,
            "queries": 4,
            "arms": {
                "unsteered": {"log_prob": -5.0, "neutral": -4.0, **text},
                "prompt": {"log_prob": -4.5, **text},
                "others' prompt": {"log_prob": -4.75, **text},
                "real": {**text, "rouge1": 1.0},
            },
            "sweep": [
                {"over": "items", "at": n, "arm": "prompt", "log_prob": -5.0 + n / 32}
                for n in (2, 4, 8)
                if n < items
            ],
        },
        {
            "user": user,
            "method": method,
            "arms": {
                "description": {"log_prob": -5.02, **text},
                "own": {"log_prob": -5.0 + gain, "neutral": -4.03, **text},
                "generic": {"log_prob": -4.875, "neutral": -4.0, **text},
                "swapped": {"log_prob": -5.125, "neutral": -4.0, **text},
                "prompt + own": {"log_prob": -4.25, **text},
            },
            "sweep": [
                {"over": "strength", "at": 2.0, "arm": "own", "log_prob": -5.0 + 2 * gain},
                {"over": "strength", "at": 2.0, "arm": "generic", "log_prob": -4.9},
                {"over": "layer", "at": 12, "arm": "own", "log_prob": -5.25},
                *(
                    {"over": "items", "at": n, "arm": "own", "log_prob": -5.0 + n / 64}
                    for n in (2, 4, 8)
                    if n < items
                ),
            ],
        },
    ]


def an_evaluation(*users: str, data: str = "mail.jsonl") -> Evaluation:
    header = {
        "data": data,
        "people": 7,
        "users": list(users),
        "left_out": {"fewer than 8 items": ["x", "y"]},
        "model": {"name": "tiny", "quantization": "Q4_1"},
        "methods": {"steerx": {}},
        "seed": 3,
    }
    rows = [
        row
        for user, gain, items in zip(users, (0.25, 0.5, -0.02), (9, 8, 4), strict=False)
        for row in rows_of(user, "steerx", gain, items)
    ]
    return Evaluation(header, rows)


@pytest.fixture
def evaluation() -> Evaluation:
    return an_evaluation("ann", "bob", "cy")


def cells(evaluation: Evaluation, title: str) -> dict[str, tuple[str, ...]]:
    (table,) = [table for table in tables(evaluation) if table.title.startswith(title)]
    return {row[0]: row[1:] for row in table.rows}


def test_gains_and_personal_gains_are_in_one_table(evaluation: Evaluation) -> None:
    rows = cells(evaluation, "Real texts")
    assert rows["unsteered"] == ("-5.000", "", "", "", "", "")
    assert rows["own profile"][:3] == ("-4.757", "+0.243", "+0.250")
    assert rows["own profile"][4:] == ("33%", "-0.030")
    assert rows["description in the prompt"] == (
        *("-5.020", "-0.020", "-0.020"),
        *("-0.020 to -0.020", "100%", ""),
    )
    assert rows["personal: own - generic profile"][:3] == ("", "+0.118", "+0.125")
    assert rows["own - another user's profile"][1] == "+0.368"
    assert rows["personal: own - others' texts in the prompt"][1] == "+0.250"
    assert re.fullmatch(r"[+-]0\.\d{3} to \+0\.\d{3}", rows["own profile"][3])
    assert set(rows) == {
        label for label in LABELS.values() if label != LABELS["real"] and "prefix" not in label
    }


def test_generated_texts_have_two_tables(evaluation: Evaluation) -> None:
    rows = cells(evaluation, "Generated")
    assert rows["own profile"] == (
        *("0.250", "0.200", "0.150", "1.000", "1.000"),
        "7.4",  # e^2
        "12.5%",
    )
    assert rows["the real texts"][0] == "1.000"
    assert not any("personal" in name for name in rows)
    on_topic = cells(evaluation, "Topic and copying")
    assert on_topic["own profile"] == on_topic["the real texts"]
    assert on_topic["own profile"] == ("+0.750", "50%", "6.2%", "2.5%")
    assert on_topic.keys() == rows.keys()


def test_medians_follow_means_in_brackets(evaluation: Evaluation) -> None:
    own = evaluation.rows[1]["arms"]["own"]
    own |= {"rouge1": 1.0, "surprise": 4.0, "habit": 0.1}
    by_title = {table.title: table for table in tables(evaluation, medians=True)}
    rows = [row for table in by_title.values() for row in table.rows if row[0] == "own profile"]
    gains, generated, on_topic = rows
    assert gains[1:4] == ("-4.757 (-4.750)", "+0.243", "+0.250")
    assert gains[5:] == ("33%", "-0.030 (-0.030)")
    assert generated[1] == "0.500 (0.250)"
    assert generated[6] == "14.4 (7.4)"  # e^(8/3), e^2
    assert on_topic[1:] == ("+0.750 (+0.750)", "50% (50%)", "6.2% (6.2%)", "5.0% (2.5%)")


def test_sweeps_have_tables(evaluation: Evaluation) -> None:
    strengths = cells(evaluation, "Gain by strength")
    assert strengths["0"] == ("+0.000", "+0.000", "+0.000 to +0.000") * 2
    assert strengths["1"][:2] == ("+0.243", "+0.250")
    assert (strengths["2"][0], strengths["2"][3]) == ("+0.487", "+0.100")
    assert cells(evaluation, "Gain by layer")["12"] == ("-0.250", "-0.250", "-0.250 to -0.250")


def test_a_number_of_items_counts_the_users_who_have_as_many(evaluation: Evaluation) -> None:
    (table,) = [table for table in tables(evaluation) if table.title.startswith("Gain by items")]
    assert [name for name in table.columns if "profile" in name or "prompt" in name] == [
        *("own profile", "own texts in the prompt")
    ]
    rows = {row[0]: (row[1], row[2], row[5]) for row in table.rows}
    assert rows == {
        "2": ("3", "+0.031", "+0.062"),
        # Of the users with as many items and no more, what the arms are anyway.
        "4": ("3", f"{(2 / 16 - 0.02) / 3:+.3f}", f"{(2 / 8 + 0.5) / 3:+.3f}"),
        "8": ("2", f"{(1 / 8 + 0.5) / 2:+.3f}", f"{(1 / 4 + 0.5) / 2:+.3f}"),
        "all": ("3", "+0.243", "+0.500"),
    }


def test_without_generated_texts_and_sweeps_there_is_one_table() -> None:
    evaluation = an_evaluation("ann", "bob")
    for row in evaluation.rows:
        row["sweep"] = []
        row["arms"].pop("real", None)
        for figures in row["arms"].values():
            for name in set(figures) - {"log_prob", "neutral"}:
                del figures[name]
    assert [table.title[:10] for table in tables(evaluation)] == ["Real texts"]
    assert html_page(evaluation).count("<svg") == 2


def test_several_methods_are_named(evaluation: Evaluation) -> None:
    rows = [row for user in evaluation.header["users"] for row in rows_of(user, "other", 0.0)[1:]]
    header = {**evaluation.header, "methods": {"steerx": {}, "other": {}}}
    both = Evaluation(header, [*evaluation.rows, *rows])
    names = cells(both, "Real texts")
    assert names["steerx: own profile"][1] == "+0.243"
    assert names["other: own profile"][1] == "+0.000"
    assert "own texts in the prompt" in names


def test_the_report_says_who_was_measured_and_who_was_skipped(evaluation: Evaluation) -> None:
    said = " ".join(about(evaluation))
    assert "mail.jsonl: 12 held-out texts of 3 of 7 users, 4 to 9 items" in said
    assert "tiny (Q4_1). Seed 3." in said
    assert "Skipped, fewer than 8 items: 2 (x, y)." in said


def test_a_single_user_has_no_intervals() -> None:
    evaluation = an_evaluation("ann")
    evaluation.header["people"] = 1
    assert cells(evaluation, "Real texts")["own profile"][1:4] == ("+0.250", "+0.250", "")
    said = " ".join(about(evaluation))
    assert "no intervals" in said
    assert "the personal gain is not known" in said
    parse(html_page(evaluation))


# ---------------------------------------------------------------- the page


class Checker(HTMLParser):
    """Every tag closed in its turn; what elements and texts there are."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def parse(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


def test_the_page_is_well_formed_and_holds_every_figure(evaluation: Evaluation) -> None:
    page = parse(html_page(evaluation))
    texts = " ".join(page.texts)
    for table in tables(evaluation, medians=True):
        for row in table.rows:
            assert all(cell in texts for cell in row)
    assert [tag for tag, _ in page.tags].count("svg") == 5


def test_the_terminal_shows_every_cell(evaluation: Evaluation) -> None:
    out = io.StringIO()
    print_report(evaluation, PlainConsole(file=out, width=200))
    lines = [line.strip() for line in out.getvalue().splitlines()]
    assert "\x1b" not in out.getvalue()
    assert set(about(evaluation)) <= set(lines)
    for table in tables(evaluation):
        assert table.title in lines
        for row in table.rows:
            assert any(re.split(r" {2,}", line) == [*filter(None, row)] for line in lines)


def test_the_page_is_self_contained(evaluation: Evaluation) -> None:
    page = html_page(evaluation)
    assert not re.search(r"https?:|url\(|@import|//", page)
    for tag, attributes in parse(page).tags:
        assert tag not in {"script", "link", "img", "iframe", "object"}
        assert not set(attributes) & {"src", "href", "onclick"}
    assert "prefers-color-scheme: dark" in page


def test_names_are_escaped() -> None:
    page = html_page(an_evaluation(HOSTILE, "bob", data=HOSTILE))
    checker = parse(page)
    assert page.encode()  # as it is saved
    assert "script" not in {tag for tag, _ in checker.tags}
    assert SHOWN in checker.texts
    assert f"steerx-edge evaluation: {SHOWN}" in checker.texts
    out = io.StringIO()
    print_report(an_evaluation("ann", data=HOSTILE), PlainConsole(file=out, width=200))
    assert SHOWN in out.getvalue()


def places(page: Checker, tag: str, *names: str) -> list[tuple[float, ...]]:
    return [
        tuple(float(attributes[name] or "") for name in names)
        for found, attributes in page.tags
        if found == tag
    ]


@pytest.mark.parametrize("gain", [0.0, 3.0])
def test_everything_is_drawn_within_its_plot(evaluation: Evaluation, gain: float) -> None:
    del evaluation.rows[1]["arms"]["generic"]
    del evaluation.rows[1]["arms"]["swapped"]
    for row in evaluation.rows:
        if row["method"]:
            row["arms"]["own"]["log_prob"] = -5 + gain
    page = parse(html_page(evaluation))
    for x, y in places(page, "circle", "cx", "cy"):
        assert 0 < x < 760
        assert 0 < y < 330
    for x1, x2, y1, y2 in places(page, "line", "x1", "x2", "y1", "y2"):
        assert x1 <= x2
        assert y1 <= y2 or x1 == x2
        assert min(x1, y1, y2) >= 0
        assert x2 <= 760


def test_users_are_sorted_by_gain_and_placed_by_it(evaluation: Evaluation) -> None:
    page = parse(html_page(evaluation))
    titles = dict(
        re.findall(
            r'cx="([\d.]+)"[^>]*><title>\w+, own profile: ([+-][\d.]+)', html_page(evaluation)
        )
    )
    ordered = [float(gain) for _, gain in sorted(titles.items(), key=lambda each: float(each[0]))]
    assert ordered == [-0.02, 0.25, 0.5]
    assert page.texts.index("bob") < page.texts.index("ann") < page.texts.index("cy")


def test_a_curve_over_items_has_a_log_scale_and_ends_with_all(evaluation: Evaluation) -> None:
    page = html_page(evaluation)
    (drawing,) = re.findall(r"<h2>Gain by items, nats/token</h2>(<svg.*?</svg>)", page)
    points = {
        arm: [tuple(map(float, point.split(","))) for point in line.split()]
        for arm, line in re.findall(r'<polyline class="(\w+) line" points="([^"]*)"', drawing)
    }
    assert list(points) == ["own", "prompt"]
    for line in points.values():
        steps = [after[0] - before[0] for before, after in pairwise(line)]
        assert steps == pytest.approx([steps[0]] * 3, abs=0.2)
    assert all(own[1] > prompt[1] for own, prompt in zip(*points.values(), strict=True))
    ticks = re.findall(r'y="308" text-anchor="middle">(\w+)<', drawing)
    assert ticks == ["2", "4", "8", "all"]
    titles = re.findall(r"<title>(items .*?)</title>", drawing)
    assert titles[2:4] == ["items 8: +0.312, users: 2", "items all: +0.243, users: 3"]
