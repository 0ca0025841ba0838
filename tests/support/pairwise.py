"""Fewer cases than a full product: each pair of values of two parameters, once at least."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any


def pairwise(*values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Choose cases so that any two values of two parameters stand in one of them.

    Most faults come from one value or from two that meet; see `Practical Combinatorial Testing`
    (NIST SP 800-142). Always the same cases, in the order of the full product.

    Args:
        values: of each parameter, in the order of importance.
    """

    def pairs_of(case: tuple[int, ...]) -> set[tuple[tuple[int, int], ...]]:
        return set(combinations(enumerate(case), 2))

    cases = list(product(*(range(len(each)) for each in values)))
    missing = {pair for case in cases for pair in pairs_of(case)}
    chosen = set() if missing else set(cases)  # of one parameter every value
    while missing:
        best = max(cases, key=lambda case: len(pairs_of(case) & missing))
        chosen.add(best)
        missing -= pairs_of(best)
    return [tuple(each[i] for each, i in zip(values, case, strict=True)) for case in sorted(chosen)]
