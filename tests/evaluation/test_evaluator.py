"""The figures of an engine that can be followed, against ones computed by hand."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steerx_edge.evaluation import BASELINES, METHODS, Plan, evaluate, evaluator
from steerx_edge.evaluation.evaluator import MAX_OTHER_REQUESTS
from steerx_edge.evaluation.sample import drawn_items
from steerx_edge.evaluation.text_metrics import copied
from steerx_edge.history.item import HistoryItem, User
from steerx_edge.learning.neutral import neutral_items
from steerx_edge.learning.settings import Settings
from steerx_edge.llamacpp.requests import GenerateRequest, ScoreRequest
from steerx_edge.steering.steering import Steering
from tests.support.following_engine import (
    ONE,
    PLAN,
    FollowingEngine,
    chars,
    follow,
    means,
)
from tests.support.users import WORDS, a_sample, a_user

pytestmark = pytest.mark.usefixtures("learned")


def test_what_is_the_users_own_shows_as_personal_gain(tmp_path: Path) -> None:
    done, _ = follow(tmp_path)
    assert means(done) == {
        "prompt": 0.5,
        "others' prompt": 0,
        "prompt - others' prompt": 0.5,
        "description": 0,
        "own": 0.5,
        "generic": 0,
        "swapped": 0,
        "prompt + own": 0.75,
        "own - generic": 0.5,
        "own - swapped": 0.5,
        "prompt + own - prompt": 0.25,
    }
    assert means(done, "log_prob")["unsteered"] == -3


def test_with_a_prefix_its_arms_are_measured_too(tmp_path: Path) -> None:
    done, engine = follow(tmp_path, plan=dataclasses.replace(PLAN, prefix=400))
    gains = means(done)
    assert gains["prefix"] == gains["prefix - others' prefix"] == 0.5
    assert gains["others' prefix"] == 0
    assert gains["prefix + own"] == gains["prompt + own"]
    assert gains["prefix + own - prefix"] == 0.25
    begins = a_sample().people[0].history[0].response
    assert any(begins in chars(request.context) for request in engine.passes)


def test_what_everybody_writes_is_not_personal(
    tmp_path: Path, learned: list[Sequence[HistoryItem]]
) -> None:
    """A task's word: every profile helps everybody."""
    users = [
        User(
            name,
            tuple(HistoryItem(f"the kettle sang of {name} {i}") for i in range(4)),
            (HistoryItem(f"one kettle more for {name}"),),
        )
        for name in "abc"
    ]
    done, _ = follow(tmp_path, a_sample(*users))
    gains = means(done)
    assert gains["own"] == gains["generic"] == gains["swapped"] == 0.5
    assert gains["own - generic"] == gains["own - swapped"] == 0
    assert gains["prompt - others' prompt"] == 0
    assert learned


def test_generic_profiles_are_averaged_over_draws(
    tmp_path: Path, learned: list[Sequence[HistoryItem]]
) -> None:
    """Two of three others write of the kettle too: generic is what the draws hold of it."""
    twins = [
        User(
            f"kettle{i}",
            tuple(HistoryItem(f"the kettle sang {i} {j}") for j in range(5)),
            (HistoryItem("one kettle more"),),
        )
        for i in range(2)
    ]
    sample = a_sample(a_user("kettle"), *twins, a_user("rabbit"), reported=["kettle"])
    done, _ = follow(tmp_path, sample, dataclasses.replace(PLAN, draws=3))
    user = sample.people[0]
    shares = [
        sum("kettle" in item.response for item in drawn_items(sample, user, draw, 0)) / 5
        for draw in range(3)
    ]
    assert len(set(shares)) > 1
    assert means(done)["generic"] == pytest.approx(0.5 * np.mean(shares))
    assert [len(items) for items in learned] == [5] * 5  # own, three draws, the swapped one


@pytest.mark.parametrize(("items", "expected"), [(None, 40), (3, 3)])
def test_profiles_are_learned_from_all_items(
    tmp_path: Path, learned: list[Sequence[HistoryItem]], items: int | None, expected: int
) -> None:
    sample = a_sample(a_user("kettle", 40), a_user("rabbit", 40), reported=["kettle"])
    follow(tmp_path, sample, dataclasses.replace(PLAN, items=items))
    assert {len(used) for used in learned} == {expected}


def test_each_profile_is_learned_once(tmp_path: Path, learned: list[Sequence[HistoryItem]]) -> None:
    follow(tmp_path)
    own = [items for items in learned if items in [user.history for user in a_sample().people]]
    assert len(own) == len(WORDS)
    assert len(learned) == len(WORDS) * 3


