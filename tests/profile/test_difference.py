"""What two profiles differ in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from steerx_edge.apps.cli import main
from steerx_edge.profile import Description, Edit, Profile, Word
from steerx_edge.profile.difference import difference
from tests.support.entries import a_full_entry, a_model

A = a_full_entry(
    words=(Word("a", 3, 1, 4, 5, 4), Word("b", 2, 1, 3, 5, 4), Word("c", 1, 0.5, 3, 5, 4)),
    edits=(Edit("drop", "x", (1,)), Edit("pin", "y", (2,))),
)
B = replace(
    A,
    description=Description("Else.", "user"),
    words=(Word("d", 9, 1, 10, 5, 4), Word("a", 3, 1, 4, 5, 4), Word("b", 2.5, 1, 3, 5, 4)),
    edits=(Edit("drop", "x", (1,)), Edit("never", "y", (2,))),
    directions=-A.directions,
    strengths=np.array([0, 0.25, 0.3]),
    logit_bias=None,
    memory=None,
    gain=None,
    counts={"items": 20},
)


def test_everything_that_differs_is_found() -> None:
    (found,) = difference(Profile((A,)), Profile((B,))).entries
    assert not found.same
    assert found.description == (A.description.text, "Else.")
    assert found.words_gone == A.words[2:]
    assert found.words_new == B.words[:1]
    assert found.words_changed == (("b", 2, 2.5),)
    assert (found.edits_gone, found.edits_new) == (("pin y",), ("never y",))
    assert found.strengths[2] == (0, 0)
    assert found.strengths[3] == pytest.approx((0.15, 0.25))
    assert (found.logit_bias, found.memory, found.rows) == ((0.5, 0), (0.3, 0), (6, 0))
    assert (found.gain, found.items) == ((A.gain, None), (16, 20))
    assert found.cosines == pytest.approx({2: -1, 3: -1, 5: -1})
    assert found.bias_correlation is None


def test_layers_of_one_alone_have_strength_0_in_the_other() -> None:
    other = a_full_entry(layers=(1, 3, 5))
    (found,) = difference(Profile((A,)), Profile((other,))).entries
    assert list(found.strengths) == [1, 2, 3, 5]
    assert found.strengths[1][0] == found.strengths[2][1] == 0
    assert list(found.cosines) == [3, 5]


def test_models_are_compared_only_with_themselves() -> None:
    b, c = (replace(A, model=a_model(digit)) for digit in "bc")
    found = difference(Profile((A, b)), Profile((c, b)))
    assert (found.only_first, found.only_second) == ((str(A.model),), (str(c.model),))
    (entry,) = found.entries
    assert entry.same


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["diff", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Profile((A,)).save("a.json")
    Profile((B,)).save("b.json")
    Profile((replace(A, model=a_model("c")),)).save("c.json")
    lines = run("a.json", "b.json").splitlines()
    for line in (
        "- a.json",
        "+ Else.",
        "- c +1.00 (+0.50 to +3.00)",
        "+ d +9.00 (+1.00 to +10.00)",
        "  b +2.00 -> +2.50",
        "- edit: pin y",
        "  texts: 16 -> 20",
        "  gain: +0.050 nats/token -> not measured",
        "  strength at layer 3: 0.15 -> 0.25",
        "  rows of the memory: 6 -> 0",
        "  cosine of the directions at layer 2: -1.000",
    ):
        assert line in lines
    assert not any("layer 2: 0" in line for line in lines)  # which did not change
    assert run("a.json", "a.json").splitlines()[-1] == "  the same"
    assert "No model is in both" in run("a.json", "c.json")
    found = json.loads(run("a.json", "b.json", "--json"))
    assert found["entries"][0]["words_new"][0]["word"] == "d"
    assert found["entries"][0]["strengths"]["3"] == pytest.approx([0.15, 0.25])
    assert found["only_first"] == []
