"""Evaluation: who is measured, the figures against ones computed by hand, and runs that resume."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from llama_cpp import Llama

from models import TinyModel
from steerx_edge.apps.cli.common import open_engine
from steerx_edge.errors import HistoryError, SteerxError
from steerx_edge.evaluation import (
    BASELINES,
    METHODS,
    Evaluation,
    Plan,
    Sample,
    evaluate,
    evaluator,
    read_sample,
    run,
    text_metrics,
)
from steerx_edge.evaluation.evaluator import MAX_OTHER_REQUESTS, fitting, steered
from steerx_edge.evaluation.sample import drawn_items, stranger
from steerx_edge.evaluation.text_metrics import Attribution, copied, overlap, repeats, request_fit
from steerx_edge.history.item import HistoryItem, User
from steerx_edge.history.retrieval import Retriever
from steerx_edge.learning.learn import learn
from steerx_edge.learning.neutral import neutral_items
from steerx_edge.learning.settings import Settings
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.interventions import Add
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import GenerateRequest, ScoreRequest
from steerx_edge.profile import (
    Description,
    Entry,
    Gain,
    LogitBias,
    MemoryPart,
    ModelId,
    Profile,
    WithHistory,
)
from steerx_edge.steering.memory import KeySpace, Memory
from tests.support.entries import an_entry
from tests.support.gate_reference import gate_for

WORDS = ("kettle", "rabbit", "daisy", "clock")


def a_user(word: str, n_items: int = 5, n_queries: int = 2) -> User:
    """A user who writes about one thing."""
    items = [HistoryItem(f"the {word} sang {i} times", f"Write {i}.") for i in range(n_items)]
    queries = [HistoryItem(f"one {word} more {i}", f"Write more {i}.") for i in range(n_queries)]
    return User(word, tuple(items), tuple(queries))


def a_sample(*users: User, reported: Sequence[str] | None = None) -> Sample:
    people = users or tuple(map(a_user, WORDS))
    return Sample("data.jsonl", people, tuple(reported or (user.id for user in people)), {})


PLAN = Plan(items=5, min_items=2, retrieve=2, generate=0)


# ---------------------------------------------------------------- who is measured


def write_users(folder: Path, *users: User) -> Path:
    rows = [
        {
            "user_id": user.id,
            "profile": [{"prompt": i.request, "response": i.response} for i in user.history],
            "queries": [{"input": q.request, "output": q.response} for q in user.queries],
        }
        for user in users
    ]
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_everybody_with_enough_text_is_measured_and_the_others_are_counted(tmp_path: Path) -> None:
    path = write_users(
        tmp_path, a_user("a", 9), a_user("b", 7), a_user("c", 8), a_user("d", 9, 0), a_user("e", 1)
    )
    sample = read_sample(path, Plan(items=8))
    assert sample.reported == ("a", "c")
    assert sample.left_out == {"fewer than 8 items": ("b", "e"), "no held-out text": ("d",)}
    assert [user.id for user in sample.people] == ["a", "b", "c", "d", "e"]


def test_the_last_items_are_used(tmp_path: Path) -> None:
    (user,) = read_sample(write_users(tmp_path, a_user("a", 9)), Plan(items=3, min_items=9)).people
    assert user.history == a_user("a", 9).history[-3:]


def test_all_items_are_used_unless_told_otherwise(tmp_path: Path) -> None:
    (user,) = read_sample(write_users(tmp_path, a_user("a", 40)), Plan()).people
    assert user.history == a_user("a", 40).history


@pytest.mark.parametrize(("half", "expected"), [("odd", ("a", "c")), ("even", ("b", "d"))])
def test_halves_share_nobody(tmp_path: Path, half: Any, expected: tuple[str, ...]) -> None:
    path = write_users(tmp_path, *map(a_user, "abcd"))
    sample = read_sample(path, PLAN, half=half)
    assert sample.reported == expected
    assert len(sample.people) == 4
    assert read_sample(path, PLAN, half=half, users=["a", "d"]).reported == tuple(
        name for name in expected if name in "ad"
    )


def test_users_are_named(tmp_path: Path) -> None:
    path = write_users(tmp_path, *map(a_user, "abc"))
    assert read_sample(path, PLAN, users=["c", "a"]).reported == ("a", "c")
    with pytest.raises(HistoryError, match=r"no user 'x'. It has 3, as 'a', 'b', 'c'\."):
        read_sample(path, PLAN, users=["a", "x"])


def test_nobody_to_measure_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    path = write_users(tmp_path, a_user("a", 3), a_user("b", 9, 0), a_user("c", 9, 0))
    with pytest.raises(HistoryError, match=r"Of 3 users, 1 have fewer than 8 items .* 2 others no"):
        read_sample(path, Plan())


@pytest.mark.parametrize(("n", "held_out"), [(9, 1), (10, 2), (14, 2), (15, 3)])
def test_of_one_persons_file_the_last_fifth_is_held_out(
    tmp_path: Path, n: int, held_out: int
) -> None:
    path = tmp_path / "mail.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(n)))
    (user,) = read_sample(path, Plan(min_items=2)).people
    assert user.id == "mail"
    texts = [item.response for item in (*user.history, *user.queries)]
    assert texts == [f"text {i}" for i in range(n)]
    assert len(user.queries) == held_out


def test_response_and_prompt_are_those_of_learn(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    rows = [{"note": f"n{i}", "title": f"t{i}"} for i in range(5)]
    path.write_text("\n".join(map(json.dumps, rows)))
    (user,) = read_sample(path, PLAN, response="note", prompt="Note {title}").people
    assert user.queries == (HistoryItem("n4", "Note t4"),)


# ---------------------------------------------------------------- other users' texts


def test_as_many_items_are_drawn_from_others_and_none_of_the_users_own() -> None:
    sample = a_sample()
    for user in sample.people:
        for draw in range(3):
            items = drawn_items(sample, user, draw, seed=0)
            assert len(items) == len(set(items)) == len(user.history)
            assert not any(user.id in item.response for item in items)


def test_a_text_that_the_user_wrote_too_is_not_drawn() -> None:
    """LaMP's questions may be of the same person."""
    one = a_user("kettle")
    same = dataclasses.replace(a_user("kettle", 7), id="again")
    quoting = User("quoting", (HistoryItem(one.queries[0].response), HistoryItem("other")), ())
    sample = a_sample(one, same, quoting, reported=["kettle"])
    drawn = {item.response for item in drawn_items(sample, one, 0, seed=0)}
    assert drawn == {"the kettle sang 5 times", "the kettle sang 6 times", "other"}


