"""What further texts are added to: sums over the texts that were read, and hashes of them.

It is part of the memory file, and tells neither the order of words nor which occur together. What
it does tell is in docs/profile.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steerx_edge.errors import ProfileError

_ARRAYS = {
    "texts": np.dtype(np.int64),
    "counts": np.dtype(np.int32),
    "occurs": np.dtype(np.int32),
    "effects": np.dtype(np.float32),
    "used": np.dtype(np.float32),
    "expected": np.dtype(np.float32),
    "several": np.dtype(np.uint32),
}
_WORDS = "words", "usual"
_SEPARATOR = "\n"


def plain(text: str) -> str:
    """A text as it is compared with others: white space and case make no difference."""
    return " ".join(text.casefold().split())


def text_hash(text: str) -> int:
    """64 bits, as a signed integer, that tell whether a text was read."""
    digest = hashlib.sha256(plain(text).encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


@dataclass(frozen=True, eq=False)
class Ledger:
    """Sums over texts that were read.

    Args:
        texts: (n,) int64, increasing: `text_hash` of each.
        words: w words, increasing.
        counts: (w,) int32 occurrences of each word.
        occurs: (w,) int32 how many texts each occurs in.
        effects: (sum of occurs,) float32, nats: of each word, its effect in each of these texts,
            increasing within the word.
        used: (n_vocab,) float32 how often the user used each token.
        expected: (n_vocab,) float32 how often the model expected it there.
        several: (r,) uint32, increasing: hashes of the runs of tokens that occur in two texts or
            more.
        usual: `memory_rows.usual_words` of the first texts' requests, increasing.

    Raises:
        ProfileError: they do not fit together.
    """

    texts: NDArray[np.int64]
    words: tuple[str, ...]
    counts: NDArray[np.int32]
    occurs: NDArray[np.int32]
    effects: NDArray[np.float32]
    used: NDArray[np.float32]
    expected: NDArray[np.float32]
    several: NDArray[np.uint32]
    usual: tuple[str, ...]

    def __post_init__(self) -> None:
        self._check_lengths()
        self._check_words()
        for name in ("texts", "several"):
            array = getattr(self, name)
            if (array[1:] <= array[:-1]).any():
                raise ProfileError(f"damaged memory: {name} does not strictly increase")
        for name, least in (("effects", -np.inf), ("used", 0), ("expected", 0)):
            array = getattr(self, name)
            if not np.isfinite(array).all() or (array < least).any():
                raise ProfileError(f"damaged memory: {name} holds a value out of range")

    def _check_lengths(self) -> None:
        n_words = len(self.words)
        shapes = {"counts": n_words, "occurs": n_words, "expected": len(self.used)}
        for name, dtype in _ARRAYS.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.ndim != 1:
                raise ProfileError(f"damaged memory: {name} is not a list of {dtype}")
            if len(array) != shapes.get(name, len(array)):
                raise ProfileError(
                    f"damaged memory: {name} has {len(array)} values, not {shapes[name]}"
                )
        if int(self.occurs.sum(dtype=np.int64)) != len(self.effects):
            raise ProfileError("damaged memory: effects and occurrences differ in number")

    def _check_words(self) -> None:
        if self.words and not (
            self.occurs.min() >= 1
            and self.occurs.max() <= len(self.texts)
            and (self.occurs <= self.counts).all()
        ):
            raise ProfileError("damaged memory: a word occurs in more texts than it can")
        for words in (self.words, self.usual):
            if any(below >= word for below, word in pairwise(words)):
                raise ProfileError("damaged memory: words do not increase")
            if not all(word.replace("\u200d", "").isprintable() and word for word in words):
                raise ProfileError("damaged memory: a word cannot be printed")

    def equals(self, other: Ledger) -> bool:
        """Whether all arrays are the same."""
        return all(
            np.array_equal(getattr(self, each.name), getattr(other, each.name))
            for each in fields(self)
        )

    def tensors(self) -> dict[str, NDArray[Any]]:
        """As a memory file holds them; GGUF knows no strings there, and no unsigned numbers."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        for name in _WORDS:
            joined = _SEPARATOR.join(getattr(self, name)).encode()
            arrays[name] = np.frombuffer(joined, np.int8)
        return arrays | {"several": self.several.view(np.int32)}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> Ledger:
        """From what `tensors` returned, without the empty ones.

        Raises:
            ProfileError: it is damaged.
        """
        arrays = {name: np.empty(0, dtype) for name, dtype in _ARRAYS.items()}
        arrays |= {name: array for name, array in tensors.items() if name not in _WORDS}
        if arrays.keys() != _ARRAYS.keys() or arrays["several"].dtype.itemsize != 4:
            raise ProfileError("damaged memory: unexpected or missing tensors")
        arrays["several"] = arrays["several"].view(np.uint32)
        try:
            joined = [
                tensors[name].tobytes().decode() if name in tensors else "" for name in _WORDS
            ]
        except UnicodeDecodeError:
            raise ProfileError("damaged memory: words are not UTF-8") from None
        words, usual = (tuple(each.split(_SEPARATOR)) if each else () for each in joined)
        return cls(words=words, usual=usual, **arrays)
