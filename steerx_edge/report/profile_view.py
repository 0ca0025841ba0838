"""The sentences and tables that show a profile."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from steerx_edge.report import trials_view
from steerx_edge.report.tables import Table

_ORIGINS = {
    "model": "written by the model",
    "statistics": "from measured style and words",
    "user": "written by you",
}
_WORDS_SHOWN = 8  # of those that two profiles share


@dataclass(frozen=True)
class Section:
    """A part of the view: a title, sentences, then tables."""

    title: str
    lines: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


def entry_sections(facts: Mapping[str, Any]) -> list[Section]:
    """Show an entry of `profile_facts`."""
    sections = [
        Section("Learned from", _origin(facts)),
        Section(
            f"How you write ({_ORIGINS[facts['description']['origin']]})",
            [facts["description"]["text"]],
        ),
        Section("Expected gain", *_gain(facts)),
        Section("What is added", _steering(facts), [_strengths(facts)]),
    ]
    table = trials_view.short_table(facts)
    tables = [table] if table else []
    sections.append(Section(trials_view.TITLE, trials_view.lines(facts), tables))
    if facts["words"]:
        sections.append(Section("Your words", [_WORDS_NOTE], [_words(facts)]))
    if facts["edits"]:
        edits = [f"{edit['action']} {edit['word']}" for edit in facts["edits"]]
        sections.append(Section("Your edits", [", ".join(edits)]))
    if facts["logit_bias"]:
        sections.append(_bias(facts["logit_bias"]))
    sections.append(Section("Memory", _memory(facts["memory"])))
    if facts["prefix"]:
        sections.append(Section("Prefix", _prefix(facts["prefix"])))
    return sections


_WORDS_NOTE = (
    "Effect: how much more probable your other texts make the word, summed over a text and "
    "averaged over all texts, in nats, with its 95% interval."
)


def entry_title(facts: Mapping[str, Any]) -> str:
    """Name the model of an entry."""
    model = facts["model"]
    return f"{model['name']} ({model['quantization']})"


def file_line(facts: Mapping[str, Any]) -> str:
    """Return the sentence on the file and its models."""
    models = plural(len(facts["entries"]), "model")
    return f"{facts['file']}, {size(facts['bytes'])}: learned on {models}."


def similarity_table(facts: Mapping[str, Any]) -> Table | None:
    """Compare with other profiles; None if there are none."""
    if not facts["similarity"]:
        return None
    return Table(
        "Similarity to other profiles",
        ("profile", "model", "directions, cosine", "logit bias, correlation", "shared words"),
        [
            (
                each["with"],
                each["model"]
                if each["same_model"]
                else f"{each['model']} and {each['other_model']}",
                ", ".join(f"layer {at}: {value:+.2f}" for at, value in each["cosines"].items())
                or "no shared layer",
                "" if each["logit_bias"] is None else f"{each['logit_bias']:+.2f}",
                _shared(each),
            )
            for each in facts["similarity"]
        ],
    )


def size(n_bytes: int | None) -> str:
    """Return a number of bytes in words."""
    if n_bytes is None:
        return "missing"
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e5 else f"{n_bytes / 1e3:.1f} kB"


def plural(n: int, noun: str) -> str:
    """Return a number with its noun, which takes an s."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def by_request(kinds: Iterable[str]) -> str:
    """Return a phrase that says which one it is depends on the request, if there are several."""
    return " or, depending on the request, ".join(kinds)


def percent(nats: float) -> str:
    """Return by how much a gain in nats changes a probability."""
    return f"{100 * math.expm1(nats):+.1f}%"


def _source(source: Mapping[str, Any]) -> str:
    texts = f"{plural(source['texts'], 'text')} in {source['format']}"
    dates = f", written {source['first']} to {source['last']}" if source["first"] else ""
    return f"{texts}{dates}."


def _origin(facts: Mapping[str, Any]) -> list[str]:
    model = facts["model"]
    counts = ", ".join(f"{name}: {n:,}" for name, n in facts["counts"].items())
    settings = ", ".join(f"{name} = {value}" for name, value in facts["settings"].items())
    versions = ", ".join(f"{name} {value}" for name, value in facts["versions"].items())
    return [
        *map(_source, facts["sources"]),
        f"Learned at {facts['created']}. {counts}.",
        f"Model: {model['name']}, {model['architecture']}, {model['n_layer']} blocks of width "
        f"{model['n_embd']}, {model['n_params']:,} parameters, {model['quantization']}, "
        f"{model['fingerprint'][:19]}….",
        *([f"Settings: {settings}."] if settings else []),
        *([f"Programs: {versions}."] if versions else []),
    ]