def test_draws_depend_on_the_seed_the_draw_and_the_user_alone() -> None:
    sample = a_sample()
    user = sample.people[0]
    first = drawn_items(sample, user, 0, seed=0)
    assert first == drawn_items(a_sample(reported=["kettle"]), user, 0, seed=0)
    assert first != drawn_items(sample, user, 1, seed=0)
    assert first != drawn_items(sample, user, 0, seed=1)
    twin = dataclasses.replace(user, id="twin")
    others = a_sample(user, *sample.people[1:])
    assert first != drawn_items(others, twin, 0, seed=0)


def test_without_others_nothing_is_drawn() -> None:
    sample = a_sample(a_user("kettle"))
    assert drawn_items(sample, sample.people[0], 0, seed=0) == []
    assert stranger(sample, sample.people[0], seed=0) is None


@pytest.mark.parametrize("seed", range(5))
def test_each_user_is_swapped_for_one_other(seed: int) -> None:
    sample = a_sample()
    strangers = {user.id: stranger(sample, user, seed) for user in sample.people}
    assert all(other and other.id != user for user, other in strangers.items())
    assert {other.id for other in strangers.values() if other} == set(WORDS)


def test_a_single_measured_user_is_swapped_for_one_who_is_not() -> None:
    sample = a_sample(a_user("silent", 1), *map(a_user, WORDS), reported=["kettle"])
    other = stranger(sample, sample.by_id["kettle"], 0)
    assert other
    assert other.id == "rabbit"  # the first who has a history to learn from


def test_the_same_person_under_another_name_is_not_swapped_in() -> None:
    users = [dataclasses.replace(a_user("kettle"), id=f"kettle{i}") for i in range(4)]
    sample = a_sample(*users, a_user("rabbit"))
    for user in users:
        other = stranger(sample, user, 0)
        assert other
        assert other.id == "rabbit"


# ---------------------------------------------------------------- figures of a text


def test_overlap_by_hand() -> None:
    figures = overlap("The cat sat.", "the cats sat, on")
    assert figures["rouge1"] == pytest.approx(4 / 7)  # 2 of 4 words, 2 of 3
    assert figures["rougeL"] == pytest.approx(4 / 7)
    # METEOR: all 3 words by stems, in one chunk: P = 3/4, R = 1, penalty 0.5 (1/3)^3.
    expected = 0.75 / (0.9 * 0.75 + 0.1) * (1 - 0.5 / 27)
    assert figures["meteor"] == pytest.approx(expected)


def test_rouge_l_minds_the_order_and_rouge_1_does_not() -> None:
    figures = overlap("one two three", "three two one")
    assert figures["rouge1"] == pytest.approx(1)
    assert figures["rougeL"] == pytest.approx(1 / 3)


def test_words_of_every_script_count() -> None:
    assert overlap("Über Käse", "über käse")["rouge1"] == 1
    assert overlap("чайник пел", "чайник пел")["rougeL"] == 1
    assert overlap("one", "") == {"rouge1": 0, "rougeL": 0, "meteor": 0}


@pytest.mark.parametrize(
    ("text", "share"),
    [("", 0), ("a b c", 0), ("a b c d", 0), ("a b c d a b c d", 0.2), ("a " * 8, 0.8)],
)
def test_repeats_by_hand(text: str, share: float) -> None:
    assert repeats(text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("log_probs", "figures"),
    [
        ([-2.0], {}),  # no request
        ([-2.0, -3.0], {"topic": 1}),  # no other request
        ([-2.0, -3.0, -2.5, -2.25], {"topic": 1, "own_request": 1}),
        ([-2.0, -3.0, -2.5, -1.75], {"topic": 1, "own_request": 0}),
        ([-2.0, -1.5, -2.0], {"topic": -0.5, "own_request": 0}),  # no better is not better
    ],
)
def test_request_fit_by_hand(log_probs: list[float], figures: dict[str, float]) -> None:
    assert request_fit(log_probs) == figures


ALPHABET = "a b c d e f g h i j"


