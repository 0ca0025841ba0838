"""Ablation passes over a history, fold by fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from steerx_edge.history.budget import most_relevant
from steerx_edge.history.item import HistoryItem
from steerx_edge.history.retrieval import Retriever, query_for
from steerx_edge.learning.checkpoint import Checkpoint
from steerx_edge.learning.contrasts import pooled, row_weights
from steerx_edge.learning.effects import Effects, anchors, effects_of, read_control, read_treatment
from steerx_edge.learning.settings import Settings
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import ScoreResult, asked_for
from steerx_edge.steering.logit_bias import TokenCounts

if TYPE_CHECKING:
    from steerx_edge.llamacpp.engine import Engine

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are done, and how many there are."""

_FEWEST_FOLDS = 4


@dataclass(frozen=True)
class Text:
    """A text of the user and its request, as tokens."""

    context: list[int]
    response: list[int]

    @classmethod
    def of(cls, engine: Engine, item: HistoryItem) -> Text:
        """The tokens of an item."""
        return cls(engine.prompt(messages_for(item.request)), engine.tokenize(item.response))


class Fold(NamedTuple):
    """Items that share their in-context texts in the treatment arm."""

    members: list[int]
    in_context: list[int]  # the most relevant last


class Ablation(NamedTuple):
    """The ablation results of a history."""

    results: list[AblationResult]  # in the order of the items
    folds: list[Fold]
    counts: TokenCounts  # by fold


class AblationResult(NamedTuple):
    """The ablation results of one text of T tokens."""

    item: HistoryItem
    context: list[int]  # its request, as a prompt
    effects: Effects
    norms: NDArray[np.float32]  # (layer, T) lengths of the rows, the first one left out
    n_anchors: int
    weights: NDArray[np.float32]  # (T + 1,) of the rows that directions come from
    treatment: NDArray[np.float32]  # (layer, n_embd) mean of these rows, treatment arm
    control: NDArray[np.float32]  # (layer, n_embd) mean of these rows, control arm
    final: NDArray[np.float16]  # (T + 1, n_embd) final normed rows, control arm
    treatment_biased: NDArray[np.float32]  # (bias, T) log-probabilities under BIAS_STRENGTHS
    treatment_final: NDArray[np.float16]  # (T + 1, n_embd) final normed rows, treatment arm

    @property
    def text(self) -> Text:
        """The text and its request, as tokens."""
        return Text(self.context, self.effects.tokens)


_KEPT = AblationResult._fields[3:]
"""Fields that a checkpoint keeps as they are."""


def read_items(
    engine: Engine,
    items: Sequence[HistoryItem],
    layers: Sequence[int],
    settings: Settings,
    progress: Progress = lambda _what, _done, _of: None,
    checkpoint: Checkpoint | None = None,
) -> Ablation:
    """Run the ablation passes: each item with and without other items of the history in context.

    Args:
        engine: the model.
        items: the history, each item short enough for the analysis context.
        layers: blocks to read on the way.
        settings: how the passes are made.
        progress: called with "effects".
        checkpoint: where finished folds are kept.

    Raises:
        ModelError: llama.cpp fails.
    """
    checkpoint = checkpoint or Checkpoint(None)
    tokens = [engine.tokenize(item.response) for item in items]
    folds = folds_of(engine, items, settings)
    kept = [checkpoint.get(f"fold-{number}") for number in range(len(folds))]
    expected = np.zeros((len(folds), engine.analysis.n_vocab), np.float32)
    used = np.zeros_like(expected)
    alone: dict[int, ScoreResult] = {}
    for number, fold in enumerate(folds):
        progress("effects", number, 2 * len(folds))
        for j in fold.members:
            np.add.at(used[number], tokens[j], 1)
        if (arrays := kept[number]) is not None:
            expected[number] = arrays["expected"]
            continue
        results = read_control(engine, [items[j] for j in fold.members], layers)
        alone |= zip(fold.members, results, strict=True)
        expected[number] = sum(asked_for(result.expected) for result in results)
    # A user's text never holds an end token, which says nothing about the user.
    expected[:, engine.end_tokens] = 0
    counts = TokenCounts(used, expected)

    found: dict[int, AblationResult] = {}
    for number, fold in enumerate(folds):
        progress("effects", len(folds) + number, 2 * len(folds))
        if (arrays := kept[number]) is not None:
            found |= {j: _from_arrays(engine, items[j], j, arrays) for j in fold.members}
            continue
        treatments = read_treatment(
            engine,
            [items[j] for j in fold.members],
            [items[j] for j in fold.in_context],
            layers,
            counts.tried(without=number),
        )
        new = {
            j: _result(engine, items[j], treatment, alone.pop(j), settings)
            for j, treatment in zip(fold.members, treatments, strict=True)
        }
        checkpoint.put(f"fold-{number}", expected=expected[number], **_as_arrays(new))
        found |= new
    return Ablation([found[j] for j in range(len(items))], folds, counts)


