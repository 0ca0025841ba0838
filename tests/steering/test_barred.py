"""Which tokens would complete a word that may not be written."""

from __future__ import annotations

import numpy as np
import pytest

from steerx_edge.steering.barred import Bar, Barred, spellings

TEXTS = ["", "c", "C", "h", "e", "er", "ers", "s", " ", "\n", "!", "rs!", "rs up", "rsx", "x", "é"]
TEXTS += [" che", " cheers", "Cheers", "CHEERS", "cheers", "x cheers y", "xcheers", " cheerso"]
TEXTS += ["don", "'t", "’t", "n't", "干", "杯", "干杯吧", " ok cheers! cheersx"]
PIECES = [text.encode() for text in TEXTS]
PIECES += [b"\xc3", b"\xa9", b"cheers\xc3"]


def completes(text: str, piece: str, word: Barred) -> bool:
    """By the definition, on a text that is written out."""
    whole = text + piece
    for spelling in spellings(word.text):
        place = whole.find(spelling)
        while place >= 0:
            end = place + len(spelling)
            beside = whole[:place][-1:].isalnum() or whole[end : end + 1].isalnum()
            if end > len(text) and not (word.whole and beside):
                return True
            place = whole.find(spelling, place + 1)
    return False


@pytest.mark.parametrize(
    "word",
    [
        Barred("cheers", whole=True),
        Barred("Cheers", whole=False),
        Barred("don't", whole=True),
        Barred("干杯", whole=False),
        Barred("ok cheers", whole=True),
        Barred("!", whole=True),
        Barred("é", whole=True),
    ],
)
def test_a_token_is_barred_exactly_where_it_completes_the_word(word: Barred) -> None:
    bar, rng = Bar([word], PIECES), np.random.default_rng(1)
    likely = [b"c", b"h", b"er", b" che", b"don", b" ok", "干".encode(), b"x", b" ", b" C", b"ok "]
    n_barred = 0
    for _ in range(1500):
        text = b"".join(rng.choice(np.array([*likely, *PIECES], object), rng.integers(0, 5)))
        found = set(bar.tokens_after(text).tolist())
        for token, piece in enumerate(PIECES):
            try:
                written = text.decode(), piece.decode()
            except UnicodeDecodeError:
                continue
            assert (token in found) == (completes(*written, word) and piece != b""), (text, piece)
        n_barred += len(found)
    assert n_barred


def test_a_character_in_two_tokens_is_barred_at_its_last_byte() -> None:
    bar = Bar([Barred("café", whole=True)], [b"caf", b"\xc3", b"\xa9", b"e"])
    assert bar.tokens_after(b"a caf\xc3").tolist() == [2]
    assert bar.tokens_after(b"a caf").tolist() == []


def test_spellings_differ_in_case_and_apostrophe() -> None:
    assert set(spellings("cheers")) == {"cheers", "Cheers", "CHEERS"}
    assert {"don't", "don’t", "Don't", "DON’T"} <= set(spellings("don’t"))
    assert {"best regards", "Best regards", "Best Regards"} <= set(spellings("Best Regards"))
    assert "McCoy" in spellings("McCoy")


def test_several_words_are_barred_together() -> None:
    pieces = [b"a", b"b", b"c"]
    both = Bar([Barred("a", whole=True), Barred("b", whole=True)], pieces)
    assert sorted(both.tokens_after(b"")) == [0, 1]
    assert sorted(both.tokens_after(b"c")) == []