@pytest.mark.parametrize(
    ("texts", "history", "leaked", "habit"),
    [
        (["a b c d e f g h"], ["x y"], 0, 0),
        (["a b c d e f g h"], ["a b c d e f g x"], 2 / 3, 0),
        (["a b c d e f g h"], ["a b c d e f g x", "x b c d e f g x"], 1 / 3, 1 / 3),
        (["a b c d e f g h"], ["b c d e f g", "b c d e f g b c d e f g h"], 1 / 3, 1 / 3),
        (["b c d e f g"], ["b c d e f g x b c d e f g"], 1, 0),  # twice in one text
        (["b c d e f g"], ["a b c d e f g", "A, b: c d e f (g)!"], 1, 0),  # twice the same text
        (["A, b – C d; «e» f."], ["(a) B c d e F!"], 1, 0),
        (["STRASSE b c d e f"], ["straße b c d e f"], 1, 0),
        (["a b c d e f", "x y z x y z x y z"], [ALPHABET], 1 / 5, 0),  # of all texts together
        (["a b c d e f", "short"], [ALPHABET], 1, 0),
    ],
)
def test_copied_by_hand(texts: list[str], history: list[str], leaked: float, habit: float) -> None:
    assert copied(texts, history) == pytest.approx({"leaked": leaked, "habit": habit})


def test_of_texts_without_six_words_nothing_can_be_said() -> None:
    assert copied(["a b c d e", ""], [ALPHABET]) == {}


def test_attribution_knows_who_writes_how() -> None:
    attribution = Attribution(
        {
            "plain": ["The house is old.", "The road is long.", "The sun is up."],
            "loud": ["WOW!!! SO OLD!!!", "WOW!!! LONG!!!", "YES!!! UP!!!"],
            "quiet": ["old... oh well...", "long... sigh...", "up... i guess..."],
        }
    )
    assert attribution.rank("loud", "OH WOW!!!") == 1
    assert attribution.rank("quiet", "so... oh well...") == 1
    assert attribution.rank("plain", "OH WOW!!!") > 1
    assert sorted(attribution.rank(a, "The hill is far.") for a in ("plain", "loud", "quiet")) == [
        1,
        2,
        3,
    ]


def test_attribution_between_two() -> None:
    attribution = Attribution({"b": ["xxxx", "xxyx"], "a": ["ooooo", "oooo"]})
    assert [attribution.rank(author, "xxx") for author in "ba"] == [1, 2]
    assert [attribution.rank(author, "ooo") for author in "ba"] == [2, 1]


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    text_metrics.check_installed()
    monkeypatch.setattr(text_metrics, "find_spec", lambda name: None if name == "nltk" else 1)
    with pytest.raises(SteerxError, match=r"nltk, .* 'steerx-edge\[eval\]', .* --no-generate"):
        text_metrics.check_installed()


# ---------------------------------------------------------------- a model that can be followed


MODEL = ModelId("sha256:" + "0" * 64, "follower", "fake", 4, 8, 1, "F32")


def chars(tokens: Sequence[int]) -> str:
    return "".join(map(chr, tokens))


class FollowingEngine:
    """Finds a text about a word half a nat more probable when it is told of that word.

    Told by a profile: in proportion to the items it was learned from. Told by the prompt: by
    texts in it. What it writes is about the word it was told of, or "nothing".
    """

    def __init__(self, n_ctx: int = 4000) -> None:
        self.analysis = SimpleNamespace(n_ctx=n_ctx, n_layer=4)
        self.model_id = MODEL
        self.passes: list[ScoreRequest] = []
        self.calls = 0

    def tokenize(self, text: str) -> list[int]:
        return list(map(ord, text))

    def pieces(self, tokens: Sequence[int]) -> list[bytes]:
        return [chr(token).encode() for token in tokens]

    def prompt(self, messages: Sequence[Any]) -> list[int]:
        return list(map(ord, "\n".join(message["content"] for message in messages)))

    def run_many(self, jobs: Sequence[ScoreRequest]) -> list[Any]:
        self.passes += jobs
        self.calls += 1
        return [SimpleNamespace(scored=np.full(len(job.response), self.score(job))) for job in jobs]

    def score(self, job: ScoreRequest) -> float:
        told = self.told(job)
        text = "".join(map(chr, job.response))
        return -3 + sum(0.5 * told[word] for word in WORDS if word in text)

    def told(self, job: ScoreRequest | GenerateRequest) -> Counter[str]:
        shown = "".join(map(chr, job.context))
        told: Counter[str] = Counter({word: 1 for word in WORDS if f"{word} sang" in shown})
        for words, strength in job.interventions:  # type: ignore[misc]
            for word, share in words.items():
                told[word] += share * strength
        return told

    def generate_many(self, jobs: Sequence[GenerateRequest]) -> list[str]:
        best = [max(self.told(job).items(), key=lambda each: each[1], default="") for job in jobs]
        return [f"one {word[0]} more" if word else "nothing" for word in best]


