"""The difference of two profiles, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steerx_edge.profile import Gain
    from steerx_edge.profile.difference import EntryDifference, ProfileDifference

_MOST_CHANGED = 10


def difference_as_json(found: ProfileDifference) -> str:
    """All of it, for programs; pairs are lists of two."""
    return json.dumps(asdict(found), indent=2, ensure_ascii=False)


def difference_as_text(found: ProfileDifference, first: str, second: str) -> str:
    """The same for people: - stands for the first profile and + for the second."""
    lines = [f"- {first}", f"+ {second}"]
    for name, models in ((first, found.only_first), (second, found.only_second)):
        lines += [f"Only {name} has an entry for {model}." for model in models]
    if not found.entries:
        lines.append("No model is in both, so there is nothing else to compare.")
    for entry in found.entries:
        lines += ["", entry.model, *(["  the same"] if entry.same else _lines(entry))]
    return "\n".join(lines)


def _lines(entry: EntryDifference) -> Iterator[str]:
    for sign, text in zip("-+", entry.description or ("", ""), strict=True):
        yield from (f"{sign} {line}" for line in text.splitlines())
    yield from _words(entry)
    for sign, edits in (("-", entry.edits_gone), ("+", entry.edits_new)):
        yield from (f"{sign} edit: {edit}" for edit in edits)
    yield from _numbers(entry)


def _words(entry: EntryDifference) -> Iterator[str]:
    for sign, words in (("-", entry.words_gone), ("+", entry.words_new)):
        for word in words:
            yield f"{sign} {word.word} {word.effect:+.2f} ({word.low:+.2f} to {word.high:+.2f})"
    changed = sorted(entry.words_changed, key=lambda each: -abs(each[2] - each[1]))
    for name, before, after in changed[:_MOST_CHANGED]:
        yield f"  {name} {before:+.2f} -> {after:+.2f}"
    if len(changed) > _MOST_CHANGED:
        yield f"  and {len(changed) - _MOST_CHANGED} words that changed less"


def _numbers(entry: EntryDifference) -> Iterator[str]:
    rows: list[tuple[str, tuple[object, object]]] = [
        ("texts", entry.items),
        ("gain", (_shown(entry.gain[0]), _shown(entry.gain[1]))),
        *((f"strength at layer {layer}", pair) for layer, pair in entry.strengths.items()),
        ("strength of the logit bias", entry.logit_bias),
        ("strength of the memory", entry.memory),
        ("rows of the memory", entry.rows),
    ]
    for name, (one, other) in rows:
        if one != other:
            yield f"  {name}: {_number(one)} -> {_number(other)}"
    for layer, cosine in entry.cosines.items():
        yield f"  cosine of the directions at layer {layer}: {cosine:.3f}"
    if entry.bias_correlation is not None:
        yield f"  correlation of the logit biases: {entry.bias_correlation:.3f}"


def _shown(gain: Gain | None) -> str:
    return "not measured" if gain is None else f"{gain.mean:+.3f} nats/token"


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
