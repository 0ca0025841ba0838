"""Evaluate sequences in parallel: the groups of the plan, decode call by decode call."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import numpy as np

from steerx_edge import _native
from steerx_edge.llamacpp.context import HookedContext
from steerx_edge.llamacpp.planning import Segment, plan
from steerx_edge.llamacpp.sequences import RunningSequence


class Span(NamedTuple):
    """A part of a decode call, with the sequence that it belongs to."""

    sequence: RunningSequence
    segment: Segment


def evaluate(
    context: HookedContext,
    sequences: Sequence[RunningSequence],
    after_call: Callable[[Sequence[Span]], None],
) -> Generator[tuple[int, ...], None, None]:
    """Evaluate sequences.

    Args:
        context: held by the caller, who closes this generator before releasing it.
        sequences: in any order.
        after_call: called after each decode call, for its logits.

    Yields:
        The places of the sequences that are in the KV cache now, fully evaluated.

    Raises:
        ModelError: llama.cpp fails, or a row cannot be read or changed.
    """
    context.begin()
    n_before = 0
    stored = context.stored
    for group in plan([each.plan for each in sequences], context.limits, stored.n_stored):
        members = [sequences[i] for i in group.members]
        context.keep(group.kept, n_before)
        n_before = len(members)
        for restored in group.restored:
            tokens = members[restored.number].plan.tokens[: restored.n_tokens]
            context.restore(stored.state(tokens), restored)
        first_steered = 0 if members[0].steers_context else group.n_filling
        try:
            for number, call in enumerate(group.calls):
                if number == group.n_filling:
                    _store(context, members)
                if number == first_steered:
                    context.set_control(members[0].control)
                spans = [Span(members[part.first], part) for part in call]
                _decode(context, spans)
                after_call(spans)
            yield group.members
        finally:
            context.end()
    if not any(each.is_changed for each in sequences):
        context.holds_numbers()


def _store(context: HookedContext, members: Sequence[RunningSequence]) -> None:
    """Store the prompts that are to be, of sequences whose contexts are in the KV cache."""
    stored, n_layer = context.stored, context.dimensions.n_layer
    for number, sequence in enumerate(members):
        plan = sequence.plan
        if plan.depth < n_layer:
            continue  # the cells above were not computed
        for n_tokens in stored.missing(plan.tokens[: plan.shareable]):
            state = context.state(number, n_tokens, stored.has_room)
            if state is not None:
                stored.add(plan.tokens[:n_tokens], state)


def _decode(context: HookedContext, spans: Sequence[Span]) -> None:
    """One decode call: change and read its rows."""
    tokens = np.concatenate(
        [sequence.plan.tokens[part.begin : part.end] for sequence, part in spans]
    )
    outputs = np.concatenate(
        [
            (np.arange(part.begin, part.end) >= sequence.plan.body) & sequence.plan.outputs
            for sequence, part in spans
        ]
    )
    reads = [read for sequence, part in spans for read in sequence.reads(part)]
    writes = [write for sequence, part in spans for write in sequence.writes(part)]
    depth, n_layer = spans[0].sequence.plan.depth, context.dimensions.n_layer  # the same for all
    if depth < n_layer:
        reads.append(_nothing_of(depth, context.dimensions.n_embd))
    needs_logits = any(sequence.request.score for sequence, _ in spans)
    context.decode(
        [part for _, part in spans],
        tokens,
        outputs,
        writes=writes,
        reads=reads,
        stop=context.may_stop and not needs_logits,
    )


def _nothing_of(layer: int, n_embd: int) -> _native.Read:
    """An empty read that makes the pass run up to a layer."""
    no_rows, no_weights = np.empty(0, np.int32), np.empty(0, np.float32)
    values = np.empty((1, 0, n_embd), np.float32)
    return _native.Read("l_out", (layer,), no_rows, no_rows, no_weights, values)
