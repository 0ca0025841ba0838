"""Conversations that branch, as those with assistants do when a message is edited."""

from __future__ import annotations

from collections.abc import Mapping


def branch_to(leaf: str, parents: Mapping[str, str]) -> list[str]:
    """Return the messages from the first one to a leaf.

    Args:
        leaf: The last message of the branch; if it is not there, the last one without an answer.
        parents: What each message answers, in the order of the file; empty for the first.
    """
    if leaf not in parents:
        answered = set(parents.values())
        leaf = next((key for key in reversed(list(parents)) if key not in answered), "")
    branch: list[str] = []
    seen: set[str] = set()
    while leaf in parents and leaf not in seen:
        seen.add(leaf)
        branch.append(leaf)
        leaf = parents[leaf]
    return branch[::-1]
