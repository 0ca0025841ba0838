"""What can be added to the residual stream: a contrast method's differences at one block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from steerx_edge.learning.ablation import Progress, Reading
from steerx_edge.learning.checkpoint import Checkpoint
from steerx_edge.learning.contrasts import halves, reply_rows
from steerx_edge.learning.directions import Estimate, direction_of, has_direction, median_norms
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import ScoreRequest

if TYPE_CHECKING:
    from steerx_edge.learning.ablation import Contrast
    from steerx_edge.learning.settings import Settings
    from steerx_edge.llamacpp.engine import Engine
    from steerx_edge.profile import Description

_SHORTEST_REPLY, _LONGEST_REPLY = 16, 96  # tokens of the model's own replies


@dataclass(frozen=True)
class Candidate:
    """What can be added after one block.

    Args:
        contrast_method: which contrast method.
        layer: 0-based.
        differences: (item, n_embd).
        norm: median length of the residual rows there.
        contexts: of an item, the other items that stood in its context when it was read.
        estimate: how a direction is made of the differences.
    """

    contrast_method: str
    layer: int
    differences: NDArray[np.float32]
    norm: float
    contexts: Mapping[int, frozenset[int]] = field(default_factory=dict)
    estimate: Estimate = "mean"

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
        return direction_of(chosen, self.estimate)


def candidates_of(
    engine: Engine,
    reading: Reading,
    description: Description | None,
    layers: Sequence[int],
    settings: Settings,
    progress: Progress = lambda _what, _done, _of: None,
    checkpoint: Checkpoint | None = None,
) -> list[Candidate]:
    """What can be added, by contrast method and layer, where the texts do not cancel out.

    Args:
        engine: the model.
        reading: the history, read.
        description: what half of the rows are read under; None for the plain contrast methods.
        layers: the blocks that were read.
        settings: which contrast methods, and how.
        progress: told about each contrast method.
        checkpoint: where the rows of the model's own replies are kept.

    Raises:
        ModelError: llama.cpp fails.
    """
    norms = median_norms([contrast.norms for contrast in reading.contrasts])
    described = None
    if description is not None and settings.described:
        described = _described_rows(engine, reading, layers, description)
    candidates: list[Candidate] = []
    for contrast_method in settings.contrast_methods:
        if candidates and not settings.calibrate:
            break  # the first one is what is added
        progress(contrast_method, 0, 1)
        if contrast_method == "stylevector":
            replies = _replies(engine, reading, layers, settings, checkpoint or Checkpoint(None))
            differences = _stylevector(reading.contrasts, described, replies)
            contexts = {}
        else:
            differences = _context_contrast(reading.contrasts, described)
            contexts = {
                j: frozenset(fold.in_context) for fold in reading.folds for j in fold.members
            }
        candidates += [
            Candidate(
                contrast_method,
                layer,
                differences[:, place],
                float(norms[place]),
                contexts,
                settings.estimate,
            )
            for place, layer in enumerate(layers)
            if has_direction(differences[:, place])
        ]
    return candidates


def reply_lengths(reading: Reading) -> list[int]:
    """How many tokens the model's own version of each text may have."""
    return [min(max(len(text.response), _SHORTEST_REPLY), _LONGEST_REPLY) for text in reading.texts]


def _described_rows(
    engine: Engine, reading: Reading, layers: Sequence[int], description: Description
) -> NDArray[np.float32]:
    """The user's texts, read under the description: (item, layer, n_embd)."""
    results = engine.run_many(
        [
            ScoreRequest(
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


def _replies(
    engine: Engine,
    reading: Reading,
    layers: Sequence[int],
    settings: Settings,
    checkpoint: Checkpoint,
) -> NDArray[np.float32]:
    """Mean rows of the model's own replies: (item, layer, n_embd)."""
    kept = checkpoint.get("replies")
    if kept is None:
        contexts = [text.context for text in reading.texts]
        rows = reply_rows(engine, contexts, reply_lengths(reading), layers, settings.row)
        kept = {"rows": rows}
        checkpoint.put("replies", **kept)
    return kept["rows"]


def _stylevector(
    contrasts: Sequence[Contrast],
    described: NDArray[np.float32] | None,
    replies: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The user's text against the model's own reply: (item, layer, n_embd)."""
    written = np.stack([contrast.control for contrast in contrasts])
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
    return 0.5 * (treatment - control) + 0.5 * (described - control)
