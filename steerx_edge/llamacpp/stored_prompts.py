"""KV cells of prompts, kept outside the context, so that later passes need not evaluate them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


class StoredPrompts:
    """KV cells of prompts, from their first evaluation on, as long as there is room.

    Args:
        prompts: their tokens. The last one of each is not stored: its row is read and changed.
        most_bytes: room for cells; prompts that come later are not stored.
    """

    def __init__(self, prompts: Iterable[Sequence[int]], most_bytes: int) -> None:
        self._wanted = {_key(prompt[:-1]) for prompt in prompts if len(prompt) > 1}
        self._lengths = sorted({len(key) for key in self._wanted}, reverse=True)
        self._states: dict[bytes, NDArray[np.uint8]] = {}
        self._room = most_bytes

    def n_stored(self, tokens: NDArray[np.int32]) -> int:
        """How many of the first of these tokens are stored."""
        key = _key(tokens)
        for length in self._lengths:
            if length <= len(key) and key[:length] in self._states:
                return length // tokens.itemsize
        return 0

    def state(self, tokens: NDArray[np.int32]) -> NDArray[np.uint8]:
        """The cells of exactly these tokens, which are stored."""
        return self._states[_key(tokens)]

    def missing(self, tokens: NDArray[np.int32]) -> list[int]:
        """How many of the first of these tokens are a prompt that is to be stored."""
        key = _key(tokens)
        return [
            length // tokens.itemsize
            for length in self._lengths
            if length <= len(key) and key[:length] in self._wanted - self._states.keys()
        ]

    def has_room(self, n_bytes: int) -> bool:
        """Whether so much more can be stored."""
        return n_bytes <= self._room

    def add(self, tokens: NDArray[np.int32], state: NDArray[np.uint8]) -> None:
        """Store the cells of these tokens."""
        self._room -= state.nbytes
        self._states[_key(tokens)] = state


def _key(tokens: Sequence[int] | NDArray[np.int32]) -> bytes:
    return np.asarray(tokens, np.int32).tobytes()