def entry_of(words: Counter[str], strength: float = 1.0) -> Entry:
    """A profile that says what it was learned from."""
    text = json.dumps({word: count / words.total() for word, count in words.items()})
    return an_entry(
        MODEL,
        (2,),
        np.eye(1, 8),
        description=Description(text, "user"),
        strengths=np.array([strength], np.float32),
    )


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[HistoryItem]]:
    """Learning that looks at the words alone, and what it was given."""
    given: list[Sequence[HistoryItem]] = []

    def learn_words(_: object, items: Sequence[HistoryItem], settings: Settings) -> Profile:
        given.append(items)
        words = Counter(word for item in items for word in WORDS if word in item.response)
        strength = settings.strength if settings.layers is None else settings.layers[0]
        return Profile((entry_of(words, strength),))

    def steer_words(entry: Entry, strength: float = 1.0) -> dict[str, Any]:
        told = json.loads(entry.description.text)
        changes = ((told, strength * float(entry.strengths[0])),)
        return {"interventions": changes} if strength * entry.strengths[0] else {}

    monkeypatch.setattr(evaluator, "learn", learn_words)
    monkeypatch.setattr(evaluator, "steered", steer_words)
    return given


ONE = {"words": Settings(strength=1.0)}


def follow(
    folder: Path,
    sample: Sample | None = None,
    plan: Plan = PLAN,
    *,
    methods: Any = ONE,
    engine: FollowingEngine | None = None,
    **options: Any,
) -> tuple[Evaluation, FollowingEngine]:
    engine = engine or FollowingEngine()
    sample = sample or a_sample()
    done = evaluate(lambda: engine, sample, plan, folder, methods=methods, **options)  # type: ignore[arg-type, return-value]
    return done, engine


def means(evaluation: Evaluation, name: str = "gain") -> dict[str, float]:
    return {
        line.arm: line.figures[name].mean for line in evaluation.lines() if name in line.figures
    }


@pytest.mark.usefixtures("learned")
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
        "prompt + own": 1,
        "own - generic": 0.5,
        "own - swapped": 0.5,
        "prompt + own - prompt": 0.5,
    }
    assert means(done, "log_prob")["unsteered"] == -3


@pytest.mark.usefixtures("learned")
def test_beside_texts_in_the_prompt_a_profile_has_the_strengths_for_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn_words(_: object, items: Sequence[HistoryItem], _settings: Settings) -> Profile:
        words = Counter(word for item in items for word in WORDS if word in item.response)
        beside = WithHistory([0.25], 0, 0, Gain(0.1, 0.05, 0.2, 4))
        return Profile((dataclasses.replace(entry_of(words), with_history=beside),))

    monkeypatch.setattr(evaluator, "learn", learn_words)
    done, _ = follow(tmp_path)
    gains = means(done)
    assert gains["own"] == 0.5
    assert gains["prompt + own"] == 0.5 + 0.25 * 0.5
    assert gains["prompt + own - prompt"] == 0.25 * 0.5


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


def test_each_profile_is_learned_once(tmp_path: Path, learned: list[Sequence[HistoryItem]]) -> None:
    follow(tmp_path)
    own = [items for items in learned if items in [user.history for user in a_sample().people]]
    assert len(own) == len(WORDS)
    assert len(learned) == len(WORDS) * 3


@pytest.mark.usefixtures("learned")
def test_one_person_alone_has_no_generic_and_no_swapped(tmp_path: Path) -> None:
    done, _ = follow(tmp_path, a_sample(a_user("kettle")))
    gains = {"prompt": 0.5, "description": 0, "own": 0.5, "prompt + own": 1}
    assert means(done) == gains | {"prompt + own - prompt": 0.5}
    (line,) = [line for line in done.lines() if line.arm == "own"]
    assert (line.figures["gain"].low, line.figures["gain"].high) == (None, None)
    assert line.figures["gain"].median == 0.5


@pytest.mark.usefixtures("learned")
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
    scored = [job for job in engine.passes if job.response[:3] == list(map(ord, "one"))]
    assert {len(job.response) for job in scored} == {80}  # a quarter
    lengths = {len(job.context) for job in scored}
    assert max(lengths) <= 240
    longest = max(scored, key=lambda job: len(job.context))
    shown = "".join(map(chr, longest.context))
    assert shown.count("Write") == 1 + 4  # four of five items have room
    assert shown.split("\n")[-3] == "Write: garden."  # the most relevant is the last
    assert "x" * 41 not in shown  # an item's text has an eighth


@pytest.mark.usefixtures("learned")
def test_neutral_text_is_scored_without_and_with_profiles(tmp_path: Path) -> None:
    done, engine = follow(tmp_path)
    assert means(done, "neutral")["own"] == 0
    texts = {item.response: item.request for item in neutral_items("evaluation")}
    scored = [(chars(job.context), chars(job.response)) for job in engine.passes]
    neutral = [(request, text) for request, text in scored if text in texts]
    assert len(neutral) == len(texts) * len(WORDS) * (1 + 1 + 2 + 1)
    assert all(request == texts[text] for request, text in neutral)


def test_profiles_are_learned_from_all_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []

    def learn_words(_: object, items: Sequence[HistoryItem], settings: Settings) -> Profile:
        used.append(len(items[-settings.max_items :]))
        return Profile((entry_of(Counter("a"), strength=0),))

    monkeypatch.setattr(evaluator, "learn", learn_words)
    sample = a_sample(a_user("kettle", 40), a_user("rabbit", 40), reported=["kettle"])
    for items, expected in ((None, 40), (3, 3)):
        follow(tmp_path / str(items), sample, dataclasses.replace(PLAN, items=items))
        assert set(used) == {expected}
        used.clear()


