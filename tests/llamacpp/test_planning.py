"""The plan: every token of every sequence, each shared one once, within the limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from steerx_edge.llamacpp.planning import Group, Limits, PlannedSequence, plan

ROOMY = Limits(sequences=8, cells=1000, group=1000, call=1000, outputs=1000)


def sequence(tokens: str, body: int, **options: int | bool) -> PlannedSequence:
    """Letters are tokens; all before the body may be shared."""
    values = np.frombuffer(tokens.encode(), np.uint8).astype(np.int32)
    return PlannedSequence(values, body=body, **({"shareable": body} | options))  # type: ignore[arg-type]


def nothing_stored(_tokens: NDArray[np.int32]) -> int:
    return 0


def replay(
    sequences: Sequence[PlannedSequence],
    limits: Limits,
    stored: Callable[[NDArray[np.int32]], int] = nothing_stored,
) -> tuple[list[Group], int]:
    """Carry a plan out on letters, and check all that must hold; groups and tokens evaluated."""
    groups = list(plan(sequences, limits, stored))
    done: list[int] = []
    cache: list[list[tuple[int, int]]] = []  # of each sequence: (token, who evaluated it)
    n_evaluated = 0
    for group in groups:
        members = [sequences[i] for i in group.members]
        done += group.members
        assert 1 <= len(members) <= limits.sequences
        assert len({each.kind for each in members}) == 1
        assert list(group.kept) == sorted(group.kept, reverse=True)
        cache = [cache[-1][:n] if n else [] for n in group.kept]
        for number, n_tokens, followers in group.restored:
            tokens = members[number].tokens[: members[number].shareable]
            assert not cache[number]
            assert n_tokens == stored(tokens)
            cache[number] = [(int(token), -1 - number) for token in tokens[:n_tokens]]
            for follower, n_shared in followers:
                assert not cache[follower]
                cache[follower] = cache[number][:n_shared]
        cells = {cell for cells in cache for cell in enumerate(cells)}
        for number, call in enumerate(group.calls):
            size = n_outputs = 0
            assert call
            for part in call:
                owner = members[part.first]
                assert part.begin < part.end
                assert part.offset == size
                assert (part.begin >= owner.body) == (number >= group.n_filling)
                assert part.end <= owner.body or part.first == part.last
                size += part.end - part.begin
                n_outputs += (part.end - part.begin) * (owner.outputs and part.begin >= owner.body)
                for place in range(part.begin, part.end):
                    cell = (int(owner.tokens[place]), n_evaluated)
                    n_evaluated += 1
                    cells.add((place, cell))
                    for k in range(part.first, part.last + 1):
                        assert len(cache[k]) == place  # positions follow each other
                        assert part.first == part.last or place < members[k].shareable
                        cache[k].append(cell)
            assert size <= limits.call
            assert n_outputs <= limits.outputs
        for each, got in zip(members, cache, strict=True):
            assert [token for token, _ in got] == each.tokens.tolist()
        assert len(cells) <= max(limits.cells, *(len(each.tokens) for each in members))
    assert sorted(done) == list(range(len(sequences)))
    return groups, n_evaluated


def n_distinct(sequences: Sequence[PlannedSequence]) -> int:
    """Tokens of the tree of prefixes, counted the plain way."""
    prefixes = set()
    n_own = 0
    for each in sequences:
        n_own += len(each.tokens) - each.shareable
        for n in range(each.shareable):
            prefixes.add((each.depth, tuple(each.tokens[: n + 1].tolist())))
    return n_own + len(prefixes)


def test_nothing() -> None:
    assert list(plan([], ROOMY)) == []


def test_a_sequence_alone() -> None:
    (group,), n_evaluated = replay([sequence("abcde", 3)], ROOMY)
    assert n_evaluated == 5
    assert group.n_filling == 1
    assert [len(call) for call in group.calls] == [1, 1]
    (group,), _ = replay([sequence("abc", 0)], ROOMY)
    assert group.n_filling == 0


def test_a_prefix_is_evaluated_once() -> None:
    _, n_evaluated = replay([sequence("abcX", 3), sequence("abcY", 3), sequence("abZ", 2)], ROOMY)
    assert n_evaluated == 3 + 1 + 1 + 1


def test_a_prefix_is_kept_from_group_to_group() -> None:
    limits = Limits(sequences=2, cells=1000, group=1000, call=1000, outputs=1000)
    sequences = [sequence("abcdef" + chr(80 + i), 6) for i in range(7)]
    groups, n_evaluated = replay(sequences, limits)
    assert len(groups) == 4
    assert n_evaluated == 6 + 7


def test_what_is_stored_is_not_evaluated() -> None:
    sequences = [sequence("abcX", 3), sequence("abcY", 3), sequence("abZ", 2)]
    (group,), n_evaluated = replay(sequences, ROOMY, lambda tokens: min(2, len(tokens)))
    assert len(group.restored) == 1  # and shared
    assert n_evaluated == 1 + 1 + 1 + 1


def test_equal_tokens_beyond_the_shareable_are_evaluated_twice() -> None:
    _, n_evaluated = replay([sequence("abcd", 3, shareable=1), sequence("abcd", 3)], ROOMY)
    assert n_evaluated == 4 + 3


def test_depths_share_nothing_and_changes_run_apart() -> None:
    groups, n_evaluated = replay([sequence("abX", 2), sequence("abY", 2, depth=1)], ROOMY)
    assert (len(groups), n_evaluated) == (2, 6)
    groups, n_evaluated = replay([sequence("abX", 2), sequence("abY", 2, change=1)], ROOMY)
    assert (len(groups), n_evaluated) == (2, 4)


@pytest.mark.parametrize(("n", "n_groups", "n_evaluated"), [(100, 4, 204), (10, 2, 44)])
def test_long_prefixes_are_shared_by_changes_and_short_ones_run_side_by_side(
    n: int, n_groups: int, n_evaluated: int
) -> None:
    sequences = [
        sequence(letter * n + "X", n, change=change) for change in range(2) for letter in "ab"
    ]
    groups, evaluated = replay(sequences, ROOMY)
    assert (len(groups), evaluated) == (n_groups, n_evaluated)


def test_a_sequence_longer_than_a_group_runs_alone() -> None:
    limits = Limits(sequences=8, cells=20, group=5, call=4, outputs=3)
    groups, _ = replay([sequence("abcdefghij", 4, outputs=True), sequence("x", 0)], limits)
    assert len(groups) == 2


def test_room_is_left_for_what_grows() -> None:
    limits = Limits(sequences=8, cells=20, group=1000, call=100, outputs=100)
    groups, _ = replay([sequence("abcd", 3, growth=5), sequence("wxyz", 3, growth=5)], limits)
    assert len(groups) == 1
    groups, _ = replay([sequence("abcd", 3, growth=7), sequence("wxyz", 3, growth=6)], limits)
    assert len(groups) == 2


@pytest.mark.parametrize("seed", range(40))
def test_random_trees(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def draw(low: int, high: int) -> int:
        return int(rng.integers(low, high))

    limits = Limits(draw(1, 6), cells=60, group=draw(1, 80), call=draw(1, 40), outputs=draw(1, 20))
    letters = list("abc")[: draw(1, 4)]  # few, so that beginnings are often the same
    sequences = []
    for _ in range(draw(1, 25)):
        n = draw(1, 30)
        body = draw(0, n)
        sequences.append(
            sequence(
                "".join(rng.choice(letters, n)),
                body,
                shareable=draw(0, body + 1) if rng.random() < 0.3 else body,
                outputs=bool(rng.random() < 0.7),
                depth=draw(0, 2),
                change=draw(0, 2) if seed % 2 else 0,
            )
        )
    groups, n_evaluated = replay(sequences, limits)
    if seed % 2 == 0:
        assert n_evaluated == n_distinct(sequences)
    assert list(plan(sequences, limits)) == groups

    def stored(tokens: NDArray[np.int32]) -> int:
        return min(len(tokens), 2 * (int(tokens[0]) % 3)) if len(tokens) else 0

    _, n_less = replay(sequences, limits, stored)
    assert n_less <= n_evaluated
