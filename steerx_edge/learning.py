"""The whole road: history -> reading -> description -> carriers -> calibration -> profile."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llama_cpp
import numpy as np

from steerx_edge.calibration import Calibration, Setting, calibrate
from steerx_edge.carriers import Carrier, carriers_of, placebo_of, without_generic
from steerx_edge.checkpoint import Checkpoint
from steerx_edge.control_vector import check_layers
from steerx_edge.description import describe, style_facts
from steerx_edge.directions import NO_DIRECTION
from steerx_edge.effects import word_effects
from steerx_edge.engine import Engine
from steerx_edge.errors import SteerxError
from steerx_edge.history import HistoryItem
from steerx_edge.phrases import weigh_grams
from steerx_edge.profile import Entry, Phrases, Profile, Tilt, WithHistory
from steerx_edge.reading import Progress, Text, prompted, read_items, usable
from steerx_edge.settings import PHRASE_TEXTS, Settings
from steerx_edge.tilt import TiltCounts
from steerx_edge.version import __version__

if TYPE_CHECKING:
    from llama_cpp import Llama


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
        progress: told about each step: "effects", "description", the backbones, "placebo authors"
            where what they share is removed, "calibration" and "done", each with counts of its own.
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
    items = usable(engine, history, settings.max_items)
    layers = settings.layers or default_layers(engine.analysis.n_layer, settings)
    check_layers(layers, engine.analysis.n_layer)
    made_by = (__version__, llama_cpp.__version__, engine.model_id, engine.analysis.n_ctx)
    checkpoint = Checkpoint(resume, made_by, tuple(items), settings, tuple(layers))
    reading = read_items(engine, items, layers, settings, progress, checkpoint)
    contrasts = reading.contrasts
    words = word_effects([contrast.effects for contrast in contrasts])

    progress("description", 0, 1)
    description = describe(engine, words, style_facts([item.response for item in items]))

    carriers = carriers_of(engine, reading, description, layers, settings, progress)
    if not carriers:
        raise SteerxError(NO_DIRECTION)
    if settings.generic == "removed":
        progress("placebo authors", 0, 1)
        placebo = placebo_of(engine, reading, carriers, settings)
        carriers = without_generic(carriers, placebo)

    tilt = reading.counts if settings.tilt else None
    if settings.calibrate:
        calibration = calibrate(
            engine,
            reading.texts,
            [fold.members for fold in reading.folds],
            carriers,
            tilt,
            PHRASE_TEXTS[settings.phrases],
            prompted=prompted(engine, reading),
            placebo=lambda used: placebo_of(engine, reading, used, settings),
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


def _recorded(settings: Settings) -> dict[str, str | int | float | bool]:
    """What the profile keeps of the settings, beside what has a field of its own."""
    kept = asdict(settings)
    del kept["layers"], kept["strength"]
    return kept | {"backbones": ", ".join(settings.backbones)}
