"""Requests to the analysis context, and their results.

`layer` is always the 0-based block whose output is meant: llama.cpp's `l_out-<layer>`.

Rows of a pass: the response of T tokens has T + 1 rows. Row r *predicts* response token r (r < T)
and lies *at* response token r - 1 (r > 0); row 0 is the last token of the context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from steerx_edge.errors import ModelError, SteerxError
from steerx_edge.llamacpp.interventions import Intervention

INPUT_LAYER = -1
"""Stands for the input of block 0 among the layers that are read."""

HookPoint: TypeAlias = Literal["l_out", "attn_out", "ffn_out"]

_Number = TypeVar("_Number", bound=np.generic)


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
        interventions: as of ScoreRequest; their positions are "all" or "generated".
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


class Dimensions(NamedTuple):
    """What a request must fit.

    Args:
        n_ctx: tokens of the analysis context.
        n_layer: blocks of the model.
        n_embd: numbers of a row of the residual stream.
        n_vocab: tokens of the vocabulary.
    """

    n_ctx: int
    n_layer: int
    n_embd: int
    n_vocab: int


def asked_for(array: NDArray[_Number] | None) -> NDArray[_Number]:
    """Return a result that the request asked for.

    Raises:
        SteerxError: it was not.
    """
    if array is None:
        raise SteerxError("The ScoreRequest did not ask for this result: see its arguments.")
    return array


def check(request: ScoreRequest, dimensions: Dimensions) -> None:
    """Check a request before it runs.

    Raises:
        ModelError: the request asks for nothing, does not fit, or asks for what the model lacks.
    """
    if not request.context:
        raise ModelError("A pass needs at least one token before its response.")
    if not (request.score or request.layers or request.final):
        raise ModelError("A pass must score tokens or read layers or final rows.")
    _check_scores(request, dimensions.n_vocab)
    _check_layers(request, dimensions.n_layer)
    length = len(request.context) + len(request.response)
    if length > dimensions.n_ctx:
        raise ModelError(
            f"A pass of {length} tokens does not fit the analysis context of {dimensions.n_ctx}. "
            "Shorten the text or raise n_ctx."
        )
    n_rows = len(request.response) + 1
    if request.weights is not None and request.weights.shape[1:] != (n_rows,):
        raise ModelError(f"weights have shape {request.weights.shape}, expected (slot, {n_rows}).")


def _check_scores(request: ScoreRequest, n_vocab: int) -> None:
    if not all(0 <= token < n_vocab for token in request.logit_bias):
        raise ModelError("The logit bias holds tokens that are not in the vocabulary.")
    needs_scores = (
        request.entropy
        or request.top_k
        or request.expected
        or request.logit_bias
        or request.memory is not None
        or request.biases is not None
    )
    if needs_scores and not request.score:
        raise ModelError(
            "Entropy, top and expected tokens, logit biases and a memory need scores: set `score`."
        )
    if request.biases is not None and request.biases.shape[1:] != (n_vocab,):
        raise ModelError(
            f"logit biases have shape {request.biases.shape}, expected (bias, {n_vocab})."
        )
    if request.top_k < 0 or request.top_k > n_vocab:
        raise ModelError(f"top_k is {request.top_k}, and the vocabulary has {n_vocab} tokens.")


def _check_layers(request: ScoreRequest, n_layer: int) -> None:
    layers = list(request.layers)
    known = set(range(INPUT_LAYER if request.hook_point == "l_out" else 0, n_layer))
    if layers != sorted(set(layers)) or not set(layers) <= known:
        raise ModelError(
            f"Layers {layers} cannot be read: name increasing ones, 0 to {n_layer - 1}."
        )
    for each in request.interventions:
        if not set(each.layers) <= set(range(n_layer)):
            raise ModelError(
                f"Layers {list(each.layers)} cannot be changed: this model has 0 to {n_layer - 1}."
            )
