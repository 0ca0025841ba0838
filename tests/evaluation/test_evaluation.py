"""A small evaluation on a real engine, with everything in it, against passes done one by one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import mean

import numpy as np
import pytest

from models import TinyModel
from steerx_edge.apps.cli.common import open_engine
from steerx_edge.evaluation import Evaluation, evaluate
from steerx_edge.evaluation.sample import drawn_items
from steerx_edge.history.item import HistoryItem
from steerx_edge.history.retrieval import Retriever
from steerx_edge.learning.settings import Settings
from steerx_edge.llamacpp.interventions import Add
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import ScoreRequest
from steerx_edge.profile import Entry, Profile
from tests.support.following_engine import PLAN
from tests.support.users import WORDS, a_sample, a_user

SAMPLE = a_sample(*map(a_user, WORDS[:3]), reported=WORDS[:2])
# Calibration finds nothing reliable in five texts.
FIXED = Settings(calibrate=False, strength=0.3)
EVERYTHING = dataclasses.replace(
    PLAN, generate=6, strengths=(0, 2, 1), layers=(1,), item_counts=(3,)
)


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory, tiny_chat: TinyModel) -> tuple[Path, Evaluation]:
    """A small evaluation with everything in it."""
    folder = tmp_path_factory.mktemp("evaluation")
    opened = partial(open_engine, str(tiny_chat.path), 1, 0)
    return folder, evaluate(opened, SAMPLE, EVERYTHING, folder, methods={"steerx": FIXED})


@pytest.fixture
def follow_by_hand(real: tuple[Path, Evaluation], tiny_chat: TinyModel) -> Callable[..., float]:
    """The log-probability of the kettle's user, computed pass by pass."""
    engine = open_engine(str(tiny_chat.path), 1, 0)
    user = SAMPLE.people[0]
    assert real

    def log_prob(
        entry: Entry | None = None,
        strength: float = 1.0,
        history: Sequence[HistoryItem] = (),
        description: str = "",
    ) -> float:
        means = []
        for query in user.queries:
            found = Retriever(history).retrieve(query.request, 2)[::-1]
            messages = messages_for(
                query.request, history=[history[i] for i in found], description=description
            )
            request = ScoreRequest(
                engine.prompt(messages),
                engine.tokenize(query.response),
                interventions=(Add(entry.layers, entry.vectors(strength)),) if entry else (),
                logit_bias=entry.steering(strength).logit_bias if entry else {},
            )
            means.append(engine.run(request).scored.mean())
        return float(np.mean(means))

    return log_prob


def test_figures_are_those_of_single_passes(
    real: tuple[Path, Evaluation], follow_by_hand: Callable[..., float]
) -> None:
    folder, done = real
    user = SAMPLE.people[0]
    entry = {
        kind: Profile.load(folder / "profiles" / f"steerx-{kind}.json").entries[0]
        for kind in ("0-own", "1-own", "0-generic0", "0-generic1", "0-layer1")
    }
    drawn = [drawn_items(SAMPLE, user, draw, 0) for draw in range(2)]
    base, method = done.rows[:2]
    assert (base["user"], method["user"]) == ("kettle", "kettle")
    by_hand = follow_by_hand
    expected: dict[str, float] = {
        "unsteered": by_hand(),
        "prompt": by_hand(history=user.history),
        "others' prompt": mean(by_hand(history=items) for items in drawn),
        "description": by_hand(description=entry["0-own"].description.text),
        "own": by_hand(entry["0-own"]),
        "generic": mean(by_hand(entry[f"0-generic{draw}"]) for draw in range(2)),
        "swapped": by_hand(entry["1-own"]),
        "prompt + own": by_hand(entry["0-own"], history=user.history),
    }
    arms = {**base["arms"], **method["arms"]}
    assert {arm: arms[arm]["log_prob"] for arm in expected} == pytest.approx(expected, abs=1e-3)
    assert len({round(value, 3) for value in expected.values()}) == len(expected)
    sweep = {(point["over"], point["at"], point["arm"]): point for point in method["sweep"]}
    assert set(sweep) == {
        *(("strength", 2, "own"), ("strength", 2, "generic")),
        *(("layer", 1, "own"), ("items", 3, "own")),
    }
    assert sweep["strength", 2, "own"]["log_prob"] == pytest.approx(
        by_hand(entry["0-own"], 2.0), abs=1e-3
    )
    assert sweep["layer", 1, "own"]["log_prob"] == pytest.approx(
        by_hand(entry["0-layer1"]), abs=1e-3
    )
    assert entry["0-layer1"].layers == (1,)


def test_every_arm_has_every_figure(real: tuple[Path, Evaluation]) -> None:
    _, done = real
    written = {"rouge1", "rougeL", "meteor", "repeats", "top1", "mrr", "topic", "own_request"}
    of_some = {"surprise", "leaked", "habit"}  # of texts with any words, and with six
    for row in done.rows:
        for arm, figures in row["arms"].items():
            prompts = "prompt" in arm or arm == "description"
            scored = (
                set() if arm == "real" else {"log_prob"} if prompts else {"log_prob", "neutral"}
            )
            assert set(figures) >= scored | written
            assert set(figures) <= scored | written | of_some
            assert all(map(math.isfinite, figures.values()))
    assert {line.arm for line in done.lines()} >= {"own - generic", "own - swapped", "real"}


def test_no_text_is_kept(real: tuple[Path, Evaluation]) -> None:
    folder, _ = real
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_text("utf-8")
            for user in SAMPLE.people:
                for item in (*user.history, *user.queries):
                    assert item.response not in content
                    assert not item.request or item.request not in content


@pytest.mark.slow
def test_several_processes_give_the_figures_of_one(
    real: tuple[Path, Evaluation], tmp_path: Path, tiny_chat: TinyModel
) -> None:
    _, expected = real
    steps: list[tuple[str, int, int]] = []
    done = evaluate(
        partial(open_engine, str(tiny_chat.path), 1, 0),
        SAMPLE,
        EVERYTHING,
        tmp_path,
        methods={"steerx": FIXED},
        processes=2,
        progress=lambda *step: steps.append(step),
    )
    assert done == expected
    assert steps == [("own profiles", i, 2) for i in (1, 2)] + [
        ("measuring", i, 4) for i in (1, 2, 3, 4)
    ]
