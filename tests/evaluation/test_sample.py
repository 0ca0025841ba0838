"""Who is measured, and with whose texts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from steerx_edge.errors import HistoryError
from steerx_edge.evaluation import Plan, read_sample
from steerx_edge.evaluation.sample import drawn_items, swapped_user
from steerx_edge.history.item import HistoryItem, User
from tests.support.exports import WHATSAPP_CHAT
from tests.support.users import WORDS, a_sample, a_user

PLAN = Plan(items=5, min_items=2)


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


def test_the_last_items_are_used_or_all(tmp_path: Path) -> None:
    path, history = write_users(tmp_path, a_user("a", 40)), a_user("a", 40).history
    (user,) = read_sample(path, Plan(items=3)).people
    assert user.history == history[-3:]
    (user,) = read_sample(path, Plan()).people
    assert user.history == history


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
    with pytest.raises(
        HistoryError, match=r"Of 3 users, 1 have fewer than 8 items .* 2 have no held-out"
    ):
        read_sample(path, Plan())


@pytest.mark.parametrize(("n", "held_out"), [(9, 1), (10, 2)])
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


def test_it_is_said_who_of_a_chat_is_meant(tmp_path: Path) -> None:
    path = tmp_path / "chat.txt"
    path.write_text(WHATSAPP_CHAT)
    (user,) = read_sample(path, PLAN, me=("Kim",)).people
    assert user.queries == (
        HistoryItem("I will bring the jug 7.", "Reply to Ana: Who brings the plates 7?"),
    )


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
    assert swapped_user(sample, sample.people[0], seed=0) is None


@pytest.mark.parametrize("seed", range(3))
def test_each_user_is_swapped_for_one_other(seed: int) -> None:
    sample = a_sample()
    strangers = {user.id: swapped_user(sample, user, seed) for user in sample.people}
    assert all(other and other.id != user for user, other in strangers.items())
    assert {other.id for other in strangers.values() if other} == set(WORDS)


def test_a_single_measured_user_is_swapped_for_one_who_is_not() -> None:
    sample = a_sample(a_user("silent", 1), *map(a_user, WORDS), reported=["kettle"])
    other = swapped_user(sample, sample.by_id["kettle"], 0)
    assert other
    assert other.id == "rabbit"  # the first who has a history to learn from


def test_the_same_person_under_another_name_is_not_swapped_in() -> None:
    users = [dataclasses.replace(a_user("kettle"), id=f"kettle{i}") for i in range(4)]
    sample = a_sample(*users, a_user("rabbit"))
    for user in users:
        other = swapped_user(sample, user, 0)
        assert other
        assert other.id == "rabbit"
