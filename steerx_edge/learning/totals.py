"""What grows with every text that is read: words, token counts and rows of the memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from steerx_edge.learning.ablation import Progress, read_further
from steerx_edge.learning.checkpoint import Checkpoint
from steerx_edge.learning.effects import Effects, WordTally
from steerx_edge.learning.memory_rows import MemoryRows
from steerx_edge.learning.texts import OwnText
from steerx_edge.steering.ledger import Ledger
from steerx_edge.steering.logit_bias import TokenCounts

if TYPE_CHECKING:
    from steerx_edge.history.item import HistoryItem
    from steerx_edge.learning.settings import Settings
    from steerx_edge.llamacpp.engine import Engine
    from steerx_edge.steering.memory import Memory

CHUNK = 16
"""Further texts that share their context."""


class Chunk(NamedTuple):
    """Further texts, and the candidates for their in-context texts."""

    texts: Sequence[OwnText]
    others: Sequence[HistoryItem]


@dataclass
class Totals:
    """Sums over all texts that were read.

    Args:
        engine: the model.
        tally: their words.
        used: (n_vocab,) how often the user used each token.
        expected: (n_vocab,) how often the model expected it there.
        rows: the memory's, or None for no memory.
        texts: `text_hash` of each text.
        n_new: how many texts were read now.
        n_tokens: how many tokens these have.
    """

    engine: Engine
    tally: WordTally
    used: NDArray[np.float32]
    expected: NDArray[np.float32]
    rows: MemoryRows | None
    texts: list[int] = field(default_factory=list)
    n_new: int = 0
    n_tokens: int = 0

    @classmethod
    def continuing(cls, engine: Engine, ledger: Ledger, rows: MemoryRows) -> Totals:
        """From where a ledger ends, with the rows of its memory."""
        used, expected = ledger.used.copy(), ledger.expected.copy()
        texts = ledger.texts.tolist()
        return cls(engine, WordTally.of(ledger), used, expected, rows, texts)

    @property
    def counts(self) -> TokenCounts:
        """The token counts of all texts together."""
        return TokenCounts(self.used[None], self.expected[None])

    def add(self, text: OwnText, effects: Effects, keys: NDArray[np.int8] | None) -> None:
        """Add a text to the words and the memory."""
        self.texts.append(text.hash)
        self.tally.add(effects)
        self.n_new += 1
        self.n_tokens += len(effects.tokens)
        if self.rows is not None and keys is not None:
            self.rows.add(effects, text.item.request, keys)

    def read(
        self,
        chunks: Sequence[Chunk],
        settings: Settings,
        progress: Progress,
        checkpoint: Checkpoint,
        ends: float | None = None,
    ) -> None:
        """Read further texts and add them.

        Args:
            chunks: the texts.
            settings: how they are read.
            progress: called with "further texts".
            checkpoint: where finished chunks are kept.
            ends: begin no chunk after this time, on the clock of `time.monotonic`.

        Raises:
            ModelError: llama.cpp fails.
        """
        n_done, n_texts = 0, sum(len(chunk.texts) for chunk in chunks)
        for chunk in chunks:
            progress("further texts", n_done, n_texts)
            if ends is not None and time.monotonic() > ends:
                break
            read = self._read(chunk, settings, checkpoint, f"further-{n_done}")
            for text, arrays in zip(chunk.texts, read, strict=True):
                tokens = arrays["tokens"].tolist()
                effects = Effects(tokens, self.engine.pieces(tokens), arrays["nats"])
                np.add.at(self.used, tokens, 1)
                self.expected += arrays["expected"]
                self.add(text, effects, arrays.get("keys"))
            n_done += len(chunk.texts)
        # A user's text never holds an end token, which says nothing about the user.
        self.expected[self.engine.end_tokens] = 0

    def _read(
        self, chunk: Chunk, settings: Settings, checkpoint: Checkpoint, name: str
    ) -> Iterator[dict[str, NDArray[Any]]]:
        kept = checkpoint.get(name)
        if kept is None:
            kept = {}
            items = [text.item for text in chunk.texts]
            for j, result in enumerate(read_further(self.engine, items, chunk.others, settings)):
                kept |= {
                    f"{j}.tokens": np.array(result.effects.tokens, np.int32),
                    f"{j}.nats": result.effects.nats,
                    f"{j}.expected": result.expected.astype(np.float32),
                }
                if self.rows is not None:
                    kept[f"{j}.keys"] = self.rows.keys(result.final)
            checkpoint.put(name, **kept)
        for j in range(len(chunk.texts)):
            yield {
                key: kept[f"{j}.{key}"]
                for key in ("tokens", "nats", "expected", "keys")
                if f"{j}.{key}" in kept
            }

    def memory(self, rows: MemoryRows) -> Memory:
        """The memory of all texts, with what further ones are added to.

        Args:
            rows: the rows of these texts.
        """
        words = sorted(
            word
            for word, effects in self.tally.effects.items()
            # A memory of this level holds no word of one text alone.
            if rows.level != "shared" or len(effects) > 1
        )
        effects = [np.sort(np.array(self.tally.effects[word], np.float32)) for word in words]
        ledger = Ledger(
            texts=np.sort(np.array(self.texts, np.int64)),
            words=tuple(words),
            counts=np.array([self.tally.counts[word] for word in words], np.int32),
            occurs=np.array([len(each) for each in effects], np.int32),
            effects=np.concatenate([np.empty(0, np.float32), *effects]),
            used=self.used.astype(np.float32),
            expected=self.expected.astype(np.float32),
            several=rows.runs()[1],
            usual=tuple(sorted(rows.usual)),
        )
        return replace(rows.memory(), ledger=ledger)
