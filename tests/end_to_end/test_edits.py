"""Every edit that docs/profile.md suggests, on a profile with all parts that calibration chose."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llama_cpp import Llama

from models import TinyModel
from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.adding import ENOUGH, learn_more
from steerx_edge.learning.learn import learn
from steerx_edge.live import steer
from steerx_edge.profile import Profile
from tests.conftest import open_tiny
from tests.support.steered_llama import complete

BEFORE, ADDED = "abcdefgh", "ijklmnopqrst"

EDITS: dict[str, dict[str, Any]] = {
    "a description of one's own": {
        "description": {"text": "You are brief and dry.", "origin": "user"}
    },
    "no words": {"words": []},
    "other strengths": {"strengths": [0.05]},
    "no strengths": {"strengths": [0]},
    "a weaker logit bias": {"logit_bias": {"strength": 0.3}},
    "a logit bias that is off": {"logit_bias": {"strength": 0}},
    "no logit bias": {"logit_bias": None},
    "a weaker memory": {"memory": {"strength": 0.17}},
    "a memory beyond all": {"memory": {"strength": 5}},
    "a memory that is off": {"memory": {"strength": 0}},
    "no memory": {"memory": None},
    "no gate": {"gate": None},
    "a gate that lets more through": {"gate": {"threshold": -0.5}},
    "strengths for prompts with texts": {"with_history": {"logit_bias": 0.5, "memory": 0.5}},
    "to share": {"logit_bias": None, "memory": None, "gate": None, "words": []},
}


def items_of(words: str) -> list[HistoryItem]:
    return [
        HistoryItem(f"{word} hello hello hello {word} hello hello hello", f"Write about {word}.")
        for word in words
    ]


@pytest.fixture(scope="module")
def calibrated(tiny_chat: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile of the tiny chat model with every part."""
    path = tmp_path_factory.mktemp("calibrated") / "me.json"
    with pytest.MonkeyPatch.context() as patch:
        # A tiny model repeats itself whenever it is steered far.
        patch.setattr(
            "steerx_edge.learning.calibration.choose.fluent", lambda _scores, setting: setting
        )
        profile = learn(open_tiny(tiny_chat), items_of(BEFORE))
    (entry,) = profile.entries
    assert len(entry.layers) == 1
    assert entry.strengths.all()
    assert entry.logit_bias
    assert entry.memory
    assert entry.gate
    assert entry.with_history
    profile.save(path)
    return path


@pytest.fixture
def edited(calibrated: Path, tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """A copy of the profile with an edit."""

    def edit(changes: dict[str, Any]) -> Path:
        for file in calibrated.parent.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        path = tmp_path / calibrated.name
        document = json.loads(path.read_text("utf-8"))
        (entry,) = document["entries"]
        for name, value in changes.items():
            entry[name] = entry[name] | value if isinstance(value, dict) else value
        path.write_text(json.dumps(document, indent=1), "utf-8")
        return path

    return edit


def holds(path: Path, changes: dict[str, Any]) -> bool:
    """Whether a profile still holds an edit."""
    (entry,) = json.loads(path.read_text("utf-8"))["entries"]
    return all(
        value.items() <= entry[name].items() if isinstance(value, dict) else entry[name] == value
        for name, value in changes.items()
    )


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_profile_is_loaded_used_and_saved(
    edited: Callable[[dict[str, Any]], Path], tiny_chat_llama: Llama, name: str
) -> None:
    path = edited(EDITS[name])
    profile = Profile.load(path)
    assert profile.problems == []
    for with_history in (False, True):
        with steer(tiny_chat_llama, profile, with_history=with_history):
            assert complete(tiny_chat_llama, "hello", 4)
    profile.save(path)
    assert Profile.load(path) == profile
    assert holds(path, EDITS[name])


@pytest.mark.parametrize(
    "name",
    [name for name, edit in EDITS.items() if "words" not in edit and edit.get("memory", 1)],
)
def test_adding_texts_keeps_edits(
    edited: Callable[[dict[str, Any]], Path], tiny_chat_llama: Llama, name: str
) -> None:
    path = edited(EDITS[name])
    profile = Profile.load(path)
    history = items_of(BEFORE + ADDED)

    def save(extended: Profile) -> None:
        extended.save_changes(path, since=profile)

    assert len(ADDED) >= ENOUGH  # so that a strength may be chosen again
    learn_more(tiny_chat_llama, profile, history, save=save)
    assert Profile.load(path).entries[0].counts["items"] == len(history)
    assert holds(path, EDITS[name])
