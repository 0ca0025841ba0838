"""Texts that fit a context."""

from __future__ import annotations

import pytest

from steerx_edge.history.budget import cut
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