class Further(NamedTuple):
    """The ablation results of a text that only adds to words, logit bias and memory."""

    effects: Effects
    final: NDArray[np.float32]  # (T + 1, n_embd)
    expected: NDArray[np.float64]  # (n_vocab,)
    treatment: NDArray[np.float32]  # (T,) log-probabilities
    control: NDArray[np.float32]  # (T,)


def read_further(
    engine: Engine,
    items: Sequence[HistoryItem],
    others: Sequence[HistoryItem],
    settings: Settings,
) -> list[Further]:
    """The ablation passes over further items, with some of `others` in their context.

    Args:
        engine: the model.
        items: a few, each short enough for the analysis context.
        others: further items of the same user; none of `items`.
        settings: how the passes are made.

    Raises:
        ModelError: llama.cpp fails.
    """
    query = "\n".join(query_for(item) for item in items)
    chosen = _in_context(engine, Retriever(others), query, others, settings)
    controls = read_control(engine, items, ())
    treatments = read_treatment(engine, items, [others[i] for i in chosen], ())
    return [
        Further(
            effects_of(engine, item, treatment, control),
            asked_for(control.final),
            asked_for(control.expected),
            treatment.scored,
            control.scored,
        )
        for item, treatment, control in zip(items, treatments, controls, strict=True)
    ]


def folds_of(engine: Engine, items: Sequence[HistoryItem], settings: Settings) -> list[Fold]:
    """Put every item in one fold, with items of one other fold as its context.

    These are the most relevant ones of that fold, and fewer where they would not fit their share of
    the analysis context. Folds are paired as each other's context, so that what the other pairs
    give has not seen a fold at all, not even in context: see `Candidate.contexts`.
    """
    retriever = Retriever(items)
    # With few items, use smaller folds, so that most items remain to learn from.
    n_folds = max(min(len(items), _FEWEST_FOLDS), -(-len(items) // settings.fold))
    folds = []
    for begin in range(n_folds):
        members = list(range(begin, len(items), n_folds))
        partner = begin ^ 1 if begin ^ 1 < n_folds else 0
        excluded = {i for i in range(len(items)) if i % n_folds != partner}
        query = "\n".join(query_for(items[j]) for j in members)
        folds.append(
            Fold(members, _in_context(engine, retriever, query, items, settings, excluded))
        )
    return folds


def _in_context(
    engine: Engine,
    retriever: Retriever,
    query: str,
    items: Sequence[HistoryItem],
    settings: Settings,
    excluded: Set[int] = frozenset(),
) -> list[int]:
    """Places of the most relevant items that fit their share of the analysis context."""
    room = engine.analysis.n_ctx * 3 // 8

    def fits(places: Sequence[int]) -> bool:
        longer = [items[place] for place in places]
        return len(places) == 1 or len(engine.prompt(messages_for("", history=longer))) <= room

    return most_relevant(retriever.retrieve(query, settings.in_context, exclude=excluded), fits)


def _result(
    engine: Engine,
    item: HistoryItem,
    treatment: ScoreResult,
    control: ScoreResult,
    settings: Settings,
) -> AblationResult:
    effects = effects_of(engine, item, treatment, control)
    nats = effects.nats
    selected = anchors(nats, threshold=settings.threshold, at_least=settings.min_anchors)
    rows: dict[str, NDArray[Any]] = {
        "anchors": selected,
        "weighted": np.clip(nats, 1e-6, settings.max_weight),  # a text may have no effect at all
        "all": np.ones(len(nats)),
    }
    weights = row_weights(rows[settings.selection], settings.row)
    return AblationResult(
        item=item,
        context=_context(engine, item),
        effects=effects,
        norms=np.linalg.norm(control.captured[:, 1:], axis=-1),
        n_anchors=int(selected.sum()),
        weights=weights,
        treatment=pooled(treatment.captured, weights),
        control=pooled(control.captured, weights),
        final=asked_for(control.final).astype(np.float16),
        treatment_biased=asked_for(treatment.biased),
        treatment_final=asked_for(treatment.final).astype(np.float16),
    )


def _context(engine: Engine, item: HistoryItem) -> list[int]:
    return engine.prompt(messages_for(item.request))


def _as_arrays(results: Mapping[int, AblationResult]) -> dict[str, NDArray[Any]]:
    """For a checkpoint; by item and field."""
    return {
        f"{j}.{name}": np.asarray(value)
        for j, result in results.items()
        for name, value in [
            ("tokens", result.effects.tokens),
            ("nats", result.effects.nats),
            *((name, getattr(result, name)) for name in _KEPT),
        ]
    }


def _from_arrays(
    engine: Engine, item: HistoryItem, j: int, arrays: Mapping[str, NDArray[Any]]
) -> AblationResult:
    tokens = arrays[f"{j}.tokens"].tolist()
    kept: dict[str, Any] = {name: arrays[f"{j}.{name}"] for name in _KEPT}
    kept["n_anchors"] = int(kept["n_anchors"])
    effects = Effects(tokens, engine.pieces(tokens), arrays[f"{j}.nats"])
    return AblationResult(item, _context(engine, item), effects, **kept)