def test_one_person_alone_has_no_generic_and_no_swapped(tmp_path: Path) -> None:
    done, _ = follow(tmp_path, a_sample(a_user("kettle")))
    gains = {"prompt": 0.5, "description": 0, "own": 0.5, "prompt + own": 0.75}
    assert means(done) == gains | {"prompt + own - prompt": 0.25}
    (line,) = [line for line in done.lines() if line.arm == "own"]
    assert (line.figures["gain"].low, line.figures["gain"].high) == (None, None)
    assert line.figures["gain"].median == 0.5


def test_all_arms_score_the_same_tokens_and_long_prompts_lose_their_least_relevant(
    tmp_path: Path,
) -> None:
    things = ("river", "tower", "garden", "bridge", "castle")
    items = tuple(HistoryItem("the kettle sang " + "x" * 80, f"Write: {each}.") for each in things)
    query = HistoryItem("one kettle more" + "y" * 90, "Write: garden.")
    sample = a_sample(User("kettle", items, (query,)), a_user("rabbit"), reported=["kettle"])
    engine = FollowingEngine(n_ctx=320)
    plan = dataclasses.replace(PLAN, retrieve=5)
    evaluate(lambda: engine, sample, plan, tmp_path, methods=ONE)  # type: ignore[arg-type, return-value]
    scored = [request for request in engine.passes if request.response[:3] == list(map(ord, "one"))]
    assert {len(request.response) for request in scored} == {80}  # a quarter
    lengths = {len(request.context) for request in scored}
    assert max(lengths) <= 240
    longest = max(scored, key=lambda request: len(request.context))
    shown = chars(longest.context)
    assert shown.count("Write") == 1 + 4  # four of five items have room
    assert shown.split("\n")[-3] == "Write: garden."  # the most relevant is the last
    assert "x" * 41 not in shown  # an item's text has an eighth


def test_neutral_text_is_scored_without_and_with_profiles(tmp_path: Path) -> None:
    done, engine = follow(tmp_path)
    assert means(done, "neutral")["own"] == 0
    texts = {item.response: item.request for item in neutral_items("evaluation")}
    neutral = [request for request in engine.passes if chars(request.response) in texts]
    assert all(chars(request.context) == texts[chars(request.response)] for request in neutral)
    n_texts = len(texts) * len(WORDS)
    assert len(neutral) == n_texts * (1 + 1 + 2 + 1)
    assert sum(bool(request.logit_bias) for request in neutral) == n_texts * (1 + 2 + 1)


def test_generated_texts(tmp_path: Path) -> None:
    done, _ = follow(tmp_path, plan=dataclasses.replace(PLAN, generate=64))
    top1, rouge = means(done, "top1"), means(done, "rouge1")
    assert top1["own"] == top1["prompt"] == top1["real"] == 1
    assert top1["swapped"] == top1["generic"] == 0
    assert top1["own - generic"] == 1
    assert rouge["real"] == 1
    assert rouge["own"] == pytest.approx(2 * 3 / 7)  # 3 of 3 words, 3 of 4
    assert rouge["unsteered"] == 0
    assert rouge["own - swapped"] == pytest.approx(6 / 7 - 4 / 7)
    assert means(done, "surprise")["own"] == 3
    assert means(done, "mrr")["own"] == 1
    assert 1 / len(WORDS) <= means(done, "mrr")["swapped"] <= 1 / 2
    assert means(done, "repeats")["own"] == 0


def test_an_empty_text_has_no_surprise_and_is_off_topic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        AnsweringEngine, "generate_many", lambda _, requests: ["  "] * len(requests)
    )
    done, _ = follow(tmp_path, plan=WRITTEN, engine=AnsweringEngine())
    assert set(means(done, "surprise")) == {"real"}
    for name in ("rouge1", "topic", "own_request"):
        assert means(done, name)["own"] == 0
        assert means(done, name)["real"] > 0


WRITTEN = dataclasses.replace(PLAN, generate=64)


class AnsweringEngine(FollowingEngine):
    """Finds a text half a nat more probable after a request that ends in the same number.

    What it writes ends in the number of its request where it is told of a word, else in 0.
    """

    def score(self, request: ScoreRequest) -> float:
        asked = re.search(r"\d+\.$", chars(request.context))
        answered = asked and re.search(rf"\b{asked[0][:-1]}$", chars(request.response))
        return super().score(request) + (0.5 if answered else 0)

    def generate_many(self, requests: Sequence[GenerateRequest]) -> list[str]:
        texts = super().generate_many(requests)
        numbers = [chars(request.context).rsplit(" ", 1)[1][:-1] for request in requests]
        return [
            f"{text} 0" if text == "nothing" else f"{text} {number}"
            for text, number in zip(texts, numbers, strict=True)
        ]


