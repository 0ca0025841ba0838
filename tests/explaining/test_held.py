"""What a memory holds of a text, found by its tokens and keys."""

from __future__ import annotations

import numpy as np
import pytest

from steerx_edge.explaining.held import NOWHERE, Held, held, without
from steerx_edge.history.item import HistoryItem
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import ScoreRequest, asked_for
from steerx_edge.steering.memory import LEVELS, Level, Memory
from tests.explaining.conftest import TEXTS, rows_of


def lookup(engine: Engine, memory: Memory, item: HistoryItem) -> tuple[Held, list[int]]:
    tokens = engine.tokenize(item.response)
    request = ScoreRequest(engine.prompt(messages_for(item.request)), tokens, final=True)
    keys = memory.space.keys(asked_for(engine.run(request).final))
    tokens = [*tokens, engine.end_of_turn]
    return held(memory, tokens, keys), tokens


@pytest.mark.parametrize("level", LEVELS)
def test_every_token_is_found_with_its_weight(tiny_chat_engine: Engine, level: Level) -> None:
    rows = rows_of(tiny_chat_engine, TEXTS, level)
    memory = rows.memory().sorted()
    for place, item in enumerate(TEXTS):
        found, tokens = lookup(tiny_chat_engine, memory, item)
        own = rows.memory(without={*range(len(TEXTS))} - {place})
        if level != "shared":  # where a memory of one text holds nothing of it
            np.testing.assert_array_equal(found.weights, own.weights)
            np.testing.assert_array_equal(memory.tokens[found.rows], tokens)
        assert len({*found.rows.tolist()}) == len(tokens)


def test_a_word_of_the_request_weighs_nothing(tiny_chat_engine: Engine) -> None:
    memory = rows_of(tiny_chat_engine, TEXTS, "causal").memory()
    found, tokens = lookup(tiny_chat_engine, memory, TEXTS[0])
    pieces = tiny_chat_engine.pieces(tokens[:-1])
    asked = b"".join(
        piece for piece, fate in zip(pieces, found.fates, strict=False) if fate == "request"
    )
    assert asked.split() == [b"Alice"]
    assert {*found.fates} == {"kept", "request"}


def test_a_word_of_one_text_is_told_from_a_shared_one(tiny_chat_engine: Engine) -> None:
    memory = rows_of(tiny_chat_engine, TEXTS, "shared").memory().sorted()
    found, tokens = lookup(tiny_chat_engine, memory, TEXTS[2])
    pieces = tiny_chat_engine.pieces(tokens[:-1])
    single = b"".join(
        piece for piece, fate in zip(pieces, found.fates, strict=False) if fate == "single"
    )
    assert single.replace(b" ", b"") == b"Shequietforoncenothing"
    assert found.fates[-1] == "kept"  # the end


def test_a_text_that_was_not_read_is_absent(tiny_chat_engine: Engine) -> None:
    memory = rows_of(tiny_chat_engine, TEXTS, "causal").memory()
    found, _ = lookup(tiny_chat_engine, memory, HistoryItem("Off with her head!", "Shout."))
    assert {*found.fates} == {"absent"}
    assert (found.rows == NOWHERE).all()
    assert not found.weights.any()


def test_a_memory_without_a_text_is_that_of_the_others(tiny_chat_engine: Engine) -> None:
    rows = rows_of(tiny_chat_engine, TEXTS, "causal")
    for place, item in enumerate(TEXTS):
        memory = rows.memory().sorted()
        rest = without(memory, *lookup(tiny_chat_engine, memory, item), rows.runs()[1])
        assert rest is not None
        assert rest.equals(rows.memory(without={place}).sorted())


def test_a_memory_of_one_text_without_it_is_none(tiny_chat_engine: Engine) -> None:
    memory = rows_of(tiny_chat_engine, TEXTS[:1], "all").memory()
    assert without(memory, *lookup(tiny_chat_engine, memory, TEXTS[0]), memory.single) is None
