"""A person's texts, and a memory of them in the tiny model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.effects import Effects
from steerx_edge.learning.memory_rows import MemoryRows
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import ScoreRequest, asked_for
from steerx_edge.profile import Entry, MemoryPart
from steerx_edge.steering.ledger import Ledger, text_hash
from steerx_edge.steering.memory import KeySpace, Level
from tests.support.entries import a_ledger, an_entry

TEXTS = (
    HistoryItem("Alice was late again, and the watch said so.", "Write about Alice"),
    HistoryItem("The White Rabbit ran on, oh dear, oh dear!", "Write about a rabbit"),
    HistoryItem("She was quiet for once, the watch said nothing.", "Write about her"),
)


def rows_of(engine: Engine, items: Sequence[HistoryItem], level: Level) -> MemoryRows:
    """Rows of texts; the effects of a text's tokens rise from -1 to 1."""
    requests = [
        ScoreRequest(
            engine.prompt(messages_for(item.request)), engine.tokenize(item.response), final=True
        )
        for item in items
    ]
    finals = [asked_for(result.final) for result in engine.run_many(requests)]
    rows = MemoryRows(KeySpace.fit(np.concatenate(finals)), level, engine.end_of_turn)
    for request, item, final in zip(requests, items, finals, strict=True):
        nats = np.linspace(-1, 1, len(request.response), dtype=np.float32)
        effects = Effects(list(request.response), engine.pieces(request.response), nats)
        rows.add(effects, item.request, rows.keys(final))
    return rows


def entry_of(
    engine: Engine, level: Level = "causal", strength: float = 0.5, **fields: Any
) -> Entry:
    """An entry with a memory of TEXTS; its direction is at strength 0 unless told otherwise."""
    memory = rows_of(engine, TEXTS, level).memory()
    hashes = np.sort(np.array([text_hash(item.response) for item in TEXTS], np.int64))
    ledger: Ledger = replace(a_ledger(), texts=hashes)
    part = MemoryPart.of(replace(memory, ledger=ledger), strength=strength, level=level)
    known: dict[str, Any] = {"strengths": np.zeros(1, np.float32), "memory": part}
    n_embd = engine.model_id.n_embd
    return an_entry(engine.model_id, (2,), np.eye(1, n_embd), **known | fields)
