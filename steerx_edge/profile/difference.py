"""What two profiles differ in: versions of one person's, or those of two people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from steerx_edge.profile.entry import Entry
from steerx_edge.profile.parts import Gain, LogitBias, MemoryPart
from steerx_edge.profile.similarity import bias_correlation, direction_cosines
from steerx_edge.profile.store import Profile
from steerx_edge.profile.words import Edit, Word

_T = TypeVar("_T")

Pair = tuple[_T, _T]
"""A value of the first profile, and that of the second."""


@dataclass(frozen=True)
class EntryDifference:
    """What the entries of two profiles for one model differ in; pairs are first and second.

    Attributes:
        model: which model.
        same: whether the entries are equal in all they hold.
        description: the texts, or None where they are the same.
        words_gone: words of the first one alone.
        words_new: words of the second one alone.
        words_changed: words of both whose effects differ, with these in nats.
        edits_gone: edits of the first one alone, as `drop cheers`.
        edits_new: edits of the second one alone.
        strengths: by layer, of the directions; 0 where an entry has no direction there.
        logit_bias: its strengths; 0 where there is none.
        memory: its strengths; 0 where there is none.
        rows: of the memory; 0 where there is none.
        gain: expected, nats/token; None where it was not measured.
        items: texts that were learned from; 0 where it is not known.
        cosines: of the directions, by layer that both have.
        bias_correlation: of the logit biases, or None where one has none.
    """

    model: str
    same: bool
    description: Pair[str] | None
    words_gone: tuple[Word, ...]
    words_new: tuple[Word, ...]
    words_changed: tuple[tuple[str, float, float], ...]
    edits_gone: tuple[str, ...]
    edits_new: tuple[str, ...]
    strengths: dict[int, Pair[float]]
    logit_bias: Pair[float]
    memory: Pair[float]
    rows: Pair[int]
    gain: Pair[Gain | None]
    items: Pair[int]
    cosines: dict[int, float]
    bias_correlation: float | None


@dataclass(frozen=True)
class ProfileDifference:
    """What two profiles differ in.

    Attributes:
        only_first: models that only the first one has an entry for.
        only_second: models that only the second one has an entry for.
        entries: of models that both have.
    """

    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    entries: tuple[EntryDifference, ...]


def difference(a: Profile, b: Profile) -> ProfileDifference:
    """Compare two profiles, model by model."""
    first, second = ({each.model.fingerprint: each for each in p.entries} for p in (a, b))
    return ProfileDifference(
        tuple(str(first[model].model) for model in first if model not in second),
        tuple(str(second[model].model) for model in second if model not in first),
        tuple(_of_entries(first[model], second[model]) for model in first if model in second),
    )


def _of_entries(a: Entry, b: Entry) -> EntryDifference:
    words, others = ({word.word: word for word in entry.words} for entry in (a, b))
    edits, other_edits = (tuple(map(_named, entry.edits)) for entry in (a, b))
    strengths, other_strengths = (
        dict(zip(entry.layers, entry.strengths.tolist(), strict=True)) for entry in (a, b)
    )
    texts = a.description.text, b.description.text
    return EntryDifference(
        model=str(a.model),
        same=a == b,
        description=texts if texts[0] != texts[1] else None,
        words_gone=tuple(word for word in a.words if word.word not in others),
        words_new=tuple(word for word in b.words if word.word not in words),
        words_changed=tuple(
            (word.word, word.effect, others[word.word].effect)
            for word in a.words
            if word.word in others and others[word.word].effect != word.effect
        ),
        edits_gone=_missing(edits, other_edits),
        edits_new=_missing(other_edits, edits),
        strengths={
            layer: (strengths.get(layer, 0.0), other_strengths.get(layer, 0.0))
            for layer in sorted({*a.layers, *b.layers})
        },
        logit_bias=(_strength(a.logit_bias), _strength(b.logit_bias)),
        memory=(_strength(a.memory), _strength(b.memory)),
        rows=(a.memory.rows if a.memory else 0, b.memory.rows if b.memory else 0),
        gain=(a.gain, b.gain),
        items=(a.counts.get("items", 0), b.counts.get("items", 0)),
        cosines=direction_cosines(a, b),
        bias_correlation=bias_correlation(a, b),
    )


def _named(edit: Edit) -> str:
    return f"{edit.action} {edit.word}"


def _missing(some: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    return tuple(each for each in some if each not in set(others))


def _strength(part: LogitBias | MemoryPart | None) -> float:
    return part.strength if part else 0.0
