"""Reads the residual stream, scores tokens, looks up a memory. Private to the package.

Arrays are C-contiguous. Those that are filled belong to the caller, and hold no memory of
llama.cpp's; those that are only read may be changed after `arm`, make_* and score_tokens. An
address of a llama_context must be that of an open one. Rows of the residual stream are in its own
units, probabilities and entropies in nats.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

class LlamaApi:
    """The functions of llama.cpp that are called, found at run time.

    Threads may share it. The libraries must stay loaded.
    """

    def __init__(self, libraries: Sequence[int]) -> None:
        """Look them up in loaded libraries, given as handles of dlopen or LoadLibrary.

        Raises:
            RuntimeError: naming a missing function.
        """

class Intervention:
    """A change to rows of the residual stream, made by one of the make_* functions.

    Nothing changes it, so passes and threads may share it. What uses it keeps it alive.
    """

    @property
    def width(self) -> int:
        """Length of the rows that it can be applied to."""

def make_add(layers: Sequence[int], vectors: NDArray[np.float32]) -> Intervention:
    """Add to a row: row += vector; vectors: (layer, n_embd)."""

def make_set_component(
    layers: Sequence[int], directions: NDArray[np.float32], values: Sequence[float]
) -> Intervention:
    """Set the component along unit directions (layer, n_embd) to values (layer,)."""

def make_rotate(
    layers: Sequence[int], directions: NDArray[np.float32], angle: float
) -> Intervention:
    """Turn by `angle` radians towards unit directions (layer, n_embd), keeping the length."""

def make_gate(
    inner: Intervention, layers: Sequence[int], conditions: NDArray[np.float32], threshold: float
) -> Intervention:
    """Apply `inner` only where cos(row, condition) > threshold; conditions: (layer, n_embd)."""

def make_clamp(inner: Intervention, share: float) -> Intervention:
    """Shorten the change of `inner` to at most `share` of the row's length."""

class Read:
    """What to read during a decode call.

    values[l, slots[i]] += weights[i] * row rows[i] of `hook_point` at layers[l].

    Args:
        hook_point: "l_out", "attn_out" or "ffn_out".
        layers: 0-based blocks, strictly increasing; -1 is the input of block 0, n_layer the output
            of the last norm.
        rows: (pick,) rows of the batch.
        slots: (pick,) where each is added to.
        weights: (pick,).
        values: (layer, slot, n_embd) float32, C-contiguous; kept alive until the pass ends.
    """

    def __init__(
        self,
        hook_point: str,
        layers: Sequence[int],
        rows: NDArray[np.int32],
        slots: NDArray[np.int32],
        weights: NDArray[np.float32],
        values: NDArray[np.float32],
    ) -> None: ...

class Write:
    """What to change during a decode call.

    Args:
        intervention: the change; kept alive until the pass ends.
        layers: 0-based blocks, strictly increasing.
        rows: rows of the batch.
    """

    def __init__(
        self, intervention: Intervention, layers: Sequence[int], rows: Sequence[int]
    ) -> None: ...

class ResidualHooks:
    """An eval callback that reads and changes rows.

    It must live as long as the context evaluates batches: llama.cpp knows nothing but its address.
    A pass is `arm`, one decode call, and `finish` or `cancel`; nothing else may be called on it
    from another thread meanwhile. The decode call may run without the GIL, which the callback never
    takes.

    Args:
        api: the functions; copied.
        n_layer: blocks of the model.
        n_embd: length of a residual row.
    """

    callback: int
    """Address for llama_context_params.cb_eval."""

    def __init__(self, api: LlamaApi, n_layer: int, n_embd: int) -> None: ...
    @property
    def user_data(self) -> int:
        """Address for llama_context_params.cb_eval_user_data; valid as long as this object."""

    def arm(
        self,
        tokens: NDArray[np.int32],
        output_row: NDArray[np.int32],
        writes: Sequence[Write],
        reads: Sequence[Read],
        stop_after_last_layer: bool,
    ) -> None:
        """Follow the next decode call, of at most one micro-batch.

        The arrays that `reads` fill are kept alive until `finish` or `cancel`.

        Args:
            tokens: (n_tokens,) the batch, to check the order in which llama.cpp computes it.
            output_row: (n_tokens,) place of each token among the batch's outputs, or -1.
            writes: applied in this order, before anything is read.
            reads: what is read.
            stop_after_last_layer: end the pass after the last layer read, without logits.

        Raises:
            ValueError: the arrays do not fit each other or the model.
            RuntimeError: it is at work already.
        """

    def finish(self) -> None:
        """End the pass, and let go of its arrays, which then hold what was read.

        Raises:
            RuntimeError: what went wrong inside the callback, a layer that never came by, or an
                order of the tokens that could not be checked.
        """

    def cancel(self) -> None:
        """End the pass without a complaint; what its arrays hold is undefined. Safe to repeat."""

