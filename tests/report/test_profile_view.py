"""A profile's facts in tables, in the terminal and on a page."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steerx_edge.history.item import HistoryItem
from steerx_edge.profile import Beginning, Description, Gain, Prefix, Profile, Word
from steerx_edge.report.profile_facts import REVEALS, profile_facts
from steerx_edge.report.profile_page import profile_page
from steerx_edge.report.profile_view import entry_sections, similarity_table
from steerx_edge.report.terminal import PlainConsole, print_profile
from steerx_edge.steering.memory import LEVELS
from tests.support.entries import a_full_entry, a_learned_memory, a_model

HOSTILE = "<script>alert(1)</script>&[b]"


def facts_of(folder: Path, **changes: Any) -> dict[str, Any]:
    profile = Profile((a_full_entry(**changes),))
    path = folder / "me.json"
    profile.save(path)
    return profile_facts(str(path), Profile.load(path))


def lines_of(facts: dict[str, Any], title: str) -> str:
    sections = {section.title: section for section in entry_sections(facts["entries"][0])}
    return "\n".join(sections[title].lines)


def cells_of(facts: dict[str, Any], title: str) -> list[list[str]]:
    return [
        list(row)
        for section in entry_sections(facts["entries"][0])
        for table in section.tables
        if table.title == title
        for row in table.rows
    ]


def printed(facts: dict[str, Any], width: int = 200) -> str:
    console = PlainConsole(file=io.StringIO(), width=width)
    print_profile(facts, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_facts_can_be_written_as_json(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, memory=a_learned_memory())
    assert json.loads(json.dumps(facts)) == facts
    assert facts["bytes"] == (tmp_path / "me.json").stat().st_size
    (entry,) = facts["entries"]
    assert entry["memory"]["bytes"] == (tmp_path / "me.memory.gguf").stat().st_size
    assert "directions" not in entry


def test_words_and_gain_with_their_intervals(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, gain=Gain(0.05, 0.01, 0.1, 16))
    assert cells_of(facts, "Words with their effects, nats")[0] == [
        "honestly",
        "+4.82",
        "+3.10 to +6.67",
        "14",
        "9",
    ]
    assert cells_of(facts, "Gain on held-out texts, nats/token") == [
        ["prompt alone", "+0.050", "+0.010 to +0.100", "+5.1%", "16"],
        ["prompt with your texts", "+0.020", "+0.010 to +0.333", "+2.0%", "16"],
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"gain": Gain(0.05, 0.01, 0.1, 16)}, "so the gain is reliable"),
        ({"gain": Gain(0.05, -0.01, 0.1, 16)}, "not certain"),
        ({"strengths": np.zeros(3), "logit_bias": None, "memory": None}, "changes nothing"),
        ({"gain": None, "with_history": None}, "was not measured"),
    ],
)
def test_how_sure_the_gain_is(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    assert expected in lines_of(facts_of(tmp_path, **changes), "Expected gain")


def test_strengths_of_every_part(tmp_path: Path) -> None:
    assert cells_of(facts_of(tmp_path), "Strengths") == [
        ["direction at layer 2 (context-contrast)", "0", "0.2"],
        ["direction at layer 3 (stylevector)", "0.15", "0.15"],
        ["direction at layer 5 (context-contrast)", "0.3", "0.1"],
        ["logit bias", "0.5", "0.25"],
        ["memory", "0.3", "0.4"],
    ]


def test_tokens_are_named_by_the_model(tmp_path: Path) -> None:
    path = tmp_path / "me.json"
    profile = Profile((a_full_entry(),))
    title = "Tokens that you use more, and less, than the model expects"
    facts = profile_facts(str(path), profile)
    assert cells_of(facts, title) == [["0", "+1.50", "48", "-0.10"], ["300", "+0.00", "", ""]]
    named = {profile.entries[0].model.fingerprint: lambda ids: [f" {i}\n".encode() for i in ids]}
    facts = profile_facts(str(path), profile, pieces=named)
    assert cells_of(facts, title)[0] == [r"' 0\n'", "+1.50", r"' 48\n'", "-0.10"]


@pytest.mark.parametrize("level", LEVELS)
def test_what_the_memory_reveals(tmp_path: Path, level: str) -> None:
    part = replace(a_learned_memory(), level=level)  # type: ignore[arg-type]
    lines = lines_of(facts_of(tmp_path, memory=part), "Memory")
    assert f"6 tokens, level {level}, in me.memory.gguf" in lines
    assert REVEALS[part.level] in lines


def test_a_missing_memory_is_named(tmp_path: Path) -> None:
    facts = facts_of(tmp_path)
    assert "(missing)" in lines_of(facts, "Memory")
    assert "put the file back" in lines_of(facts, "Memory")
    assert "There is no memory" in lines_of(facts_of(tmp_path, memory=None), "Memory")


def test_the_prefix_next_to_the_profile(tmp_path: Path) -> None:
    assert facts_of(tmp_path)["entries"][0]["prefix"] is None
    item = HistoryItem("Dear Ana", "Write to Ana.")
    state = np.arange(8, dtype=np.uint8)
    beginning = Beginning((item,), np.arange(3, dtype=np.int32), state)
    prefix = Prefix((beginning,), a_model().fingerprint, {})
    file = prefix.save(tmp_path / "me.json")
    assert "1 text, 3 tokens" in lines_of(facts_of(tmp_path), "Prefix")
    file.write_bytes(file.read_bytes().replace(state.tobytes(), b"damaged."))
    assert "cannot be used" in lines_of(facts_of(tmp_path), "Prefix")


def test_similarity_to_others(tmp_path: Path) -> None:
    profile = Profile((a_full_entry(),))
    other = Profile((a_full_entry(), a_full_entry(model=a_model("b"))))
    facts = profile_facts(str(tmp_path / "me.json"), profile, others={"they.json": other})
    table = similarity_table(facts)
    assert table is not None
    assert [row[0] for row in table.rows] == ["they.json", "they.json"]
    assert table.rows[0][2:] == (
        "layer 2: +1.00, layer 3: +1.00, layer 5: +1.00",
        "+1.00",
        "2 of 2: honestly, señor",
    )
    assert table.rows[1][2:] == ("no shared layer", "", "2 of 2: honestly, señor")


def test_nothing_in_a_profile_is_taken_for_markup(tmp_path: Path) -> None:
    facts = facts_of(
        tmp_path,
        description=Description(HOSTILE, "user"),
        words=(Word(HOSTILE, 2.0, 1.0, 3.0, 2, 2),),
        model=a_model(name=HOSTILE),
        settings={HOSTILE: HOSTILE},
    )
    text = profile_page(facts)
    assert HOSTILE not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;&amp;[b]") >= 4
    assert printed(facts).count(HOSTILE) >= 4


def test_a_page_loads_nothing_and_runs_nothing(tmp_path: Path) -> None:
    text = profile_page(facts_of(tmp_path))
    assert not re.search(r"(src|href|url)\s*[=(]", text)
    assert "default-src 'none'" in text
    assert "script-src 'none'" in text
    assert "<script" not in text


def test_a_narrow_terminal_cuts_nothing_off(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, memory=a_learned_memory())
    lines = [line for line in printed(facts, width=40).splitlines() if "…" in line]
    assert [line[:7] for line in lines] == ["Model: "]  # a digest that is shortened everywhere


def test_bars_are_drawn_to_scale(tmp_path: Path) -> None:
    words = (Word("so", 2.0, 1.0, 4.0, 2, 2), Word("dear", 0.0, -1.0, 1.0, 2, 2))
    text = profile_page(facts_of(tmp_path, words=words, gain=None, with_history=None, trials=None))
    places = re.findall(
        r'zero" x1="([\d.]+)".*?own line" x1="([\d.]+)" x2="([\d.]+)".*?mean" x1="([\d.]+)"', text
    )
    # From -1 to 4 nats, between 2 and 98.
    assert [[(float(x) - 2) / 96 * 5 - 1 for x in row] for row in places] == [
        pytest.approx(row, abs=0.01) for row in ([0, 1, 4, 2], [0, -1, 1, 0])
    ]


def test_where_the_texts_came_from(tmp_path: Path) -> None:
    lines = lines_of(facts_of(tmp_path), "Learned from")
    assert "30 texts in a mailbox (mbox), written 2019-01-02 to 2024-12-31." in lines
    assert "2 texts in plain text." in lines
