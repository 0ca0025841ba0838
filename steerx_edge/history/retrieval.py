"""Which of a user's past items belong to a request: BM25 over the history."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem


def query_for(item: HistoryItem) -> str:
    """What to look for when an item's own texts in context are wanted.

    The request, since that is all that is known before the item is written; the text itself
    where nothing asked for it.
    """
    return item.request if item.request.strip() else item.response


class Retriever:
    """A BM25 index of one user's items (Lucene's variant, k1 = 1.5, b = 0.75).

    An item is indexed by its request and its text together: a request finds what was asked in
    the same words, and what was written about the same things. Words are lower-cased, of two
    characters or more, without English stop words, and not stemmed.
    """

    def __init__(self, items: Sequence[HistoryItem]) -> None:
        # Imported here: bm25s takes tens of milliseconds, which most commands never need.
        import bm25s

        self._items = items
        tokens = _tokenize([f"{item.request}\n{item.response}" for item in items])
        self._index: bm25s.BM25 | None = None
        if any(tokens):
            self._index = bm25s.BM25(method="lucene", backend="numpy")
            self._index.index(tokens, show_progress=False)

    def retrieve(self, query: str, k: int, exclude: Collection[int] = ()) -> list[int]:
        """Find the items that have most to do with a query.

        Args:
            query: A request, or any text; see :func:`query_for`.
            k: How many items are wanted.
            exclude: Indices that must not be returned, such as the item's own.

        Returns:
            Up to k indices into the items, the most relevant first and the lower index first
            among equals. Places left over, because too few items share a word with the query,
            go to the most recent of the rest, which are the last.

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
        """Choose items to put before a request, as :func:`prompts.messages_for` takes them.

        Args:
            query: The request.
            k: How many items are wanted.
            fits: Whether there is room for these items; where not, the last one that was added
                is left out.

        Returns:
            Up to k items, the most relevant last.

        Raises:
            HistoryError: k is negative.
        """
        chosen: list[HistoryItem] = []
        for index in self.retrieve(query, k):
            longer = [self._items[index], *chosen]
            if fits(longer):
                chosen = longer
        return chosen

    def _scores(self, query: str) -> list[float]:
        """The relevance of each item; 0 where it shares no word with the query."""
        (tokens,) = _tokenize([query])
        # bm25s cannot score a query without tokens.
        if self._index is None or not tokens:
            return [0.0] * len(self._items)
        scores: list[float] = self._index.get_scores(tokens).tolist()
        return scores


def _tokenize(texts: list[str]) -> list[list[str]]:
    import bm25s

    tokens: list[list[str]] = bm25s.tokenize(
        texts, stopwords="en", return_ids=False, show_progress=False
    )
    return tokens