def test_texts_that_answer_their_request_are_on_topic(tmp_path: Path) -> None:
    done, engine = follow(tmp_path, plan=WRITTEN, engine=AnsweringEngine())
    topic, own_request = means(done, "topic"), means(done, "own_request")
    for arm in ("real", "prompt", "own", "generic", "swapped", "prompt + own"):
        assert (topic[arm], own_request[arm]) == (0.5, 1)
    for arm in ("unsteered", "description"):  # two texts that answer the first request
        assert (topic[arm], own_request[arm]) == (0.25, 0.5)
    assert (topic["own - generic"], own_request["prompt - others' prompt"]) == (0, 0)
    # Texts are scored after their requests without steering, in one call for each unit.
    written = [
        request
        for request in engine.passes
        if re.search(r"(nothing|more) \d$", chars(request.response))
    ]
    assert not any(
        request.logit_bias for request in written if "short text" in chars(request.context)
    )
    assert engine.calls == len(done.rows) * 3  # real texts, neutral texts, written texts


def test_a_text_is_compared_with_different_requests_only(tmp_path: Path) -> None:
    def asking(*requests: str) -> User:
        queries = tuple(HistoryItem(f"one kettle more {i}", r) for i, r in enumerate(requests))
        return User("kettle", a_user("kettle").history, queries)

    def figures(*requests: str) -> set[str]:
        name = "-".join(requests) or "none"
        done, _ = follow(
            tmp_path / name, a_sample(asking(*requests)), WRITTEN, engine=AnsweringEngine()
        )
        return {name for name in ("topic", "own_request") if "own" in means(done, name)}

    assert figures("Write 0.", "Write 1.") == {"topic", "own_request"}
    assert figures("Write 0.") == {"topic"}
    assert figures("Write 0.", "Write 0.") == {"topic"}
    assert figures("Write 0.", "") == {"topic"}
    assert figures("", "") == set()


def test_of_many_requests_a_text_is_compared_with_some(tmp_path: Path) -> None:
    sample = a_sample(a_user("kettle", n_queries=MAX_OTHER_REQUESTS + 3))
    done, engine = follow(tmp_path, sample, WRITTEN, engine=AnsweringEngine())
    assert means(done, "own_request")["real"] == 1
    last = f"one kettle more {MAX_OTHER_REQUESTS + 2}"
    after = {chars(request.context) for request in engine.passes if chars(request.response) == last}
    asked = [i for i in range(MAX_OTHER_REQUESTS + 3) if f"Write more {i}." in after]
    assert asked == [*range(MAX_OTHER_REQUESTS), MAX_OTHER_REQUESTS + 2]


def a_copied_user(word: str) -> User:
    """Of each item's three runs of six words, the middle one stands in all items."""
    items = [HistoryItem(f"{i} the {word} sang for us all {i}", f"Write {i}.") for i in range(5)]
    return User(word, tuple(items), (HistoryItem(f"the {word} sang for us all again", "Write."),))


class CopyingEngine(FollowingEngine):
    """Writes the first item of the person whom it is told of most."""

    def generate_many(self, requests: Sequence[GenerateRequest]) -> list[str]:
        texts = super().generate_many(requests)
        return [
            f"0 the {text.split()[1]} sang for us all 0" if text != "nothing" else text
            for text in texts
        ]


def test_copies_are_looked_for_in_what_the_arm_learned_from(tmp_path: Path) -> None:
    done, _ = follow(
        tmp_path, a_sample(*map(a_copied_user, WORDS)), WRITTEN, engine=CopyingEngine()
    )
    leaked, habit = means(done, "leaked"), means(done, "habit")
    for arm in ("prompt", "own", "prompt + own", "swapped"):
        assert (leaked[arm], habit[arm]) == pytest.approx((2 / 3, 1 / 3))
    assert (leaked["real"], habit["real"]) == (0, 1 / 2)
    assert "unsteered" not in leaked  # it writes one word
    sample = a_sample(*map(a_copied_user, WORDS))
    expected = []
    for user in sample.people:
        drawn = [item.response for item in drawn_items(sample, user, 0, 0)]
        words = Counter(word for word in WORDS for text in drawn if word in text)
        first = f"0 the {words.most_common(1)[0][0]} sang for us all 0"
        expected.append(copied([first], drawn))
    assert habit["generic"] == pytest.approx(np.mean([each["habit"] for each in expected]))
    assert leaked["generic"] == pytest.approx(np.mean([each["leaked"] for each in expected]))
    assert habit["generic"] > 0