def score_tokens(
    api: LlamaApi,
    context: int,
    *,
    n_vocab: int,
    batch_index: NDArray[np.int32],
    target: NDArray[np.int32],
    n_threads: int,
    log_prob: NDArray[np.float32],
    entropy: NDArray[np.float32] | None = None,
    top_token: NDArray[np.int32] | None = None,
    top_log_prob: NDArray[np.float32] | None = None,
    expected: NDArray[np.float64] | None = None,
    bias_factors: NDArray[np.float32] | None = None,
    biased: NDArray[np.float32] | None = None,
) -> None:
    """Log-probabilities of `target` at the outputs `batch_index` of the last decode, in nats.

    The GIL is released, and no logits are copied: until it returns, nothing else may use the
    context or the arrays.

    Args:
        api: the functions.
        context: address of the llama_context.
        n_vocab: size of its vocabulary.
        batch_index: (row,) places in the last batch that asked for logits.
        target: (row,) tokens.
        n_threads: rows are spread over so many threads.
        log_prob: (row,) filled.
        entropy: (row,) filled, if given.
        top_token: (row, top_k) filled with the most probable tokens, best first, if given.
        top_log_prob: (row, top_k) filled, if given.
        expected: (n_vocab,) added to: the sum over the rows of the predicted distributions.
        bias_factors: (bias, n_vocab) above 0: exp of what a logit bias adds to the logits.
        biased: (bias, row) filled with log p(target) under each logit bias, with `bias_factors`.

    Raises:
        IndexError: a row has no logits, or a target is not in the vocabulary.
        ValueError: the arrays do not fit each other.
    """

def nearest_keys(
    keys: NDArray[np.int8],
    scales: NDArray[np.float32],
    queries: NDArray[np.float32],
    places: NDArray[np.int64],
    similarities: NDArray[np.float32],
) -> None:
    """The k keys of the largest product with each query, nearest first, equal ones by place.

    Every key is compared, on the calling thread, without the GIL. Similarities are exact to
    float32. Which keys are taken is decided with queries of 16 bits, so that one left out may be
    nearer than one taken, by 2 sum_j |key_j| * scale * max_j |query_j| / 65534 at most; beyond
    d = 512 with fewer bits, so that sums fit 32. A query gets the same in any company. One that is
    not finite is like no key: its similarities are 0.

    Args:
        keys: (n, d); may be a read-only view of a file.
        scales: (n,) factors of the keys.
        queries: (query, d).
        places: (query, k) filled with rows of `keys`.
        similarities: (query, k) filled.

    Raises:
        ValueError: the arrays do not fit each other, or k is larger than n.
    """

def keys_of(
    rows: NDArray[np.float32],
    mean: NDArray[np.float32],
    basis: NDArray[np.float32],
    keys: NDArray[np.float32],
) -> None:
    """Make unit vectors along (row / |row| - mean) @ basis, in the same way in any company.

    A row of zeros stays zeros before the mean is taken away, and a key of zeros stays one. The GIL
    is released.

    Args:
        rows: (row, n_embd).
        mean: (n_embd,), at least one number.
        basis: (n_embd, d).
        keys: (row, d) filled.

    Raises:
        ValueError: the arrays do not fit each other.
    """

def weigh(
    similarities: NDArray[np.float32],
    weights: NDArray[np.float32],
    temperature: float,
    closed_at: float,
    open_at: float,
    shares: NDArray[np.float32],
    gates: NDArray[np.float32],
) -> None:
    """Fill shares with softmax(similarities / temperature) * weights, and the gates.

    Args:
        similarities: (row, k), nearest first, at least one.
        weights: (row, k).
        temperature: above 0.
        closed_at: the highest similarity up to which a gate is 0.
        open_at: that from which it is 1; between them it rises evenly.
        shares: (row, k) filled.
        gates: (row,) filled.

    Raises:
        ValueError: the arrays do not fit each other.
    """

def mix(
    logits: NDArray[np.float32],
    tokens: NDArray[np.int32],
    shares: NDArray[np.float32],
    weight: float,
) -> None:
    """Change logits so that they give a mixture of their softmax p with what is offered.

    It is (1 - weight * sum(shares)) p(v) + weight * sum_i shares_i [tokens_i = v]. Only the
    logits of the tokens change, as the others keep their ratios. The GIL is released.

    Args:
        logits: (n_vocab,), changed; alone among the arrays it may have gaps.
        tokens: (k,), each may stand in several places.
        shares: (k,) not below 0; times `weight` they sum to less than 1.
        weight: without effect unless above 0.

    Raises:
        IndexError: a token is not in the vocabulary. No logit has changed.
        ValueError: the arrays do not fit each other, or the logits lie backwards or in one place.
    """

def run_hashes(runs: NDArray[np.int32], hashes: NDArray[np.uint32]) -> None:
    """Hash runs of tokens.

    Args:
        runs: (r, length).
        hashes: (r,) filled.

    Raises:
        ValueError: the arrays do not fit each other.
    """

def ends_in_a_repeat(text: NDArray[np.int32], length: int) -> bool:
    """Whether the last `length` tokens of a text (T,) stand earlier in it, too."""

def leave_out_runs(
    text: NDArray[np.int32],
    hashes: NDArray[np.uint32],
    length: int,
    tokens: NDArray[np.int32],
    shares: NDArray[np.float32],
) -> None:
    """Set the shares of tokens to 0 that would complete a run at the end of a text.

    That is one of three tokens that stands in the text, or one of `length` whose hash is known.

    Args:
        text: (T,).
        hashes: (r,) increasing; see `run_hashes`.
        length: of the runs that were hashed, at least 1.
        tokens: (k,).
        shares: (k,) changed.

    Raises:
        ValueError: the arrays do not fit each other, or the length is 0.
    """