@pytest.mark.usefixtures("learned")
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


@pytest.mark.usefixtures("learned")
def test_an_empty_text_has_no_surprise_and_is_off_topic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AnsweringEngine, "generate_many", lambda _, jobs: ["  "] * len(jobs))
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

    def score(self, job: ScoreRequest) -> float:
        asked = re.search(r"\d+\.$", chars(job.context))
        answered = asked and re.search(rf"\b{asked[0][:-1]}$", chars(job.response))
        return super().score(job) + (0.5 if answered else 0)

    def generate_many(self, jobs: Sequence[GenerateRequest]) -> list[str]:
        texts = super().generate_many(jobs)
        numbers = [chars(job.context).rsplit(" ", 1)[1][:-1] for job in jobs]
        return [
            f"{text} 0" if text == "nothing" else f"{text} {number}"
            for text, number in zip(texts, numbers, strict=True)
        ]


@pytest.mark.usefixtures("learned")
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
        job for job in engine.passes if re.search(r"(nothing|more) \d$", chars(job.response))
    ]
    assert not any(job.interventions for job in written if "short text" in chars(job.context))
    assert engine.calls == len(done.rows) * 3  # real texts, neutral texts, written texts


@pytest.mark.usefixtures("learned")
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


@pytest.mark.usefixtures("learned")
def test_of_many_requests_a_text_is_compared_with_some(tmp_path: Path) -> None:
    sample = a_sample(a_user("kettle", n_queries=MAX_OTHER_REQUESTS + 3))
    done, engine = follow(tmp_path, sample, WRITTEN, engine=AnsweringEngine())
    assert means(done, "own_request")["real"] == 1
    last = f"one kettle more {MAX_OTHER_REQUESTS + 2}"
    after = {chars(job.context) for job in engine.passes if chars(job.response) == last}
    asked = [i for i in range(MAX_OTHER_REQUESTS + 3) if f"Write more {i}." in after]
    assert asked == [*range(MAX_OTHER_REQUESTS), MAX_OTHER_REQUESTS + 2]


def a_copied_user(word: str) -> User:
    """Of each item's three runs of six words, the middle one stands in all items."""
    items = [HistoryItem(f"{i} the {word} sang for us all {i}", f"Write {i}.") for i in range(5)]
    return User(word, tuple(items), (HistoryItem(f"the {word} sang for us all again", "Write."),))


class CopyingEngine(FollowingEngine):
    """Writes the first item of the person whom it is told of most."""

    def generate_many(self, jobs: Sequence[GenerateRequest]) -> list[str]:
        texts = super().generate_many(jobs)
        return [
            f"0 the {text.split()[1]} sang for us all 0" if text != "nothing" else text
            for text in texts
        ]


@pytest.mark.usefixtures("learned")
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
        words = Counter(word for text in drawn for word in WORDS if word in text)
        first = f"0 the {words.most_common(1)[0][0]} sang for us all 0"
        expected.append(copied([first], drawn))
    assert habit["generic"] == pytest.approx(np.mean([each["habit"] for each in expected]))
    assert leaked["generic"] == pytest.approx(np.mean([each["leaked"] for each in expected]))
    assert habit["generic"] > 0


@pytest.mark.usefixtures("learned")
def test_a_profile_that_does_nothing_is_unsteered_exactly(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, generate=64, strengths=(0, 0.5, 1))
    done, engine = follow(tmp_path, plan=plan, methods={"off": Settings(strength=0)})
    assert not any(job.interventions for job in engine.passes)
    gains = means(done)
    assert gains["own"] == gains["generic"] == gains["swapped"] == gains["own - generic"] == 0
    assert gains["prompt + own"] == gains["prompt"] == 0.5
    assert means(done, "rouge1")["own"] == means(done, "rouge1")["unsteered"]
    assert means(done, "neutral")["own"] == 0


@pytest.mark.usefixtures("learned")
def test_a_sweep_scores_strengths_and_layers(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, strengths=(0, 0.5, 1, 2), layers=(1, 3))
    done, _ = follow(tmp_path, plan=plan)
    strengths = done.sweep("words", "strength")
    assert {at: figure.mean for at, figure in strengths["own"].items()} == {
        0: 0,
        0.5: 0.25,
        1: 0.5,
        2: 1,
    }
    assert {at: figure.mean for at, figure in strengths["generic"].items()} == dict.fromkeys(
        (0, 0.5, 1, 2), 0
    )
    layers = done.sweep("words", "layer")  # here a layer is a strength
    assert {at: figure.mean for at, figure in layers["own"].items()} == {1: 0.5, 3: 1.5}
    assert follow(tmp_path / "none")[0].sweep("words", "strength") == {}


@pytest.mark.usefixtures("learned")
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
    assert {at: (figure.mean, figure.users) for at, figure in sweep["own"].items()} == {
        2: (pytest.approx((0 + 0.5 + 0.5) / 3), 3),
        4: (pytest.approx((0 + 0.5 + 0.5) / 3), 3),
        8: (pytest.approx((0.5 * 3 / 8 + 0.5) / 2), 2),
        math.inf: (pytest.approx((0.25 + 0.5 + 0.5) / 3), 3),
    }
    assert {at: (figure.mean, figure.users) for at, figure in sweep["prompt"].items()} == {
        2: (pytest.approx((0 + 0.5 + 0.5) / 3), 3),
        4: (pytest.approx((0 + 0.5 + 0.5) / 3), 3),
        8: (0.5, 2),
        math.inf: (0.5, 3),
    }


