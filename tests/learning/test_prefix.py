"""The choice of the texts that every prompt begins with."""

from __future__ import annotations

import pytest

from steerx_edge.history.item import HistoryItem
from steerx_edge.learning import prefix
from steerx_edge.learning.prefix import chosen_prefix, prefix_bytes, prefix_of
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.prompts import messages_for

ITEMS = [
    HistoryItem(f"{word} " * 6 + str(i), f"About {word}?")
    for i, word in enumerate(["tea", "cats", "tea", "queen", "tea", "tea", "hatter", "tea"] * 2)
]


def n_tokens(engine: Engine, items: list[HistoryItem]) -> int:
    return len(engine.prompt(messages_for("", history=items)))


@pytest.mark.parametrize("most", [70, 150, 100_000])
def test_as_many_texts_as_fit_in_the_order_of_the_history(tiny_engine: Engine, most: int) -> None:
    chosen = chosen_prefix(tiny_engine, ITEMS, most)
    assert chosen
    assert [item for item in ITEMS if item in chosen] == chosen
    assert n_tokens(tiny_engine, chosen) <= most
    if most < 1000:
        shortest = min(
            (item for item in ITEMS if item not in chosen), key=lambda item: len(item.response)
        )
        assert n_tokens(tiny_engine, [*chosen, shortest]) > most
    else:
        assert chosen == ITEMS


@pytest.mark.parametrize("better", ["latest", "varied"])
def test_the_order_that_predicts_other_texts_better_is_taken(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch, better: str
) -> None:
    """The texts that are predicted are not in the prefix that they judge."""
    scores = iter([0.0, 1.0 if better == "varied" else -1.0])

    def log_prob(_: Engine, chosen: list[HistoryItem], held_out: list[HistoryItem]) -> float:
        assert chosen
        assert held_out
        assert not set(chosen) & set(held_out)
        return next(scores)

    monkeypatch.setattr(prefix, "_log_prob", log_prob)
    chosen = chosen_prefix(tiny_engine, ITEMS, 150)
    order = getattr(prefix, better)(ITEMS)
    assert set(chosen) == {ITEMS[i] for i in order[: len(chosen)]}
    assert next(scores, None) is None


def test_long_texts_and_requests_are_truncated(tiny_engine: Engine) -> None:
    long = HistoryItem("tea and cake " * 200, "why? " * 200)
    (only,) = chosen_prefix(tiny_engine, [long], 500)
    assert long.response.startswith(only.response)
    assert len(tiny_engine.tokenize(only.response)) <= 256
    assert len(tiny_engine.tokenize(only.request)) <= 64


def test_a_prefix_is_the_beginning_of_every_prompt(tiny_engine: Engine) -> None:
    made = prefix_of(tiny_engine, ITEMS[:3])
    tokens = made.tokens.tolist()
    for request in ("", "\n\nWrite.", "quite another request"):
        prompt = tiny_engine.prompt(messages_for(request, history=ITEMS[:3]))
        assert prompt[: len(tokens)] == tokens
    assert made.state.nbytes == pytest.approx(prefix_bytes(tiny_engine, len(tokens)), rel=0.01)
