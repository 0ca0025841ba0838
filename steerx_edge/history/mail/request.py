"""The request that a mail answers, in the words that a person would ask for it with."""

from __future__ import annotations

import re
from collections.abc import Sequence

from steerx_edge.history.mail.head import Address, Head

LONGEST = 1000
"""Characters of a mail that is answered."""

_NAMED = 3  # recipients
_END = re.compile(r"(?s).*(?:\n\n|[.!?。！？](?=\s))|.*\s")


def request_of(head: Head, answered: str, me: frozenset[str] = frozenset()) -> str:
    """Say what a mail answers, else what it is about.

    Args:
        head: The mail's headers.
        answered: The text of the mail that it answers; empty if that is not known.
        me: The sender's addresses, who is no recipient.
    """
    if answered:
        subject = f"Subject: {head.subject}\n\n" if head.subject else ""
        return f"Reply to this mail: {subject}{shortened(answered)}"
    others = [each for each in head.addresses("to") if each.address not in me]
    to = f" to {_names(others)}" if others else ""
    return f"Write a mail{to}: {head.subject}" if head.subject else f"Write a mail{to}."


def shortened(text: str) -> str:
    """The beginning of a text, up to the end of its last paragraph or sentence that fits."""
    if len(text) <= LONGEST:
        return text
    found = _END.match(text[:LONGEST])
    return f"{(found.group() if found else text[:LONGEST]).rstrip()} ..."


def _names(people: Sequence[Address]) -> str:
    names = [each.name or each.address.partition("@")[0] for each in people]
    if len(names) > _NAMED:
        names = [*names[: _NAMED - 1], f"{len(names) - _NAMED + 1} others"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