@pytest.mark.usefixtures("learned")
def test_in_a_sweep_a_profile_that_does_nothing_is_not_scored(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, layers=(1,), item_counts=(2,))
    done, engine = follow(tmp_path, plan=plan, methods={"off": Settings(strength=0)})
    points = [point for row in done.rows if row["method"] for point in row["sweep"]]
    assert {"over": "items", "at": 2, "arm": "own", "same": "unsteered"} in points
    assert {point["over"] for point in points if "log_prob" in point} == {"layer"}
    assert done.sweep("off", "items")["own"][2].mean == 0
    assert {len(job.interventions) for job in engine.passes} == {0, 1}  # a layer is a strength


@pytest.mark.usefixtures("learned")
def test_several_methods_share_the_baselines(tmp_path: Path) -> None:
    methods = {"words": Settings(strength=1.0), "half": Settings(strength=0.5)}
    done, _ = follow(tmp_path, methods=methods)
    own = {line.method: line.figures["gain"].mean for line in done.lines() if line.arm == "own"}
    assert own == {"words": 0.5, "half": 0.25}
    assert [line.arm for line in done.lines()].count("prompt") == 1
    assert [line.method for line in done.lines()] == [BASELINES] * 4 + ["words"] * 8 + ["half"] * 8
    assert len(done.rows) == len(WORDS) * 3


# ---------------------------------------------------------------- means over users


def rows_of(user: str, unsteered: float, own: float, generic: float) -> list[dict[str, Any]]:
    return [
        {
            "user": user,
            "method": BASELINES,
            "items": 5,
            "queries": 1,
            "arms": {"unsteered": {"log_prob": unsteered, "neutral": -4.0}},
            "sweep": [],
        },
        {
            "user": user,
            "method": "m",
            "arms": {
                "own": {"log_prob": own, "neutral": -4.5},
                "generic": {"log_prob": generic, "neutral": -4.25},
            },
            "sweep": [],
        },
    ]


def test_means_are_over_users_and_differences_are_paired() -> None:
    rows = [
        *rows_of("a", -5.0, -4.0, -4.5),
        *rows_of("b", -9.0, -8.0, -8.5),
        *rows_of("c", -2.0, -2.02, -2.03),
        *rows_of("d", -2.0, -2.01 + 1e-9, -2.0),
    ]
    done = Evaluation({"users": ["a", "b", "c", "d"], "methods": {"m": {}}, "seed": 0}, rows)
    figures = {line.arm: line.figures for line in done.lines()}
    assert figures["unsteered"]["log_prob"].mean == pytest.approx(-4.5)
    assert figures["own"]["gain"].mean == pytest.approx((1 + 1 - 0.02 - 0.01) / 4)
    assert figures["own"]["gain"].median == pytest.approx((1 - 0.01) / 2)
    assert figures["own"]["worse"].mean == 0.25
    assert figures["generic"]["worse"].mean == 0.25
    personal = figures["own - generic"]
    assert personal["gain"].mean == pytest.approx((0.5 + 0.5 + 0.01 - 0.01) / 4)
    assert personal["gain"].median == pytest.approx((0.5 + 0.01) / 2)  # of the differences
    assert personal["worse"].mean == 0
    assert personal["neutral"].mean == pytest.approx(-0.25)
    assert figures["own"]["neutral"].mean == pytest.approx(-0.5)
    assert personal["gain"].users == 4
    low, high = personal["gain"].low, personal["gain"].high
    assert low is not None
    assert high is not None
    assert -0.01 <= low < personal["gain"].mean < high <= 0.5
    # Users differ far more in their levels than in what they gain.
    level = figures["unsteered"]["log_prob"]
    assert level.high is not None
    assert level.low is not None
    assert level.high - level.low > 5 * (high - low)


def test_a_user_without_an_arm_is_not_counted_for_it() -> None:
    rows = [*rows_of("a", -5.0, -4.0, -4.5), *rows_of("b", -9.0, -8.0, -8.5)]
    del rows[3]["arms"]["generic"]
    done = Evaluation({"users": ["a", "b"], "methods": {"m": {}}, "seed": 0}, rows)
    figures = {line.arm: line.figures for line in done.lines()}
    assert figures["generic"]["gain"].users == figures["own - generic"]["gain"].users == 1
    assert figures["own"]["gain"].users == 2


def test_in_a_sweep_profiles_that_do_nothing_gain_nothing() -> None:
    rows = [*rows_of("a", -5.0, -4.0, -4.5), *rows_of("b", -9.0, -8.0, -8.5)]
    rows[1]["sweep"] = [{"over": "strength", "at": 2.0, "arm": "own", "log_prob": -3.0}]
    del rows[3]["arms"]["own"]
    rows[3]["same"] = {"own": "unsteered"}
    done = Evaluation({"users": ["a", "b"], "methods": {"m": {}}, "seed": 0}, rows)
    by_strength = done.sweep("m", "strength")["own"]
    assert {at: figure.mean for at, figure in by_strength.items()} == {0: 0, 1: 0.5, 2: 1}
    assert {figure.users for figure in by_strength.values()} == {2}


# ---------------------------------------------------------------- runs


