"""The analysis context: teacher-forced passes that score tokens and read the residual stream.

It is a second llama.cpp context on weights that are loaded already. `layer` is always the 0-based
block whose output is meant: llama.cpp's `l_out-<layer>`.

Rows of a pass: the response of T tokens has T + 1 rows. Row r *predicts* response token r (r < T)
and lies *at* response token r - 1 (r > 0); row 0 is the last token of the context.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

import llama_cpp
import numpy as np
from numpy.typing import NDArray

import steerx_edge._native as _native
from steerx_edge.errors import ModelError, SteerxError
from steerx_edge.llamacpp import compat
from steerx_edge.llamacpp.control_vector import ControlVector, set_control_vector
from steerx_edge.llamacpp.interventions import (
    Add,
    Intervention,
    as_control_vector,
    selected_positions,
)
from steerx_edge.llamacpp.locks import ContextLock
from steerx_edge.llamacpp.models import is_recurrent
from steerx_edge.llamacpp.planning import Limits, Segment, Strand, plan
from steerx_edge.llamacpp.sampling import Sampler

if TYPE_CHECKING:
    from llama_cpp import Llama


MICRO_BATCH = 256
"""Tokens of one decode call: one micro-batch, so that rows come in the order of the tokens. More
are no faster on a CPU, and attention over a long context takes memory for each of them."""

MAX_SEQUENCES = 16
"""Passes that run side by side at most."""

INPUT_LAYER = -1
"""Stands for the input of block 0 among the layers that are read."""

_Number = TypeVar("_Number", bound=np.generic)
HookPoint: TypeAlias = Literal["l_out", "attn_out", "ffn_out"]

MOST_OUTPUTS = 128
"""Rows with logits in one decode call. More are no faster: the output weights are read once a call.
llama.cpp holds each row twice, as computed and as given out."""

LOGITS_BYTES = 75 << 20
"""Bound on the logits given out at a time: 128 rows of 151,936 tokens, 64 of 262,144."""

_TILE = 32
"""Calls of a multiple of it are faster: llama.cpp multiplies quantized weights in tiles."""


_NONE = np.empty(0, dtype=np.int32)
_NO_WEIGHT = np.empty(0, dtype=np.float32)
CLOSED = "The model was closed. Make a new engine from an open one."
_NOT_NUMBERS = (
    "The model gave {} that are not numbers: its file may be damaged, or the control vector far "
    "too strong."
)


class NextTokenMemory(Protocol):
    """Changes next-token predictions by the final rows they are made from.

    It is called while the analysis context is in use, and must not use that itself.
    """

    def shift(
        self, row: NDArray[np.float32], before: Sequence[int], logits: NDArray[np.float32]
    ) -> None:
        """Change the logits of the next token in place.

        Args:
            row: (n_embd,) the final row that the logits were computed from.
            before: the tokens of the text so far, without what it answers.
            logits: (n_vocab,).
        """

    def log_prob(
        self,
        rows: NDArray[np.float32],
        text: Sequence[int],
        log_prob: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Return the log-probabilities of a text with the memory, from those without.

        Args:
            rows: (T, n_embd) the final row that predicts each token.
            text: T tokens.
            log_prob: (T,) nats.

        Returns:
            (T,) nats.
        """


@dataclass(frozen=True)
class ScoreRequest:
    """One teacher-forced pass: `context` tokens, then `response` tokens.

    Args:
        context: at least one token.
        response: the tokens that are scored.
        score: log-probabilities are wanted. Without, the pass ends after the last layer read.
        layers: blocks to read, increasing; INPUT_LAYER reads what goes into block 0; empty reads
            nothing.
        hook_point: what is read of a block: "l_out", the residual stream after it, or "attn_out"
            and "ffn_out", what attention and feed-forward network add to it, where the architecture
            names them.
        weights: (slot, T + 1) float32 pools rows: slot k is the sum of weights[k, r] times row r.
            None keeps each of the T + 1 rows.
        final: also read the T + 1 final rows: the output of the last norm, which the output matrix
            is applied to. `weights` do not pool them.
        entropy: also the entropy of each predicted distribution.
        top_k: also the `top_k` most probable tokens of each row.
        expected: also how often each token of the vocabulary was to be expected in the response.
        biases: (bias, n_vocab) float32; also the log-probabilities with each of these added to the
            logits.
        logit_bias: added to the logits of tokens; `log_prob` is with it, nothing else is.
        memory: changes the predictions after that; `log_prob` is with it, nothing else is.
        interventions: change rows, in this order; what is read has been changed already.
    """

    context: Sequence[int]
    response: Sequence[int]
    score: bool = True
    layers: tuple[int, ...] = ()
    hook_point: HookPoint = "l_out"
    weights: NDArray[np.float32] | None = None
    final: bool = False
    entropy: bool = False
    top_k: int = 0
    expected: bool = False
    biases: NDArray[np.float32] | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    memory: NextTokenMemory | None = None
    interventions: tuple[Intervention, ...] = ()


