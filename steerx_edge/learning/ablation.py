"""A history, read by the model: the ablation passes over all items, fold by fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from steerx_edge.errors import HistoryError
from steerx_edge.history.budget import cut
from steerx_edge.history.item import HistoryItem
from steerx_edge.history.retrieval import Retriever, query_for
from steerx_edge.learning.checkpoint import Checkpoint
from steerx_edge.learning.contrasts import pooled, row_weights
from steerx_edge.learning.effects import Effects, anchors, effects_of, read_alone, read_beside
from steerx_edge.learning.settings import MIN_ITEMS, Settings
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import ScoreResult, asked_for
from steerx_edge.steering.ledger import plain
from steerx_edge.steering.logit_bias import TokenCounts

if TYPE_CHECKING:
    from steerx_edge.llamacpp.engine import Engine

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are done, and how many there are."""

_FEWEST_FOLDS = 4


@dataclass(frozen=True)
class Text:
    """A text of the user with its request, as tokens."""

    context: list[int]
    response: list[int]


class Fold(NamedTuple):
    """Items that are read in the same context."""

    members: list[int]
    in_context: list[int]  # the most relevant last


class Reading(NamedTuple):
    """What the ablation passes over a history give: by item, but for the counts."""

    items: list[HistoryItem]
    texts: list[Text]
    folds: list[Fold]
    contrasts: list[Contrast]
    counts: TokenCounts


class Contrast(NamedTuple):
    """What is kept of an item once its anchors are known: rows, averaged."""

    effects: Effects
    norms: NDArray[np.float32]  # (layer, T) lengths of the rows, the first one left out
    n_anchors: int
    weights: NDArray[np.float32]  # (T + 1,) of the rows that directions are made of
    treatment: NDArray[np.float32]  # (layer, n_embd) of those rows, with others in the context
    control: NDArray[np.float32]  # (layer, n_embd) of those rows, with nothing
    final: NDArray[np.float16]  # (T + 1, n_embd) final normed rows, with nothing
    beside: NDArray[np.float32]  # (bias, T) log-probabilities under BIAS_STRENGTHS, with others
    beside_final: NDArray[np.float16]  # (T + 1, n_embd) final normed rows, with others


def chosen(history: Sequence[HistoryItem], max_items: int | None) -> list[HistoryItem]:
    """The items that have text; the last `max_items` of them.

    Of texts that differ in white space and case at most, the last one stays: a copy would be taken
    for a habit, and foretell the text that calibration holds out.
    """
    texts = [plain(item.response) for item in history]
    last = {text: i for i, text in enumerate(texts) if text}
    return [history[i] for i in sorted(last.values())[-(max_items or len(history)) :]]


def usable(
    engine: Engine, history: Sequence[HistoryItem], max_items: int | None
) -> list[HistoryItem]:
    """The items to learn from, each cut to its share of the analysis context."""
    items = chosen(history, max_items)
    if len(items) < MIN_ITEMS:
        raise HistoryError(
            f"There are {len(items)} different texts to learn from, and at least {MIN_ITEMS} are "
            "needed: each is read in the context of the others."
        )
    return [shortened(engine, item) for item in items]


