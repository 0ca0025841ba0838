"""How the cost of `learn` grows with the history: a text may not cost more because there are more.

The first table is of whole processes: `learn` on more and more texts, which are put together from
the sentences of a history; seconds a further text, and peak memory. The second is of everything
that is kept of all texts, without the model: texts of 200 tokens with keys at random.

    python benchmarks/learn_growth.py docs/demo/history.jsonl [-m MODEL.gguf] [--texts 40 80 160]
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from learn_cost import run

from steerx_edge.effects import Effects, WordTally
from steerx_edge.gathering import Gathered
from steerx_edge.history import HistoryItem, read_history
from steerx_edge.memory import KeySpace
from steerx_edge.memory_file import write_memory
from steerx_edge.memory_rows import MemoryRows
from steerx_edge.models import find_model
from steerx_edge.profile import MemoryPart

N_VOCAB, N_EMBD, N_TOKENS, END = 49_152, 576, 200, 2
N_SCORED = 6  # texts of a fold of a calibration


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("history")
    parser.add_argument("-m", "--model")
    parser.add_argument("--texts", type=int, nargs="*", default=[40, 80, 160])
    parser.add_argument("--words", type=int, default=150, help="of a text")
    parser.add_argument("--rows", type=int, nargs="*", default=[1000, 10_000], help="texts of rows")
    args = parser.parse_args()
    if args.texts:
        model = str(find_model(args.model))
        whole_processes(read_history(args.history), model, args.texts, args.words)
    for n_texts in args.rows:
        # A process of its own: what an earlier size has left would count.
        subprocess.run([sys.executable, __file__, "--without-model", str(n_texts)], check=True)  # noqa: S603


def whole_processes(
    items: Sequence[HistoryItem], model: str, sizes: Sequence[int], n_words: int
) -> None:
    """Print how long `learn` takes for each number of texts, and its peak memory."""
    print("| texts | seconds | seconds a further text | peak, MB |\n|---|---|---|---|")
    before: tuple[int, float] | None = None
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            history = Path(folder) / "history.jsonl"
            history.write_text("".join(f"{line}\n" for line in recombined(items, size, n_words)))
            command = [sys.executable, "-m", "steerx_edge", "learn", str(history), "-m", model]
            seconds, peak = run([*command, "-o", str(Path(folder) / "me.json")])
        each = f"{(seconds - before[1]) / (size - before[0]):.2f}" if before else ""
        print(f"| {size} | {seconds:.0f} | {each} | {peak:.0f} |", flush=True)
        before = size, seconds


def recombined(items: Sequence[HistoryItem], n: int, n_words: int) -> list[str]:
    """JSON lines of so many texts, each of sentences from all over a history."""
    sentences = [
        sentence
        for item in items
        for sentence in re.split(r"(?<=[.!?])\s+", item.response)
        if sentence
    ]
    draw = random.Random(0)  # noqa: S311
    lines = []
    for _ in range(n):
        text = ""
        while len(text.split()) < n_words:
            text += f"{draw.choice(sentences)} "
        lines.append(json.dumps({"prompt": draw.choice(items).request, "response": text.strip()}))
    return lines


def without_model(n_texts: int) -> None:
    """Print what everything but the model takes for so many texts."""
    rng = np.random.default_rng(0)
    space = KeySpace.fit(rng.normal(size=(1500, N_EMBD)))
    rows = MemoryRows(space, "causal", END)
    zeros = np.zeros(N_VOCAB, np.float32)
    gathered = Gathered(None, WordTally(), zeros, zeros, rows)  # type: ignore[arg-type]
    pieces = [f" w{token}".encode() for token in range(20_000)]
    often = 1 / np.arange(1, len(pieces) + 1)
    texts = [
        rng.choice(len(pieces), N_TOKENS, p=often / often.sum()).tolist() for _ in range(N_SCORED)
    ]
    read = rng.normal(size=(N_TOKENS, N_EMBD)).astype(np.float32)

    def add() -> None:
        for number in range(n_texts):
            tokens = texts[number % len(texts)]
            nats = rng.normal(size=N_TOKENS).astype(np.float32)
            keys = rng.integers(-127, 128, (N_TOKENS + 1, space.basis.shape[1]), dtype=np.int8)
            effects = Effects(tokens, [pieces[token] for token in tokens], nats)
            gathered.add(HistoryItem("", "w1 w2"), number, effects, keys)

    def look_up() -> None:
        memory = rows.memory(without=range(4))
        for text in texts:
            memory.offers(read).of_text(text)

    def save() -> None:
        memory = MemoryPart.of(gathered.memory(rows), strength=0.3, level="causal").memory
        if memory is not None:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "me.memory.gguf"
                write_memory(path, memory, fingerprint="sha256:" + "0" * 64, level="causal")
                print(f"  memory file {path.stat().st_size / 1e6:.0f} MB")

    print(f"{n_texts} texts of {N_TOKENS} tokens, without the model:")
    for name, what in (
        ("add the texts", add),
        ("choose the words", gathered.tally.words),
        ("make and write the memory", save),
        (f"look up {N_SCORED} texts, a fold of the calibration", look_up),
    ):
        timed(name, what)


def timed(name: str, what: Callable[[], object]) -> None:
    """Print the processor time of something, and the resident memory that stays and its peak."""
    begin = time.process_time()
    what()
    seconds = time.process_time() - begin
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    now, peak = (int(status[key].split()[0]) / 1000 for key in ("VmRSS", "VmHWM"))
    print(f"  {name}: {seconds:.2f} s, {now:.0f} MB, at most {peak:.0f} MB", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--without-model"]:
        without_model(int(sys.argv[2]))
    else:
        main()
