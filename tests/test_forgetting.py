"""What is left of texts that were forgotten."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from steerx_edge.forgetting import forget_texts
from steerx_edge.history.item import HistoryItem
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.profile import MemoryPart, Profile
from tests.support.entries import a_ledger, an_entry
from tests.support.memory_reference import memory_of

TEXTS = [
    HistoryItem("The kettle sang all day.", "Write about tea."),
    HistoryItem("A rabbit ran by, and was gone!", "Write about the garden."),
]


def test_the_words_of_all_texts_are_forgotten_with_one_of_them(tiny_chat_engine: Engine) -> None:
    engine = tiny_chat_engine
    read = [
        (engine.prompt(messages_for(text.request)), engine.tokenize(text.response))
        for text in TEXTS
    ]
    memory = memory_of(engine.llama, read, end=engine.end_of_turn)
    part = MemoryPart.of(replace(memory, ledger=a_ledger()), strength=0.3, level="all")
    n_embd = engine.model_id.n_embd
    entry = an_entry(engine.model_id, (1,), np.eye(1, n_embd), memory=part)
    profile, n_removed, *_ = forget_texts(engine, Profile((entry,)), TEXTS[:1])
    left = profile.entries[0].memory
    assert left
    assert left.memory
    assert n_removed == len(read[0][1]) + 1
    assert left.memory.ledger is None


def test_strings_can_be_forgotten(tiny_chat_engine: Engine) -> None:
    engine = tiny_chat_engine
    read = [(engine.prompt(messages_for("")), engine.tokenize(text.response)) for text in TEXTS]
    memory = memory_of(engine.llama, read, end=engine.end_of_turn)
    part = MemoryPart.of(memory, strength=0.3, level="all")
    entry = an_entry(engine.model_id, (1,), np.eye(1, engine.model_id.n_embd), memory=part)
    _, n_removed, *_ = forget_texts(engine, Profile((entry,)), [TEXTS[0].response])
    assert n_removed == len(read[0][1]) + 1
