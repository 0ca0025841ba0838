"""Texts that say nearly the same as one before, in bounded memory."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from steerx_edge.history.words import bare_words

_RUN = 3  # words
_LEAST_COMMON = 0.8
_REMEMBERED = 100_000  # texts
_BANDS, _ROWS = 16, 4
_SLOTS = 1 << 17  # for each band
_BASE = np.uint64(1_000_003)

_random = np.random.default_rng(0)
_FACTORS = _random.integers(1, 2**63, _BANDS * _ROWS, dtype=np.uint64) | np.uint64(1)
_ADDENDS = _random.integers(0, 2**63, _BANDS * _ROWS, dtype=np.uint64)


class NearDuplicates:
    """Finds texts of whose runs of three words another text has four in five, or more.

    Common runs are counted without case and punctuation, and as a share of all runs of either text
    (Jaccard). The share is estimated from 64 hashes (MinHash; Broder 1997), which are looked up in
    16 bands. The last 100,000 texts are remembered, in at most 34 MB.
    """

    def __init__(self) -> None:
        self._n = 0
        self._signatures = np.zeros((1024, _BANDS * _ROWS), np.uint32)
        self._latest = np.full((_BANDS, _SLOTS), -1, np.int32)

    def add(self, text: str) -> bool:
        """Remember a text, unless it is nearly the same as one before; return whether it is."""
        signature = _signature(text)
        bands = np.arange(_BANDS)
        slots = _slots(signature)
        places = self._latest[bands, slots]
        places = places[places >= 0]
        common = (self._signatures[places] == signature).mean(axis=1)
        if common.size and common.max() >= _LEAST_COMMON:
            return True
        place = self._n % _REMEMBERED
        if place == len(self._signatures):
            size = min(2 * place, _REMEMBERED)
            self._signatures = np.resize(self._signatures, (size, _BANDS * _ROWS))
        self._signatures[place] = signature
        self._latest[bands, slots] = place
        self._n += 1
        return False


def _signature(text: str) -> NDArray[np.uint32]:
    """The least of each of 64 hashes over the runs of words (64,)."""
    words = bare_words(text.lower())
    crcs = np.array([zlib.crc32(word.encode(errors="replace")) for word in words], np.uint64)
    n_runs = max(1, len(crcs) - _RUN + 1)
    runs = np.zeros(n_runs, np.uint64)
    for i in range(min(_RUN, len(crcs))):
        runs = runs * _BASE + crcs[i : i + n_runs] + np.uint64(1)
    runs ^= runs >> np.uint64(29)
    hashes: NDArray[np.uint64] = (runs[:, None] * _FACTORS + _ADDENDS) >> np.uint64(32)
    least: NDArray[np.uint32] = hashes.min(axis=0).astype(np.uint32)
    return least


def _slots(signature: NDArray[np.uint32]) -> NDArray[np.intp]:
    """Where each band of a signature is looked up (16,)."""
    mixed = np.zeros(_BANDS, np.uint64)
    for row in signature.reshape(_BANDS, _ROWS).T:
        mixed = (mixed + row) * _FACTORS[0]
    slots: NDArray[np.intp] = (mixed >> np.uint64(64 - 17)).astype(np.intp)
    return slots
