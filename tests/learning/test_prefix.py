"""The choice of the texts that every prompt begins with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from steerx_edge.history.item import HistoryItem
from steerx_edge.learning import prefix
from steerx_edge.learning.prefix import chosen_prefixes, prefix_bytes, prefix_of
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
    (chosen,) = chosen_prefixes(tiny_engine, ITEMS, most, most=1)
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


Groups = list[list[HistoryItem]]


def judge(monkeypatch: pytest.MonkeyPatch, score: Callable[[Groups], list[float]]) -> list[Groups]:
    """Score prefixes by a rule, in turns over the texts; returns those that were scored."""
    seen: list[Groups] = []

    def log_probs(_: Engine, prefixes: Groups, texts: list[HistoryItem]) -> NDArray[np.float64]:
        assert all(prefixes)
        assert texts
        assert not {item for group in prefixes for item in group} & set(texts)
        seen.append(prefixes)
        return np.resize(score(prefixes), len(texts))

    monkeypatch.setattr(prefix, "_log_probs", log_probs)
    return seen


@pytest.mark.parametrize("better", ["latest", "varied"])
def test_the_order_that_predicts_other_texts_better_is_taken(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch, better: str
) -> None:
    """The texts that are predicted are not in the prefix that they judge."""
    scores = iter([0.0, 1.0 if better == "varied" else -1.0])
    judge(monkeypatch, lambda _: [next(scores)])
    (chosen,) = chosen_prefixes(tiny_engine, ITEMS, 150, most=1)
    order = getattr(prefix, better)(ITEMS)
    assert set(chosen) == {ITEMS[i] for i in order[: len(chosen)]}
    assert next(scores, None) is None


TEA = [HistoryItem(f"tea cake {i}", f"What shall we eat at {i}?") for i in range(16)]
CROQUET = [HistoryItem(f"queen croquet {i}", f"Who won game {i}?") for i in range(16)]
BOTH = [item for pair in zip(TEA, CROQUET, strict=True) for item in pair]


@pytest.mark.parametrize(
    ("gain", "n_groups"), [(0.021, 2), (0.019, 1), (-1.0, 1)], ids=["large", "small", "none"]
)
def test_two_prefixes_are_taken_where_they_gain_enough(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch, gain: float, n_groups: int
) -> None:
    judge(monkeypatch, lambda prefixes: [gain if len(prefixes) == 2 else 0.0])
    chosen = chosen_prefixes(tiny_engine, BOTH, 100_000)
    assert len(chosen) == n_groups
    if n_groups == 2:
        assert TEA in chosen
        assert CROQUET in chosen
    assert chosen_prefixes(tiny_engine, BOTH, 100_000, most=1) == [BOTH]


def test_texts_are_scored_after_the_prefix_that_their_request_calls_for(
    tiny_engine: Engine,
) -> None:
    texts = [HistoryItem("ok", "Who won game 30?"), HistoryItem("ok", "What shall we eat at 30?")]
    found = prefix._log_probs(tiny_engine, [TEA, CROQUET], texts)  # noqa: SLF001
    for text, group, score in zip(texts, (CROQUET, TEA), found, strict=True):
        (expected,) = prefix._log_probs(tiny_engine, [group], [text])  # noqa: SLF001
        assert score == pytest.approx(expected, abs=1e-5)


def test_long_texts_and_requests_are_truncated(tiny_engine: Engine) -> None:
    long = HistoryItem("tea and cake " * 200, "why? " * 200)
    ((only,),) = chosen_prefixes(tiny_engine, [long], 500)
    assert long.response.startswith(only.response)
    assert len(tiny_engine.tokenize(only.response)) <= 256
    assert len(tiny_engine.tokenize(only.request)) <= 64


def test_a_prefix_is_the_beginning_of_every_prompt(tiny_engine: Engine) -> None:
    made = prefix_of(tiny_engine, ITEMS[:3])
    (beginning,) = made.beginnings
    tokens = beginning.tokens.tolist()
    for request in ("", "\n\nWrite.", "quite another request"):
        prompt = tiny_engine.prompt(messages_for(request, history=ITEMS[:3]))
        assert prompt[: len(tokens)] == tokens
    assert beginning.state.nbytes == pytest.approx(prefix_bytes(tiny_engine, len(tokens)), rel=0.01)
