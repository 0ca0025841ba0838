"""Chats that begin with a prefix: the answers of the whole prompt; its texts are evaluated once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_cpp import Llama

from models import TinyModel, make_tiny
from steerx_edge.errors import ProfileError, SteerxError
from steerx_edge.learning.prefix import prefix_of
from steerx_edge.live import steer
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.profile.prefix_file import Prefix, prefix_path
from tests.conftest import CHAT_TEMPLATE
from tests.support.histories import HISTORY
from tests.support.steered_llama import a_profile, chat, complete

ASKED: list[dict[str, object]] = [{"role": "user", "content": "Write about the queen."}]
SYSTEM: dict[str, object] = {"role": "system", "content": "be brief"}


@pytest.fixture
def llama(tiny_chat: TinyModel, open_llama: Callable[..., Llama]) -> Llama:
    return open_llama(tiny_chat)


@pytest.fixture
def profile(llama: Llama, tmp_path: Path) -> Path:
    """A profile of strength 0 with a prefix next to it."""
    path = tmp_path / "me.json"
    a_profile(llama, strength=0.0).save(path)
    prefix_of(Engine(llama), HISTORY).save(path)
    return path


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each call of `Llama.eval` evaluates from now on."""
    sizes: list[int] = []
    real = Llama.eval

    def evaluate(self: Llama, tokens: Any) -> None:
        sizes.append(len(tokens))
        real(self, tokens)

    monkeypatch.setattr(Llama, "eval", evaluate)
    return sizes


def with_texts(*before: dict[str, object]) -> list[Any]:
    return [*before, *messages_for("", history=HISTORY)[:-1], *ASKED]


def test_answers_are_those_of_the_whole_prompt(
    llama: Llama, profile: Path, tiny_chat: TinyModel, open_llama: Callable[..., Llama]
) -> None:
    plain = open_llama(tiny_chat)
    with steer(llama, profile, prefix=True):
        assert chat(llama, ASKED) == chat(plain, with_texts())
        assert chat(llama, [SYSTEM, *ASKED]) == chat(plain, with_texts(SYSTEM))
    assert chat(llama, ASKED) == chat(plain, ASKED)


def test_only_the_request_is_evaluated_whatever_came_between(
    llama: Llama, profile: Path, evaluated: list[int]
) -> None:
    saved = Prefix.load(profile, Engine(llama).model_id.fingerprint)
    assert saved is not None
    n_prefix = len(saved.beginnings[0].tokens)

    def n_prompt() -> int:
        evaluated.clear()
        chat(llama, ASKED, n=1)
        return sum(evaluated)

    with steer(llama, profile, prefix=True):
        first = n_prompt()
        assert first < n_prefix
        complete(llama, "quite another text, which takes the place of the cells")
        assert n_prompt() == first
        chat(llama, [SYSTEM, *ASKED], n=1)
        evaluated.clear()
        complete(llama, "quite another text, which takes the place of the cells", n=1)
        n_other = sum(evaluated)
        evaluated.clear()
        chat(llama, [SYSTEM, *ASKED], n=1)
        assert sum(evaluated) <= first + 1
        assert n_other > 0


@pytest.mark.parametrize("architecture", ["mamba2", "lfm2", "gemma3"])
def test_models_that_cannot_be_rolled_back_begin_from_the_prefix(
    tmp_path: Path,
    open_llama: Callable[..., Llama],
    evaluated: list[int],
    architecture: str,
) -> None:
    model = make_tiny(tmp_path / "tiny.gguf", architecture, chat_template=CHAT_TEMPLATE)
    llama, plain = open_llama(model), open_llama(model)
    path = tmp_path / "me.json"
    a_profile(llama, strength=0.0).save(path)
    prefix_of(Engine(llama), HISTORY).save(path)
    expected = chat(plain, with_texts())
    with steer(llama, path, prefix=True):
        for _ in range(2):
            evaluated.clear()
            assert chat(llama, ASKED) == expected
            assert max(evaluated) < 60


