"""Which rows of a memory offered a token, and in which texts they stand."""

from __future__ import annotations

import numpy as np
import pytest

from steerx_edge.explaining.answers import Answers, Attribution
from steerx_edge.explaining.sources import Source, find_rows, neighbors, sources_of
from steerx_edge.history.item import HistoryItem
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import ScoreRequest, ScoreResult, asked_for
from steerx_edge.steering.memory import Memory
from tests.explaining.conftest import TEXTS, rows_of


def written(engine: Engine, place: int, n: int | None = None) -> Attribution:
    """As if the answer were a text of the user, or its first tokens."""
    item = TEXTS[place]
    tokens = engine.tokenize(item.response)[:n]
    request = ScoreRequest(engine.prompt(messages_for(item.request)), tokens, final=True)
    rows = asked_for(engine.run(request).final)[:-1]
    zeros = np.zeros(len(tokens))
    return Attribution(
        tokens, engine.pieces(tokens), zeros, zeros, zeros, zeros, zeros, rows, is_steered=True
    )


@pytest.fixture
def memory(tiny_chat_engine: Engine) -> Memory:
    return rows_of(tiny_chat_engine, TEXTS, "causal").memory().sorted()


def test_shares_are_those_of_what_the_memory_offers(
    tiny_chat_engine: Engine, memory: Memory
) -> None:
    found = written(tiny_chat_engine, 2)
    offers = memory.offers(found.rows)
    nearest = neighbors(memory, found)
    assert any(nearest)
    for at, token in enumerate(found.tokens):
        tokens, shares, _ = offers.after(np.array(found.tokens[:at], np.int32), at)
        own = np.sort(shares[tokens == token])[::-1]
        own = own[own > 0] / max(own.sum(), 1e-9)
        assert [each.share for each in nearest[at]] == pytest.approx(own.tolist(), abs=1e-3)
        assert all(memory.tokens[each.row] == token for each in nearest[at])


def test_a_token_that_is_barred_has_no_source(tiny_chat_engine: Engine, memory: Memory) -> None:
    # Of a run of four tokens that one text holds, the memory does not offer the last.
    nearest = neighbors(memory, written(tiny_chat_engine, 1, 4))
    assert nearest[0]
    assert not nearest[3]


def test_rows_are_found_in_their_texts(tiny_chat_engine: Engine, memory: Memory) -> None:
    for place in (1, 2):  # the other begins with a word of its request
        item = TEXTS[place]
        found = written(tiny_chat_engine, place, 1)
        (first,) = neighbors(memory, found)
        texts = find_rows(tiny_chat_engine, memory, [first[0].row], TEXTS)
        token = tiny_chat_engine.pieces(found.tokens)[0].decode()
        (source,) = texts[first[0].row]
        assert (source.place, source.before, source.token) == (place, "", token)
        # The tiny tokenizer puts a space before a text.
        assert f" {item.response}".startswith(token + source.after.removesuffix("…"))


def test_only_texts_with_the_token_are_read(
    tiny_chat_engine: Engine, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tiny_chat_engine.tokenize(TEXTS[1].response)[0]
    row = int(np.flatnonzero(memory.tokens == token)[0])
    read: list[int] = []
    run_many = tiny_chat_engine.run_many

    def counting(jobs: list[ScoreRequest]) -> list[ScoreResult]:
        read.append(len(jobs))
        return run_many(jobs)

    monkeypatch.setattr(tiny_chat_engine, "run_many", counting)
    n_with = sum(token in tiny_chat_engine.tokenize(item.response) for item in TEXTS)
    assert n_with < len(TEXTS)
    found = find_rows(tiny_chat_engine, memory, [row], TEXTS)
    assert read == [n_with]
    assert [source.place for source in found[row]] == [1]


def test_the_end_of_a_text_is_a_source(tiny_chat_engine: Engine, memory: Memory) -> None:
    rows = np.flatnonzero(memory.tokens == memory.end)
    found = find_rows(tiny_chat_engine, memory, rows.tolist(), TEXTS)
    ends = sorted((source for each in found.values() for source in each), key=lambda s: s.place)
    assert [(each.place, each.token, each.after) for each in ends] == [
        (0, "", ""),
        (1, "", ""),
        (2, "", ""),
    ]
    assert all(TEXTS[each.place].response.endswith(each.before[1:]) for each in ends)


def test_without_texts_or_a_memory_there_are_no_sources(
    tiny_chat_engine: Engine, memory: Memory
) -> None:
    found = written(tiny_chat_engine, 0)
    alone = sources_of(tiny_chat_engine, Answers(found, found, memory), None)
    assert alone.texts is None
    assert any(alone.neighbors)
    without = sources_of(tiny_chat_engine, Answers(found, found, None), TEXTS)
    assert without == ([[] for _ in found.tokens], {})


def test_the_text_around_a_token_is_shortened(tiny_chat_engine: Engine, memory: Memory) -> None:
    tokens = tiny_chat_engine.tokenize(TEXTS[0].response)
    assert len(tokens) > 19
    row = np.flatnonzero(memory.tokens == tokens[10])
    found = find_rows(tiny_chat_engine, memory, row.tolist(), TEXTS[:1])
    pieces = tiny_chat_engine.pieces(tokens)
    expected = Source(
        0,
        "…" + b"".join(pieces[2:10]).decode(),
        pieces[10].decode(),
        b"".join(pieces[11:19]).decode() + "…",
    )
    assert expected in [source for each in found.values() for source in each]


def test_texts_that_go_on_otherwise_are_no_source(tiny_chat_engine: Engine) -> None:
    # Before their first tokens both have the same key, and each holds both tokens.
    texts = (HistoryItem("Alice ran, Rabbit.", "Say."), HistoryItem("Rabbit ran, Alice.", "Say."))
    memory = rows_of(tiny_chat_engine, texts, "all").memory()
    firsts = [0, len(memory.tokens) // 2]
    assert memory.tokens[firsts[0]] != memory.tokens[firsts[1]]
    np.testing.assert_array_equal(*memory.keys[firsts])
    found = find_rows(tiny_chat_engine, memory, firsts, texts)
    assert [[each.place for each in found[row]] for row in firsts] == [[0], [1]]
