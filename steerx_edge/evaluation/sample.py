"""Who is measured, and with whose texts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal
from zlib import crc32

import numpy as np

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem, User
from steerx_edge.history.reading import has_users, read_history, read_users

STRENGTHS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
"""What a sweep takes, relative to a profile's own."""


@dataclass(frozen=True)
class Plan:
    """What is measured. Equal plans on equal data with equal models give equal figures.

    Args:
        items: use only this many of the latest items; None uses all.
        min_items: users with fewer items are left out, and counted.
        retrieve: past items in the prompt.
        prefix: tokens of past items that every prompt begins with, in arms of their own; 0 leaves
            these out.
        draws: generic profiles for each user; their figures are averaged.
        generate: tokens of a generated text at most; 0 generates none.
        strengths: also score own and generic profiles at these multiples of their strength.
        layers: also learn own profiles at each of these blocks alone.
        item_counts: also learn own profiles from, and retrieve own items for the prompt from, the
            latest items only, each at least 2; for users who have more.
        seed: of the draws of other users, and of the bootstrap.
    """

    items: int | None = None
    min_items: int = 8
    retrieve: int = 4
    prefix: int = 0
    draws: int = 2
    generate: int = 128
    strengths: tuple[float, ...] = ()
    layers: tuple[int, ...] = ()
    item_counts: tuple[int, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Sample:
    """Whose texts are used for what.

    Args:
        name: of the data.
        people: everybody in the data, whose items can be drawn.
        reported: ids of those who are measured.
        left_out: ids of those who were asked for and are not measured, by the reason.
    """

    name: str
    people: tuple[User, ...]
    reported: tuple[str, ...]
    left_out: Mapping[str, tuple[str, ...]]

    @cached_property
    def by_id(self) -> dict[str, User]:
        """Everybody."""
        return {user.id: user for user in self.people}


def read_sample(
    path: str | os.PathLike[str],
    plan: Plan,
    *,
    me: Sequence[str] = (),
    response: str | None = None,
    prompt: str | None = None,
    users: Sequence[str] = (),
    half: Literal["odd", "even"] | None = None,
) -> Sample:
    """Read the data, and choose who is measured.

    Of a file that is one user's, the last fifth of the items is held out, at least one.

    Args:
        path: a per-author file, LaMP's questions with the outputs beside them, or one user's
            history.
        plan: how many items a user needs, and how many are used.
        me: as in `read_history`.
        response: as in `read_history`.
        prompt: as in `read_history`.
        users: ids of those who are wanted; none for all.
        half: the first, third, ... user of the file, or the second, fourth, ...

    Raises:
        HistoryError: the file cannot be read, has no such user, or no user with enough text.
    """
    file = Path(path)
    if has_users(file):
        people = list(read_users(file, response=response, prompt=prompt))
    else:
        items = read_history(file, me=me, response=response, prompt=prompt)
        people = [_hold_out(file.stem, items)]
    unknown = [name for name in users if name not in {user.id for user in people}]
    if unknown:
        some = ", ".join(repr(user.id) for user in people[:3])
        raise HistoryError(f"{file} has no user {unknown[0]!r}. It has {len(people)}, as {some}.")
    chosen = people[{"odd": 0, "even": 1, None: 0}[half] :: 2 if half else 1]
    wanted = [user for user in chosen if not users or user.id in users]
    few = [user.id for user in wanted if len(user.history) < plan.min_items]
    silent = [user.id for user in wanted if user.id not in few and not user.queries]
    left_out = {
        f"fewer than {plan.min_items} items": tuple(few),
        "no held-out text": tuple(silent),
    }
    reported = tuple(user.id for user in wanted if user.id not in {*few, *silent})
    if not reported:
        raise HistoryError(
            f"{file}: no user can be evaluated. Of {len(wanted)} users, {len(few)} have fewer than "
            f"{plan.min_items} items (see --min-items), and {len(silent)} have no held-out text."
        )
    if plan.items is not None:
        people = [replace(user, history=user.history[-plan.items :]) for user in people]
    return Sample(
        file.name, tuple(people), reported, {why: ids for why, ids in left_out.items() if ids}
    )


def _hold_out(name: str, items: Sequence[HistoryItem]) -> User:
    n = max(1, len(items) // 5)
    return User(name, history=tuple(items[:-n]), queries=tuple(items[-n:]))


def drawn_items(sample: Sample, user: User, draw: int, seed: int) -> list[HistoryItem]:
    """Draw as many items of other users as the user has; none that the user wrote as well.

    The draw does not depend on who else is measured. Fewer where the others have fewer.
    """
    own = _texts(user)
    pool = [item for other in sample.people for item in other.history if item.response not in own]
    rng = np.random.default_rng([seed, crc32(user.id.encode()), draw])
    n = min(len(user.history), len(pool))
    return [pool[i] for i in rng.choice(len(pool), size=n, replace=False)] if n else []


def swapped_user(sample: Sample, user: User, seed: int) -> User | None:
    """The user whose profile is swapped in, each measured one for one other where it can be.

    One who shares a text is passed over: a benchmark may hold the same user twice.
    """
    ring = list(np.random.default_rng(seed).permutation(list(sample.reported)))
    at = ring.index(user.id)
    rest = [other.id for other in sample.people if other.id not in ring and other.history[1:]]
    for name in (*ring[at + 1 :], *ring[:at], *rest):
        if not _texts(sample.by_id[name]) & _texts(user):
            return sample.by_id[name]
    return None


def _texts(user: User) -> set[str]:
    return {item.response for item in (*user.history, *user.queries)}
