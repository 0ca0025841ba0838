"""Prompts of an evaluation: every arm scores the same tokens, so only the context is shortened."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from steerx_edge.evaluation.arms import Condition
from steerx_edge.history.budget import cut, most_relevant, shortened
from steerx_edge.history.item import HistoryItem, User
from steerx_edge.history.retrieval import GroupRetriever, Retriever
from steerx_edge.learning.neutral import neutral_items
from steerx_edge.learning.prefix import chosen_prefixes
from steerx_edge.llamacpp.prompts import messages_for

if TYPE_CHECKING:
    from steerx_edge.llamacpp.engine import Engine


class Prompts:
    """Contexts and texts, each with its share of the analysis context.

    Args:
        engine: the model.
        n_in_context: how many texts are retrieved for a request.
        n_prefix: tokens of the texts that prompts may begin with.
    """

    def __init__(self, engine: Engine, n_in_context: int, n_prefix: int = 0) -> None:
        self._engine = engine
        self._n_in_context = n_in_context
        self._n_prefix = n_prefix
        self._prefixes: dict[tuple[HistoryItem, ...], list[list[HistoryItem]]] = {}
        self.quarter = engine.analysis.n_ctx // 4
        """Tokens of a text, or of a request, at most."""

    def tokens(self, text: str) -> list[int]:
        """A text that is scored."""
        return self._engine.tokenize(text)[: self.quarter]

    def contexts(self, user: User, condition: Condition) -> list[list[int]]:
        """The prompt before each held-out text; in-context texts that do not fit are left out."""
        retriever = Retriever(condition.history)
        prefixes = GroupRetriever(self._chosen(tuple(condition.prefix)))
        contexts = []
        for query in user.queries:
            found = retriever.retrieve(query.request, self._n_in_context)
            in_context = most_relevant(
                [self._shortened(condition.history[i]) for i in found],
                lambda items, query=query: self._fits(query, items, condition.description),  # type: ignore[misc]
            )
            texts = [*prefixes.retrieve(query.request), *in_context]
            contexts.append(self._context(query, texts, condition.description))
        return contexts

    def _chosen(self, items: tuple[HistoryItem, ...]) -> list[list[HistoryItem]]:
        if items and items not in self._prefixes:
            self._prefixes[items] = chosen_prefixes(self._engine, items, self._n_prefix)
        return self._prefixes.get(items, [])

    @cached_property
    def neutral(self) -> list[tuple[list[int], list[int]]]:
        """The prompt of each neutral text's request, and the text."""
        return [
            (self._context(item, (), ""), self.tokens(item.response))
            for item in neutral_items("evaluation")
        ]

    def _fits(self, query: HistoryItem, items: Sequence[HistoryItem], description: str) -> bool:
        room = self._engine.analysis.n_ctx - self.quarter
        return len(self._context(query, items, description)) <= room

    def _context(
        self, query: HistoryItem, items: Sequence[HistoryItem], description: str
    ) -> list[int]:
        request = cut(self._engine, query.request, self.quarter)
        return self._engine.prompt(messages_for(request, history=items, description=description))

    def _shortened(self, item: HistoryItem) -> HistoryItem:
        eighth = self._engine.analysis.n_ctx // 8
        return shortened(self._engine, item, request=eighth, response=eighth)