@dataclass(frozen=True)
class ScoreResult:
    """What a pass gave; None for what was not asked for. It outlives engine and model.

    Args:
        log_prob: (T,) log p(response token | everything before it), in nats.
        residual: (layer, slot, n_embd) residual stream.
        final: (T + 1, n_embd) output of the last norm.
        entropy: (T,) nats.
        top_token: (T, top_k) token ids, best first.
        top_log_prob: (T, top_k) nats.
        expected: (n_vocab,) the sum of the T predicted distributions.
        biased: (bias, T) log p(response token) under each logit bias, in nats.
    """

    log_prob: NDArray[np.float32] | None = None
    residual: NDArray[np.float32] | None = None
    final: NDArray[np.float32] | None = None
    entropy: NDArray[np.float32] | None = None
    top_token: NDArray[np.int32] | None = None
    top_log_prob: NDArray[np.float32] | None = None
    expected: NDArray[np.float64] | None = None
    biased: NDArray[np.float32] | None = None

    @property
    def scored(self) -> NDArray[np.float32]:
        """`log_prob` of a pass that was asked to score."""
        return asked_for(self.log_prob)

    @property
    def captured(self) -> NDArray[np.float32]:
        """`residual` of a pass that was asked to read layers."""
        return asked_for(self.residual)


@dataclass(frozen=True)
class GenerateRequest:
    """Tokens to be generated after a context.

    Args:
        context: at least one token.
        max_tokens: at most so many; fewer where the analysis context is full.
        interventions: as of ScoreRequest; their rows are "all" or "generated".
        temperature: 0 takes the most probable token.
        seed: of sampling.
        logit_bias: added to the logits of tokens.
        memory: changes the predictions after that.
    """

    context: Sequence[int]
    max_tokens: int = 128
    interventions: tuple[Intervention, ...] = ()
    temperature: float = 0.0
    seed: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    memory: NextTokenMemory | None = None


@dataclass
class _Sequence:
    """One pass on its way, with where its results go."""

    job: ScoreRequest
    strand: Strand  # its body begins with row 0
    weights: NDArray[np.floating]  # (slot, T + 1)
    changes: list[tuple[_native.Intervention, tuple[int, ...], NDArray[np.bool_]]]
    control: ControlVector | None  # in place of changes, on all rows of the body
    steers_context: bool  # the control vector is on all rows before the body too
    out: ScoreResult
    final: NDArray[np.float32] | None  # (T + 1, n_embd) if they are read


class _Span(NamedTuple):
    """A segment of a decode call, with its pass."""

    sequence: _Sequence
    segment: Segment


class _Writer:
    """What a continuation has become so far."""

    def __init__(
        self, n_vocab: int, job: GenerateRequest, room: int, final: NDArray[np.float32] | None
    ) -> None:
        self._biased = np.fromiter(job.logit_bias, np.int64)
        self._bias = np.fromiter(job.logit_bias.values(), np.float32)
        self._memory = job.memory
        self._sampler = Sampler(job.temperature, job.seed)
        self._n_vocab = n_vocab
        self.room = room
        self.final = final  # (1, n_embd): the latest final row, if the job has a memory
        self.tokens: list[int] = []

    def next(self, context: Any, row: int) -> int:
        """The next token, after a row of the last batch that has logits."""
        if self._memory is not None or len(self._biased):
            pointer = llama_cpp.llama_get_logits_ith(context, row)
            logits = np.ctypeslib.as_array(pointer, (self._n_vocab,))
            logits[self._biased] += self._bias
            if self._memory is not None:
                self._memory.shift(asked_for(self.final)[0], self.tokens, logits)
        return self._sampler(context, row)


