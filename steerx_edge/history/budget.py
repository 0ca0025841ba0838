"""Texts that fit a context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Tokenizer(Protocol):
    """What tells how long a text is: an `Engine`."""

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text."""

    def pieces(self, tokens: Sequence[int]) -> list[bytes]:
        """The bytes of each token."""


def cut(tokenizer: Tokenizer, text: str, n_tokens: int) -> str:
    """Return the text, truncated to at most `n_tokens` tokens."""
    tokens = tokenizer.tokenize(text)
    if len(tokens) <= n_tokens:
        return text
    kept = b"".join(tokenizer.pieces(tokens[:n_tokens])).decode(errors="ignore")
    # Some tokenizers put a space before every text.
    return kept[1:] if not text.startswith(kept) and text.startswith(kept[1:]) else kept
