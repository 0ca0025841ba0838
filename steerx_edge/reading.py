"""A history, read by the model: the ablation passes over all items, fold by fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from steerx_edge.checkpoint import Checkpoint
from steerx_edge.contrasts import pooled, row_weights
from steerx_edge.effects import Ablation, Effects, ablate, anchors
from steerx_edge.errors import HistoryError
from steerx_edge.history import HistoryItem
from steerx_edge.placebo import placebo_items
from steerx_edge.prompts import messages_for
from steerx_edge.retrieval import Retriever, query_for
from steerx_edge.settings import MIN_ITEMS, Settings
from steerx_edge.tilt import TiltCounts

if TYPE_CHECKING:
    from steerx_edge.engine import Engine

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
    companions: list[int]  # the most relevant last


class Reading(NamedTuple):
    """What the ablation passes over a history give: by item, but for the counts."""

    items: list[HistoryItem]
    texts: list[Text]
    folds: list[Fold]
    contrasts: list[Contrast]
    counts: TiltCounts


class Contrast(NamedTuple):
    """What is kept of an item once its anchors are known: rows, averaged."""

    effects: Effects
    norms: NDArray[np.float32]  # (layer, T) lengths of the rows, the first one left out
    n_anchors: int
    weights: NDArray[np.float32]  # (T + 1,) of the rows that directions are made of
    treatment: NDArray[np.float32]  # (layer, n_embd) of those rows
    control: NDArray[np.float32]  # (layer, n_embd) of those rows
    alone: NDArray[np.float32]  # (layer, n_embd) of those rows


def chosen(history: Sequence[HistoryItem], max_items: int) -> list[HistoryItem]:
    """The last items that have text.

    Of texts that differ in white space and case at most, the last one stays: a copy would be taken
    for a habit, and foretell the text that calibration holds out.
    """
    texts = [" ".join(item.response.casefold().split()) for item in history]
    last = {text: i for i, text in enumerate(texts) if text}
    return [history[i] for i in sorted(last.values())[-max_items:]]


def usable(engine: Engine, history: Sequence[HistoryItem], max_items: int) -> list[HistoryItem]:
    """The items to learn from, each cut to its share of the analysis context."""
    items = chosen(history, max_items)
    if len(items) < MIN_ITEMS:
        raise HistoryError(
            f"There are {len(items)} different texts to learn from, and at least {MIN_ITEMS} are "
            "needed: each is read in the context of the others."
        )
    n_ctx = engine.analysis.n_ctx
    return [
        HistoryItem(
            request=cut(engine, item.request, n_ctx * 3 // 16),
            response=cut(engine, item.response, n_ctx // 8),
        )
        for item in items
    ]


def read_items(
    engine: Engine,
    items: Sequence[HistoryItem],
    layers: Sequence[int],
    settings: Settings,
    progress: Progress = lambda _what, _done, _of: None,
    checkpoint: Checkpoint | None = None,
    *,
    alone: bool = False,
) -> Reading:
    """The ablation passes: every item with others of the same history in its context, and without.

    Args:
        engine: the model.
        items: the history, each item short enough for the analysis context.
        layers: blocks to read on the way.
        settings: how the passes are made.
        progress: told about "effects".
        checkpoint: where finished folds are kept.
        alone: without the passes that have others in the context: nothing has an effect then.

    Raises:
        ModelError: llama.cpp fails.
    """
    checkpoint = checkpoint or Checkpoint(None)
    texts = [
        Text(engine.prompt(messages_for(item.request)), engine.tokenize(item.response))
        for item in items
    ]
    folds = folds_of(engine, items, settings)
    found: dict[int, Contrast] = {}
    expected = np.zeros((len(folds), engine.analysis.n_vocab), np.float32)
    used = np.zeros_like(expected)
    for number, fold in enumerate(folds):
        progress("effects", len(found), len(items))
        kept = checkpoint.get(f"fold-{number}")
        if kept is None:
            members = [items[j] for j in fold.members]
            companions = [] if alone else [items[j] for j in fold.companions]
            others = _as_long_as(engine, companions) if settings.control == "placebo" else []
            ablations = ablate(engine, members, companions, layers, others)
            new = {
                j: _contrast(ablation, settings)
                for j, ablation in zip(fold.members, ablations, strict=True)
            }
            expected[number] = sum(ablation.expected for ablation in ablations)
            checkpoint.put(f"fold-{number}", expected=expected[number], **_as_arrays(new))
        else:
            new = _from_arrays(engine, fold.members, kept)
            expected[number] = kept["expected"]
        for contrast in new.values():
            np.add.at(used[number], contrast.effects.tokens, 1)
        found |= new
    # A text of the user's never holds what ends a text, and that says nothing about the user.
    expected[:, engine.end_tokens] = 0
    contrasts = [found[j] for j in range(len(items))]
    return Reading(list(items), texts, folds, contrasts, TiltCounts(used, expected))


def prompted(engine: Engine, reading: Reading) -> list[Text]:
    """The user's texts with some of the others in the prompt."""
    prompted = list(reading.texts)
    for fold in reading.folds:
        history = [reading.items[i] for i in fold.companions]
        for j in fold.members:
            messages = messages_for(reading.items[j].request, history=history)
            prompted[j] = Text(engine.prompt(messages), reading.texts[j].response)
    return prompted


