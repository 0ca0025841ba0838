"""What a profile holds, as plain data for tables, pages and JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from steerx_edge.errors import ProfileError
from steerx_edge.profile import Entry, LogitBias, MemoryPart, Profile, Trials
from steerx_edge.profile.prefix_file import prefix_path, read_prefix
from steerx_edge.profile.similarity import bias_correlation, direction_cosines, shared_words

STRONGEST = 12
"""Tokens of the logit bias that are shown in each direction, at most."""

_WHOLE = (
    "With this file and the model, someone can read back whole texts, word for word: keep it as "
    "private as the texts."
)

REVEALS = {
    "shared": "With this file and the model, someone can find which words of two or more texts "
    "you use, how often, and short runs of them, but not the words of a single text.",
    "causal": _WHOLE,
    "all": _WHOLE,
}
"""What a memory of each level tells others; see docs/profile.md."""

Pieces = Callable[[Sequence[int]], list[bytes]]


def profile_facts(
    path: str,
    profile: Profile,
    *,
    pieces: Mapping[str, Pieces] | None = None,
    others: Mapping[str, Profile] | None = None,
) -> dict[str, Any]:
    """Collect what a profile holds and what lies next to it.

    Args:
        path: of the profile; memories and prefixes are looked for next to it.
        profile: what was read from there.
        pieces: what gives the bytes of tokens, by the model's fingerprint; without it, tokens of
            the logit bias are only numbers.
        others: profiles that it is compared with, by their names.

    Returns:
        Numbers, strings, lists and mappings that can be written as JSON; vectors are left out.
    """
    pieces = pieces or {}
    return {
        "file": path,
        "bytes": _size(Path(path)),
        "entries": [
            _entry_facts(path, entry, pieces.get(entry.model.fingerprint))
            for entry in profile.entries
        ],
        "similarity": [
            _similarity_facts(entry, name, other)
            for name, theirs in (others or {}).items()
            for entry in profile.entries
            for other in theirs.entries
        ],
    }


def _entry_facts(path: str, entry: Entry, pieces: Pieces | None) -> dict[str, Any]:
    history = entry.with_history
    return {
        "model": asdict(entry.model),
        "created": entry.created,
        "sources": [asdict(source) for source in entry.sources],
        "counts": dict(entry.counts),
        "settings": dict(entry.settings),
        "versions": dict(entry.versions),
        "description": asdict(entry.description),
        "words": [asdict(word) for word in entry.words],
        "edits": [{"action": edit.action, "word": edit.word} for edit in entry.edits],
        "gain": entry.gain and asdict(entry.gain),
        "steers": bool(entry.steering()) or _names_memory(entry.memory),
        "layers": [
            {"layer": layer, "contrast_method": method, "strength": strength, "norm": norm}
            for layer, method, strength, norm in zip(
                entry.layers,
                entry.contrast_methods,
                entry.strengths.tolist(),
                entry.norms.tolist(),
                strict=True,
            )
        ],
        "positions": entry.positions,
        "logit_bias": entry.logit_bias and _bias_facts(entry.logit_bias, pieces),
        "memory": entry.memory and _memory_facts(path, entry.memory),
        "gate": entry.gate is not None,
        "with_history": history
        and {
            "strengths": history.strengths.tolist(),
            "logit_bias": history.logit_bias,
            "memory": history.memory,
            "gain": asdict(history.gain),
        },
        "trials": entry.trials and _trials_facts(entry.trials),
        "prefix": _prefix_facts(path, entry),
    }


def _trials_facts(trials: Trials) -> dict[str, Any]:
    return {
        each.name: [
            {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(trial).items()}
            for trial in getattr(trials, each.name)
        ]
        for each in fields(trials)
    }


def _names_memory(part: MemoryPart | None) -> bool:
    """Whether a memory acts, or would if its file were there."""
    return part is not None and part.strength > 0


def _bias_facts(bias: LogitBias, pieces: Pieces | None) -> dict[str, Any]:
    order = bias.values.argsort(kind="stable")
    lowered = [place for place in order[:STRONGEST] if bias.values[place] < 0]
    raised = [place for place in order[::-1][:STRONGEST] if bias.values[place] > 0]

    def named(places: list[Any]) -> list[dict[str, Any]]:
        tokens = bias.tokens[places].tolist()
        texts = [piece.decode(errors="replace") for piece in pieces(tokens)] if pieces else None
        return [
            {"token": token, "value": value} | ({"text": texts[i]} if texts else {})
            for i, (token, value) in enumerate(
                zip(tokens, bias.values[places].tolist(), strict=True)
            )
        ]

    return {
        "strength": bias.strength,
        "tokens": len(bias.tokens),
        "raised": named(raised),
        "lowered": named(lowered),
    }


def _memory_facts(path: str, part: MemoryPart) -> dict[str, Any]:
    ledger = part.memory.ledger if part.memory else None
    return {
        "strength": part.strength,
        "level": part.level,
        "rows": part.rows,
        "file": part.file,
        "bytes": _size(Path(path).resolve().with_name(part.file)),
        "problem": part.problem,
        "texts": None if ledger is None else len(ledger.texts),
        "reveals": REVEALS[part.level],
    }


def _prefix_facts(path: str, entry: Entry) -> dict[str, Any] | None:
    file = prefix_path(path, entry.model.fingerprint)
    if not file.exists():
        return None
    try:
        prefix = read_prefix(file, entry.model.fingerprint)
    except ProfileError as error:
        return {"file": file.name, "bytes": _size(file), "problem": str(error)}
    return {
        "file": file.name,
        "bytes": _size(file),
        "problem": "",
        "beginnings": [
            {"texts": len(each.items), "tokens": len(each.tokens)} for each in prefix.beginnings
        ],
    }


def _similarity_facts(entry: Entry, name: str, other: Entry) -> dict[str, Any]:
    cosines = direction_cosines(entry, other)
    return {
        "with": name,
        "same_model": entry.model.fingerprint == other.model.fingerprint,
        "model": entry.model.name,
        "other_model": other.model.name,
        "cosines": {str(layer): cosine for layer, cosine in cosines.items()},
        "logit_bias": bias_correlation(entry, other),
        "words": list(shared_words(entry, other)),
        "n_words": len({word.word for word in (*entry.words, *other.words)}),
    }


def _size(path: Path) -> int | None:
    """Bytes of a file; None if it is not there."""
    return path.stat().st_size if path.is_file() else None
