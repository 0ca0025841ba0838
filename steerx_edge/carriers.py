"""What can be added to the residual stream: a backbone's differences at one block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from steerx_edge.analysis import Pass
from steerx_edge.contrasts import halves, reply_rows
from steerx_edge.directions import Estimate, direction_of, has_direction, median_norms
from steerx_edge.history import HistoryItem
from steerx_edge.placebo import placebo_items
from steerx_edge.prompts import messages_for
from steerx_edge.reading import Progress, Reading, cut, read_items

if TYPE_CHECKING:
    from steerx_edge.engine import Engine
    from steerx_edge.profile import Description
    from steerx_edge.reading import Contrast
    from steerx_edge.settings import Settings
    from steerx_edge.tilt import TiltCounts

_LEAST_LEFT = 1e-3  # of a unit direction
_SHORTEST_REPLY, _LONGEST_REPLY = 16, 96  # tokens of the model's own replies


@dataclass(frozen=True)
class Carrier:
    """What can be added after one block.

    Args:
        source: which backbone.
        layer: 0-based.
        differences: (item, n_embd).
        norm: median length of the residual rows there.
        contexts: of an item, the other items that stood in its context when it was read.
        estimate: how a direction is made of the differences.
        generic: (n_embd,) a direction that is taken out of it, of unit length, or None.
    """

    source: str
    layer: int
    differences: NDArray[np.float32]
    norm: float
    contexts: Mapping[int, frozenset[int]] = field(default_factory=dict)
    estimate: Estimate = "mean"
    generic: NDArray[np.float32] | None = None

    def direction(self, items: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Of unit length, (n_embd,), from items that have seen no others than these; None for all.

        0 where these cancel out, or there are none.
        """
        chosen = self.differences
        if items is not None:
            seen = set(items)
            chosen = chosen[[j for j in items if self.contexts.get(j, frozenset()) <= seen]]
        if not len(chosen) or not has_direction(chosen):
            return np.zeros(chosen.shape[1], np.float32)
        direction = direction_of(chosen, self.estimate)
        if self.generic is not None:
            direction = direction - (direction @ self.generic) * self.generic
            length = float(np.linalg.norm(direction))
            direction = direction / length if length > _LEAST_LEFT else 0 * direction
        return direction


class Placebo(NamedTuple):
    """What other people's texts make, in the same way: see placebo.py."""

    carriers: Sequence[Carrier]
    tilt: TiltCounts
    texts: Sequence[Sequence[int]]

    def directions(self) -> dict[tuple[str, int], NDArray[np.float32]]:
        """Of the carriers, by source and layer."""
        return {(each.source, each.layer): each.direction() for each in self.carriers}


def carriers_of(
    engine: Engine,
    reading: Reading,
    description: Description | None,
    layers: Sequence[int],
    settings: Settings,
    progress: Progress = lambda _what, _done, _of: None,
) -> list[Carrier]:
    """What can be added, by backbone and layer, where the texts do not cancel out.

    Args:
        engine: the model.
        reading: the history, read.
        description: what half of the rows are read under; None for the plain backbones.
        layers: the blocks that were read.
        settings: which backbones, and how.
        progress: told about each backbone.

    Raises:
        ModelError: llama.cpp fails.
    """
    norms = median_norms([contrast.norms for contrast in reading.contrasts])
    described = None
    if description is not None and settings.described:
        described = _described_rows(engine, reading, layers, description)
    carriers: list[Carrier] = []
    for backbone in settings.backbones:
        if carriers and not settings.calibrate:
            break  # the first one is what is added
        progress(backbone, 0, 1)
        if backbone == "stylevector":
            differences = _stylevector(engine, reading, described, layers, settings)
            contexts = {}
        else:
            differences = _context_contrast(reading.contrasts, described)
            contexts = {
                j: frozenset(fold.companions) for fold in reading.folds for j in fold.members
            }
        carriers += [
            Carrier(
                backbone,
                layer,
                differences[:, place],
                float(norms[place]),
                contexts,
                settings.estimate,
            )
            for place, layer in enumerate(layers)
            if has_direction(differences[:, place])
        ]
    return carriers


def placebo_of(
    engine: Engine, reading: Reading, like: Sequence[Carrier], settings: Settings
) -> Placebo:
    """What the same passes make of other authors' texts, of about the length of the user's.

    Args:
        engine: the model.
        reading: the user's history, read.
        like: the user's carriers whose counterparts are wanted.
        settings: how these were made.

    Raises:
        ModelError: llama.cpp fails.
    """
    lengths = [len(text.response) for text in reading.texts]
    longest = max(_SHORTEST_REPLY, int(np.median(lengths)))
    items = [
        HistoryItem(cut(engine, item.response, longest), item.request) for item in placebo_items()
    ]
    sources = {carrier.source for carrier in like}
    others = replace(
        settings,
        backbones=tuple(each for each in settings.backbones if each in sources)
        or settings.backbones,
        control="empty",
        described=False,
        calibrate=True,  # all of the backbones
    )
    layers = sorted({carrier.layer for carrier in like}) or [1]
    read = read_items(engine, items, layers, others, alone="context-contrast" not in sources)
    carriers = carriers_of(engine, read, None, layers, others) if like else []
    return Placebo(carriers, read.counts, [text.response for text in read.texts])


def reply_lengths(reading: Reading) -> list[int]:
    """How many tokens the model's own version of each text may have."""
    return [min(max(len(text.response), _SHORTEST_REPLY), _LONGEST_REPLY) for text in reading.texts]


def without_generic(carriers: Sequence[Carrier], placebo: Placebo) -> list[Carrier]:
    """The same, each without what it shares with its counterpart."""
    theirs = placebo.directions()
    return [replace(each, generic=theirs.get((each.source, each.layer))) for each in carriers]


def _described_rows(
    engine: Engine, reading: Reading, layers: Sequence[int], description: Description
) -> NDArray[np.float32]:
    """The user's texts, read under the description: (item, layer, n_embd)."""
    results = engine.run_many(
        [
            Pass(
                engine.prompt(messages_for(item.request, description=description.text)),
                contrast.effects.tokens,
                score=False,
                layers=tuple(layers),
                weights=contrast.weights[None],
            )
            for item, contrast in zip(reading.items, reading.contrasts, strict=True)
        ]
    )
    return np.stack([result.captured[:, 0] for result in results])


def _stylevector(
    engine: Engine,
    reading: Reading,
    described: NDArray[np.float32] | None,
    layers: Sequence[int],
    settings: Settings,
) -> NDArray[np.float32]:
    """The user's text against the model's own reply: (item, layer, n_embd)."""
    replies = reply_rows(
        engine,
        [text.context for text in reading.texts],
        reply_lengths(reading),
        layers,
        settings.row,
    )
    written = np.stack([contrast.alone for contrast in reading.contrasts])
    # Where the model had nothing to say, there is no difference.
    differences: NDArray[np.float32] = np.nan_to_num(halves(written, described) - replies)
    return differences


def _context_contrast(
    contrasts: Sequence[Contrast], described: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """With the user's other texts against without: (item, layer, n_embd)."""
    treatment = np.stack([contrast.treatment for contrast in contrasts])
    control = np.stack([contrast.control for contrast in contrasts])
    if described is None:
        return treatment - control
    alone = np.stack([contrast.alone for contrast in contrasts])
    return 0.5 * (treatment - control) + 0.5 * (described - alone)