def shortened(engine: Engine, item: HistoryItem) -> HistoryItem:
    """An item cut to its share of the analysis context, as it is read."""
    n_ctx = engine.analysis.n_ctx
    return HistoryItem(
        request=cut(engine, item.request, n_ctx * 3 // 16),
        response=cut(engine, item.response, n_ctx // 8),
    )


def sampled(n_items: int, most: int) -> list[int]:
    """Places of items that are spread evenly over all of them, the last one included.

    A history is in the order of time, or one kind of text after the other; so the sample is
    stratified by either.
    """
    n = min(n_items, most)
    return [(k + 1) * n_items // n - 1 for k in range(n)]


def read_items(
    engine: Engine,
    items: Sequence[HistoryItem],
    layers: Sequence[int],
    settings: Settings,
    progress: Progress = lambda _what, _done, _of: None,
    checkpoint: Checkpoint | None = None,
) -> Reading:
    """The ablation passes: every item with others of the same history in its context, and without.

    Args:
        engine: the model.
        items: the history, each item short enough for the analysis context.
        layers: blocks to read on the way.
        settings: how the passes are made.
        progress: told about "effects".
        checkpoint: where finished folds are kept.

    Raises:
        ModelError: llama.cpp fails.
    """
    checkpoint = checkpoint or Checkpoint(None)
    texts = [
        Text(engine.prompt(messages_for(item.request)), engine.tokenize(item.response))
        for item in items
    ]
    folds = folds_of(engine, items, settings)
    kept = [checkpoint.get(f"fold-{number}") for number in range(len(folds))]
    expected = np.zeros((len(folds), engine.analysis.n_vocab), np.float32)
    used = np.zeros_like(expected)
    alone: dict[int, ScoreResult] = {}
    for number, fold in enumerate(folds):
        progress("effects", number, 2 * len(folds))
        for j in fold.members:
            np.add.at(used[number], texts[j].response, 1)
        if (arrays := kept[number]) is not None:
            expected[number] = arrays["expected"]
            continue
        results = read_alone(engine, [items[j] for j in fold.members], layers)
        alone |= zip(fold.members, results, strict=True)
        expected[number] = sum(asked_for(result.expected) for result in results)
    # A text of the user's never holds what ends a text, and that says nothing about the user.
    expected[:, engine.end_tokens] = 0
    counts = TokenCounts(used, expected)

    found: dict[int, Contrast] = {}
    for number, fold in enumerate(folds):
        progress("effects", len(folds) + number, 2 * len(folds))
        if (arrays := kept[number]) is not None:
            found |= _from_arrays(engine, fold.members, arrays)
            continue
        treatments = read_beside(
            engine,
            [items[j] for j in fold.members],
            [items[j] for j in fold.in_context],
            layers,
            counts.tried(without=number),
        )
        new = {
            j: _contrast(engine, items[j], treatment, alone.pop(j), settings)
            for j, treatment in zip(fold.members, treatments, strict=True)
        }
        checkpoint.put(f"fold-{number}", expected=expected[number], **_as_arrays(new))
        found |= new
    return Reading(list(items), texts, folds, [found[j] for j in range(len(items))], counts)


class Further(NamedTuple):
    """What is read of a text that only goes into the words, the logit bias and the memory."""

    effects: Effects
    final: NDArray[np.float32]  # (T + 1, n_embd)
    expected: NDArray[np.float64]  # (n_vocab,)


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
        others: the same user's items; none of `items`.
        settings: how the passes are made.

    Raises:
        ModelError: llama.cpp fails.
    """
    query = "\n".join(query_for(item) for item in items)
    chosen = _in_context(engine, Retriever(others), query, others, settings)
    controls = read_alone(engine, items, ())
    treatments = read_beside(engine, items, [others[i] for i in chosen], ())
    return [
        Further(
            effects_of(engine, item, treatment, control),
            asked_for(control.final),
            asked_for(control.expected),
        )
        for item, treatment, control in zip(items, treatments, controls, strict=True)
    ]


def folds_of(engine: Engine, items: Sequence[HistoryItem], settings: Settings) -> list[Fold]:
    """Every item in one fold, with items of one other fold as its context.

    Of that fold, those that fit the requests best; fewer where they would not fit their share of
    the analysis context. Folds are each other's context by pairs, so that what is made of the other
    pairs has not seen a fold at all, not even as a context: see `Candidate.contexts`.
    """
    retriever = Retriever(items)
    # With few items, folds are smaller, so that most of the others are left to be learned from.
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
    """Places of the items that fit a query best, and their share of the analysis context."""
    room = engine.analysis.n_ctx * 3 // 8
    chosen: list[int] = []
    for i in retriever.retrieve(query, settings.in_context, exclude=excluded):
        longer = [items[k] for k in (i, *chosen)]
        if chosen and len(engine.prompt(messages_for("", history=longer))) > room:
            break
        chosen = [i, *chosen]
    return chosen


def _contrast(
    engine: Engine,
    item: HistoryItem,
    treatment: ScoreResult,
    control: ScoreResult,
    settings: Settings,
) -> Contrast:
    effects = effects_of(engine, item, treatment, control)
    nats = effects.nats
    selected = anchors(nats, threshold=settings.threshold, at_least=settings.min_anchors)
    rows: dict[str, NDArray[Any]] = {
        "anchors": selected,
        "weighted": np.clip(nats, 1e-6, settings.max_weight),  # a text may have no effect at all
        "all": np.ones(len(nats)),
    }
    weights = row_weights(rows[settings.selection], settings.row)
    return Contrast(
        effects=effects,
        norms=np.linalg.norm(control.captured[:, 1:], axis=-1),
        n_anchors=int(selected.sum()),
        weights=weights,
        treatment=pooled(treatment.captured, weights),
        control=pooled(control.captured, weights),
        final=asked_for(control.final).astype(np.float16),
        beside=asked_for(treatment.biased),
        beside_final=asked_for(treatment.final).astype(np.float16),
    )


def _as_arrays(contrasts: Mapping[int, Contrast]) -> dict[str, NDArray[Any]]:
    """For a checkpoint; by item and field."""
    return {
        f"{j}.{name}": np.asarray(value)
        for j, contrast in contrasts.items()
        for name, value in [
            ("tokens", contrast.effects.tokens),
            ("nats", contrast.effects.nats),
            *contrast._asdict().items(),
        ]
        if name != "effects"
    }


def _from_arrays(
    engine: Engine, members: Sequence[int], arrays: Mapping[str, NDArray[Any]]
) -> dict[int, Contrast]:
    contrasts = {}
    for j in members:
        tokens = arrays[f"{j}.tokens"].tolist()
        rows: dict[str, Any] = {name: arrays[f"{j}.{name}"] for name in Contrast._fields[1:]}
        effects = Effects(tokens, engine.pieces(tokens), arrays[f"{j}.nats"])
        contrasts[j] = Contrast(effects, **rows | {"n_anchors": int(rows["n_anchors"])})
    return contrasts
