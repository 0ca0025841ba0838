"""What has been learned about a user so far, and the profile made from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.ablation import Ablation, Progress
from steerx_edge.learning.calibration import (
    UNSTEERED,
    Calibration,
    HeldOutScores,
    Scored,
    Setting,
    calibrate,
    recalibrate,
)
from steerx_edge.learning.candidates import Candidate
from steerx_edge.learning.checkpoint import Checkpoint
from steerx_edge.learning.effects import WordTally
from steerx_edge.learning.memory_rows import MemoryRows, usual_words
from steerx_edge.learning.settings import Settings
from steerx_edge.learning.texts import OwnText
from steerx_edge.learning.totals import CHUNK, Chunk, Totals
from steerx_edge.llamacpp.compat import installed_version
from steerx_edge.profile import Entry, LogitBias, MemoryPart, Profile, WithHistory
from steerx_edge.profile.entry import now
from steerx_edge.steering.memory import KeySpace
from steerx_edge.version import __version__

if TYPE_CHECKING:
    from steerx_edge.llamacpp.engine import Engine
    from steerx_edge.profile import Description


@dataclass
class Learned:
    """What has been learned about a user so far.

    Args:
        engine: the model.
        settings: how it is learned.
        n_given: how many texts the history has.
        items: all texts that are learned from.
        sample: those that directions and strengths are found on.
        ablation: the ablation results of the sample.
        description: how the user writes.
        candidates: candidate directions, at least one.
    """

    engine: Engine
    settings: Settings
    n_given: int
    items: Sequence[HistoryItem]
    sample: Sequence[OwnText]
    ablation: Ablation
    description: Description
    candidates: Sequence[Candidate]
    calibration: Calibration = field(init=False)
    scores: HeldOutScores | None = None
    totals: Totals = field(init=False)

    def __post_init__(self) -> None:
        strengths = tuple((place, self.settings.strength) for place in range(len(self.candidates)))
        self.calibration = Calibration(Setting(strengths), None)
        results, counts = self.ablation.results, self.ablation.counts
        rows = None
        if self.settings.memory != "none" and self.settings.calibrate:
            rows = MemoryRows(
                KeySpace.fit(np.concatenate([result.final for result in results])),
                self.settings.memory,
                self.engine.end_of_turn,
                usual=usual_words([item.request for item in self.items]),
            )
        self.totals = Totals(
            self.engine, WordTally(), counts.used.sum(axis=0), counts.expected.sum(axis=0), rows
        )
        for text, result in zip(self.sample, results, strict=True):
            keys = None if rows is None else rows.keys(result.final)
            self.totals.add(text, result.effects, keys)

    @property
    def n_read(self) -> int:
        """How many texts were read."""
        return self.totals.n_new

    def calibrate(self, progress: Progress) -> None:
        """Choose strengths on the sample."""
        results = self.ablation.results
        self.scores = HeldOutScores(
            self.engine,
            [result.text for result in results],
            [fold.members for fold in self.ablation.folds],
            self.candidates,
            self.ablation.counts if self.settings.logit_bias else None,
            self.totals.rows,
            gated=_tell_requests([text.item for text in self.sample]),
        )
        self.calibration = calibrate(
            self.scores,
            prompted=[Scored(each.treatment_biased, each.treatment_final) for each in results],
            done=lambda n, of: progress("calibration", n, of),
        )

    def read_further(
        self,
        texts: Sequence[OwnText],
        progress: Progress,
        checkpoint: Checkpoint,
        ends: float | None,
    ) -> None:
        """Add further texts to the words, the logit bias and the memory."""
        others = [text.item for text in self.sample]
        chunks = [
            Chunk(texts[begin : begin + CHUNK], others) for begin in range(0, len(texts), CHUNK)
        ]
        self.totals.read(chunks, self.settings, progress, checkpoint, ends)
        if self.scores is not None:
            self.calibration = recalibrate(self.scores, self.calibration)
            self.scores = None  # they hold a memory of their own

    def profile(self) -> Profile:
        """The profile as it stands now."""
        totals, calibration = self.totals, self.calibration
        directions = self._directions()
        used = [self.candidates[place] for place, _ in directions]
        entry = Entry(
            model=self.engine.model_id,
            description=self.description,
            words=totals.tally.words(),
            layers=tuple(candidate.layer for candidate in used),
            directions=np.stack([candidate.direction() for candidate in used]),
            norms=np.array([candidate.norm for candidate in used], np.float32),
            contrast_methods=tuple(candidate.contrast_method for candidate in used),
            strengths=np.array([strength for _, strength in directions], np.float32),
            logit_bias=self._logit_bias(),
            memory=self._memory(),
            gate=calibration.gate,
            gain=calibration.gain,
            with_history=self._with_history([place for place, _ in directions]),
            positions="generated",
            counts={
                "items": self.n_read,
                "items_given": self.n_given,
                "tokens": totals.n_tokens,
                "anchors": sum(result.n_anchors for result in self.ablation.results),
            },
            settings=_recorded(self.settings),
            versions=versions(),
            created=now(),
            trials=calibration.trials,
        )
        return Profile(entries=(entry,))

    def _directions(self) -> list[tuple[int, float]]:
        """Places and strengths of the chosen candidates, by layer; the first at 0 if none is."""
        chosen = self.calibration.setting.strengths or ((0, 0.0),)
        return sorted(chosen, key=lambda each: self.candidates[each[0]].layer)

    def _logit_bias(self) -> LogitBias | None:
        strength = self.calibration.setting.logit_bias
        if not self.settings.logit_bias:
            return None
        if not (strength or self.calibration.with_history.logit_bias):
            return None
        return LogitBias.of(self.totals.counts.values(), strength)

    def _memory(self) -> MemoryPart | None:
        """At strength 0, too, where anything is steered: texts can be added to no other part."""
        rows, found = self.totals.rows, self.calibration
        if rows is None or found.setting == found.with_history == UNSTEERED:
            return None
        strength = found.setting.memory
        return MemoryPart.of(self.totals.memory(rows), strength=strength, level=rows.level)

    def _with_history(self, places: Sequence[int]) -> WithHistory | None:
        found, gain = self.calibration.with_history, self.calibration.gain_with_history
        if gain is None:
            return None
        strengths = dict(found.strengths)
        return WithHistory(
            strengths=np.array([strengths.get(place, 0.0) for place in places], np.float32),
            logit_bias=found.logit_bias,
            memory=found.memory,
            gain=gain,
        )


def made_by(engine: Engine) -> tuple[object, ...]:
    """What a checkpoint must have been made by to be resumed."""
    return __version__, installed_version(), engine.model_id, engine.analysis.n_ctx


def versions() -> dict[str, str]:
    """The programs that a profile is learned with."""
    return {"steerx_edge": __version__, "llama_cpp_python": installed_version()}


def _tell_requests(items: Sequence[HistoryItem]) -> bool:
    """Whether most texts answer a request, as the request gate needs."""
    return 2 * sum(bool(item.request) for item in items) > len(items)


def _recorded(settings: Settings) -> dict[str, str | int | float | bool]:
    """The settings that a profile records, without those that have a field of their own."""
    kept = {name: value for name, value in asdict(settings).items() if value is not None}
    for name in ("layers", "strength"):
        kept.pop(name, None)
    return kept | {"contrast_methods": ", ".join(settings.contrast_methods)}
