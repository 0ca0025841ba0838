"""Texts that fit a context."""

from __future__ import annotations

import pytest

from steerx_edge.history.budget import cut, most_relevant, shortened
from steerx_edge.history.item import HistoryItem
from steerx_edge.llamacpp.engine import Engine


@pytest.mark.parametrize("text", ["Alice was so tired", "Café ’tis 🙂", "\nso\n tired"])
@pytest.mark.parametrize("model", ["tiny", "real"])
def test_a_text_is_cut_within_its_tokens(
    tiny_engine: Engine, smollm2_engine: Engine, text: str, model: str
) -> None:
    engine = {"tiny": tiny_engine, "real": smollm2_engine}[model]
    tokens = engine.tokenize(text)
    assert cut(engine, text, len(tokens)) == text
    for n_tokens in range(1, len(tokens)):
        kept = cut(engine, text, n_tokens)
        assert text.startswith(kept)
        # Nothing is lost but a character that is cut, and a space that the tokenizer adds.
        assert b"".join(engine.pieces(tokens[:n_tokens])).decode(errors="ignore").endswith(kept)
        assert kept or n_tokens == 1


def test_a_text_that_begins_with_a_space_is_cut_within_its_tokens(tiny_engine: Engine) -> None:
    text = " Alice was so tired"
    assert text.startswith(cut(tiny_engine, text, 3))


def test_an_item_is_shortened_to_the_tokens_of_both_its_texts(smollm2_engine: Engine) -> None:
    item = HistoryItem(response="The kettle boils over.", request="Write about tea, please.")
    assert shortened(smollm2_engine, item, request=3, response=2) == HistoryItem(
        response=cut(smollm2_engine, item.response, 2),
        request=cut(smollm2_engine, item.request, 3),
    )


@pytest.mark.parametrize(("skip", "expected"), [(False, [2, 1]), (True, [3, 2, 1])])
def test_the_most_relevant_texts_that_fit_are_chosen(skip: bool, expected: list[int]) -> None:
    ranked = [1, 2, 7, 3]
    assert most_relevant(ranked, lambda chosen: sum(chosen) <= 6, skip=skip) == expected
    assert most_relevant(ranked, lambda _: False, skip=skip) == []
