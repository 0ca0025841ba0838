"""Adding to a profile: further texts go into its words, its logit bias and its memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from steerx_edge.errors import HistoryError, ProfileError
from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.ablation import Progress, Text
from steerx_edge.learning.calibration import Calibration, HeldOutScores, Setting, recalibrate
from steerx_edge.learning.calibration.grid import MEMORY_STRENGTHS
from steerx_edge.learning.candidates import Candidate
from steerx_edge.learning.checkpoint import Checkpoint
from steerx_edge.learning.learned import made_by, versions
from steerx_edge.learning.memory_rows import MemoryRows
from steerx_edge.learning.settings import Settings
from steerx_edge.learning.texts import BLANK_LINES, chosen, items_of, own_text, sampled, shortened
from steerx_edge.learning.totals import CHUNK, Chunk, Totals
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.profile import Entry, LogitBias, MemoryPart, Profile
from steerx_edge.profile.editing import with_edits
from steerx_edge.profile.entry import now
from steerx_edge.steering.ledger import Ledger, text_hash
from steerx_edge.steering.logit_bias import BIAS_STRENGTHS, TokenCounts
from steerx_edge.steering.memory import Memory

if TYPE_CHECKING:
    from steerx_edge.llamacpp.compat import Llama

ENOUGH = 12
"""The fewest new texts on which the memory's strength is chosen again."""

_FOLD, _FEWEST_FOLDS = 4, 4


def learn_more(
    model: Engine | Llama | str | os.PathLike[str],
    profile: Profile,
    history: Sequence[str | HistoryItem],
    *,
    progress: Progress = lambda _what, _done, _of: None,
    resume: Path | None = None,
    save: Callable[[Profile], None] = lambda _profile: None,
    seconds: float | None = None,
) -> Profile:
    """Add texts to the entry of a profile for this model, and read only those that are new.

    New texts go into the words, the logit bias and the memory; the directions, the description and
    all strengths but the memory's stay as they are. Texts that were read before are recognized and
    not read again. They still help: the new ones are read with some of them in the context, or,
    where too few of them are given, with each other. If there are twelve new texts or more, the
    memory's strength and the gain are determined again on up to 24 of these, unless that strength
    is 0 or was edited by hand. The request gate
    stays.

    Args:
        model: an engine, an open Llama, or the path of a GGUF file.
        profile: as `learn` made it, with its memory.
        history: texts, alone or with what they answer, new ones and others.
        progress: called with each step: "further texts", "calibration" and "done", each with counts
            of its own.
        resume: a folder that keeps what was found, until the profile is complete and `save` has
            returned, so that the same call resumes where it was interrupted; None keeps nothing.
        save: called with the profile that is returned, unless no text was read. If it fails,
            `resume` still keeps the work.
        seconds: no more texts are read after so long; those left are new the next time.

    Returns:
        The profile with the new entry; the same profile if no text is new.

    Raises:
        ProfileError: the profile has no entry for this model, or one that cannot be added to.
        HistoryError: there is a single text, and no other to read it with, or something that is no
            text.
        ModelError: the model cannot be read.
    """
    ends = None if seconds is None else time.monotonic() + seconds
    engine = model if isinstance(model, Engine) else Engine(model)
    entry = profile.entry_for(engine.model_id)
    part, memory, ledger = base_of(engine, entry)
    new, known = unread(items_of(history), ledger)
    if not new:
        return profile
    settings = _settings(entry)
    chunks = _chunks(engine, new, known, settings)
    checkpoint = Checkpoint(
        resume, made_by(engine), "more", ledger.texts.tobytes(), chunks, settings
    )

    rows = MemoryRows.continuing(memory, ledger, part.level)
    totals = Totals.continuing(engine, ledger, rows)
    totals.read(chunks, settings, progress, checkpoint, ends)
    if not totals.n_new:
        return profile
    scored = [text.item for chunk in chunks for text in chunk.texts]
    scored = scored[: min(totals.n_new, settings.sample)]
    calibration = _as_it_was(entry, part)
    # Strengths that were edited by hand stay, and those of the logit bias are not scored.
    setting = calibration.setting
    is_learned = setting.logit_bias in BIAS_STRENGTHS and setting.memory in MEMORY_STRENGTHS
    if len(scored) >= ENOUGH and is_learned and setting.memory:
        progress("calibration", 0, 1)
        scores = _scores(engine, entry, scored, ledger, rows)
        scores.score([()])
        scores.score([calibration.setting.strengths])
        calibration = recalibrate(scores, calibration)
    added = replace(
        entry,
        words=totals.tally.words(),
        logit_bias=entry.logit_bias
        and LogitBias.of(totals.counts.values(), entry.logit_bias.strength),
        memory=MemoryPart.of(
            totals.memory(rows),
            strength=calibration.setting.memory,
            level=part.level,
        ),
        gain=calibration.gain,
        counts=dict(entry.counts)
        | {
            "items": len(totals.texts),
            "items_given": entry.counts.get("items_given", 0) + len(new),
            "tokens": entry.counts.get("tokens", 0) + totals.n_tokens,
        },
        versions=versions(),
        created=now(),
        trials=calibration.trials,
    )
    extended = profile.with_entry(with_edits(added, entry.edits))
    save(extended)
    if totals.n_new == len(new):
        checkpoint.remove()
    progress("done", 1, 1)
    return extended


