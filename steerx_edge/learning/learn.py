"""The whole method: history -> ablation -> description -> candidates -> calibration -> profile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from steerx_edge.errors import SteerxError
from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.ablation import (
    Progress,
    Reading,
    chosen,
    read_items,
    sampled,
    usable,
)
from steerx_edge.learning.calibration import (
    Calibration,
    Calibrator,
    Scored,
    Setting,
    calibrate,
    recalibrate,
)
from steerx_edge.learning.candidates import Candidate, candidates_of
from steerx_edge.learning.checkpoint import Checkpoint
from steerx_edge.learning.description import describe, style_facts
from steerx_edge.learning.directions import NO_DIRECTION
from steerx_edge.learning.effects import WordTally, word_effects
from steerx_edge.learning.gathering import CHUNK, Chunk, Gathered
from steerx_edge.learning.memory_rows import MemoryRows, usual_words
from steerx_edge.learning.settings import Settings
from steerx_edge.llamacpp.compat import installed_version
from steerx_edge.llamacpp.control_vector import check_layers
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.profile import Entry, LogitBias, MemoryPart, Profile, WithHistory
from steerx_edge.steering.ledger import text_hash
from steerx_edge.steering.logit_bias import TokenCounts
from steerx_edge.steering.memory import KeySpace
from steerx_edge.version import __version__

if TYPE_CHECKING:
    from steerx_edge.llamacpp.compat import Llama
    from steerx_edge.profile import Description


def learn(
    model: Engine | Llama | str | os.PathLike[str],
    history: Sequence[HistoryItem],
    settings: Settings | None = None,
    *,
    progress: Progress = lambda _what, _done, _of: None,
    resume: Path | None = None,
    usable_profile: Callable[[Profile], None] = lambda _profile: None,
    seconds: float | None = None,
) -> Profile:
    """Learn how a person writes from their own texts.

    A sample of the texts is read first, and everything is calibrated on it. Then all further texts
    are read for the words, the logit bias and the memory.

    Args:
        model: an engine, an open Llama, or the path of a GGUF file.
        history: the person's texts and what they answer; at least two.
        settings: None takes the defaults.
        progress: called with each step: "effects", "description", the contrast methods,
            "calibration", "further texts" and "done", each with counts of its own.
        resume: a folder that keeps what was found, until the profile is complete, so that the same
            call resumes where it was interrupted; None keeps nothing.
        usable_profile: called with the profile of the sample before the further texts are read.
        seconds: no further texts are read after so long; None reads all.

    Returns:
        A profile with one entry, for this model.

    Raises:
        HistoryError: there is too little text.
        ModelError: the model cannot be read or steered.
        SteerxError: the texts make no difference to the model's residual stream.
    """
    ends = None if seconds is None else time.monotonic() + seconds
    settings = settings or Settings()
    engine = model if isinstance(model, Engine) else Engine(model)
    items = usable(engine, history, settings.max_items)
    layers = settings.layers or default_layers(engine.analysis.n_layer, settings)
    check_layers(layers, engine.analysis.n_layer)
    checkpoint = Checkpoint(resume, made_by(engine), tuple(items), settings, tuple(layers))

    places = sampled(len(items), settings.sample)
    sample = [items[place] for place in places]
    reading = read_items(engine, sample, layers, settings, progress, checkpoint)
    words = word_effects([contrast.effects for contrast in reading.contrasts])
    progress("description", 0, 1)
    description = describe(engine, words, style_facts([item.response for item in items]))
    candidates = candidates_of(engine, reading, description, layers, settings, progress, checkpoint)
    if not candidates:
        raise SteerxError(NO_DIRECTION)

    hashes = [text_hash(item.response) for item in chosen(history, settings.max_items)]
    sample_hashes = [hashes[place] for place in places]
    learned = _Learned(
        engine,
        settings,
        len(history),
        usual_words([item.request for item in items]),
        reading,
        sample_hashes,
        description,
        candidates,
    )
    if settings.calibrate:
        learned.calibrate(progress)
        further = sorted({*range(len(items))} - {*places})
        if further:
            usable_profile(learned.profile())
            learned.read_further(
                [items[place] for place in further],
                [hashes[place] for place in further],
                progress,
                checkpoint,
                ends,
            )
    if learned.n_read == len(items) or not settings.calibrate:
        checkpoint.remove()
    progress("done", 1, 1)
    return learned.profile()


@dataclass
class _Learned:
    """What is known of a person so far."""

    engine: Engine
    settings: Settings
    n_given: int
    usual: Collection[str]
    reading: Reading
    hashes: Sequence[int]
    description: Description
    candidates: list[Candidate]
    calibration: Calibration = field(init=False)
    calibrator: Calibrator | None = None
    gathered: Gathered = field(init=False)

    def __post_init__(self) -> None:
        strengths = tuple((place, self.settings.strength) for place in range(len(self.candidates)))
        self.calibration = Calibration(Setting(strengths), None)
        finals = [contrast.final for contrast in self.reading.contrasts]
        rows = None
        if self.settings.memory != "none" and self.settings.calibrate:
            space = KeySpace.fit(np.concatenate(finals))
            rows = MemoryRows(
                space, self.settings.memory, self.engine.end_of_turn, usual=self.usual
            )
        counts = self.reading.counts
        self.gathered = Gathered(
            self.engine, WordTally(), counts.used.sum(axis=0), counts.expected.sum(axis=0), rows
        )
        for item, hash_, contrast in zip(
            self.reading.items, self.hashes, self.reading.contrasts, strict=True
        ):
            keys = None if rows is None else rows.keys(contrast.final)
            self.gathered.add(item, hash_, contrast.effects, keys)

    @property
    def n_read(self) -> int:
        """How many texts were read."""
        return self.gathered.n_new

    def calibrate(self, progress: Progress) -> None:
        """Choose strengths on the sample."""
        self.calibrator = Calibrator(
            self.engine,
            self.reading.texts,
            [fold.members for fold in self.reading.folds],
            self.candidates,
            self.reading.counts if self.settings.logit_bias else None,
            self.gathered.rows,
            gated=_tell_requests(self.reading.items),
        )
        self.calibration = calibrate(
            self.calibrator,
            beside=[Scored(each.beside, each.beside_final) for each in self.reading.contrasts],
            done=lambda n, of: progress("calibration", n, of),
        )

    def read_further(
        self,
        items: Sequence[HistoryItem],
        hashes: Sequence[int],
        progress: Progress,
        checkpoint: Checkpoint,
        ends: float | None,
    ) -> None:
        """Add further texts to the words, the logit bias and the memory."""
        places = [slice(begin, begin + CHUNK) for begin in range(0, len(items), CHUNK)]
        chunks = [Chunk(items[each], hashes[each], self.reading.items) for each in places]
        self.gathered.read(chunks, self.settings, progress, checkpoint, ends)
        if self.calibrator is not None:
            self.calibration = recalibrate(self.calibrator, self.calibration)
            self.calibrator = None  # it holds a memory of its own

    def profile(self) -> Profile:
        """As it stands now."""
        gathered = self.gathered
        entry = Entry(
            model=self.engine.model_id,
            description=self.description,
            words=gathered.tally.words(),
            **_carried(
                self.candidates,
                self.calibration,
                gathered.counts if self.settings.logit_bias else None,
            ),
            memory=self._memory(),
            gate=self.calibration.gate,
            gain=self.calibration.gain,
            positions="generated",
            counts={
                "items": self.n_read,
                "items_given": self.n_given,
                "tokens": gathered.n_tokens,
                "anchors": sum(contrast.n_anchors for contrast in self.reading.contrasts),
            },
            settings=_recorded(self.settings),
            versions=versions(),
            created=now(),
        )
        return Profile(entries=(entry,))

    def _memory(self) -> MemoryPart | None:
        rows, strength = self.gathered.rows, self.calibration.setting.memory
        if rows is None or not (strength or self.calibration.with_history.memory):
            return None
        return MemoryPart.of(
            self.gathered.memory(rows),
            strength=strength,
            level=rows.level,
        )


def made_by(engine: Engine) -> tuple[object, ...]:
    """What a checkpoint must have been made by to be resumed."""
    return __version__, installed_version(), engine.model_id, engine.analysis.n_ctx


def versions() -> dict[str, str]:
    """The programs that a profile is learned with."""
    return {"steerx_edge": __version__, "llama_cpp_python": installed_version()}


def now() -> str:
    """The time, as a profile holds it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _tell_requests(items: Sequence[HistoryItem]) -> bool:
    """Whether most texts answer a request, so that they tell what a profile is for."""
    return 2 * sum(bool(item.request) for item in items) > len(items)