def test_steered_answers_leave_the_prefix_unsteered(
    llama: Llama, profile: Path, tiny_chat: TinyModel, open_llama: Callable[..., Llama]
) -> None:
    a_profile(llama, strength=1.0).save(profile)
    plain = open_llama(tiny_chat)
    with steer(plain, profile, with_history=True):
        expected = chat(plain, with_texts())
    with steer(llama, profile, prefix=True):
        assert [chat(llama, ASKED) for _ in range(3)] == [expected] * 3


@pytest.fixture
def stale(profile: Path, llama: Llama) -> Path:
    fingerprint = Engine(llama).model_id.fingerprint
    prefix = Prefix.load(profile, fingerprint)
    assert prefix is not None
    wrong = [replace(each, state=np.zeros_like(each.state)) for each in prefix.beginnings]
    made_by = {**prefix.made_by, "llama_cpp_python": "0.0.1"}
    Prefix(tuple(wrong), fingerprint, made_by).save(profile)
    return profile


def test_stale_cells_are_made_anew_and_saved(
    llama: Llama,
    stale: Path,
    tiny_chat: TinyModel,
    open_llama: Callable[..., Llama],
    evaluated: list[int],
) -> None:
    expected = chat(open_llama(tiny_chat), with_texts())
    with steer(llama, stale, prefix=True):
        assert chat(llama, ASKED) == expected
    again = open_llama(tiny_chat)
    evaluated.clear()
    with steer(again, stale, prefix=True):
        assert chat(again, ASKED) == expected
    assert max(evaluated) < 60


@pytest.mark.parametrize("is_replaced", [False, True], ids=["removed", "replaced"])
def test_a_file_that_was_removed_or_replaced_is_not_saved_anew(
    llama: Llama, stale: Path, is_replaced: bool
) -> None:
    file = prefix_path(stale, Engine(llama).model_id.fingerprint)
    with steer(llama, stale, prefix=True):
        file.unlink()
        if is_replaced:
            prefix_of(Engine(llama), HISTORY[:1]).save(stale)
        left = file.read_bytes() if is_replaced else None
        chat(llama, ASKED, n=1)
    assert (file.read_bytes() if file.exists() else None) == left


def test_what_cannot_be_done_is_said(llama: Llama, profile: Path) -> None:
    with pytest.raises(SteerxError, match="give the path of the profile"):
        steer(llama, a_profile(llama), prefix=True)
    a_profile(llama, positions="all").save(profile)
    with pytest.raises(SteerxError, match="steers all positions"):
        steer(llama, profile, prefix=True)
    prefix_path(profile, Engine(llama).model_id.fingerprint).unlink()
    with pytest.raises(ProfileError, match="Learn one with --prefix"):
        steer(llama, profile, prefix=True)
    a_profile(llama).save(profile)
    with steer(llama, profile):
        pass


def test_many_system_messages_leave_the_prefix_in_place(
    llama: Llama, profile: Path, evaluated: list[int]
) -> None:
    """Each makes another beginning, of which only some are kept."""
    with steer(llama, profile, prefix=True):
        chat(llama, ASKED, n=1)
        for number in range(6):
            chat(llama, [{"role": "system", "content": f"be brief {number}"}, *ASKED], n=1)
        evaluated.clear()
        chat(llama, ASKED, n=1)
    assert max(evaluated) < 60


def test_of_two_beginnings_the_request_chooses(
    llama: Llama,
    profile: Path,
    tiny_chat: TinyModel,
    open_llama: Callable[..., Llama],
    evaluated: list[int],
) -> None:
    groups = HISTORY[:2], HISTORY[2:]
    prefix_of(Engine(llama), *groups).save(profile)
    plain = open_llama(tiny_chat)
    for group in groups:
        asked: list[dict[str, object]] = [{"role": "user", "content": group[0].request}]
        for before in ([], [SYSTEM]):
            whole = [*before, *messages_for("", history=group)[:-1], *asked]
            expected = chat(plain, whole)
            with steer(llama, profile, prefix=True):
                chat(llama, [*before, *asked], n=1)
                complete(llama, "quite another text, which takes the place of the cells", n=1)
                evaluated.clear()
                assert chat(llama, [*before, *asked]) == expected
            assert max(evaluated) < 60