def _gain(facts: Mapping[str, Any]) -> tuple[list[str], list[Table]]:
    gain, history = facts["gain"], facts["with_history"]
    rows = [
        (
            name,
            f"{each['mean']:+.3f}",
            f"{each['low']:+.3f} to {each['high']:+.3f}",
            percent(each["mean"]),
            str(each["items"]),
        )
        for name, each in (
            ("prompt alone", gain),
            ("prompt with your texts", history and history["gain"]),
        )
        if each
    ]
    if not rows:
        return ["The gain was not measured."], []
    return [_how_sure(facts)] if gain else [], [
        Table(
            "Gain on held-out texts, nats/token",
            ("", "gain", "95% interval", "probability of a token", "texts"),
            rows,
        )
    ]


def _how_sure(facts: Mapping[str, Any]) -> str:
    gain = facts["gain"]
    if not facts["steers"]:
        return "No reliable preference was found: the profile changes nothing."
    if gain["low"] > 0:
        return (
            "The interval is above 0, so the gain is reliable. The strengths were chosen on the "
            "same texts, so it is slightly optimistic."
        )
    return "The interval reaches 0, so it is not certain that the profile helps."


def _steering(facts: Mapping[str, Any]) -> list[str]:
    lines = []
    if facts["gate"]:
        lines.append(
            "The request gate is on: answers to requests unlike those of your texts are not "
            "steered."
        )
    if facts["positions"] == "all":
        lines.append("All tokens are steered, those of the prompt too.")
    return lines


def _strengths(facts: Mapping[str, Any]) -> Table:
    history = facts["with_history"]
    columns = "", "strength", "with your texts in the prompt"

    def other(value: float | None) -> str:
        return "" if value is None else f"{value:g}"

    rows = [
        (
            f"direction at layer {each['layer']} ({each['contrast_method']})",
            f"{each['strength']:.3g}",
            other(history and round(history["strengths"][i], 4)),
        )
        for i, each in enumerate(facts["layers"])
    ]
    for part in ("logit_bias", "memory"):
        strength = f"{facts[part]['strength']:g}" if facts[part] else "none"
        rows.append((part.replace("_", " "), strength, other(history and history[part])))
    return Table("Strengths", columns, rows)


def _words(facts: Mapping[str, Any]) -> Table:
    return Table(
        "Words with their effects, nats",
        ("word", "effect", "95% interval", "count", "texts"),
        [
            (
                word["word"],
                f"{word['effect']:+.2f}",
                f"{word['low']:+.2f} to {word['high']:+.2f}",
                str(word["count"]),
                str(word["items"]),
            )
            for word in facts["words"]
        ],
    )


def _bias(facts: Mapping[str, Any]) -> Section:
    lines = [f"It changes the logits of {facts['tokens']:,} tokens. These are the strongest."]
    is_named = any("text" in each for each in (*facts["raised"], *facts["lowered"]))
    if not is_named:
        lines.append("Give the model with -m to see tokens as text.")

    def cells(each: Mapping[str, Any] | None) -> tuple[str, str]:
        if each is None:
            return "", ""
        name = repr(each["text"]) if "text" in each else str(each["token"])
        return name, f"{each['value']:+.2f}"

    pairs = zip_longest(facts["raised"], facts["lowered"])
    table = Table(
        "Tokens that you use more, and less, than the model expects",
        ("more", "nats", "less", "nats"),
        [(*cells(raised), *cells(lowered)) for raised, lowered in pairs],
    )
    return Section("Logit bias", lines, [table])


def _memory(facts: Mapping[str, Any] | None) -> list[str]:
    if facts is None:
        return ["There is no memory: no token of your texts is stored."]
    of = "" if facts["texts"] is None else f" of {plural(facts['texts'], 'text')}"
    lines = [
        f"{plural(facts['rows'], 'token')}{of}, level {facts['level']}, in {facts['file']} "
        f"({size(facts['bytes'])}).",
        facts["reveals"],
    ]
    return [*lines, facts["problem"]] if facts["problem"] else lines


def _prefix(facts: Mapping[str, Any]) -> list[str]:
    if facts["problem"]:
        return [f"{facts['file']} cannot be used: {facts['problem']}."]
    held = by_request(
        f"{plural(one['texts'], 'text')}, {plural(one['tokens'], 'token')}"
        for one in facts["beginnings"]
    )
    return [
        f"{held}, in {facts['file']} ({size(facts['bytes'])}). It holds these texts and their "
        "requests as they are."
    ]


def _shared(each: Mapping[str, Any]) -> str:
    words = each["words"]
    some = ", ".join(words[:_WORDS_SHOWN]) + (", …" if len(words) > _WORDS_SHOWN else "")
    return f"{len(words)} of {each['n_words']}" + (f": {some}" if words else "")
