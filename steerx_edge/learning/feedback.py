"""Learning from drafts: what a person made of a model's texts goes into their profile.

It is taken only if it pays on drafts that were held out: the drafts are parted in folds, and each
fold is scored under the profile as it is, and with the drafts of the other folds added.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from steerx_edge.learning.ablation import Progress, Text
from steerx_edge.learning.adding import base_of, learn_more, unread
from steerx_edge.learning.effects import bootstrap_mean_interval
from steerx_edge.learning.texts import shortened
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import ScoreRequest
from steerx_edge.profile import Gain, Profile
from steerx_edge.steering.requests import by_context, steered

if TYPE_CHECKING:
    from steerx_edge.history.item import HistoryItem
    from steerx_edge.llamacpp.compat import Llama
    from steerx_edge.profile import Draft, Entry

FEWEST = 4
"""New drafts that are learned from together: of fewer, holding one out tells nothing."""

_FOLDS = 4


@dataclass(frozen=True)
class Feedback:
    """What learning from drafts came to.

    Attributes:
        profile: the new one if it is better, else the one that was given.
        n_new: drafts with a text that the profile had not read.
        before: gain of the profile as it was on these texts, over the unsteered model; None where
            there were fewer than FEWEST, and nothing was learned.
        change: how much more it gains with the drafts, each held out of what scores it.
    """

    profile: Profile
    n_new: int
    before: Gain | None = None
    change: Gain | None = None

    @property
    def is_taken(self) -> bool:
        """Whether the profile is a new one."""
        return self.change is not None and self.change.mean > 0


def learn_from_drafts(
    model: Engine | Llama | str | os.PathLike[str],
    profile: Profile,
    drafts: Sequence[Draft],
    *,
    progress: Progress = lambda _what, _done, _of: None,
    resume: Path | None = None,
    save: Callable[[Profile], None] = lambda _profile: None,
) -> Feedback:
    """Add what a person made of drafts to a profile, if held-out drafts become more probable.

    Drafts that were taken as they were, or rejected, are left out: the texts are the model's own.
    Those whose text was read before are not read again; they are in the context of the new ones.
    This takes about four times as long as `learn_more`, for the folds.

    Args:
        model: an engine, an open Llama, or the path of a GGUF file.
        profile: as `learn` made it, with its memory.
        drafts: as `read_drafts` gives them, old and new.
        progress: called with "held-out drafts", then as in `learn_more`.
        resume: as in `learn_more`, for the last step.
        save: called with the new profile, if there is one.

    Raises:
        ProfileError: the profile has no entry for this model, or one that cannot be added to.
        ModelError: the model cannot be read.
    """
    engine = model if isinstance(model, Engine) else Engine(model)
    entry = profile.entry_for(engine.model_id)
    texts = [draft.item for draft in drafts if draft.is_edited]
    new, known = unread(texts, base_of(engine, entry).ledger)
    if len(new) < FEWEST:
        return Feedback(profile, len(new))
    prompts = [engine.prompt(messages_for(shortened(engine, item).request)) for item in new]
    with engine.analysis.storing(prompts):
        found = _held_out(engine, profile, new, known, progress)
    if not found.is_taken:
        return found
    whole = learn_more(engine, profile, [*known, *new], progress=progress, resume=resume, save=save)
    return replace(found, profile=whole)


def _held_out(
    engine: Engine,
    profile: Profile,
    new: Sequence[HistoryItem],
    known: Sequence[HistoryItem],
    progress: Progress,
) -> Feedback:
    """Score each fold of the new texts with what the others add; the profile stays as it is."""
    entry = profile.entry_for(engine.model_id)
    unsteered, before, after = np.empty((3, len(new)))
    for fold in range(_FOLDS):
        progress("held-out drafts", fold, _FOLDS)
        held_out = slice(fold, None, _FOLDS)
        others = [item for place, item in enumerate(new) if place % _FOLDS != fold]
        added = learn_more(engine, profile, [*known, *others]).entry_for(engine.model_id)
        for scores, arm in ((unsteered, None), (before, entry), (after, added)):
            scores[held_out] = _log_probs(engine, arm, new[held_out])
    return Feedback(profile, len(new), _gain(before - unsteered), _gain(after - before))


def _log_probs(
    engine: Engine, entry: Entry | None, items: Sequence[HistoryItem]
) -> NDArray[np.float64]:
    """(text,) mean over the tokens of each text, in nats, as `entry` steers the model."""
    texts = [Text.of(engine, shortened(engine, item)) for item in items]
    requests = [ScoreRequest(text.context, text.response) for text in texts]
    if entry is not None:
        steerings = by_context(engine, entry.steering(), [text.context for text in texts])
        requests = [steered(*each) for each in zip(requests, steerings, strict=True)]
    return np.array([result.scored.mean(dtype=np.float64) for result in engine.run_many(requests)])


def _gain(values: NDArray[np.float64]) -> Gain:
    low, high = bootstrap_mean_interval(values[:, None])
    return Gain(float(values.mean()), float(low[0]), float(high[0]), len(values))