ROWS = run.ROWS_FILE


def interrupted(folder: Path, after: int, **options: Any) -> None:
    def progress(what: str, done: int, _: int) -> None:
        if (what, done) == ("measuring", after):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(folder, progress=progress, **options)


@pytest.mark.parametrize("cut", [0, 1, 40])
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


@pytest.mark.usefixtures("learned")
def test_equal_runs_give_equal_files(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, generate=32, strengths=(0.5,))
    for name in ("one", "two"):
        follow(tmp_path / name, plan=plan)
    for file in (ROWS, run.SUMMARY_FILE):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.usefixtures("learned")
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"plan": dataclasses.replace(PLAN, seed=7)}, "seed was 0 and is 7 now"),
        ({"plan": dataclasses.replace(PLAN, retrieve=3)}, "retrieve was 2 and is 3 now"),
        ({"sample": a_sample(reported=["kettle"])}, "users was .* now"),
        ({"sample": a_sample(*map(a_user, (*WORDS[:3], "clack")))}, "digest differs, users"),
        ({"methods": {"words": Settings(strength=2.0)}}, "methods differs"),
    ],
)
def test_another_evaluation_is_refused(tmp_path: Path, changed: Any, said: str) -> None:
    follow(tmp_path)
    before = (tmp_path / ROWS).read_bytes()
    with pytest.raises(SteerxError, match=f"of another evaluation: {said}.*--output"):
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
    with pytest.raises(SteerxError, match=r"cannot be kept in .*out/rows\.jsonl"):
        follow(tmp_path / "out")


@pytest.mark.usefixtures("learned")
def test_the_summary_has_a_line_for_each_arm(tmp_path: Path) -> None:
    done, _ = follow(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / run.SUMMARY_FILE).read_text().splitlines()]
    assert [line["arm"] for line in lines] == [line.arm for line in done.lines()]
    own = next(line for line in lines if line["arm"] == "own")
    assert own["figures"]["gain"] == {
        "mean": 0.5,
        "median": 0.5,
        "low": 0.5,
        "high": 0.5,
        "users": 4,
    }


@pytest.mark.usefixtures("learned")
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


# ---------------------------------------------------------------- on a real engine


def real_sample() -> Sample:
    return a_sample(*map(a_user, WORDS[:3]), reported=WORDS[:2])


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
    return folder, evaluate(opened, real_sample(), EVERYTHING, folder, methods={"steerx": FIXED})


@pytest.fixture
def follow_by_hand(real: tuple[Path, Evaluation], tiny_chat: TinyModel) -> Callable[..., float]:
    """The log-probability of the kettle's user, computed pass by pass."""
    engine = open_engine(str(tiny_chat.path), 1, 0)
    user = real_sample().people[0]
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
            job = ScoreRequest(
                engine.prompt(messages),
                engine.tokenize(query.response),
                interventions=(Add(entry.layers, entry.vectors(strength)),) if entry else (),
                logit_bias=entry.token_bias(strength) if entry else {},
            )
            means.append(engine.run(job).scored.mean())
        return float(np.mean(means))

    return log_prob


