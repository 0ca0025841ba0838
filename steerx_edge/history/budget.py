"""Texts that fit a context."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from steerx_edge.history.item import HistoryItem

_Ranked = TypeVar("_Ranked")

LEAST_PREFIX, MOST_PREFIX = 64, 1024
"""Tokens of a prefix: with the longest, texts can still be scored in the analysis context."""


class Tokenizer(Protocol):
    """Counts the tokens of a text; an `Engine` does."""

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text."""

    def pieces(self, tokens: Sequence[int]) -> list[bytes]:
        """The bytes of each token."""


def cut(tokenizer: Tokenizer, text: str, n_tokens: int) -> str:
    """Truncate a text to at most `n_tokens` tokens."""
    tokens = tokenizer.tokenize(text)
    if len(tokens) <= n_tokens:
        return text
    kept = b"".join(tokenizer.pieces(tokens[:n_tokens])).decode(errors="ignore")
    # Some tokenizers prepend a space to every text.
    return kept[1:] if not text.startswith(kept) and text.startswith(kept[1:]) else kept


def shortened(
    tokenizer: Tokenizer, item: HistoryItem, *, request: int, response: int
) -> HistoryItem:
    """Truncate the request and the response of an item, each to so many tokens."""
    return HistoryItem(
        request=cut(tokenizer, item.request, request),
        response=cut(tokenizer, item.response, response),
    )


def most_relevant(
    ranked: Iterable[_Ranked],
    fits: Callable[[Sequence[_Ranked]], bool],
    *,
    skip: bool = False,
) -> list[_Ranked]:
    """Choose the most relevant texts that fit a context together.

    Args:
        ranked: texts, or their indices; the most relevant first.
        fits: whether these texts, the most relevant last, fit.
        skip: continue with less relevant texts after one that does not fit.

    Returns:
        The chosen texts, the most relevant last, as a prompt holds them.
    """
    chosen: list[_Ranked] = []
    for each in ranked:
        longer = [each, *chosen]
        if fits(longer):
            chosen = longer
        elif not skip:
            break
    return chosen
