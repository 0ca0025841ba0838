"""The whole road: history -> effects -> description -> contrasts -> calibration -> profile."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from steerx_edge.analysis import Pass
from steerx_edge.calibration import Calibration, Carrier, Placebo, Setting, Text, calibrate
from steerx_edge.checkpoint import Checkpoint
from steerx_edge.contrasts import (
    Backbone,
    RowConvention,
    halves,
    pooled,
    reply_rows,
    row_weights,
)
from steerx_edge.control_vector import check_layers
from steerx_edge.description import describe, style_facts
from steerx_edge.directions import NO_DIRECTION, Estimate, has_direction, median_norms
from steerx_edge.effects import Ablation, Effects, ablate, anchors, word_effects
from steerx_edge.engine import Engine
from steerx_edge.errors import HistoryError, SteerxError
from steerx_edge.history import HistoryItem
from steerx_edge.phrases import weigh_grams
from steerx_edge.placebo import placebo_items
from steerx_edge.profile import Description, Entry, Phrases, Profile, Tilt, WithHistory
from steerx_edge.prompts import messages_for
from steerx_edge.retrieval import Retriever, query_for
from steerx_edge.tilt import TiltCounts
from steerx_edge.version import __version__

if TYPE_CHECKING:
    from llama_cpp import Llama

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are done, and how many there are."""

MIN_ITEMS = 2
"""An item's context is made of the others, so there must be one."""

PHRASE_TEXTS = {"shared": 2, "all": 1, "none": None}
"""In how many texts a phrase must occur."""

_FEWEST_FOLDS = 4
_SHORTEST_REPLY, _LONGEST_REPLY = 16, 96  # tokens of the model's own replies


@dataclass(frozen=True)
class Settings:
    """How a profile is learned. The defaults are ours, picked by measurement: see docs/method.md.

    Args:
        backbones: what directions are made of.
        selection: which rows of the user's texts a direction is made of: those of anchors (as
            SteerX does), all, weighted by their effect up to `max_weight`, or all alike.
        described: whether half of them are read under the description (as SteerX does).
        control: what stands in the control arm's context, which the treatment arm is set against:
            nothing, or texts of placebo authors.
        estimate: how a direction is made of the differences of all texts.
        generic: whether a direction keeps what it shares with that of placebo authors.
        max_weight: the effect above which a row weighs no more, in nats.
        tilt: whether the user's words may be added to the logits.
        phrases: which of the user's runs of words may be mixed into the predictions: those that
            stand in two texts at least, all of them, or none. With all, the profile holds much of
            the texts.
        calibrate: choose layers and strengths by the user's own held-out texts. Otherwise the first
            backbone that has a direction is added with `strength`, no tilt and no phrases.
        layers: blocks that may be steered, 0-based, each at least 1; None takes `default_layers`.
        strength: without calibration: what is added at each layer, as a share of the median
            residual norm there.
        companions: other items in the treatment arm's context, retrieved for each fold.
        fold: items that share a context, which is then read once for all of them; 1 retrieves for
            each item alone.
        threshold: effect above which a token is an anchor, in nats.
        min_anchors: where fewer tokens are above, so many are taken.
        row: which residual row stands for a token.
        max_items: of a longer history, only so many of the last items are used.
    """

    backbones: tuple[Backbone, ...] = ("stylevector", "context-contrast")
    selection: Literal["anchors", "weighted", "all"] = "all"
    described: bool = True
    control: Literal["empty", "placebo"] = "empty"
    estimate: Estimate = "mean"
    generic: Literal["kept", "removed"] = "kept"
    max_weight: float = 3.0
    tilt: bool = True
    phrases: Literal["shared", "all", "none"] = "shared"
    calibrate: bool = True
    layers: tuple[int, ...] | None = None
    strength: float = 0.1
    companions: int = 4
    fold: int = 4
    threshold: float = 1.0
    min_anchors: int = 3
    row: RowConvention = "predicts"
    max_items: int = 32

    def __post_init__(self) -> None:
        wrong = {
            "backbones": not self.backbones
            or not set(self.backbones) <= set(get_args(Backbone))
            or len(set(self.backbones)) < len(self.backbones),
            "selection": self.selection not in ("anchors", "weighted", "all"),
            "control": self.control not in ("empty", "placebo"),
            "estimate": self.estimate not in get_args(Estimate),
            "generic": self.generic not in ("kept", "removed"),
            "max_weight": not (math.isfinite(self.max_weight) and self.max_weight > 0),
            "phrases": self.phrases not in PHRASE_TEXTS,
            "layers": self.layers is not None and not self.layers,
            "strength": not (math.isfinite(self.strength) and self.strength >= 0),
            "companions": self.companions < 1,
            "fold": self.fold < 1,
            "threshold": not math.isfinite(self.threshold),
            "min_anchors": self.min_anchors < 1,
            "row": self.row not in get_args(RowConvention),
            "max_items": self.max_items < MIN_ITEMS,
        }
        for name in (name for name, is_wrong in wrong.items() if is_wrong):
            raise SteerxError(
                f"The setting {name} cannot be {getattr(self, name)!r}: see the documentation of "
                "Settings for what it takes."
            )


