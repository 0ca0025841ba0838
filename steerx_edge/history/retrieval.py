"""Find the past items most relevant to a request, by BM25."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from unicodedata import normalize

import regex

from steerx_edge.errors import HistoryError
from steerx_edge.history.budget import most_relevant
from steerx_edge.history.item import HistoryItem
from steerx_edge.history.words import runs


def query_for(item: HistoryItem) -> str:
    """Return the query that finds the in-context texts of an item.

    This is its request, which is all that is known before the item is written, or its text if it
    has no request.
    """
    return item.request if item.request.strip() else item.response


class Retriever:
    """A BM25 index of one user's items (Lucene's variant, k1 = 1.5, b = 0.75).

    An item is indexed by its request and its text together, so a query matches similar requests
    and texts on the same subject. Words are compared without case, have two characters or more, and
    are not stemmed; English stop words are dropped. Scripts without spaces are indexed by pairs of
    characters, and Chinese characters also by one. Points of Arabic and Hebrew are left out.
    """

    def __init__(self, items: Sequence[HistoryItem]) -> None:
        # Imported here because it takes tens of milliseconds, and most commands do not need it.
        import bm25s

        self._items = items
        tokens = _tokenize([f"{item.request}\n{item.response}" for item in items])
        self._index: bm25s.BM25 | None = None
        if any(tokens):
            self._index = bm25s.BM25(method="lucene", backend="numpy")
            self._index.index(tokens, show_progress=False)

    def retrieve(self, query: str, k: int, exclude: Collection[int] = ()) -> list[int]:
        """Find the items most relevant to a query.

        Args:
            query: A request, or any text; see :func:`query_for`.
            k: The number of items.
            exclude: Indices to leave out, such as the item's own.

        Returns:
            Up to k indices into the items, the most relevant first; among equals, the lower index
            first. If fewer than k items share a word with the query, the most recent of the others
            (the last in the history) follow.

        Raises:
            HistoryError: k is negative.
        """
        if k < 0:
            raise HistoryError(f"The number of items to retrieve must not be negative: {k}.")
        scores = self._scores(query)
        allowed = [index for index in range(len(self._items)) if index not in exclude]
        relevant = [index for index in allowed if scores[index] > 0]
        relevant.sort(key=lambda index: (-scores[index], index))
        recent = [index for index in reversed(allowed) if scores[index] == 0]
        return (relevant + recent)[:k]

    def in_context(
        self, query: str, k: int, fits: Callable[[Sequence[HistoryItem]], bool]
    ) -> list[HistoryItem]:
        """Choose in-context texts for a request, in the order of :func:`prompts.messages_for`.

        Args:
            query: The request.
            k: The number of items.
            fits: Whether these items fit the context. An item that does not fit is skipped.

        Returns:
            Up to k items, the most relevant last.

        Raises:
            HistoryError: k is negative.
        """
        ranked = [self._items[index] for index in self.retrieve(query, k)]
        return most_relevant(ranked, fits, skip=True)

    def _scores(self, query: str) -> list[float]:
        """The relevance of each item; 0 if it shares no word with the query."""
        (tokens,) = _tokenize([query])
        # bm25s cannot score a query without tokens.
        if self._index is None or not tokens:
            return [0.0] * len(self._items)
        scores: list[float] = self._index.get_scores(tokens).tolist()
        return scores


class GroupRetriever:
    """Says which group of texts a request is about: the one with the most relevant text.

    Args:
        groups: each with a text at least. Without groups, every request gets no texts.
    """

    def __init__(self, groups: Sequence[Sequence[HistoryItem]]) -> None:
        self._groups = groups
        self._owners = [group for group in groups for _ in group]
        self._retriever = None
        if len(groups) > 1:
            self._retriever = Retriever([item for group in groups for item in group])

    def retrieve(self, request: str) -> Sequence[HistoryItem]:
        """The group, or the last one if no text shares a word with the request."""
        if self._retriever is None:
            return self._groups[0] if self._groups else ()
        return self._owners[self._retriever.retrieve(request, 1)[0]]


# Points and lengthening of Arabic and Hebrew, tones of Armenian, and what only joins or formats.
_OPTIONAL = regex.compile(
    r"[[\p{Mn}&&[\u0591-\u06ed]]\u0640\u200c\u200d\u055b\u055c\u055e\p{WB=Format}]+", regex.V1
)
_WIDE = regex.compile(r"[\uff01-\uffee]+")  # forms of letters that fill a square, or half of one
_HAN = regex.compile(r"\p{Han}")


def _terms(text: str) -> list[str]:
    """The words that a text is found by."""
    text = _WIDE.sub(lambda match: normalize("NFKC", match.group()), normalize("NFC", text))
    text = _OPTIONAL.sub("", text.casefold())
    terms: list[str] = []
    for run in runs(text):
        if isinstance(run, str):
            terms += [run] if len(run) > 1 else []
        else:
            terms += [a + b for a, b in pairwise(run)] if len(run) > 1 else run
            terms += [character for character in run if len(run) > 1 and _HAN.match(character)]
    return terms


def _tokenize(texts: list[str]) -> list[list[str]]:
    import bm25s

    tokens: list[list[str]] = bm25s.tokenize(
        [" ".join(_terms(text)) for text in texts],
        lower=False,
        token_pattern=r"\S+",  # noqa: S106
        stopwords="en",
        return_ids=False,
        show_progress=False,
    )
    return tokens
