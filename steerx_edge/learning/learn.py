"""The whole method: history -> ablation -> description -> candidates -> calibration -> profile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from steerx_edge.errors import SteerxError
from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.ablation import Progress, read_items
from steerx_edge.learning.candidates import candidates_of
from steerx_edge.learning.checkpoint import Checkpoint
from steerx_edge.learning.description import describe, style_facts
from steerx_edge.learning.directions import NO_DIRECTION
from steerx_edge.learning.effects import word_effects
from steerx_edge.learning.learned import Learned, made_by
from steerx_edge.learning.settings import Settings
from steerx_edge.learning.texts import items_of, sampled, usable
from steerx_edge.llamacpp.control_vector import check_layers
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.profile import Profile

if TYPE_CHECKING:
    from steerx_edge.llamacpp.compat import Llama


def learn(
    model: Engine | Llama | str | os.PathLike[str],
    history: Sequence[str | HistoryItem],
    settings: Settings | None = None,
    *,
    progress: Progress = lambda _what, _done, _of: None,
    resume: Path | None = None,
    usable_profile: Callable[[Profile], None] = lambda _profile: None,
    save: Callable[[Profile], None] = lambda _profile: None,
    seconds: float | None = None,
) -> Profile:
    """Learn how a user writes from their own texts.

    A sample of the texts is read first, and everything is calibrated on it. Then all further texts
    are read for the words, the logit bias and the memory.

    Args:
        model: an engine, an open Llama, or the path of a GGUF file.
        history: the user's texts, alone or with what they answer; at least two.
        settings: None takes the defaults.
        progress: called with each step: "effects", "description", the contrast methods,
            "calibration", "further texts" and "done", each with counts of its own.
        resume: a folder that keeps what was found, until the profile is complete and `save` has
            returned, so that the same call resumes where it was interrupted; None keeps nothing.
        usable_profile: called with the profile of the sample before the further texts are read.
        save: called with the profile that is returned. If it fails, `resume` still keeps the work.
        seconds: no further texts are read after so long; None reads all.

    Returns:
        A profile with one entry, for this model.

    Raises:
        HistoryError: there is too little text, or something that is no text.
        ModelError: the model cannot be read or steered.
        SteerxError: the texts make no difference to the model's residual stream.
    """
    ends = None if seconds is None else time.monotonic() + seconds
    settings = settings or Settings()
    engine = model if isinstance(model, Engine) else Engine(model)
    given = items_of(history)
    texts = usable(engine, given, settings.max_items)
    layers = settings.layers or default_layers(engine.analysis.n_layer, settings)
    check_layers(layers, engine.analysis.n_layer)
    items = [text.item for text in texts]
    checkpoint = Checkpoint(resume, made_by(engine), tuple(items), settings, tuple(layers))

    places = sampled(len(texts), settings.sample)
    sample = [texts[place] for place in places]
    prompts = [engine.prompt(messages_for(text.item.request)) for text in sample]
    with engine.analysis.storing(prompts):
        ablation = read_items(
            engine, [text.item for text in sample], layers, settings, progress, checkpoint
        )
        words = word_effects([result.effects for result in ablation.results])
        progress("description", 0, 1)
        description = describe(engine, words, style_facts([item.response for item in items]))
        candidates = candidates_of(
            engine,
            ablation,
            description,
            layers,
            settings,
            progress=progress,
            checkpoint=checkpoint,
        )
        if not candidates:
            raise SteerxError(NO_DIRECTION)
        learned = Learned(
            engine, settings, len(given), items, sample, ablation, description, candidates
        )
        if settings.calibrate:
            learned.calibrate(progress)

    if settings.calibrate:
        further = [texts[place] for place in sorted({*range(len(texts))} - {*places})]
        if further:
            usable_profile(learned.profile())
            learned.read_further(further, progress, checkpoint, ends)
    profile = learned.profile()
    save(profile)
    if learned.n_read == len(texts) or not settings.calibrate:
        checkpoint.remove()
    progress("done", 1, 1)
    return profile


def default_layers(n_layer: int, settings: Settings) -> tuple[int, ...]:
    """The blocks that are tried, or steered without calibration: see docs/method.md."""
    shares = ((1, 2), (4, 5)) if settings.calibrate else ((2, 3),)
    return tuple(sorted({max(1, above * n_layer // below) for above, below in shares}))
