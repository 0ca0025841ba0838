"""The plan of passes over a tree of prefixes: what is computed once, together, and in which order.

Passes that begin with the same tokens share them: a token that stands in several sequences is
evaluated once, as a member of all of them. The tree is never built. Sorted by their tokens, passes
with a common prefix stand side by side, and a prefix belongs to a run of neighbours. Long prefixes
that are wanted under several changes are sorted before the changes, short ones after.

Nothing here knows llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_KIND = 32
"""Tokens that are evaluated in the time that a group loses to being small."""


@dataclass(frozen=True)
class PlannedSequence:
    """What planning needs to know of one pass.

    Args:
        tokens: (n,) int32.
        body: where the part begins that is this pass's own: rows that are read, scored or changed
            in a way that other passes are not. Tokens before it fill the KV cache only.
        shareable: so many tokens, at most `body`, may be shared with other sequences.
        outputs: the rows of the body need logits, or the last block to be computed for them.
        depth: how many blocks are computed; sequences of different ones share nothing.
        change: sequences of different ones do not run side by side, but may share.
        growth: KV cells that it will need beside those of its tokens.
    """

    tokens: NDArray[np.int32]
    body: int
    shareable: int
    outputs: bool = False
    depth: int = 0
    change: int = 0
    growth: int = 0

    @property
    def kind(self) -> tuple[int, int]:
        """Sequences of one kind run side by side."""
        return self.depth, self.change


@dataclass(frozen=True)
class Limits:
    """What fits.

    Args:
        sequences: how many run side by side.
        cells: tokens in the KV cache at a time.
        group: tokens that a group evaluates, where it has several sequences.
        call: tokens of one decode call.
        outputs: output rows of one decode call.
    """

    sequences: int
    cells: int
    group: int
    call: int
    outputs: int


class Segment(NamedTuple):
    """Consecutive tokens of one sequence within a decode call.

    They belong to the sequences `first`..`last` of the group, all of which begin with them; what
    is asked for of their rows, the sequence of `first` tells.
    """

    first: int
    last: int
    begin: int
    end: int
    offset: int  # of `begin` in the call


class Restored(NamedTuple):
    """A stored prefix that a sequence of the group begins with."""

    number: int
    n_tokens: int
    followers: tuple[tuple[int, int], ...]  # the sequences that share it, and how many tokens of it


@dataclass(frozen=True)
class Group:
    """Sequences that run side by side; number k is sequence k.

    Args:
        members: indices of the sequences.
        kept: for each, how many tokens it takes over from the last sequence of the group before.
        restored: stored prefixes, which are not evaluated.
        calls: the decode calls, in order: those that fill the KV cache, then those of the bodies.
        n_filling: how many of the calls fill the KV cache only.
    """

    members: tuple[int, ...]
    kept: tuple[int, ...]
    restored: tuple[Restored, ...]
    calls: tuple[tuple[Segment, ...], ...]
    n_filling: int


def plan(
    sequences: Sequence[PlannedSequence],
    limits: Limits,
    stored: Callable[[NDArray[np.int32]], int] = lambda _tokens: 0,
) -> Iterator[Group]:
    """Groups that evaluate every sequence, each shared prefix once.

    A sequence runs in one group; a long prefix is kept from group to group. The order depends on
    the sequences alone.

    Args:
        sequences: in any order.
        limits: of a group and a decode call.
        stored: how many of the first of these tokens are stored, and need no evaluation; asked
            while the groups are run.
    """
    members: list[_Member] = []
    n_tokens = n_cells = 0
    last: int | None = None
    for i in _order(sequences):
        sequence = sequences[i]
        common = 0 if last is None else _common(sequences[last], sequence)
        found = stored(sequence.tokens[: sequence.shareable])
        member = _Member(i, common, 0) if found <= common else _Member(i, 0, found)
        cells = len(sequence.tokens) - member.shared
        new = cells - member.stored
        if members and (
            len(members) == limits.sequences
            or sequence.kind != sequences[members[0].place].kind
            or n_cells + cells + sequence.growth > limits.cells
            or n_tokens + new > limits.group
        ):
            yield _group(sequences, members, limits)
            members = []
        if not members:
            n_tokens, n_cells = 0, member.shared
        members.append(member)
        n_tokens += new
        n_cells += cells + sequence.growth
        last = i
    if members:
        yield _group(sequences, members, limits)


def _order(sequences: Sequence[PlannedSequence]) -> list[int]:
    """Change by change, many sequences side by side; or prefix by prefix, each under all changes.

    The latter evaluates a prefix once for all of them, but in smaller calls.
    """
    prefixes = [each.tokens[: each.shareable].astype(">i4").tobytes() for each in sequences]
    by_change, by_prefix = (
        sorted(range(len(sequences)), key=key)
        for key in (
            lambda i: (*sequences[i].kind, prefixes[i], i),
            lambda i: (sequences[i].depth, prefixes[i], sequences[i].change, i),
        )
    )
    return min(by_change, by_prefix, key=lambda order: _cost(sequences, order))


def _cost(sequences: Sequence[PlannedSequence], order: Sequence[int]) -> int:
    """Tokens that are evaluated, and what it takes to change from one kind to another."""
    cost = 0
    for before, i in pairwise(order):
        cost -= _common(sequences[before], sequences[i])
        cost += _KIND * (sequences[before].kind != sequences[i].kind)
    return cost


def _common(one: PlannedSequence, other: PlannedSequence) -> int:
    """How many tokens two sequences can share."""
    if one.depth != other.depth:
        return 0
    n = min(one.shareable, other.shareable)
    different = np.flatnonzero(one.tokens[:n] != other.tokens[:n])
    return int(different[0]) if len(different) else n


class _Member(NamedTuple):
    """A sequence of a group: what it begins with and need not evaluate."""

    place: int  # of the sequence
    shared: int  # tokens, with the sequence before it
    stored: int  # tokens; if any, it shares none


def _group(
    sequences: Sequence[PlannedSequence], members: Sequence[_Member], limits: Limits
) -> Group:
    shared = [member.shared for member in members]
    filling = _Calls(limits)
    bodies = _Calls(limits)
    for number, member in enumerate(members):
        sequence = sequences[member.place]
        begin = member.shared + member.stored
        # The prefix goes to fewer and fewer of the sequences that follow.
        while begin < sequence.body:
            last = number
            end = sequence.body
            for follower in range(number + 1, len(members)):
                if shared[follower] <= begin:
                    break
                last = follower
                end = min(end, shared[follower])
            filling.add(number, last, begin, end, outputs=False)
            begin = end
        bodies.add(number, number, sequence.body, len(sequence.tokens), outputs=sequence.outputs)
    return Group(
        tuple(member.place for member in members),
        tuple(int(n) for n in np.minimum.accumulate(shared)),
        tuple(
            Restored(number, member.stored, _followers(shared, number, member.stored))
            for number, member in enumerate(members)
            if member.stored
        ),
        (*filling.finished(), *bodies.finished()),
        len(filling.finished()),
    )


def _followers(shared: Sequence[int], number: int, n_tokens: int) -> tuple[tuple[int, int], ...]:
    """The sequences that share the first tokens of one, and how many of `n_tokens`."""
    after = np.minimum.accumulate([n_tokens, *shared[number + 1 :]])[1:]
    return tuple((number + 1 + k, int(n)) for k, n in enumerate(after) if n)


class _Calls:
    """Packs segments into decode calls."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._calls: list[list[Segment]] = []
        self._size = self._n_outputs = 0

    def add(self, first: int, last: int, begin: int, end: int, *, outputs: bool) -> None:
        while begin < end:
            room = self._limits.call - self._size
            if outputs:
                room = min(room, self._limits.outputs - self._n_outputs)
            if room <= 0 or not self._calls:
                self._calls.append([])
                self._size = self._n_outputs = 0
                continue
            cut = min(end, begin + room)
            self._calls[-1].append(Segment(first, last, begin, cut, self._size))
            self._size += cut - begin
            if outputs:
                self._n_outputs += cut - begin
            begin = cut

    def finished(self) -> tuple[tuple[Segment, ...], ...]:
        return tuple(map(tuple, self._calls))
