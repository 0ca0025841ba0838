"""Generate texts in parallel, each with its own interventions, logit bias and memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

import llama_cpp
import numpy as np

from steerx_edge import _native
from steerx_edge.errors import ModelError
from steerx_edge.llamacpp.context import HookedContext
from steerx_edge.llamacpp.decoding import evaluate
from steerx_edge.llamacpp.planning import Segment
from steerx_edge.llamacpp.requests import GenerateRequest, ScoreRequest, asked_for
from steerx_edge.llamacpp.sampling import Sampler
from steerx_edge.llamacpp.sequences import RunningSequence, prepare, read_final


def generate_many(
    context: HookedContext, requests: Sequence[GenerateRequest], *, in_graph: bool
) -> list[list[int]]:
    """Generate side by side; see `AnalysisContext.generate_many`."""
    contexts = prepare([_context_of(each) for each in requests], context, in_graph=in_graph)
    texts = []
    for request, sequence in zip(requests, contexts, strict=True):
        room = max(0, min(request.max_tokens, context.dimensions.n_ctx - len(request.context)))
        sequence.plan = replace(sequence.plan, growth=room)
        texts.append(_Text(request, sequence, room))
    for request in requests:
        positions = [each.positions for each in request.interventions]
        if not all(isinstance(each, str) and each in ("all", "generated") for each in positions):
            raise ModelError('Rows of what is generated are "all" or "generated".')
    with context.held(), closing(evaluate(context, contexts, lambda _: None)) as evaluated:
        for members in evaluated:
            _continue(context, [texts[i] for i in members])
    return [text.tokens for text in texts]


def _context_of(request: GenerateRequest) -> ScoreRequest:
    """The last row of a context has logits, and no response to score."""
    return ScoreRequest(
        request.context,
        (),
        final=request.memory is not None,
        interventions=request.interventions,
        logit_bias=request.logit_bias,
    )


class _Text:
    """A text that is being generated."""

    def __init__(self, request: GenerateRequest, sequence: RunningSequence, room: int) -> None:
        self._biased = np.fromiter(request.logit_bias, np.int64)
        self._bias = np.fromiter(request.logit_bias.values(), np.float32)
        self._memory = request.memory
        self._sampler = Sampler(request.temperature, request.seed)
        self._room = room
        self.changes = sequence.changes
        self.n_context = len(request.context)
        self.final = sequence.final  # (1, n_embd): the latest final row, if there is a memory
        self.tokens: list[int] = []

    @property
    def is_full(self) -> bool:
        return len(self.tokens) == self._room

    def next_token(self, context: HookedContext, row: int) -> int:
        """Sample the token that follows a row of the last batch."""
        if self._memory is not None or len(self._biased):
            pointer = llama_cpp.llama_get_logits_ith(context.address, row)
            logits = np.ctypeslib.as_array(pointer, (context.dimensions.n_vocab,))
            logits[self._biased] += self._bias
            if self._memory is not None:
                self._memory.shift(asked_for(self.final)[0], self.tokens, logits)
        return self._sampler(context.address, row)


def _continue(context: HookedContext, texts: Sequence[_Text]) -> None:
    """Generate on from the last batch, which has one row of logits for each text, in order."""
    numbers: Sequence[int] = range(len(texts))  # of those that have a row in the last batch
    while numbers:
        unended = []
        for row, number in enumerate(numbers):
            text = texts[number]
            if text.is_full:
                continue
            token = text.next_token(context, row)
            if not llama_cpp.llama_vocab_is_eog(context.vocab, token):
                text.tokens.append(token)
                unended.append(number)
        numbers = [number for number in unended if not texts[number].is_full]
        if numbers:
            _decode_newest(context, texts, numbers)


def _decode_newest(context: HookedContext, texts: Sequence[_Text], numbers: Sequence[int]) -> None:
    """Evaluate the newest token of those texts; number k is sequence k."""
    segments, reads, writes = [], [], []
    every = np.arange(len(numbers), dtype=np.int32)
    for row, number in enumerate(numbers):
        text = texts[number]
        place = text.n_context + len(text.tokens) - 1
        segments.append(Segment(number, number, place, place + 1, row))
        writes += [_native.Write(each.compiled, each.layers, [row]) for each in text.changes]
        if text.final is not None:
            text.final = np.zeros_like(text.final)
            n_layer = context.dimensions.n_layer
            reads.append(read_final(every[row : row + 1], text.final, n_layer))
    tokens = np.array([texts[number].tokens[-1] for number in numbers], dtype=np.int32)
    outputs = np.ones(len(numbers), dtype=np.bool_)
    context.decode(segments, tokens, outputs, writes=writes, reads=reads, stop=False)