class _Context:
    """A llama_context, its batch, and the hook it calls.

    It knows nothing of the Llama that it belongs to, so it can be freed before that one in whatever
    order a garbage collector takes them.
    """

    def __init__(self, model: int, params: Any, hooks: _native.ResidualHooks) -> None:
        self._hooks = hooks
        self.lock = ContextLock()
        self.address: Any = None
        with self.lock.held():
            self.address = llama_cpp.llama_init_from_model(model, params)
        if not self.address:
            raise ModelError(
                f"llama.cpp could not make an analysis context of {params.n_ctx} tokens for this "
                "model: there may be too little memory. Try a smaller one (n_ctx)."
            )
        self.batch = llama_cpp.llama_batch_init(params.n_batch, 0, params.n_seq_max)

    def close(self) -> None:
        self.lock.free(self._free, self._hooks)

    def _free(self) -> None:
        address, self.address = self.address, None
        if address:
            llama_cpp.llama_free(address)
            llama_cpp.llama_batch_free(self.batch)


class AnalysisContext:
    """Runs passes on the weights of `llama`, and never touches its own context.

    Keeps `llama` alive, and ends when that is closed: in whatever thread, after the pass under way.
    Not to be used in a forked child, nor from a signal handler.

    Args:
        llama: the model; its context parameters (KV type, RoPE, threads) are taken over.
        n_ctx: tokens of the longest pass, and of all that run side by side.
        kv_unified: one KV cache for all sequences; split, a decode call takes one sequence only.

    Attributes:
        in_graph: whether plain additions to generated rows, or to all, are made by the control
            vector, and not by a hook. The results are the same; passes that differ in it do not run
            side by side. By default, where layers are on a device.

    Raises:
        ModelError: llama.cpp lacks a function we need, the context cannot be made, or the model's
            architecture does not expose its residual stream or ignores control vectors.
    """

    def __init__(self, llama: Llama, n_ctx: int, *, kv_unified: bool = True) -> None:
        self._context: _Context | None = None
        model = llama.model
        if model is None:
            raise ModelError(CLOSED)
        self._llama = llama
        self.n_ctx = n_ctx
        self.n_layer: int = llama_cpp.llama_model_n_layer(model)
        self.n_embd: int = llama_cpp.llama_model_n_embd(model)
        self.n_vocab: int = llama.n_vocab()
        self._n_threads: int = llama.n_threads_batch
        self._steered = False
        self._factors: tuple[ScoreRequest, NDArray[np.float32] | None] | None = None  # the latest
        self._was_changed = True  # KV cells may hold what is not a number
        self._kv_unified = kv_unified
        chunk = max(1, min(MICRO_BATCH, n_ctx))
        outputs = max(1, min(chunk, MOST_OUTPUTS, LOGITS_BYTES // (4 * self.n_vocab)))
        if outputs > _TILE:
            outputs -= outputs % _TILE
        # Recurrent models keep no cells to share, and compute sequences of a batch in an order of
        # their own, as llama.cpp does with a cache for each sequence.
        self._shares = kv_unified and not is_recurrent(model) and outputs > 1
        self._limits = Limits(
            sequences=min(MAX_SEQUENCES, outputs - 1) if self._shares else 1,
            cells=n_ctx,
            group=4 * chunk,
            call=chunk,
            outputs=outputs,
        )
        self.in_graph = True  # for the probe
        self._may_stop = compat.may_stop_early(llama)
        self._api = compat.find_functions()
        self._hooks = _native.ResidualHooks(self._api, self.n_layer, self.n_embd)
        self._context = _Context(model, self._params(llama), self._hooks)
        # Closing the model must free this context first: it points into the model.
        compat.before_model_is_freed(llama, self._context.close)
        try:
            self._probe()
        except BaseException:
            self.close()
            raise
        # A hook costs as little, and passes side by side can differ; but a device's rows would
        # travel. See docs/performance.md.
        self.in_graph = (
            llama.model_params.n_gpu_layers != 0 and llama_cpp.llama_supports_gpu_offload()
        )

    def run(self, job: ScoreRequest) -> ScoreResult:
        """Run one pass.

        Raises:
            ModelError: the pass does not fit, or llama.cpp fails.
        """
        return self.run_many([job])[0]

    def run_many(
        self, jobs: Sequence[ScoreRequest], done: Callable[[int], None] | None = None
    ) -> list[ScoreResult]:
        """Run passes side by side: the results of `run`, in less time.

        A context that several passes begin with is evaluated once. Each pass has interventions of
        its own. Calls from several threads wait for each other.

        Args:
            jobs: in any order.
            done: told now and then how many are done.

        Raises:
            ModelError: a pass does not fit, or llama.cpp fails.
        """
        sequences = self._sequences(jobs)
        n_done = 0
        with self._open.lock.held(), closing(self._evaluated(sequences)) as evaluated:
            for members in evaluated:
                for sequence in members:
                    self._complete(sequence)
                n_done += len(members)
                if done is not None:
                    done(n_done)
        return [sequence.out for sequence in sequences]

    def _complete(self, sequence: _Sequence) -> None:
        """Check the rows of a pass, and mix into its scores what comes after the model."""
        job, out, final = sequence.job, sequence.out, sequence.final
        for name, rows in [("residual", out.residual), ("final", final)]:
            if rows is not None and not np.isfinite(rows).all():
                raise ModelError(_NOT_NUMBERS.format(f"{name} rows"))
        if job.memory is not None:
            rows = asked_for(final)[:-1]
            out.scored[:] = job.memory.log_prob(rows, job.response, out.scored)
        sequence.final = None  # of many passes with a memory, they would be too much to keep

    def generate_many(self, jobs: Sequence[GenerateRequest]) -> list[list[int]]:
        """Generate side by side, each with interventions of its own; the Llama is not touched.

        Returns:
            The tokens of each, without the one that ended it.

        Raises:
            ModelError: a context does not fit, or llama.cpp fails.
        """
        # The last row of each context has logits, and no response to score.
        passes = [
            ScoreRequest(
                job.context,
                (),
                final=job.memory is not None,
                interventions=job.interventions,
                logit_bias=job.logit_bias,
            )
            for job in jobs
        ]
        sequences = [
            replace(sequence, strand=replace(sequence.strand, growth=self._room(job)))
            for job, sequence in zip(jobs, self._sequences(passes), strict=True)
        ]
        for job in jobs:
            rows = [each.positions for each in job.interventions]
            if not all(isinstance(each, str) and each in ("all", "generated") for each in rows):
                raise ModelError('Rows of what is generated are "all" or "generated".')
        writers = {
            id(sequence): _Writer(self.n_vocab, job, self._room(job), sequence.final)
            for job, sequence in zip(jobs, sequences, strict=True)
        }
        with self._open.lock.held(), closing(self._evaluated(sequences)) as evaluated:
            for members in evaluated:
                self._continue(members, [writers[id(sequence)] for sequence in members])
        return [writers[id(sequence)].tokens for sequence in sequences]

    def _room(self, job: GenerateRequest) -> int:
        return max(0, min(job.max_tokens, self.n_ctx - len(job.context)))

    def _continue(self, members: Sequence[_Sequence], writers: Sequence[_Writer]) -> None:
        """Generate from the last batch on: one row of logits a member, in their order."""
        vocab = llama_cpp.llama_model_get_vocab(self._llama.model)
        numbers: Sequence[int] = range(len(members))  # of those that have a row in the last batch
        while numbers:
            going_on = []
            for row, number in enumerate(numbers):
                writer = writers[number]
                if len(writer.tokens) == writer.room:
                    continue
                token = writer.next(self._open.address, row)
                if not llama_cpp.llama_vocab_is_eog(vocab, token):
                    writer.tokens.append(token)
                    going_on.append(number)
            numbers = [n for n in going_on if len(writers[n].tokens) < writers[n].room]
            if numbers:
                self._decode_step(members, writers, numbers)

    def _decode_step(
        self, members: Sequence[_Sequence], writers: Sequence[_Writer], numbers: Sequence[int]
    ) -> None:
        """Evaluate the newest token of each sequence."""
        segments = []
        for row, number in enumerate(numbers):
            place = len(members[number].strand.tokens) + len(writers[number].tokens) - 1
            segments.append(Segment(number, number, place, place + 1, row))
        tokens = np.array([writers[number].tokens[-1] for number in numbers], dtype=np.int32)
        self._fill_batch(segments, tokens, np.ones(len(numbers), dtype=np.bool_))
        writes = [
            _native.Write(change, layers, [row])
            for row, number in enumerate(numbers)
            for change, layers, _ in members[number].changes
        ]
        every = np.arange(len(numbers), dtype=np.int32)
        reads = []
        for row, number in enumerate(numbers):
            writer = writers[number]
            if writer.final is not None:
                writer.final = np.zeros_like(writer.final)
                reads.append(self._read_final(every[row : row + 1], writer.final))
        self._call_hooked(tokens, every, writes, reads, early=False)

    def _sequences(self, jobs: Sequence[ScoreRequest]) -> list[_Sequence]:
        kinds: dict[int, int] = {}  # of interventions
        return [
            self._sequence(job, kinds.setdefault(id(job.interventions), len(kinds))) for job in jobs
        ]

    def _evaluated(self, sequences: Sequence[_Sequence]) -> Generator[list[_Sequence], None, None]:
        """Evaluate sequences, and give those that stand side by side in the KV cache."""
        self._end()  # of what was interrupted, even while it ended
        self._factors = None  # the caller may have changed the arrays since
        # What masked cells hold does not count, unless they are no numbers.
        llama_cpp.llama_memory_clear(self._memory, self._was_changed)
        self._was_changed = True
        n_before = 0
        for group in plan([sequence.strand for sequence in sequences], self._limits):
            members = [sequences[i] for i in group.members]
            self._keep(group.kept, n_before)
            n_before = len(members)
            first_steered = 0 if members[0].steers_context else group.n_filling
            try:
                for number, call in enumerate(group.calls):
                    if number == first_steered:
                        self._set_control(members[0].control)
                    self._decode([_Span(members[each.first], each) for each in call])
                yield members
            finally:
                self._end()
        self._was_changed = any(each.changes or each.control for each in sequences)

    def _end(self) -> None:
        self._hooks.cancel()
        self._set_control(None)

    @property
    def _memory(self) -> Any:
        return llama_cpp.llama_get_memory(self._open.address)

    def _keep(self, kept: Sequence[int], n_before: int) -> None:
        """Empty the KV cache but for what the next sequences take over from the last one."""
        memory, spare = self._memory, self._limits.sequences
        if not kept[0]:
            llama_cpp.llama_memory_clear(memory, False)
            return
        llama_cpp.llama_memory_seq_cp(memory, n_before - 1, spare, 0, kept[0])
        llama_cpp.llama_memory_seq_keep(memory, spare)
        for number, n_tokens in enumerate(kept):
            if n_tokens:
                llama_cpp.llama_memory_seq_cp(memory, spare, number, 0, n_tokens)
        llama_cpp.llama_memory_seq_rm(memory, spare, -1, -1)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Free the context. It cannot be used afterwards."""
        if self._context is not None:
            self._context.close()

    @property
    def _open(self) -> _Context:
        if self._context is None or not self._context.address:
            raise ModelError(CLOSED)
        self._context.lock.check()
        return self._context

    def _params(self, llama: Llama) -> Any:
        params = compat.context_params(llama)
        params.n_ctx = self.n_ctx
        params.n_batch = params.n_ubatch = self._limits.call
        params.n_seq_max = self._limits.sequences + self._shares  # and one to keep a prefix in
        params.n_outputs_max = params.n_outputs_max_per_seq = self._limits.outputs
        params.swa_full = True  # a prefix is shared whole, not its last window only
        params.n_threads = params.n_threads_batch
        params.kv_unified = self._kv_unified
        params.embeddings = False
        params.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_UNSPECIFIED
        params.cb_eval = llama_cpp.ggml_backend_sched_eval_callback(self._hooks.callback)
        params.cb_eval_user_data = self._hooks.user_data
        return params

    def _check(self, job: ScoreRequest) -> None:
        if not job.context:
            raise ModelError("A pass needs at least one token before its response.")
        if not (job.score or job.layers or job.final):
            raise ModelError("A pass must score tokens or read layers or final rows.")
        of_scores = (
            job.entropy
            or job.top_k
            or job.expected
            or job.logit_bias
            or job.memory is not None
            or job.biases is not None
        )
        if not all(0 <= token < self.n_vocab for token in job.logit_bias):
            raise ModelError("A logit bias is for tokens that are not in the vocabulary.")
        if of_scores and not job.score:
            raise ModelError(
                "Entropy, top and expected tokens, logit biases and a memory come with scores: ask "
                "for `score` too."
            )
        if job.biases is not None and job.biases.shape[1:] != (self.n_vocab,):
            raise ModelError(
                f"logit biases have shape {job.biases.shape}, expected (bias, {self.n_vocab})."
            )
        if job.top_k < 0 or job.top_k > self.n_vocab:
            raise ModelError(f"top_k is {job.top_k}, and the vocabulary has {self.n_vocab} tokens.")
        layers = list(job.layers)
        known = set(range(INPUT_LAYER if job.hook_point == "l_out" else 0, self.n_layer))
        if layers != sorted(set(layers)) or not set(layers) <= known:
            raise ModelError(
                f"Layers {layers} cannot be read: name increasing ones, 0 to {self.n_layer - 1}."
            )
        for each in job.interventions:
            if not set(each.layers) <= set(range(self.n_layer)):
                raise ModelError(
                    f"Layers {list(each.layers)} cannot be changed: this model has 0 to "
                    f"{self.n_layer - 1}."
                )
        length = len(job.context) + len(job.response)
        if length > self.n_ctx:
            raise ModelError(
                f"A pass of {length} tokens does not fit the analysis context of {self.n_ctx}. "
                "Shorten the text or raise n_ctx."
            )
        if job.weights is not None and job.weights.shape[1:] != (len(job.response) + 1,):
            raise ModelError(
                f"weights have shape {job.weights.shape}, expected (slot, {len(job.response) + 1})."
            )

    def _sequence(self, job: ScoreRequest, kind: int) -> _Sequence:
        self._check(job)
        tokens = np.asarray([*job.context, *job.response], dtype=np.int32)
        first = len(job.context) - 1
        n_rows = len(job.response) + 1
        weights = job.weights
        if weights is None:
            weights = np.eye(n_rows if job.layers else 0, n_rows, dtype=np.float32)
        # On a device, rows would have to travel for a change.
        control = as_control_vector(job.interventions) if self.in_graph else None
        changes = [
            (
                self._compiled(each),
                each.layers,
                selected_positions(each.positions, len(job.context), len(tokens)),
            )
            for each in ([] if control else job.interventions)
        ]
        changed = [int(np.argmax(mask)) for _, _, mask in changes if mask.any()]
        steers_context = control is not None and job.interventions[0].positions == "all"
        depth = self.n_layer if job.score or job.final else max(0, job.layers[-1])
        strand = Strand(
            tokens,
            body=first,
            shareable=min([first, *changed]) if self._shares and not steers_context else 0,
            outputs=depth >= self.n_layer - 1,
            depth=depth,
            change=kind if control else -1,
        )
        final = None
        if job.final or job.memory is not None:
            final = np.zeros((n_rows, self.n_embd), np.float32)
        out = replace(
            _empty_result(job, n_slots=len(weights), n_embd=self.n_embd, n_vocab=self.n_vocab),
            final=final if job.final else None,
        )
        return _Sequence(job, strand, weights, changes, control, steers_context, out, final)

    def _compiled(self, intervention: Intervention) -> _native.Intervention:
        compiled = intervention.native()
        if compiled.width != self.n_embd:
            raise ModelError(
                f"Vectors of {compiled.width} numbers do not fit this model: its rows have "
                f"{self.n_embd}."
            )
        return compiled

    def _decode(self, spans: Sequence[_Span]) -> None:
        """One decode call: change, read and score its rows."""
        segments = [span.segment for span in spans]
        tokens = np.concatenate(
            [sequence.strand.tokens[part.begin : part.end] for sequence, part in spans]
        )
        outputs = np.concatenate(
            [
                (np.arange(part.begin, part.end) >= sequence.strand.body) & sequence.strand.outputs
                for sequence, part in spans
            ]
        )
        self._fill_batch(segments, tokens, outputs)
        reads = [read for span in spans for read in self._reads(span)]
        writes = [write for span in spans for write in self._writes(span)]
        last_layer = spans[0].sequence.strand.depth  # the same for all
        if last_layer < self.n_layer:
            nothing = np.empty((1, 0, self.n_embd), dtype=np.float32)
            reads.append(_native.Read("l_out", (last_layer,), _NONE, _NONE, _NO_WEIGHT, nothing))
        output_row = np.where(outputs, np.cumsum(outputs) - 1, -1).astype(np.int32)
        needs_logits = any(span.sequence.job.score for span in spans)
        self._call_hooked(
            tokens, output_row, writes, reads, early=self._may_stop and not needs_logits
        )
        for span in spans:
            if span.sequence.job.score:
                self._score(span)

    def _call_hooked(
        self,
        tokens: NDArray[np.int32],
        output_row: NDArray[np.int32],
        writes: list[_native.Write],
        reads: list[_native.Read],
        *,
        early: bool,
    ) -> None:
        """Evaluate the batch with the hook at work, if there is any for it."""
        if not reads and not writes:
            self._call_decode()
            return
        self._hooks.arm(
            tokens=tokens,
            output_row=output_row,
            writes=writes,
            reads=reads,
            stop_after_last_layer=early,
        )
        self._call_decode()
        try:
            self._hooks.finish()
        except RuntimeError as error:
            raise ModelError(f"The residual stream could not be read: {error}.") from error

    def _reads(self, span: _Span) -> Iterator[_native.Read]:
        job, out, part = span.sequence.job, span.sequence.out, span.segment
        body, final = span.sequence.strand.body, span.sequence.final
        if part.begin < body:
            return
        if final is not None:
            places = np.arange(part.offset, part.offset + part.end - part.begin, dtype=np.int32)
            yield self._read_final(places, final[part.begin - body : part.end - body])
        if out.residual is None:
            return
        weights = span.sequence.weights[:, part.begin - body : part.end - body]
        slots, rows = np.nonzero(weights)
        yield _native.Read(
            job.hook_point,
            job.layers,
            (rows + part.offset).astype(np.int32),
            slots.astype(np.int32),
            weights[slots, rows].astype(np.float32),
            out.residual,
        )

    def _read_final(self, rows: NDArray[np.int32], values: NDArray[np.float32]) -> _native.Read:
        """Read final rows of the batch (n,) into zeros (n, n_embd)."""
        slots, weights = np.arange(len(rows), dtype=np.int32), np.ones(len(rows), np.float32)
        return _native.Read("l_out", (self.n_layer,), rows, slots, weights, values[None])

    def _writes(self, span: _Span) -> Iterator[_native.Write]:
        part = span.segment
        for change, layers, mask in span.sequence.changes:
            rows = np.flatnonzero(mask[part.begin : part.end]) + part.offset
            if len(rows):
                yield _native.Write(change, layers, rows.tolist())

    def _fill_batch(
        self, segments: Sequence[Segment], tokens: NDArray[np.int32], outputs: NDArray[np.bool_]
    ) -> None:
        batch, n = self._open.batch, len(tokens)
        batch.n_tokens = n
        np.ctypeslib.as_array(batch.token, (n,))[:] = tokens
        np.ctypeslib.as_array(batch.logits, (n,))[:] = outputs
        n_owners = np.ctypeslib.as_array(batch.n_seq_id, (n,))
        positions = np.ctypeslib.as_array(batch.pos, (n,))
        for part in segments:
            rows = range(part.offset, part.offset + part.end - part.begin)
            positions[rows.start : rows.stop] = np.arange(part.begin, part.end)
            n_owners[rows.start : rows.stop] = part.last - part.first + 1
            for row in rows:
                for place, number in enumerate(range(part.first, part.last + 1)):
                    batch.seq_id[row][place] = number

    def _call_decode(self) -> None:
        status = llama_cpp.llama_decode(self._open.address, self._open.batch)
        if status != 0:
            raise ModelError(f"llama.cpp failed to evaluate a batch (llama_decode gave {status}).")

    def _score(self, span: _Span) -> None:
        """Score the rows of a span from the last decode; the very last row predicts nothing."""
        strand, out, segment = span.sequence.strand, span.sequence.out, span.segment
        begin, end = segment.begin, min(segment.end, len(strand.tokens) - 1)
        if begin < strand.body or begin >= end:
            return
        rows = slice(begin - strand.body, end - strand.body)

        def part(array: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if array is None else array[rows]

        factors = self._logit_bias_factors(span.sequence.job)
        biased = None
        if factors is not None:
            biased = np.empty((len(factors), end - begin), np.float32)
        _native.score_tokens(
            self._api,
            self._open.address,
            self.n_vocab,
            np.arange(segment.offset, segment.offset + end - begin, dtype=np.int32),
            strand.tokens[begin + 1 : end + 1],
            self._n_threads,
            out.scored[rows],
            part(out.entropy),
            part(out.top_token),
            part(out.top_log_prob),
            out.expected,
            factors,
            biased,
        )
        if biased is not None:
            if span.sequence.job.logit_bias:
                out.scored[rows], biased = biased[-1], biased[:-1]
            if out.biased is not None:
                out.biased[:, rows] = biased
        if not np.isfinite(out.scored[rows]).all():
            raise ModelError(_NOT_NUMBERS.format("log-probabilities"))

    def _logit_bias_factors(self, job: ScoreRequest) -> NDArray[np.float32] | None:
        """Exp of everything that is added to the logits, the bias last: (bias, n_vocab).

        Made anew only where it is not that of the pass before: it is as large as rows of logits.
        """
        if self._factors is not None:
            latest, factors = self._factors
            if latest.biases is job.biases and latest.logit_bias == job.logit_bias:
                return factors
        factors = self._new_logit_bias_factors(job)
        self._factors = job, factors
        return factors

    def _new_logit_bias_factors(self, job: ScoreRequest) -> NDArray[np.float32] | None:
        biases = [] if job.biases is None else list(job.biases)
        if job.logit_bias:
            bias = np.zeros(self.n_vocab, np.float32)
            bias[list(job.logit_bias)] = list(job.logit_bias.values())
            biases.append(bias)
        return np.exp(np.stack(biases), dtype=np.float32) if biases else None

    def _set_control(self, control: ControlVector | None) -> None:
        if control is not None or self._steered:
            self._steered = True  # should this be interrupted
            set_control_vector(self._open.address, self._llama.model, control)
        self._steered = control is not None

    def _probe(self) -> None:
        """Find out whether residual rows can be read and are where they should be, and are steered.

        A vector added to one block must show up, exactly, in that block's rows and in no row before
        the first steered one.
        """
        name = self._llama.metadata.get("general.architecture", "unknown")
        layers = tuple(range(self.n_layer))
        context, response = [1 % self.n_vocab, 2 % self.n_vocab], [3 % self.n_vocab]
        try:
            plain = self.run(ScoreRequest(context, response, layers=layers)).captured
        except ModelError as error:
            raise ModelError(
                f"The architecture '{name}' does not expose its residual stream in this llama.cpp, "
                f"so nothing can be learned from it. {error}"
            ) from error
        if self.n_layer < 2:
            raise ModelError(
                f"A model of {self.n_layer} layer(s) has no block that can be steered."
            )
        layer = self.n_layer // 2
        vector = np.linspace(-1, 1, self.n_embd, dtype=np.float32) * np.abs(plain[layer]).max()
        added = (Add((layer,), vector[None]),)
        steered = self.run(
            ScoreRequest(context, response, layers=layers, interventions=added)
        ).captured
        moved = steered[layer] - plain[layer]
        if not np.allclose(moved, vector, atol=1e-3 * np.abs(vector).max()) or not np.allclose(
            steered[:layer], plain[:layer], rtol=1e-3, atol=1e-3
        ):
            raise ModelError(
                f"The architecture '{name}' ignores control vectors in this llama.cpp, so it "
                "cannot be steered."
            )


def asked_for(array: NDArray[_Number] | None) -> NDArray[_Number]:
    """What a pass gave, which is there where it was asked for.

    Raises:
        SteerxError: it was not.
    """
    if array is None:
        raise SteerxError("This pass was not asked for that: see the arguments of ScoreRequest.")
    return array


def _empty_result(job: ScoreRequest, n_slots: int, n_embd: int, n_vocab: int) -> ScoreResult:
    n = len(job.response)
    return ScoreResult(
        log_prob=np.empty(n, np.float32) if job.score else None,
        residual=np.zeros((len(job.layers), n_slots, n_embd), np.float32) if job.layers else None,
        entropy=np.empty(n, np.float32) if job.entropy else None,
        top_token=np.empty((n, job.top_k), np.int32) if job.top_k else None,
        top_log_prob=np.empty((n, job.top_k), np.float32) if job.top_k else None,
        expected=np.zeros(n_vocab) if job.expected else None,
        biased=np.empty((len(job.biases), n), np.float32) if job.biases is not None else None,
    )
