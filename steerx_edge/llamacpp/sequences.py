"""Running requests: which rows are read and changed, and where the results go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from steerx_edge import _native
from steerx_edge.errors import ModelError
from steerx_edge.llamacpp.context import HookedContext
from steerx_edge.llamacpp.control_vector import ControlVector
from steerx_edge.llamacpp.interventions import (
    Intervention,
    as_control_vector,
    selected_positions,
)
from steerx_edge.llamacpp.planning import PlannedSequence, Segment
from steerx_edge.llamacpp.requests import Dimensions, ScoreRequest, ScoreResult, check


class Change(NamedTuple):
    """An intervention on the rows of one request.

    Args:
        compiled: what is done.
        layers: 0-based blocks.
        rows: (n_tokens,) which rows.
    """

    compiled: _native.Intervention
    layers: tuple[int, ...]
    rows: NDArray[np.bool_]


@dataclass
class RunningSequence:
    """A running request.

    Args:
        request: what was asked.
        plan: its tokens; the body begins with row 0.
        weights: (slot, T + 1) of what is read.
        changes: made by the hook.
        control: made by the control vector in place of changes, on all rows of the body.
        steers_context: the control vector is on all rows before the body too.
        result: is filled.
        final: (T + 1, n_embd) the final rows, if they are read.
    """

    request: ScoreRequest
    plan: PlannedSequence
    weights: NDArray[np.floating]
    changes: list[Change]
    control: ControlVector | None
    steers_context: bool
    result: ScoreResult
    final: NDArray[np.float32] | None

    @property
    def is_changed(self) -> bool:
        """Whether any row is changed."""
        return bool(self.changes) or self.control is not None

    def reads(self, part: Segment) -> Iterator[_native.Read]:
        """The reads of a decode call that holds a part of this sequence."""
        body = self.plan.body
        if part.begin < body:
            return
        rows = slice(part.begin - body, part.end - body)
        if self.final is not None:
            places = np.arange(part.offset, part.offset + part.end - part.begin, dtype=np.int32)
            yield read_final(places, self.final[rows], self.plan.depth)
        if self.result.residual is None:
            return
        weights = self.weights[:, rows]
        slots, picked = np.nonzero(weights)
        yield _native.Read(
            self.request.hook_point,
            self.request.layers,
            (picked + part.offset).astype(np.int32),
            slots.astype(np.int32),
            weights[slots, picked].astype(np.float32),
            self.result.residual,
        )

    def writes(self, part: Segment) -> Iterator[_native.Write]:
        """The writes of a decode call that holds a part of this sequence."""
        for compiled, layers, mask in self.changes:
            rows = np.flatnonzero(mask[part.begin : part.end]) + part.offset
            if len(rows):
                yield _native.Write(compiled, layers, rows.tolist())


def read_final(rows: NDArray[np.int32], values: NDArray[np.float32], n_layer: int) -> _native.Read:
    """Read final rows of the batch (n,) into zeros (n, n_embd), above all n_layer blocks."""
    slots, weights = np.arange(len(rows), dtype=np.int32), np.ones(len(rows), np.float32)
    return _native.Read("l_out", (n_layer,), rows, slots, weights, values[None])


def prepare(
    requests: Sequence[ScoreRequest], context: HookedContext, *, in_graph: bool
) -> list[RunningSequence]:
    """Check requests and prepare them for evaluation.

    Args:
        requests: in any order.
        context: what they will run on.
        in_graph: additions are made by the control vector where it can: on a device, rows would
            have to travel for a change.

    Raises:
        ModelError: a request does not fit the model or the context.
        SteerxError: an intervention cannot be made.
    """
    controls: dict[tuple[object, ...], int] = {}  # numbers of the control vectors, by their values
    return [_prepared(request, context, controls, in_graph=in_graph) for request in requests]


def _prepared(
    request: ScoreRequest,
    context: HookedContext,
    controls: dict[tuple[object, ...], int],
    *,
    in_graph: bool,
) -> RunningSequence:
    dimensions = context.dimensions
    check(request, dimensions)
    tokens = np.asarray([*request.context, *request.response], dtype=np.int32)
    first, n_rows = len(request.context) - 1, len(request.response) + 1
    weights = request.weights
    if weights is None:
        weights = np.eye(n_rows if request.layers else 0, n_rows, dtype=np.float32)
    control = as_control_vector(request.interventions) if in_graph else None
    steers_context = control is not None and request.interventions[0].positions == "all"
    changes = [] if control else _changes(request, dimensions.n_embd)
    changed = [int(np.argmax(each.rows)) for each in changes if each.rows.any()]
    depth = dimensions.n_layer
    if not (request.score or request.final):
        depth = max(0, request.layers[-1])
    change = -1
    if control is not None:
        # By value, so that equal vectors run in parallel. Comparing is cheap relative to a pass.
        value = (control.layers, control.vectors.tobytes(), steers_context)
        change = controls.setdefault(value, len(controls))
    plan = PlannedSequence(
        tokens,
        body=first,
        shareable=min([first, *changed]) if context.shares and not steers_context else 0,
        outputs=depth >= dimensions.n_layer - 1,
        depth=depth,
        change=change,
    )
    final = None
    if request.final or request.memory is not None:
        final = np.zeros((n_rows, dimensions.n_embd), np.float32)
    result = _empty_result(request, len(weights), dimensions, final if request.final else None)
    return RunningSequence(request, plan, weights, changes, control, steers_context, result, final)


def _changes(request: ScoreRequest, n_embd: int) -> list[Change]:
    n_context = len(request.context)
    n_tokens = n_context + len(request.response)
    return [
        Change(
            _compiled(each, n_embd),
            each.layers,
            selected_positions(each.positions, n_context, n_tokens),
        )
        for each in request.interventions
    ]


def _compiled(intervention: Intervention, n_embd: int) -> _native.Intervention:
    compiled = intervention.native()
    if compiled.width != n_embd:
        raise ModelError(
            f"Vectors of {compiled.width} numbers do not fit this model: its rows have {n_embd}."
        )
    return compiled


def _empty_result(
    request: ScoreRequest,
    n_slots: int,
    dimensions: Dimensions,
    final: NDArray[np.float32] | None,
) -> ScoreResult:
    n, n_layers, top_k = len(request.response), len(request.layers), request.top_k
    n_embd, biases = dimensions.n_embd, request.biases
    return ScoreResult(
        log_prob=np.empty(n, np.float32) if request.score else None,
        residual=np.zeros((n_layers, n_slots, n_embd), np.float32) if n_layers else None,
        final=final,
        entropy=np.empty(n, np.float32) if request.entropy else None,
        top_token=np.empty((n, top_k), np.int32) if top_k else None,
        top_log_prob=np.empty((n, top_k), np.float32) if top_k else None,
        expected=np.zeros(dimensions.n_vocab) if request.expected else None,
        biased=np.empty((len(biases), n), np.float32) if biases is not None else None,
    )