def _carried(
    candidates: Sequence[Candidate], calibration: Calibration, logit_bias: TokenCounts | None
) -> dict[str, Any]:
    """What the profile takes: the candidates that were chosen, else the first, at 0."""
    setting, beside = calibration.setting, calibration.with_history
    chosen = sorted(setting.strengths or ((0, 0.0),), key=lambda each: candidates[each[0]].layer)
    used = [candidates[place] for place, _ in chosen]
    biased = None
    if logit_bias is not None and (setting.logit_bias or beside.logit_bias):
        biased = LogitBias.of(logit_bias.values(), setting.logit_bias)
    return {
        "layers": tuple(candidate.layer for candidate in used),
        "directions": np.stack([candidate.direction() for candidate in used]),
        "norms": np.array([candidate.norm for candidate in used], np.float32),
        "contrast_methods": tuple(candidate.contrast_method for candidate in used),
        "strengths": np.array([strength for _, strength in chosen], np.float32),
        "logit_bias": biased,
        "with_history": WithHistory(
            strengths=np.array(
                [dict(beside.strengths).get(place, 0.0) for place, _ in chosen], np.float32
            ),
            logit_bias=beside.logit_bias if biased else 0.0,
            memory=beside.memory,
            gain=calibration.gain_with_history,
        )
        if calibration.gain_with_history is not None
        else None,
    }


def default_layers(n_layer: int, settings: Settings) -> tuple[int, ...]:
    """The blocks that are tried, or steered without calibration: see docs/method.md."""
    shares = ((1, 2), (4, 5)) if settings.calibrate else ((2, 3),)
    return tuple(sorted({max(1, above * n_layer // below) for above, below in shares}))


def _recorded(settings: Settings) -> dict[str, str | int | float | bool]:
    """What the profile keeps of the settings, beside what has a field of its own."""
    kept = {name: value for name, value in asdict(settings).items() if value is not None}
    for name in ("layers", "strength"):
        kept.pop(name, None)
    return kept | {"contrast_methods": ", ".join(settings.contrast_methods)}