def folds_of(engine: Engine, items: Sequence[HistoryItem], settings: Settings) -> list[Fold]:
    """Every item in one fold, with items of one other fold as its context.

    Of that fold, those that fit the requests best; fewer where they would not fit their share of
    the analysis context. Folds are each other's context by pairs, so that what is made of the other
    pairs has not seen a fold at all, not even as a context: see `Carrier.contexts`.
    """
    retriever = Retriever(items)
    room = engine.analysis.n_ctx * 3 // 8
    # With few items, folds are smaller, so that most of the others are left to be learned from.
    n_folds = max(min(len(items), _FEWEST_FOLDS), -(-len(items) // settings.fold))
    folds = []
    for begin in range(n_folds):
        members = list(range(begin, len(items), n_folds))
        partner = begin ^ 1 if begin ^ 1 < n_folds else 0
        excluded = {i for i in range(len(items)) if i % n_folds != partner}
        query = "\n".join(query_for(items[j]) for j in members)
        chosen: list[int] = []
        for i in retriever.retrieve(query, settings.companions, exclude=excluded):
            longer = [items[k] for k in (i, *chosen)]
            if chosen and len(engine.prompt(messages_for("", history=longer))) > room:
                break
            chosen = [i, *chosen]
        folds.append(Fold(members, chosen))
    return folds


def cut(engine: Engine, text: str, n_tokens: int) -> str:
    """How a text begins: so many tokens of it at most."""
    tokens = engine.tokenize(text)
    if len(tokens) <= n_tokens:
        return text
    kept = b"".join(engine.pieces(tokens[:n_tokens])).decode(errors="ignore")
    # Some tokenizers put a space before every text.
    return kept[1:] if not text.startswith(kept) and text.startswith(kept[1:]) else kept


def _as_long_as(engine: Engine, items: Sequence[HistoryItem]) -> list[HistoryItem]:
    """Placebo authors' items, as many and each of at most the length of the given one."""
    return [
        HistoryItem(cut(engine, other.response, len(engine.tokenize(item.response))), other.request)
        for item, other in zip(items, cycle(placebo_items()), strict=False)
    ]


def _contrast(ablation: Ablation, settings: Settings) -> Contrast:
    nats = ablation.effects.nats
    selected = anchors(nats, threshold=settings.threshold, at_least=settings.min_anchors)
    rows: dict[str, NDArray[Any]] = {
        "anchors": selected,
        "weighted": np.clip(nats, 1e-6, settings.max_weight),  # a text may have no effect at all
        "all": np.ones(len(nats)),
    }
    weights = row_weights(rows[settings.selection], settings.row)
    return Contrast(
        effects=ablation.effects,
        norms=np.linalg.norm(ablation.alone[:, 1:], axis=-1),
        n_anchors=int(selected.sum()),
        weights=weights,
        treatment=pooled(ablation.treatment, weights),
        control=pooled(ablation.control, weights),
        alone=pooled(ablation.alone, weights),
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
        contrasts[j] = Contrast(
            effects=Effects(tokens, engine.pieces(tokens), arrays[f"{j}.nats"]),
            norms=arrays[f"{j}.norms"],
            n_anchors=int(arrays[f"{j}.n_anchors"]),
            weights=arrays[f"{j}.weights"],
            treatment=arrays[f"{j}.treatment"],
            control=arrays[f"{j}.control"],
            alone=arrays[f"{j}.alone"],
        )
    return contrasts
