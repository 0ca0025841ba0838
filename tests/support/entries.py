"""Profile entries for tests: one that only steers, and one with something in every field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from steerx_edge.model_id import ModelId
from steerx_edge.profile import (
    CONTRAST_METHODS,
    Description,
    DirectionsTrial,
    Edit,
    Entry,
    Gain,
    LogitBias,
    MemoryPart,
    TextSource,
    Trial,
    Trials,
    WithHistory,
    Word,
)
from steerx_edge.steering.gate import Gate
from steerx_edge.steering.ledger import Ledger
from steerx_edge.steering.memory import KeySpace, Memory

CREATED = "2025-01-31T09:30:00Z"


def an_entry(
    model: ModelId, layers: tuple[int, ...], directions: ArrayLike, **fields: Any
) -> Entry:
    """An entry that steers these layers along unit vectors (layer, n_embd), and nothing else.

    Norms and strengths are 1; `fields` gives others, and whatever the entry shall hold beside.
    """
    entry = Entry(
        model=model,
        description=Description("You write as it comes.", "user"),
        words=(),
        layers=layers,
        directions=directions,  # type: ignore[arg-type]  # made an array there
        norms=np.ones(len(layers), np.float32),
        contrast_methods=("stylevector",) * len(layers),
        strengths=np.ones(len(layers), np.float32),
        logit_bias=None,
        memory=None,
        gate=None,
        gain=None,
        with_history=None,
        positions="generated",
        counts={},
        settings={},
        versions={},
        created=CREATED,
    )
    return replace(entry, **fields)


def a_full_entry(**changes: Any) -> Entry:
    """An entry with something in every field; its memory file is missing."""
    model = changes.pop("model", a_model())
    layers = changes.pop("layers", (2, 3, 5))
    n_layers = len(layers)
    directions = np.random.default_rng(7).standard_normal((n_layers, model.n_embd))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    fields: dict[str, Any] = {
        "description": Description("You write «dry» sentences.\nYou like naïve 🙂 puns.", "model"),
        "words": (
            Word("honestly", 4.82, 3.1, 6.67, 14, 9),
            Word("señor", 0.1 + 0.2, -1e-300, 1 / 3, 2, 1),
        ),
        "edits": (
            Edit("drop", "cheers", (7, 11), (Word("Cheers", 0.5, 0.25, 1.0, 3, 2),)),
            Edit("pin", "«so»", ()),
        ),
        "sources": (
            TextSource("a mailbox (mbox)", 30, "2019-01-02", "2024-12-31"),
            TextSource("plain text", 2),
        ),
        "norms": np.linspace(0.1, 97.3, n_layers, dtype=np.float32),
        "contrast_methods": [CONTRAST_METHODS[i % 2] for i in range(n_layers)],
        "strengths": np.linspace(0.0, 0.3, n_layers, dtype=np.float32),
        "logit_bias": a_logit_bias(),
        "memory": a_missing_memory(),
        "gate": a_gate(),
        "gain": Gain(0.05, -0.01, 0.1 + 0.2, 16),
        "with_history": a_with_history(n_layers),
        "counts": {"items": 16, "tokens": 1930, "anchors": 74},
        "settings": {"method": "steerx", "tau": 1.0, "min_anchors": 3, "gated": True, "note": ""},
        "versions": {"steerx_edge": "0.1.0", "llama_cpp_python": "0.3.36"},
        "trials": some_trials(),
    }
    directions = changes.pop("directions", directions)
    return an_entry(model, layers, directions, **fields | changes)


def a_model(digit: str = "a", **changes: Any) -> ModelId:
    """A model of 6 layers, 8 wide, with this digit as its fingerprint."""
    model = ModelId("sha256:" + digit * 64, "Tiny Llama", "llama", 6, 8, 21_504, "Q4_1")
    return replace(model, **changes)


def a_logit_bias(**changes: Any) -> LogitBias:
    """Of four tokens."""
    fields: dict[str, Any] = {
        "tokens": np.array([0, 48, 300, 2**31 - 1]),
        "values": np.array([1.5, -0.1, 1e-30, 0.0]),
        "strength": 0.5,
    }
    return LogitBias(**fields | changes)


def a_memory(n: int = 6, n_embd: int = 8, seed: int = 0) -> Memory:
    """Random rows, with keys of 5 numbers."""
    rng = np.random.default_rng(seed)
    space = KeySpace.fit(rng.standard_normal((25, n_embd)))
    return Memory(
        space=space,
        keys=rng.integers(-127, 128, (n, space.basis.shape[1]), dtype=np.int8),
        tokens=rng.integers(0, 300, n, dtype=np.int32),
        weights=rng.random(n, dtype=np.float32),
        single=np.unique(rng.integers(0, 2**32, 7, dtype=np.uint32)),
        end=2,
    )


def a_ledger() -> Ledger:
    """Sums over three texts, of a model of three tokens."""
    return Ledger(
        texts=np.array([-(2**63), -1, 5], np.int64),
        words=("!!", "caf\u00e9", "so"),
        counts=np.array([1, 2, 4], np.int32),
        occurs=np.array([1, 1, 3], np.int32),
        effects=np.array([0.5, -0.25, -1, 2, 3], np.float32),
        used=np.array([1, 0, 6], np.float32),
        expected=np.array([0.5, 2, 4.5], np.float32),
        several=np.array([7, 2**32 - 1], np.uint32),
        usual=("caf\u00e9", "to"),
    )


def a_missing_memory(**changes: Any) -> MemoryPart:
    """As it is read from a profile whose memory file is missing."""
    fields: dict[str, Any] = {
        "strength": 0.3,
        "level": "shared",
        "rows": 6,
        "file": "me.memory.gguf",
        "sha256": "0123456789abcdef" * 4,
    }
    return MemoryPart(**fields | changes)


def a_learned_memory(seed: int = 0, strength: float = 0.3) -> MemoryPart:
    """As it is before it is saved."""
    return MemoryPart.of(a_memory(seed=seed), strength=strength, level="shared")


def a_gate(**changes: Any) -> Gate:
    """8 wide."""
    direction = np.array([0.5, -3, 0, 1e-30, 1 / 3, 2, 0, 7], np.float32)
    return replace(Gate(direction, 0.1 + 0.2), **changes)


def some_trials(**changes: Any) -> Trials:
    """Something in every curve; the strengths of `a_full_entry` are in them."""

    def curve(gains: dict[float, float], loss: float | None = 0.0012) -> tuple[Trial, ...]:
        return tuple(
            Trial(mean, mean - 0.03, mean + 0.04, 16, at=at, loss=loss)
            for at, mean in gains.items()
        )

    none = DirectionsTrial(0.01, -0.01, 0.03, 16, (), (), (), loss=0.0012)
    two = (2, 5), ("context-contrast", "context-contrast"), (0.15, 0.3)
    fields: dict[str, Any] = {
        "memory": curve({0: 0.01, 0.1: 0.02, 0.2: 0.035, 0.3: 0.05, 0.45: 0.06, 0.6: 0.04}),
        "logit_bias": curve({0: 0.01, 0.25: 0.045, 0.5: 0.05, 0.75: 0.02}),
        "directions": (none, DirectionsTrial(0.05, 0.01, 0.1, 16, *two)),
        "memory_with_history": curve({0: 0, 0.4: 0.02, 0.6: 0.01}, loss=None),
        "logit_bias_with_history": curve({0: 0.01, 0.25: 0.02}, loss=None),
        "texts": curve({8: 0.03, 12: 0.05}),
    }
    return Trials(**fields | changes)


def a_with_history(n_layers: int = 3, **changes: Any) -> WithHistory:
    """Strengths that differ from those of `a_full_entry`."""
    fields: dict[str, Any] = {
        "strengths": np.linspace(0.2, 0.1, n_layers, dtype=np.float32),
        "logit_bias": 0.25,
        "memory": 0.4,
        "gain": Gain(0.02, 0.01, 1 / 3, 16),
    }
    return WithHistory(**fields | changes)
