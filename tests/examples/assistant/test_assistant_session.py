from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from llama_cpp import Llama

from examples.assistant.mails import request_for
from examples.assistant.origins import origins_of
from examples.assistant.session import Options, Session
from models import TinyModel
from steerx_edge import Profile, steer
from steerx_edge.errors import ModelError
from steerx_edge.explaining.answers import attribute
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.models import MODEL_VARIABLE
from steerx_edge.llamacpp.prompts import messages_for
from tests.support.assistant import MAIL
from tests.support.steered_llama import greedy, knowing

REQUEST = request_for(MAIL)


def ignore(_piece: str) -> None:
    pass


@pytest.fixture
def session(options: Options) -> Iterator[Session]:
    session = Session(options)
    yield session
    session.close()


@pytest.fixture
def me(folder: Path) -> Path:
    return folder / "me.json"


def test_it_writes_what_the_steered_model_writes(
    session: Session, me: Path, tiny_chat_llama: Llama
) -> None:
    pieces: list[str] = []
    reply = session.write(me, REQUEST, pieces.append)
    engine = Engine(tiny_chat_llama)
    prompt = engine.prompt(messages_for(REQUEST))
    with steer(tiny_chat_llama, me):
        expected = greedy(tiny_chat_llama, prompt, len(reply.tokens))
    assert reply.tokens == expected
    assert (
        "".join(pieces) == reply.text == b"".join(engine.pieces(expected)).decode(errors="replace")
    )


def test_the_plain_text_is_what_the_model_writes_by_itself(
    session: Session, me: Path, tiny_chat_llama: Llama
) -> None:
    reply = session.write(me, REQUEST, ignore)
    pieces: list[str] = []
    session.write_plainly(reply, pieces.append)
    engine = Engine(tiny_chat_llama)
    tokens = greedy(tiny_chat_llama, engine.prompt(messages_for(REQUEST)), 40)
    assert "".join(pieces) == b"".join(engine.pieces(tokens)).decode(errors="replace")
    assert "".join(pieces) != reply.text


def test_a_strength_that_is_moved_acts_on_the_next_token(
    session: Session, me: Path, tiny_chat_llama: Llama
) -> None:
    session.strength = 0.0
    written: list[str] = []

    def move(piece: str) -> None:
        written.append(piece)
        session.strength = 2.0

    reply = session.write(me, REQUEST, move)
    n_before = reply.strengths.index(2.0)
    assert reply.strengths == [0.0] * n_before + [2.0] * (len(reply.tokens) - n_before)
    prompt = Engine(tiny_chat_llama).prompt(messages_for(REQUEST))
    with (
        steer(tiny_chat_llama, me, strength=0.0) as handle,
        closing(tiny_chat_llama.generate(prompt, temp=0.0)) as stream,
    ):
        expected = list(islice(stream, n_before))
        handle.strength = 2.0
        expected += list(islice(stream, len(reply.tokens) - n_before))
    assert reply.tokens == expected


def test_it_stops_after_the_piece_that_is_shown(session: Session, me: Path) -> None:
    pieces: list[str] = []

    def stop(piece: str) -> None:
        pieces.append(piece)
        session.stop()

    assert session.write(me, REQUEST, stop).text == pieces[0]
    assert session.is_stopped
    session.allow()
    assert len(session.write(me, REQUEST, pieces.append).tokens) == 40


def test_each_word_sums_up_what_made_its_tokens_probable(
    session: Session, me: Path, tiny_chat_engine: Engine
) -> None:
    reply = session.write(me, REQUEST, ignore)
    entry = Profile.load(me).entry_for(tiny_chat_engine.model_id)
    found, _ = attribute(tiny_chat_engine, entry, entry.steering(), reply.prompt, reply.tokens)
    origins = origins_of(found, 1.0, is_mixed=False)
    for part in ("directions", "logit_bias", "memory"):
        added = sum(word.added[part] for word in origins.words)
        np.testing.assert_allclose(added, getattr(found, part).sum(), atol=1e-9)
    shown = session.explain(reply).words
    assert [(word.begin, word.text) for word in shown] == [
        (word.begin, word.text) for word in origins.words
    ]
    assert all(reply.text[word.begin :].startswith(word.text) for word in shown)
    assert len(shown) > 1


def test_what_is_to_be_known_of_the_marks_is_said(session: Session, me: Path) -> None:
    def note(*strengths: float) -> str:
        session.strength = strengths[0]

        def move(_piece: str) -> None:
            session.strength = strengths[-1]

        return session.explain(session.write(me, REQUEST, move)).note

    assert note(1.0) == ""
    assert note(0.0) == "Nothing was steered: the strength is 0, here or in the profile."
    assert note(1.0, 1.5) == "You moved the strength meanwhile: words are marked as of 150%."


def test_a_closed_gate_is_said(session: Session, me: Path) -> None:
    reply = session.write(me, REQUEST, ignore)
    engine = session._running()  # noqa: SLF001
    entry = reply.opened.entry
    found, _ = attribute(engine, entry, entry.steering(), reply.prompt, reply.tokens)
    origins = origins_of(replace(found, is_steered=False), 1.0, is_mixed=False)
    assert origins.note.startswith("This mail is unlike those")


def test_it_finds_the_model_that_a_profile_was_learned_on(
    options: Options, me: Path, tiny_chat: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODEL_VARIABLE, str(tiny_chat.path))
    session = Session(replace(options, model=None))
    assert session.open(me).entry.model.name == "tiny-chat"
    session.close()


def test_a_mail_longer_than_the_context_is_refused(options: Options, me: Path) -> None:
    session = Session(replace(options, n_ctx=256))
    with pytest.raises(ModelError, match=r"The mail takes .* tokens, and the context holds 256"):
        session.write(me, "It rained all day. " * 200, ignore)
    session.close()


def test_another_model_takes_the_place_of_the_first(
    options: Options,
    tmp_path: Path,
    me: Path,
    tiny_q8: TinyModel,
    tiny_chat: TinyModel,
    open_llama: Callable[..., Llama],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    knowing(open_llama(tiny_q8)).save(tmp_path / "other.json")
    session = Session(replace(options, model=None))
    for model, profile in ((tiny_chat, me), (tiny_q8, tmp_path / "other.json")):
        monkeypatch.setenv(MODEL_VARIABLE, str(model.path))
        assert session.write(profile, REQUEST, ignore).tokens
    session.close()
