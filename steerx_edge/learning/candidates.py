"""Candidate directions: the differences that a contrast method finds at one block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from steerx_edge.learning.ablation import Progress
from steerx_edge.learning.checkpoint import Checkpoint
from steerx_edge.learning.contrasts import halves, reply_rows
from steerx_edge.learning.directions import Estimate, direction_of, has_direction, median_norms
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import ScoreRequest

if TYPE_CHECKING:
    from steerx_edge.learning.ablation import Ablation, AblationResult
    from steerx_edge.learning.settings import Settings
    from steerx_edge.llamacpp.engine import Engine
    from steerx_edge.profile import Description

_SHORTEST_REPLY, _LONGEST_REPLY = 16, 96  # tokens of the model's own replies


@dataclass(frozen=True)
class Candidate:
    """A candidate direction, added after one block.

    Args:
        contrast_method: which contrast method.
        layer: 0-based.
        differences: (item, n_embd).
        norm: median length of the residual rows there.
        contexts: of an item, the other items that stood in its context when it was read.
        estimate: how the direction is computed from the differences.
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
    ablation: Ablation,
    description: Description | None,
    layers: Sequence[int],
    settings: Settings,
    *,
    progress: Progress = lambda _what, _done, _of: None,
    checkpoint: Checkpoint | None = None,
) -> list[Candidate]:
    """Candidate directions by contrast method and layer, where the differences do not cancel out.

    Args:
        engine: the model.
        ablation: the ablation results of the history.
        description: the description that half of the rows are read under; None for none.
        layers: the blocks that were read.
        settings: which contrast methods, and how.
        progress: called with each contrast method.
        checkpoint: where the rows of the model's own replies are kept.

    Raises:
        ModelError: llama.cpp fails.
    """
    checkpoint = checkpoint or Checkpoint(None)
    results = ablation.results
    norms = median_norms([result.norms for result in results])
    described = None
    if description is not None and settings.described:
        described = _described_rows(engine, results, layers, description)
    candidates: list[Candidate] = []
    for contrast_method in settings.contrast_methods:
        if candidates and not settings.calibrate:
            break  # the first one is what is added
        progress(contrast_method, 0, 1)
        if contrast_method == "stylevector":
            replies = _replies(engine, results, layers, settings, checkpoint or Checkpoint(None))
            differences = _stylevector(results, described, replies)
            contexts = {}
        else:
            differences = _context_contrast(results, described)
            contexts = {
                j: frozenset(fold.in_context) for fold in ablation.folds for j in fold.members
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


def reply_length(n_tokens: int) -> int:
    """The most tokens of the model's own reply, for a text of `n_tokens` tokens."""
    return min(max(n_tokens, _SHORTEST_REPLY), _LONGEST_REPLY)


def _described_rows(
    engine: Engine,
    results: Sequence[AblationResult],
    layers: Sequence[int],
    description: Description,
) -> NDArray[np.float32]:
    """The user's texts, read under the description: (item, layer, n_embd)."""
    described = engine.run_many(
        [
            ScoreRequest(
                engine.prompt(messages_for(each.item.request, description=description.text)),
                each.text.response,
                score=False,
                layers=tuple(layers),
                weights=each.weights[None],
            )
            for each in results
        ]
    )
    return np.stack([each.captured[:, 0] for each in described])


def _replies(
    engine: Engine,
    results: Sequence[AblationResult],
    layers: Sequence[int],
    settings: Settings,
    checkpoint: Checkpoint,
) -> NDArray[np.float32]:
    """Mean rows of the model's own replies: (item, layer, n_embd)."""
    kept = checkpoint.get("replies")
    if kept is None:
        contexts = [each.context for each in results]
        lengths = [reply_length(len(each.text.response)) for each in results]
        rows = reply_rows(engine, contexts, lengths, layers, settings.row)
        kept = {"rows": rows}
        checkpoint.put("replies", **kept)
    return kept["rows"]


def _stylevector(
    results: Sequence[AblationResult],
    described: NDArray[np.float32] | None,
    replies: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The user's text against the model's own reply: (item, layer, n_embd)."""
    written = np.stack([each.control for each in results])
    # Where the model had nothing to say, there is no difference.
    differences: NDArray[np.float32] = np.nan_to_num(halves(written, described) - replies)
    return differences


def _context_contrast(
    results: Sequence[AblationResult], described: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """With the user's other texts in the context against without: (item, layer, n_embd)."""
    treatment = np.stack([each.treatment for each in results])
    control = np.stack([each.control for each in results])
    if described is None:
        return treatment - control
    return 0.5 * (treatment - control) + 0.5 * (described - control)