def test_figures_are_those_of_single_passes(
    real: tuple[Path, Evaluation], follow_by_hand: Callable[..., float]
) -> None:
    folder, done = real
    sample = real_sample()
    user = sample.people[0]
    entry = {
        kind: Profile.load(folder / "profiles" / f"steerx-{kind}.json").entries[0]
        for kind in ("0-own", "1-own", "0-generic0", "0-generic1", "0-layer1")
    }
    drawn = [drawn_items(sample, user, draw, 0) for draw in range(2)]
    base, method = done.rows[:2]
    assert (base["user"], method["user"]) == ("kettle", "kettle")
    by_hand = follow_by_hand
    expected = {
        "unsteered": by_hand(),
        "prompt": by_hand(history=user.history),
        "others' prompt": np.mean([by_hand(history=items) for items in drawn]),
        "description": by_hand(description=entry["0-own"].description.text),
        "own": by_hand(entry["0-own"]),
        "generic": np.mean([by_hand(entry[f"0-generic{draw}"]) for draw in range(2)]),
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


def test_a_point_over_items_is_the_arm_of_an_evaluation_of_so_many(
    real: tuple[Path, Evaluation], tmp_path: Path, tiny_chat: TinyModel
) -> None:
    _, done = real
    people = [dataclasses.replace(user, history=user.history[-3:]) for user in real_sample().people]
    cut = evaluate(
        partial(open_engine, str(tiny_chat.path), 1, 0),
        a_sample(*people, reported=WORDS[:2]),
        dataclasses.replace(PLAN, items=3, draws=0),
        tmp_path,
        methods={"steerx": FIXED},
    )
    for row, row_of_cut in zip(done.rows, cut.rows, strict=True):
        (point,) = [point for point in row["sweep"] if point["over"] == "items"]
        assert point["at"] == 3
        expected = row_of_cut["arms"][point["arm"]]["log_prob"]
        assert point["log_prob"] == pytest.approx(expected, abs=1e-3)
        assert point["log_prob"] != pytest.approx(row["arms"][point["arm"]]["log_prob"], abs=2e-3)


def test_profiles_are_those_that_learn_gives(
    real: tuple[Path, Evaluation], tiny_chat_llama: Llama
) -> None:
    folder, _ = real
    sample = real_sample()
    engine = Engine(tiny_chat_llama)
    for kind, items in (
        ("0-own", sample.people[0].history),
        ("1-generic1", drawn_items(sample, sample.people[1], 1, 0)),
    ):
        kept = Profile.load(folder / "profiles" / f"steerx-{kind}.json").entries[0]
        expected = learn(engine, items, dataclasses.replace(FIXED, max_items=5)).entries[0]
        assert kept.counts == expected.counts
        np.testing.assert_allclose(kept.directions, expected.directions, atol=0.02)


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
    sample = real_sample()
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_text("utf-8")
            for user in sample.people:
                for item in (*user.history, *user.queries):
                    assert item.response not in content
                    assert not item.request or item.request not in content


def test_several_processes_give_the_figures_of_one(
    real: tuple[Path, Evaluation], tmp_path: Path, tiny_chat: TinyModel
) -> None:
    _, expected = real
    steps: list[tuple[str, int, int]] = []
    done = evaluate(
        partial(open_engine, str(tiny_chat.path), 1, 0),
        real_sample(),
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


def open_here_and_die_elsewhere(path: str, parent: int) -> Engine:
    if os.getpid() != parent:
        os._exit(9)
    return open_engine(path, 1, 0)


def test_a_process_that_dies_is_no_hang(tmp_path: Path, tiny_chat: TinyModel) -> None:
    opened = partial(open_here_and_die_elsewhere, str(tiny_chat.path), os.getpid())
    with pytest.raises(SteerxError, match="try fewer --processes"):
        evaluate(opened, real_sample(), PLAN, tmp_path, processes=2)


def test_an_error_in_a_process_is_the_error_of_the_run(
    tmp_path: Path, tiny_chat: TinyModel
) -> None:
    opened = partial(open_engine, str(tiny_chat.path), 1, 0)
    sample = a_sample(a_user("kettle", 1), a_user("rabbit", 1))
    with pytest.raises(HistoryError, match="There are 1 different texts to learn from"):
        evaluate(opened, sample, PLAN, tmp_path, processes=2)


def test_steered_is_the_entry_at_its_rows() -> None:
    entry = dataclasses.replace(entry_of(Counter("a")), positions="all")
    (added,) = steered(entry, 0.5)["interventions"]
    assert (added.layers, added.positions) == ((2,), "all")
    np.testing.assert_array_equal(added.vectors, entry.vectors(0.5))
    off = np.zeros(1, np.float32)
    assert steered(entry, 0) == steered(dataclasses.replace(entry, strengths=off)) == {}
    logit_bias = LogitBias(np.array([5, 9], np.int32), np.array([1, -2], np.float32), 0.5)
    biased = dataclasses.replace(entry, strengths=off, logit_bias=logit_bias)
    assert steered(biased, 2.0) == {"logit_bias": {5: 1.0, 9: -2.0}}
    space = KeySpace.fit(np.random.default_rng(0).standard_normal((50, 8)))
    keys = np.ones((1, space.basis.shape[1]), np.int8)
    memory = Memory(
        space, keys, np.ones(1, np.int32), np.ones(1, np.float32), np.empty(0, np.uint32), 1
    )
    part = MemoryPart.of(memory, strength=0.5, level="all")
    remembering = dataclasses.replace(entry, strengths=off, memory=part)
    mixed_in = steered(remembering, 3.0)
    assert list(mixed_in) == ["memory"]
    assert mixed_in["memory"].strength == 1.5
    assert mixed_in["memory"].memory is part.memory
    assert steered(remembering, 0) == steered(remembering, -1.0) == {}


def test_an_entry_fits_where_its_gate_is_open(tiny_chat_engine: Engine) -> None:
    engine = tiny_chat_engine
    contexts = [engine.prompt(messages_for(request)) for request in ("Write.", "Sing!", "Read 2")]
    entry = dataclasses.replace(
        entry_of(Counter("a")),
        model=engine.model_id,
        layers=(1,),
        directions=np.eye(1, 64, dtype=np.float32),
    )
    assert fitting(engine, entry, contexts) == [True, True, True]
    gate = gate_for(engine.llama, contexts[1])
    assert fitting(engine, dataclasses.replace(entry, gate=gate), contexts) == [False, True, False]


@pytest.mark.usefixtures("learned")
def test_answers_that_do_not_fit_are_scored_and_written_unsteered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fits_the_first(_engine: Any, _entry: Entry, contexts: Sequence[Sequence[int]]) -> Any:
        return [chars(context).endswith("Write more 0.") for context in contexts]

    monkeypatch.setattr(evaluator, "fitting", fits_the_first)
    engine = FollowingEngine()
    written: list[GenerateRequest] = []
    generate = engine.generate_many
    monkeypatch.setattr(
        engine, "generate_many", lambda jobs: written.extend(jobs) or generate(jobs)
    )
    done, _ = follow(tmp_path, plan=WRITTEN, engine=engine)
    assert means(done)["own"] == 0.25  # of one text in two
    assert means(done)["prompt + own"] == 0.75
    for jobs in (engine.passes, written):
        steered_after = {chars(job.context)[-13:] for job in jobs if job.interventions}
        assert steered_after == {"Write more 0."}


def test_the_default_method_is_learn_as_it_is() -> None:
    assert dict(METHODS) == {"steerx": Settings()}