def unread(
    history: Sequence[HistoryItem], ledger: Ledger
) -> tuple[list[HistoryItem], list[HistoryItem]]:
    """The different texts of a history that a ledger does not know, and those that it does."""
    read = set(ledger.texts.tolist())
    new: list[HistoryItem] = []
    known: list[HistoryItem] = []
    for item in chosen(history, None):
        (known if text_hash(item.response) in read else new).append(item)
    return new, known


class Base(NamedTuple):
    """The memory that texts are added to."""

    part: MemoryPart
    memory: Memory
    ledger: Ledger


def base_of(engine: Engine, entry: Entry) -> Base:
    """Return the memory that texts are added to.

    Raises:
        ProfileError: the entry cannot be added to; says why.
    """
    part = entry.memory
    if part is None:
        raise ProfileError(
            f"The profile has no memory for {entry.model}, and texts cannot be added without one: "
            "learn again from all texts."
        )
    if part.memory is None:
        raise ProfileError(part.problem)
    ledger = part.memory.ledger
    if ledger is None:
        raise ProfileError(
            f"The memory for {entry.model} lacks the sums that new texts are added to: texts were "
            "removed from it, or an older version wrote it. Learn again from all texts."
        )
    if len(ledger.used) != engine.analysis.n_vocab:
        raise ProfileError(
            f"The memory counts {len(ledger.used)} tokens, but {entry.model} has "
            f"{engine.analysis.n_vocab}: it is damaged. Learn again from all texts."
        )
    return Base(part, part.memory, ledger)


def _settings(entry: Entry) -> Settings:
    """The settings of the entry that matter here; defaults for what is not a number."""
    numbers = {name: each for name, each in entry.settings.items() if isinstance(each, int)}
    default = Settings()
    return Settings(
        in_context=numbers.get("in_context", default.in_context),
        sample=numbers.get("sample", default.sample),
    )


def _chunks(
    engine: Engine,
    new: Sequence[HistoryItem],
    known: Sequence[HistoryItem],
    settings: Settings,
) -> list[Chunk]:
    """The new texts, those first that strengths are chosen on.

    They are read with texts that were read before; with new ones as well if these are too few.
    """
    first = sampled(len(new), settings.sample)
    order = [*first, *sorted({*range(len(new))} - {*first})]
    texts = [own_text(engine, new[place]) for place in order]
    if len(known) >= settings.in_context:
        size = CHUNK
        places = sampled(len(known), settings.sample)
        others = [shortened(engine, known[place]) for place in places]
    elif known or len(new) > 1:
        size = min(CHUNK, -(-len(new) // 2))
        others = [shortened(engine, item) for item in known]
    else:
        raise HistoryError(
            "There is only one text, and none was read before. Give others too, because "
            f"each text is read in the context of others. {BLANK_LINES}"
        )
    chunks = []
    for begin in range(0, len(texts), size):
        end = begin + size
        pool = others
        if len(known) < settings.in_context:
            pool = [*others, *(text.item for text in (*texts[:begin], *texts[end:]))]
            pool = [pool[place] for place in sampled(len(pool), settings.sample)]
        chunks.append(Chunk(texts[begin:end], pool))
    return chunks


def _as_it_was(entry: Entry, part: MemoryPart) -> Calibration:
    strengths = enumerate(entry.strengths.tolist())
    return Calibration(
        Setting(
            tuple((place, strength) for place, strength in strengths if strength),
            entry.logit_bias.strength if entry.logit_bias else 0.0,
            part.strength,
        ),
        entry.gain,
        gate=entry.gate,
        trials=entry.trials,
    )


def _scores(
    engine: Engine,
    entry: Entry,
    items: Sequence[HistoryItem],
    ledger: Ledger,
    rows: MemoryRows,
) -> HeldOutScores:
    """Of new texts, which the directions and the counts in `ledger` have not seen.

    Args:
        engine: the model.
        entry: the directions.
        items: the first of the texts in `rows`.
        ledger: the logit bias's counts.
        rows: the memory's, of which each fold's own are left out.
    """
    n_folds = max(_FEWEST_FOLDS, -(-len(items) // _FOLD))
    candidates = [
        Candidate(method, layer, np.tile(direction, (len(items), 1)), float(norm))
        for method, layer, direction, norm in zip(
            entry.contrast_methods, entry.layers, entry.directions, entry.norms, strict=True
        )
    ]
    counts = None
    if entry.logit_bias is not None:
        # The counts of each fold and of the neutral texts are not in it: there is none to leave
        # out.
        nothing = np.zeros((n_folds + 1, len(ledger.used)), np.float32)
        counts = TokenCounts(
            np.vstack([nothing, ledger.used]), np.vstack([nothing, ledger.expected])
        )
    return HeldOutScores(
        engine,
        [Text.of(engine, item) for item in items],
        [range(number, len(items), n_folds) for number in range(n_folds)],
        candidates,
        counts,
        rows,
        gated=entry.gate is not None,
    )
