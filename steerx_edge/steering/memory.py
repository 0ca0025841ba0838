"""Causal memory: the user's own tokens, looked up by the state of the model that predicts them.

A nearest-neighbour language model (kNN-LM, Khandelwal et al. 2020, arXiv 1911.00172), restricted to
preference-driven tokens by their causal effect (SteerX, arXiv 2510.22256). Each token of the
user's texts, end of turn included, has a key (the final normed row that predicts it), and a
weight s in [0, 1]: how far the user, and not the topic, caused it. With q the key of the token to
come, over the NEIGHBOURS nearest keys k_i:

    w_i  = softmax_i(q . k_i / TEMPERATURE)
    a(v) = sum_i w_i s_i [token_i = v]                    what the memory offers
    z    = strength * gate(max_i q . k_i)                 mixing weight
    p(v) = (1 - z sum_u a(u)) p_model(v) + z a(v)

A neighbour that is topic (s = 0) leaves the prediction as it is, and far from anything the user
has written the gate is closed. Two runs are not completed: one of three tokens that the text being
written holds already, so that a phrase cannot lead back into itself, and one of four tokens that
occurs in one text only, so that no text is recited. And where the text repeats its last six tokens,
the memory offers the end token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from steerx_edge.llamacpp import native
from steerx_edge.steering.ledger import Ledger

Level = Literal["shared", "causal", "all"]
"""What a memory holds of the texts.

"shared": tokens of words that occur in at least two texts, weighted by their causal effect;
"causal": all tokens, weighted by their causal effect; "all": all tokens alike.
"""

LEVELS: tuple[Level, ...] = get_args(Level)
"""From the fewest tokens: see docs/profile.md."""

TEMPERATURE = 0.045
NEIGHBOURS = 64

SINGLE_RUN = 4
"""Length of the runs that are not completed if they occur in one text only."""

DIMENSIONS = 256
"""Of a key, at most."""

_ROWS_A_DIMENSION = 5
"""Fewer rows than this do not tell the variance along a dimension."""

_LEAST_VARIANCE = 1e-4  # of rows of unit length
_CLOSED, _OPEN = 0.3, 0.7  # similarities between which the gate opens
_LOOP = 6  # tokens
_MOST = 0.95
"""The model's own prediction keeps at least a share of 1 - _MOST."""