class Fold(NamedTuple):
    """Items that are read in the same context."""

    members: list[int]
    companions: list[int]  # the most relevant last


class Reading(NamedTuple):
    """What the ablation passes over a history give: by item, but for the counts."""

    items: list[HistoryItem]
    texts: list[Text]
    folds: list[Fold]
    contrasts: list[_Contrast]
    counts: TiltCounts


class _Contrast(NamedTuple):
    """What is kept of an item once its anchors are known: rows, averaged."""

    effects: Effects
    norms: NDArray[np.float32]  # (layer, T) lengths of the rows, the first one left out
    n_anchors: int
    weights: NDArray[np.float32]  # (T + 1,) of the rows that directions are made of
    treatment: NDArray[np.float32]  # (layer, n_embd) of those rows
    control: NDArray[np.float32]  # (layer, n_embd) of those rows
    alone: NDArray[np.float32]  # (layer, n_embd) of those rows


def learn(
    model: Engine | Llama | str | os.PathLike[str],
    history: Sequence[HistoryItem],
    settings: Settings | None = None,
    *,
    progress: Progress = lambda _what, _done, _of: None,
    resume: Path | None = None,
) -> Profile:
    """Learn how a person writes from their own texts.

    Args:
        model: an engine, an open Llama, or the path of a GGUF file.
        history: the person's texts and what they answer; at least two.
        settings: None takes the defaults.
        progress: told about each step: "effects", "description", the backbones, "calibration" and
            "done", each with counts of its own.
        resume: a folder that keeps what was found, until the profile is complete, so that the same
            call goes on where it was interrupted; None keeps nothing.

    Returns:
        A profile with one entry, for this model.

    Raises:
        HistoryError: there is too little text.
        ModelError: the model cannot be read or steered.
        SteerxError: the texts make no difference to the model's residual stream.
    """
    settings = settings or Settings()
    engine = model if isinstance(model, Engine) else Engine(model)
    items = _usable(engine, history, settings.max_items)
    layers = settings.layers or default_layers(engine.analysis.n_layer, settings)
    check_layers(layers, engine.analysis.n_layer)
    made_by = (__version__, llama_cpp.__version__, engine.model_id, engine.analysis.n_ctx)
    checkpoint = Checkpoint(resume, made_by, tuple(items), settings, tuple(layers))
    reading = read_items(engine, items, layers, settings, progress, checkpoint)
    contrasts = reading.contrasts
    words = word_effects([contrast.effects for contrast in contrasts])

    progress("description", 0, 1)
    description = describe(engine, words, style_facts([item.response for item in items]))

    placebo = None
    if settings.calibrate or settings.generic == "removed":
        progress("placebo authors", 0, 1)
        placebo = placebo_of(engine, reading, layers, settings)
    carriers = carriers_of(engine, reading, description, layers, settings, progress, placebo)
    if not carriers:
        raise SteerxError(NO_DIRECTION)

    tilt = reading.counts if settings.tilt else None
    if settings.calibrate:
        calibration = calibrate(
            engine,
            reading.texts,
            [fold.members for fold in reading.folds],
            carriers,
            tilt,
            PHRASE_TEXTS[settings.phrases],
            prompted=_prompted(engine, reading),
            placebo=placebo,
            done=lambda n, of: progress("calibration", n, of),
        )
    else:
        strengths = tuple((place, settings.strength) for place in range(len(carriers)))
        calibration = Calibration(Setting(strengths), None)
    checkpoint.remove()
    progress("done", 1, 1)

    entry = Entry(
        model=engine.model_id,
        description=description,
        words=words,
        **_carried(carriers, calibration, tilt),
        phrases=_phrases(reading.texts, calibration, settings),
        gain=calibration.gain,
        personal=calibration.personal,
        rows="generated",
        counts={
            "items": len(items),
            "items_given": len(history),
            "tokens": sum(len(contrast.effects.tokens) for contrast in contrasts),
            "anchors": sum(contrast.n_anchors for contrast in contrasts),
        },
        settings=_recorded(settings),
        versions={"steerx_edge": __version__, "llama_cpp_python": llama_cpp.__version__},
        created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    return Profile(entries=(entry,))


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
    found: dict[int, _Contrast] = {}
    expected = np.zeros((len(folds), engine.analysis.n_vocab), np.float32)
    used = np.zeros_like(expected)
    for number, fold in enumerate(folds):
        progress("effects", len(found), len(items))
        kept = checkpoint.get(f"fold-{number}")
        if kept is None:
            members = [items[j] for j in fold.members]
            companions = [items[j] for j in fold.companions]
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


def _as_long_as(engine: Engine, items: Sequence[HistoryItem]) -> list[HistoryItem]:
    """Placebo authors' items, as many and each of at most the length of the given one."""
    return [
        HistoryItem(
            _cut(engine, other.response, len(engine.tokenize(item.response))), other.request
        )
        for item, other in zip(items, cycle(placebo_items()), strict=False)
    ]


def carriers_of(
    engine: Engine,
    reading: Reading,
    description: Description | None,
    layers: Sequence[int],
    settings: Settings,
    progress: Progress = lambda _what, _done, _of: None,
    placebo: Placebo | None = None,
) -> list[Carrier]:
    """What can be added, by backbone and layer, where the texts do not cancel out.

    Args:
        engine: the model.
        reading: the history, read.
        description: what half of the rows are read under; None for the plain backbones.
        layers: the blocks that were read.
        settings: which backbones, and how.
        progress: told about each backbone.
        placebo: whose directions are removed, where the settings say so.

    Raises:
        ModelError: llama.cpp fails.
    """
    norms = median_norms([contrast.norms for contrast in reading.contrasts])
    described = None
    if description is not None and settings.described:
        described = _described_rows(engine, reading, layers, description)
    removed = {}
    if placebo is not None and settings.generic == "removed":
        removed = {(each.source, each.layer): each.direction() for each in placebo.carriers}
    carriers: list[Carrier] = []
    for backbone in settings.backbones:
        if carriers and not settings.calibrate:
            break  # the first one is what is added
        progress(backbone, 0, 1)
        if backbone == "stylevector":
            differences = _stylevector(engine, reading, described, layers, settings)
            contexts = {}
        else:
            differences = _context_contrast(reading.contrasts, described)
            contexts = {
                j: frozenset(fold.companions) for fold in reading.folds for j in fold.members
            }
        carriers += [
            Carrier(
                backbone,
                layer,
                differences[:, place],
                float(norms[place]),
                contexts,
                settings.estimate,
                removed.get((backbone, layer)),
            )
            for place, layer in enumerate(layers)
            if has_direction(differences[:, place])
        ]
    return carriers


def placebo_of(
    engine: Engine, reading: Reading, layers: Sequence[int], settings: Settings
) -> Placebo:
    """What the same passes make of other authors' texts, of about the length of the user's."""
    lengths = [len(text.response) for text in reading.texts]
    longest = max(_SHORTEST_REPLY, int(np.median(lengths)))
    items = [
        HistoryItem(_cut(engine, item.response, longest), item.request) for item in placebo_items()
    ]
    others = replace(settings, control="empty", described=False, generic="kept")
    read = read_items(engine, items, layers, others)
    carriers = carriers_of(engine, read, None, layers, others)
    return Placebo(carriers, read.counts, [text.response for text in read.texts])


def _prompted(engine: Engine, reading: Reading) -> list[Text]:
    """The user's texts with some of the others in the prompt."""
    prompted = list(reading.texts)
    for fold in reading.folds:
        history = [reading.items[i] for i in fold.companions]
        for j in fold.members:
            messages = messages_for(reading.items[j].request, history=history)
            prompted[j] = Text(engine.prompt(messages), reading.texts[j].response)
    return prompted


def _described_rows(
    engine: Engine, reading: Reading, layers: Sequence[int], description: Description
) -> NDArray[np.float32]:
    """The user's texts, read under the description: (item, layer, n_embd)."""
    results = engine.run_many(
        [
            Pass(
                engine.prompt(messages_for(item.request, description=description.text)),
                contrast.effects.tokens,
                score=False,
                layers=tuple(layers),
                weights=contrast.weights[None],
            )
            for item, contrast in zip(reading.items, reading.contrasts, strict=True)
        ]
    )
    return np.stack([result.captured[:, 0] for result in results])


def _stylevector(
    engine: Engine,
    reading: Reading,
    described: NDArray[np.float32] | None,
    layers: Sequence[int],
    settings: Settings,
) -> NDArray[np.float32]:
    """The user's text against the model's own reply: (item, layer, n_embd)."""
    replies = reply_rows(
        engine,
        [text.context for text in reading.texts],
        [min(max(len(text.response), _SHORTEST_REPLY), _LONGEST_REPLY) for text in reading.texts],
        layers,
        settings.row,
    )
    written = np.stack([contrast.alone for contrast in reading.contrasts])
    # Where the model had nothing to say, there is no difference.
    differences: NDArray[np.float32] = np.nan_to_num(halves(written, described) - replies)
    return differences


def _context_contrast(
    contrasts: Sequence[_Contrast], described: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """With the user's other texts against without: (item, layer, n_embd)."""
    treatment = np.stack([contrast.treatment for contrast in contrasts])
    control = np.stack([contrast.control for contrast in contrasts])
    if described is None:
        return treatment - control
    alone = np.stack([contrast.alone for contrast in contrasts])
    return 0.5 * (treatment - control) + 0.5 * (described - alone)


def _carried(
    carriers: Sequence[Carrier], calibration: Calibration, tilt: TiltCounts | None
) -> dict[str, Any]:
    """What the profile takes of the carriers: those that were chosen, else the first, at 0."""
    setting, beside = calibration.setting, calibration.with_history
    chosen = sorted(setting.strengths or ((0, 0.0),), key=lambda each: carriers[each[0]].layer)
    used = [carriers[place] for place, _ in chosen]
    values = None if tilt is None else tilt.values()
    tokens = np.flatnonzero(values) if values is not None else np.empty(0, np.int64)
    tilted = values is not None and len(tokens) and (setting.tilt or beside.tilt)
    return {
        "layers": tuple(carrier.layer for carrier in used),
        "directions": np.stack([carrier.direction() for carrier in used]),
        "norms": np.array([carrier.norm for carrier in used], np.float32),
        "sources": tuple(carrier.source for carrier in used),
        "strengths": np.array([strength for _, strength in chosen], np.float32),
        "tilt": Tilt(tokens.astype(np.int32), values[tokens], setting.tilt)
        if values is not None and tilted
        else None,
        "with_history": WithHistory(
            strengths=np.array(
                [dict(beside.strengths).get(place, 0.0) for place, _ in chosen], np.float32
            ),
            tilt=beside.tilt if tilted else 0.0,
            phrases=beside.phrases,
            gain=calibration.gain_with_history,
        )
        if calibration.gain_with_history is not None
        else None,
    }


def _phrases(texts: Sequence[Text], calibration: Calibration, settings: Settings) -> Phrases | None:
    min_texts = PHRASE_TEXTS[settings.phrases]
    strength = calibration.setting.phrases
    if min_texts is None or not (strength or calibration.with_history.phrases):
        return None
    tokens, weights = weigh_grams([text.response for text in texts], min_texts)
    return Phrases(tokens, weights, strength) if len(weights) else None


def default_layers(n_layer: int, settings: Settings) -> tuple[int, ...]:
    """The blocks that are tried, or steered without calibration: see docs/method.md."""
    shares = ((1, 2), (4, 5)) if settings.calibrate else ((2, 3),)
    return tuple(sorted({max(1, above * n_layer // below) for above, below in shares}))


def folds_of(engine: Engine, items: Sequence[HistoryItem], settings: Settings) -> list[Fold]:
    """Every item in one fold, with items of one other fold as its context.

    Of that fold, those that fit the requests best; fewer where they would not fit their share of
    the analysis context. Folds are each other's context by pairs, so that what is made of the other
    pairs has not seen a fold at all, not even as a context: see `Carrier.contexts`.
    """
    retriever = Retriever(items)
    room = engine.analysis.n_ctx * 3 // 8
    # Texts that differ in white space and case at most are one text.
    words = [item.response.casefold().split() for item in items]
    # With few items, folds are smaller, so that most of the others are left to be learned from.
    n_folds = max(min(len(items), _FEWEST_FOLDS), -(-len(items) // settings.fold))
    folds = []
    for begin in range(n_folds):
        members = list(range(begin, len(items), n_folds))
        partner = begin ^ 1 if begin ^ 1 < n_folds else 0
        themselves = [words[j] for j in members]
        excluded = {
            i for i, text in enumerate(words) if i % n_folds != partner or text in themselves
        }
        query = "\n".join(query_for(items[j]) for j in members)
        chosen: list[int] = []
        for i in retriever.retrieve(query, settings.companions, exclude=excluded):
            longer = [items[k] for k in (i, *chosen)]
            if chosen and len(engine.prompt(messages_for("", history=longer))) > room:
                break
            chosen = [i, *chosen]
        folds.append(Fold(members, chosen))
    return folds


def _usable(engine: Engine, history: Sequence[HistoryItem], max_items: int) -> list[HistoryItem]:
    """The last items that have text, each cut to its share of the analysis context."""
    items = [item for item in history if item.response.strip()][-max_items:]
    if len(items) < MIN_ITEMS:
        raise HistoryError(
            f"There are {len(items)} texts to learn from, and at least {MIN_ITEMS} are needed: "
            "each is read in the context of the others."
        )
    n_ctx = engine.analysis.n_ctx
    return [
        HistoryItem(
            request=_cut(engine, item.request, n_ctx * 3 // 16),
            response=_cut(engine, item.response, n_ctx // 8),
        )
        for item in items
    ]


def _cut(engine: Engine, text: str, n_tokens: int) -> str:
    tokens = engine.tokenize(text)
    if len(tokens) <= n_tokens:
        return text
    kept = b"".join(engine.pieces(tokens[:n_tokens])).decode(errors="ignore")
    # Some tokenizers put a space before every text.
    return kept[1:] if not text.startswith(kept) and text.startswith(kept[1:]) else kept


def _contrast(ablation: Ablation, settings: Settings) -> _Contrast:
    nats = ablation.effects.nats
    selected = anchors(nats, threshold=settings.threshold, at_least=settings.min_anchors)
    rows: dict[str, NDArray[Any]] = {
        "anchors": selected,
        "weighted": np.clip(nats, 1e-6, settings.max_weight),  # a text may have no effect at all
        "all": np.ones(len(nats)),
    }
    weights = row_weights(rows[settings.selection], settings.row)
    return _Contrast(
        effects=ablation.effects,
        norms=np.linalg.norm(ablation.alone[:, 1:], axis=-1),
        n_anchors=int(selected.sum()),
        weights=weights,
        treatment=pooled(ablation.treatment, weights),
        control=pooled(ablation.control, weights),
        alone=pooled(ablation.alone, weights),
    )


def _as_arrays(contrasts: Mapping[int, _Contrast]) -> dict[str, NDArray[Any]]:
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
) -> dict[int, _Contrast]:
    contrasts = {}
    for j in members:
        tokens = arrays[f"{j}.tokens"].tolist()
        contrasts[j] = _Contrast(
            effects=Effects(tokens, engine.pieces(tokens), arrays[f"{j}.nats"]),
            norms=arrays[f"{j}.norms"],
            n_anchors=int(arrays[f"{j}.n_anchors"]),
            weights=arrays[f"{j}.weights"],
            treatment=arrays[f"{j}.treatment"],
            control=arrays[f"{j}.control"],
            alone=arrays[f"{j}.alone"],
        )
    return contrasts


def _recorded(settings: Settings) -> dict[str, str | int | float | bool]:
    """What the profile keeps of the settings, beside what has a field of its own."""
    kept = asdict(settings)
    del kept["layers"], kept["strength"]
    return kept | {"backbones": ", ".join(settings.backbones)}