def test_a_profile_that_does_nothing_is_unsteered_exactly(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, generate=64, strengths=(0, 0.5, 1))
    done, engine = follow(tmp_path, plan=plan, methods={"off": Settings(strength=0)})
    assert not any(request.logit_bias for request in engine.passes)
    gains = means(done)
    assert gains["own"] == gains["generic"] == gains["swapped"] == gains["own - generic"] == 0
    assert gains["prompt + own"] == gains["prompt"] == 0.5
    assert means(done, "rouge1")["own"] == means(done, "rouge1")["unsteered"]
    assert means(done, "neutral")["own"] == 0


def test_a_sweep_scores_strengths_and_layers(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, strengths=(0, 0.5, 1, 2), layers=(1, 3))
    done, _ = follow(tmp_path, plan=plan)
    strengths = done.sweep("words", "strength")
    expected = {0: 0, 0.5: 0.25, 1: 0.5, 2: 1}
    assert {at: figure.mean for at, figure in strengths["own"].items()} == expected
    assert [figure.mean for figure in strengths["generic"].values()] == [0] * 4
    layers = done.sweep("words", "layer")  # here a layer is a strength
    assert {at: figure.mean for at, figure in layers["own"].items()} == {1: 0.5, 3: 1.5}
    assert follow(tmp_path / "none")[0].sweep("words", "strength") == {}


def test_a_sweep_over_items_learns_and_retrieves_from_the_last_ones_alone(tmp_path: Path) -> None:
    """Of late, the kettle's user writes of the rabbit alone; the clock's user has few items."""
    changed = User("kettle", (*a_user("kettle").history, *a_user("rabbit").history), ())
    users = (
        dataclasses.replace(changed, queries=a_user("kettle").queries),
        *(a_user("daisy", 10), a_user("clock", 4)),
    )
    plan = Plan(retrieve=10, generate=0, item_counts=(2, 4, 8, 16))
    done, _ = follow(tmp_path, a_sample(*users), plan)
    sweep = done.sweep("words", "items")
    assert list(sweep) == ["own", "prompt"]
    of_three = (0 + 0.5 + 0.5) / 3
    expected = {
        "own": {2: of_three, 4: of_three, 8: (0.5 * 3 / 8 + 0.5) / 2, math.inf: (0.25 + 1) / 3},
        "prompt": {2: of_three, 4: of_three, 8: 0.5, math.inf: 0.5},
    }
    for arm, gains in expected.items():
        assert {at: figure.mean for at, figure in sweep[arm].items()} == pytest.approx(gains)
        assert [figure.users for figure in sweep[arm].values()] == [3, 3, 2, 3]


def test_in_a_sweep_a_profile_that_does_nothing_is_not_scored(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, layers=(1,), item_counts=(2,))
    done, engine = follow(tmp_path, plan=plan, methods={"off": Settings(strength=0)})
    points = [point for row in done.rows if row["method"] for point in row["sweep"]]
    assert {"over": "items", "at": 2, "arm": "own", "same": "unsteered"} in points
    assert {point["over"] for point in points if "log_prob" in point} == {"layer"}
    assert done.sweep("off", "items")["own"][2].mean == 0
    assert {bool(request.logit_bias) for request in engine.passes} == {
        False,
        True,
    }  # a layer is a strength


def test_several_methods_share_the_baselines(tmp_path: Path) -> None:
    methods = {"words": Settings(strength=1.0), "half": Settings(strength=0.5)}
    done, _ = follow(tmp_path, methods=methods)
    own = {line.method: line.figures["gain"].mean for line in done.lines() if line.arm == "own"}
    assert own == {"words": 0.5, "half": 0.25}
    assert [line.arm for line in done.lines()].count("prompt") == 1
    assert [line.method for line in done.lines()] == [BASELINES] * 4 + ["words"] * 8 + ["half"] * 8
    assert len(done.rows) == len(WORDS) * 3


def test_answers_that_do_not_fit_are_scored_and_written_unsteered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def the_first(_engine: Any, steering: Steering, contexts: Sequence[Sequence[int]]) -> Any:
        return [
            steering if chars(context).endswith("Write more 0.") else Steering()
            for context in contexts
        ]

    monkeypatch.setattr(evaluator, "by_context", the_first)
    done, engine = follow(tmp_path, plan=WRITTEN)
    assert means(done)["own"] == 0.25  # of one text in two
    assert means(done)["prompt + own"] == 0.5 + 0.25 / 2
    for requests in (engine.passes, engine.written):
        steered_after = {chars(request.context)[-13:] for request in requests if request.logit_bias}
        assert steered_after == {"Write more 0."}


def test_the_default_method_is_learn_as_it_is() -> None:
    assert dict(METHODS) == {"steerx": Settings()}
