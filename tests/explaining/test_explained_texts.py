"""Both arms of a history, and the gain of a profile on each text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from steerx_edge.errors import HistoryError
from steerx_edge.explaining.texts import explain_texts
from steerx_edge.history.item import HistoryItem
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import ScoreRequest
from steerx_edge.steering.gate import Gate
from steerx_edge.steering.memory import ActiveMemory
from steerx_edge.steering.requests import steered
from tests.explaining.conftest import TEXTS, entry_of, rows_of
from tests.support.steered_llama import EXACT, bias_of

MANY = [HistoryItem(f"The watch said {i} again.", f"Write text {i}.") for i in range(7)]


def test_both_arms_are_those_of_the_definition(tiny_chat_engine: Engine) -> None:
    entry = entry_of(tiny_chat_engine, memory=None)
    one, other = explain_texts(tiny_chat_engine, entry, TEXTS[:2], 50)
    # With two texts, each is read with the other one in its context.
    for found, item, beside in ((one, TEXTS[0], TEXTS[1]), (other, TEXTS[1], TEXTS[0])):
        tokens = tiny_chat_engine.tokenize(item.response)
        for scores, history in ((found.control, []), (found.treatment, [beside])):
            context = tiny_chat_engine.prompt(messages_for(item.request, history=history))
            expected = tiny_chat_engine.score(context, tokens)
            np.testing.assert_allclose(scores, expected, atol=EXACT)
        np.testing.assert_array_equal(found.effects.nats, found.treatment - found.control)
        assert (found.held, found.was_read, found.gain) == (None, None, None)


def test_the_last_texts_are_explained_in_order(tiny_chat_engine: Engine) -> None:
    history = [*MANY, HistoryItem("the  watch SAID 5 again.", "Again.")]
    steps: list[tuple[int, int]] = []
    found = explain_texts(
        tiny_chat_engine,
        entry_of(tiny_chat_engine),
        history,
        6,
        lambda _what, done, of: steps.append((done, of)),
    )
    assert [text.place for text in found] == [1, 2, 3, 4, 6, 7]  # 5 is the same text as 7
    assert steps == [(0, 6), (4, 6), (6, 6)]


def test_a_text_that_was_learned_from_is_known(tiny_chat_engine: Engine) -> None:
    found = explain_texts(tiny_chat_engine, entry_of(tiny_chat_engine), [*TEXTS, MANY[0]], 9)
    assert [text.was_read for text in found] == [True, True, True, False]
    fates = [{*text.held.fates} if text.held else set() for text in found]
    assert fates == [{"kept", "request"}, {"kept", "request"}, {"kept"}, {"absent"}]


def test_the_gain_is_that_of_a_memory_without_the_text(tiny_chat_engine: Engine) -> None:
    bias = bias_of(dict.fromkeys(tiny_chat_engine.tokenize(" the watch"), 1.5))
    strengths = np.full(1, 0.5, np.float32)
    entry = entry_of(tiny_chat_engine, logit_bias=bias, strengths=strengths)
    rows = rows_of(tiny_chat_engine, TEXTS, "causal")
    steering = entry.steering()
    for place, found in enumerate(explain_texts(tiny_chat_engine, entry, TEXTS, 9)):
        own = replace(steering, memory=ActiveMemory(rows.memory(without={place}), 0.5))
        context = tiny_chat_engine.prompt(messages_for(TEXTS[place].request))
        request = ScoreRequest(context, tiny_chat_engine.tokenize(TEXTS[place].response))
        gain = tiny_chat_engine.run(steered(request, own)).scored - found.control
        assert found.gain == pytest.approx(gain.mean(), abs=EXACT)


def test_a_text_behind_a_closed_gate_gains_nothing(tiny_chat_engine: Engine) -> None:
    closed = Gate(np.zeros(tiny_chat_engine.model_id.n_embd, np.float32), 1.0)
    found = explain_texts(tiny_chat_engine, entry_of(tiny_chat_engine, gate=closed), TEXTS, 9)
    assert [text.gain for text in found] == pytest.approx([0, 0, 0], abs=EXACT)


@pytest.mark.parametrize("history", [[], [TEXTS[0], TEXTS[0]]])
def test_one_text_cannot_be_explained(tiny_chat_engine: Engine, history: list[HistoryItem]) -> None:
    with pytest.raises(HistoryError, match="at least 2 different ones"):
        explain_texts(tiny_chat_engine, entry_of(tiny_chat_engine), history, 9)
