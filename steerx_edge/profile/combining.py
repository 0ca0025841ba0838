"""Several profiles as one: a weighted sum of what they add."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from steerx_edge.errors import ProfileError
from steerx_edge.model_id import ModelId
from steerx_edge.profile.entry import Entry, now
from steerx_edge.profile.parts import LogitBias, MemoryPart
from steerx_edge.profile.store import Profile
from steerx_edge.version import __version__


def combine(profiles: Sequence[Profile], weights: Sequence[float]) -> Profile:
    """Add profiles up, for every model that all of them are for.

    What is added to the residual stream is summed, weight * strength * norm * direction, layer by
    layer, and so are the logit biases. All else is that of the first profile: the memory, at weight
    times its strength, the request gate, the positions, the description and the words. Nothing is
    measured, so there is no gain, and there are no strengths for prompts with texts.

    Args:
        profiles: two or more; control vectors are for every model of their width.
        weights: one for each; finite, below 0 to subtract.

    Returns:
        A new profile.

    Raises:
        ProfileError: the profiles have no model in common, or a weight is not a finite number.
    """
    if len(profiles) < 2:
        raise ProfileError("Give at least two profiles to combine.")
    if len(weights) != len(profiles):
        raise ProfileError(
            f"{len(weights)} weights do not fit {len(profiles)} profiles: give one for each."
        )
    if not all(math.isfinite(weight) for weight in weights):
        raise ProfileError(f"Weights are finite numbers; these are {list(weights)}.")
    return Profile(
        tuple(
            _sum([profile.entry_for(model) for profile in profiles], weights)
            for model in _common_models(profiles)
        )
    )


def left_out(profiles: Sequence[Profile], combined: Profile) -> list[str]:
    """What of the profiles is not in their combination, in one sentence each."""
    notes = []
    for entry in combined.entries:
        parts = [profile.entry_for(entry.model) for profile in profiles]
        further = parts[1:]
        if any(part.memory for part in further):
            notes.append("Memories cannot be summed: only that of the first profile is kept.")
        if parts[0].memory and not entry.memory:
            notes.append("The memory is left out: it could not be read, or its weight is below 0.")
        if any(part.gate for part in further):
            notes.append("Request gates cannot be summed: only that of the first profile is kept.")
        if any(part.positions != entry.positions for part in further):
            notes.append(f"The profiles steer other positions: '{entry.positions}' is kept.")
        if any(part.with_history for part in parts):
            notes.append("The strengths for prompts with texts are left out: they were chosen for")
            notes[-1] += " each profile alone."
    kept = {entry.model.fingerprint for entry in combined.entries}
    every = chain.from_iterable(profile.entries for profile in profiles)
    missing = {str(each.model) for each in every if each.model.fingerprint not in kept}
    notes += [f"Left out {model}: not all profiles are for it." for model in sorted(missing)]
    return list(dict.fromkeys(notes))


def _common_models(profiles: Sequence[Profile]) -> list[ModelId]:
    learned = [profile for profile in profiles if profile.control_vector is None]
    if not learned:
        raise ProfileError(
            "Only control vectors were given, which name no model: import one of them for a model."
        )
    common = [
        entry.model
        for entry in learned[0].entries
        if all(_has(profile, entry.model) for profile in learned[1:])
    ]
    if not common:
        named = "; ".join(
            ", ".join(str(each.model) for each in profile.entries) for profile in learned
        )
        raise ProfileError(f"The profiles have no model in common: {named}.")
    return common


def _has(profile: Profile, model: ModelId) -> bool:
    return any(entry.model.fingerprint == model.fingerprint for entry in profile.entries)


def _sum(entries: Sequence[Entry], weights: Sequence[float]) -> Entry:
    """The weighted sum of entries for one model."""
    first = entries[0]
    layers = tuple(sorted({layer for entry in entries for layer in entry.layers}))
    strengths, norms, directions = zip(
        *(_direction(layer, entries, weights) for layer in layers), strict=True
    )
    return replace(
        first,
        layers=layers,
        directions=np.stack(directions),
        norms=np.array(norms, np.float32),
        strengths=np.array(strengths, np.float32),
        contrast_methods=("combined",) * len(layers),
        logit_bias=_logit_bias(entries, weights),
        memory=_memory(first.memory, weights[0]),
        gain=None,
        with_history=None,
        trials=None,
        settings={"weights": ", ".join(f"{weight:g}" for weight in weights)},
        versions=dict(first.versions) | {"steerx_edge": __version__},
        created=now(),
    )


def _direction(
    layer: int, entries: Sequence[Entry], weights: Sequence[float]
) -> tuple[float, float, NDArray[np.float32]]:
    """The strength, the norm and the direction at a layer that at least one entry steers."""
    at_layer = [
        (entry, entry.layers.index(layer), weight)
        for entry, weight in zip(entries, weights, strict=True)
        if layer in entry.layers
    ]
    entry, i, _ = at_layer[0]
    norm = float(entry.norms[i])
    added = np.sum(
        [
            weight * float(each.strengths[j]) * float(each.norms[j])
            * each.directions[j].astype(np.float64)
            for each, j, weight in at_layer
        ],
        axis=0,
    )  # fmt: skip
    length = float(np.linalg.norm(added))
    strength = float(np.float32(length / norm))
    if strength == 0:  # nothing is added here; a direction there must be
        return 0.0, norm, entry.directions[i]
    return strength, norm, (added / (strength * norm)).astype(np.float32)


def _logit_bias(entries: Sequence[Entry], weights: Sequence[float]) -> LogitBias | None:
    total: dict[int, float] = {}
    for entry, weight in zip(entries, weights, strict=True):
        if entry.logit_bias is not None:
            scale = weight * entry.logit_bias.strength
            for token, value in zip(
                entry.logit_bias.tokens.tolist(), entry.logit_bias.values.tolist(), strict=True
            ):
                total[token] = total.get(token, 0.0) + scale * value
    kept = {token: value for token, value in sorted(total.items()) if value}
    if not kept:
        return None
    return LogitBias(np.array(list(kept), np.int32), np.array(list(kept.values()), np.float32), 1.0)


def _memory(part: MemoryPart | None, weight: float) -> MemoryPart | None:
    """A memory at another strength; a negative weight leaves it out, as a negative strength does.

    One that could not be loaded is left out, too: its file may not lie beside the new profile.
    """
    if part is None or part.memory is None or weight <= 0:
        return None
    return replace(part, strength=weight * part.strength)