class KeySpace(NamedTuple):
    """How residual rows become keys: centred, whitened, of unit length.

    Without whitening, the rows before common words are close together in every context.

    Args:
        mean: (n_embd,) of rows of unit length.
        basis: (n_embd, d) principal components, each divided by the standard deviation along it;
            float16 values, as they are stored.
    """

    mean: NDArray[np.float32]
    basis: NDArray[np.float32]

    @classmethod
    def fit(cls, rows: NDArray[np.floating]) -> KeySpace:
        """Of residual rows (n, n_embd), at least one."""
        units = _unit(rows.astype(np.float32))
        mean = units.mean(axis=0)
        centred = _unit(units - mean)
        n_rows, n_embd = centred.shape
        d = max(1, min(DIMENSIONS, n_embd, n_rows // _ROWS_A_DIMENSION))
        variances, components = np.linalg.eigh(centred.T @ centred / n_rows)
        variances, components = variances[::-1][:d], components[:, ::-1][:, :d]
        basis = components / np.sqrt(np.maximum(variances, 0) + _LEAST_VARIANCE)
        return cls(mean, np.ascontiguousarray(basis, np.float16).astype(np.float32))

    def keys(self, rows: NDArray[np.floating]) -> NDArray[np.float32]:
        """(n, d) of residual rows (n, n_embd)."""
        keys = np.empty((len(rows), self.basis.shape[1]), np.float32)
        rows, basis = (np.ascontiguousarray(each, np.float32) for each in (rows, self.basis))
        native.keys_of(rows, self.mean, basis, keys)
        return keys


@dataclass(frozen=True, eq=False)
class Memory:
    """Keys, tokens and weights.

    Args:
        space: how rows become keys.
        keys: (n, d) int8, each a unit vector times a factor of its own.
        tokens: (n,) int32.
        weights: (n,) float32, from 0 to 1.
        single: (r,) uint32, increasing, of the runs of SINGLE_RUN tokens that occur in one text
            only: see `run_hashes`.
        end: the token that ends a text.
        ledger: what further texts are added to, or None where none can be; changes no offers.
    """

    space: KeySpace
    keys: NDArray[np.int8]
    tokens: NDArray[np.int32]
    weights: NDArray[np.float32]
    single: NDArray[np.uint32]
    end: int
    ledger: Ledger | None = None

    def sorted(self) -> Memory:
        """Return the rows by token, then by key: the order of the texts does not show."""
        order = np.lexsort((self.weights, _as_strings(self.keys), self.tokens))
        return replace(
            self,
            keys=self.keys[order],
            tokens=self.tokens[order],
            weights=self.weights[order],
        )

    def equals(self, other: Memory) -> bool:
        """Whether all arrays are the same."""
        if self.ledger is None or other.ledger is None:
            same_ledger = self.ledger is other.ledger
        else:
            same_ledger = self.ledger.equals(other.ledger)
        return same_ledger and all(
            np.array_equal(own, others)
            for own, others in (
                (self.space.mean, other.space.mean),
                (self.space.basis, other.space.basis),
                (self.keys, other.keys),
                (self.tokens, other.tokens),
                (self.weights, other.weights),
                (self.single, other.single),
                (self.end, other.end),
            )
        )

    @cached_property
    def _scales(self) -> NDArray[np.float32]:
        """(n,) factors that make the keys unit vectors."""
        squares = np.einsum("ij,ij->i", self.keys, self.keys, dtype=np.float32)
        scales: NDArray[np.float32] = 1 / np.sqrt(np.maximum(squares, 1))
        return scales

    def offers(self, rows: NDArray[np.floating]) -> Offers:
        """What the memory offers after each of the residual rows (T, n_embd)."""
        shape = (len(rows), min(NEIGHBOURS, len(self.keys)))
        nearest, similarity = np.empty(shape, np.int64), np.empty(shape, np.float32)
        native.nearest_keys(self.keys, self._scales, self.space.keys(rows), nearest, similarity)
        shares, gates = np.empty(shape, np.float32), np.empty(len(rows), np.float32)
        native.weigh(similarity, self.weights[nearest], TEMPERATURE, _CLOSED, _OPEN, shares, gates)
        return Offers(self.tokens[nearest], shares, gates, self)


class Offers(NamedTuple):
    """What a memory offers after each of T rows, before its strength.

    Args:
        tokens: (T, k), a token may occur several times.
        shares: (T, k) of the next token's probability.
        gates: (T,) from 0 to 1.
        memory: whose offers they are.
    """

    tokens: NDArray[np.int32]
    shares: NDArray[np.float32]
    gates: NDArray[np.float32]
    memory: Memory

    def of_text(self, text: Sequence[int]) -> TextOffers:
        """What the tokens of a text are given that these rows predict."""
        own, total, gates = (np.empty(len(text), np.float32) for _ in range(3))
        written = np.asarray(text, np.int32)
        for row, token in enumerate(text):
            tokens, shares, gates[row] = self.after(written[:row], row)
            own[row], total[row] = shares[tokens == token].sum(), shares.sum()
        return TextOffers(own, total, gates)

    def after(
        self, text: NDArray[np.int32], row: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], np.float32]:
        """What is left of a row's offer after a text: (k,) tokens and shares, and the gate.

        Args:
            text: the tokens so far, without what they answer.
            row: which offer.
        """
        if native.ends_in_a_repeat(text, _LOOP):
            return np.array([self.memory.end], np.int32), np.ones(1, np.float32), np.float32(1)
        tokens, shares = self.tokens[row], self.shares[row].copy()
        native.leave_out_runs(text, self.memory.single, SINGLE_RUN, tokens, shares)
        return tokens, shares, self.gates[row]


class TextOffers(NamedTuple):
    """What a memory offers a text of T tokens; no pass is needed to score it at any strength.

    Args:
        own: (T,) the share of the token that the text goes on with.
        total: (T,) of all tokens.
        gates: (T,) from 0 to 1.
    """

    own: NDArray[np.float32]
    total: NDArray[np.float32]
    gates: NDArray[np.float32]

    def log_prob(self, log_prob: NDArray[np.float32], strength: float) -> NDArray[np.float32]:
        """(T,) nats under the mixture, from the model's own."""
        weight = _mixing_weight(self.gates, strength)
        model = np.log1p(-weight * self.total) + log_prob
        with np.errstate(divide="ignore"):
            mixed: NDArray[np.float32] = np.logaddexp(model, np.log(weight * self.own))
        return mixed.astype(np.float32)


@dataclass(frozen=True)
class ActiveMemory:
    """A memory at a strength, as it is mixed into predictions.

    Args:
        memory: what is looked up.
        strength: 0 changes nothing.
    """

    memory: Memory
    strength: float

    def log_prob(
        self,
        rows: NDArray[np.floating],
        text: Sequence[int],
        log_prob: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """The mixture's log-probabilities of a text, (T,) nats.

        Args:
            rows: (T, n_embd) final normed rows that predict the text's tokens.
            text: T tokens.
            log_prob: (T,) the model's own.
        """
        if not len(text):
            return log_prob
        return self.memory.offers(rows).of_text(text).log_prob(log_prob, self.strength)

    def shift(
        self,
        row: NDArray[np.floating],
        before: Sequence[int] | NDArray[np.integer],
        logits: NDArray[np.float32],
    ) -> None:
        """Change the logits of the next token in place, so that they give the mixture.

        Args:
            row: (n_embd,) the final normed row that predicts it.
            before: the tokens of the text so far, without what it answers.
            logits: (n_vocab,), which may lie apart, as in a field of a record array.
        """
        offers = self.memory.offers(row[None])
        tokens, shares, gate = offers.after(np.asarray(before, np.int32), 0)
        weight = float(_mixing_weight(gate, self.strength))
        native.mix(logits, tokens, shares, weight)


def hashes_of(tokens: NDArray[np.integer]) -> NDArray[np.uint32]:
    """Hashes of a text's runs that hold no token below 0, increasing."""
    if len(tokens) < SINGLE_RUN:
        return np.empty(0, np.uint32)
    runs = np.lib.stride_tricks.sliding_window_view(tokens, SINGLE_RUN)
    return np.unique(run_hashes(runs[(runs >= 0).all(axis=1)]))


def run_hashes(runs: NDArray[np.integer]) -> NDArray[np.uint32]:
    """(r,) hashes of runs of tokens (r, SINGLE_RUN)."""
    hashes = np.empty(len(runs), np.uint32)
    native.run_hashes(np.ascontiguousarray(runs, np.int32), hashes)
    return hashes


def _as_strings(keys: NDArray[np.int8]) -> NDArray[np.bytes_]:
    """For sorting: strings compare from the first byte on."""
    strings: NDArray[np.bytes_] = np.ascontiguousarray(keys).view(f"S{keys.shape[1]}")[:, 0]
    return strings


def _mixing_weight(gates: NDArray[np.float32] | np.float32, strength: float) -> NDArray[np.float32]:
    weight: NDArray[np.float32] = np.minimum(
        np.float32(strength) * np.asarray(gates), np.float32(_MOST)
    )
    return weight


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    squares = np.einsum("ij,ij->i", rows, rows)[:, np.newaxis]
    units: NDArray[np.float32] = rows / np.sqrt(np.maximum(squares, np.finfo(np.float32).tiny))
    return units
