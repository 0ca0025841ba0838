"""How the cost of `learn` grows with the history: a text may not cost more because there are more.

The first table is of one run of `learn` on texts that are put together from the sentences of a
history: processor time for a further text, and resident memory, as more and more were read. The
second is of all that is kept of the texts, without the model: 200 tokens each, with keys at random.

    python benchmarks/learn_growth.py docs/demo/history.jsonl [-m MODEL.gguf] [--texts 424]
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from steerx_edge.history.item import HistoryItem
from steerx_edge.history.reading import read_history
from steerx_edge.learning.effects import Effects, WordTally
from steerx_edge.learning.learn import learn
from steerx_edge.learning.memory_rows import MemoryRows
from steerx_edge.learning.texts import OwnText
from steerx_edge.learning.totals import Totals
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.models import find_model
from steerx_edge.llamacpp.waiting import wait_briefly
from steerx_edge.profile import MemoryPart
from steerx_edge.profile.memory_file import write_memory
from steerx_edge.steering.memory import KeySpace

N_VOCAB, N_EMBD, N_TOKENS, END = 49_152, 576, 200, 2
N_SCORED = 6  # texts of a fold of a calibration


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("history")
    parser.add_argument("-m", "--model")
    parser.add_argument("-t", "--threads", type=int, default=1)
    parser.add_argument("--texts", type=int, default=424, help="0 leaves the first table out")
    parser.add_argument("--words", type=int, default=150, help="of a text")
    parser.add_argument("--rows", type=int, nargs="*", default=[1000, 4000], help="texts of rows")
    args = parser.parse_args()
    if args.texts:
        wait_briefly()
        engine = Engine(find_model(args.model), n_ctx=256, n_threads=args.threads)
        one_run(engine, recombined(read_history(args.history), args.texts, args.words))
        engine.llama.close()
    for n_texts in args.rows:
        # A process of its own: what an earlier size has left would count.
        subprocess.run([sys.executable, __file__, "--without-model", str(n_texts)], check=True)  # noqa: S603


def one_run(engine: Engine, items: Sequence[HistoryItem]) -> None:
    """Print what further texts cost, from a quarter of them to the next."""
    seen: list[tuple[int, float, float]] = []

    def note(what: str, done: int, of: int) -> None:
        if what == "further texts" and done >= len(seen) * of // 4:
            seen.append((done, time.process_time(), resident()[0]))

    begin = time.process_time()
    learn(engine, items, progress=note)
    print(f"of {len(items)} texts: the sample {seen[0][1] - begin:.0f} s of processor time")
    print("| further texts | seconds a text | resident, MB |\n|---|---|---|")
    for (n_before, before, _), (n, now, megabytes) in pairwise(seen):
        print(f"| {n_before} to {n} | {(now - before) / (n - n_before):.2f} | {megabytes:.0f} |")
    print(f"at the end {resident()[0]:.0f} MB, at most {resident()[1]:.0f} MB", flush=True)


def resident() -> tuple[float, float]:
    """Resident memory now, and its peak: megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    now, peak = (int(status[key].split()[0]) / 1000 for key in ("VmRSS", "VmHWM"))
    return now, peak


def recombined(items: Sequence[HistoryItem], n: int, n_words: int) -> list[HistoryItem]:
    """So many texts, each of sentences from all over a history."""
    sentences = [
        sentence
        for item in items
        for sentence in re.split(r"(?<=[.!?])\s+", item.response)
        if sentence
    ]
    draw = random.Random(0)  # noqa: S311
    texts = []
    for _ in range(n):
        text = ""
        while len(text.split()) < n_words:
            text += f"{draw.choice(sentences)} "
        texts.append(HistoryItem(text.strip(), draw.choice(items).request))
    return texts


def without_model(n_texts: int) -> None:
    """Print what everything but the model takes for so many texts."""
    rng = np.random.default_rng(0)
    space = KeySpace.fit(rng.normal(size=(1500, N_EMBD)))
    rows = MemoryRows(space, "causal", END)
    zeros = np.zeros(N_VOCAB, np.float32)
    totals = Totals(None, WordTally(), zeros, zeros, rows)  # type: ignore[arg-type]
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
            totals.add(OwnText(HistoryItem("", "w1 w2"), number), effects, keys)

    def look_up() -> None:
        memory = rows.memory(without=range(4))
        for text in texts:
            memory.offers(read).of_text(text)

    def save() -> None:
        memory = MemoryPart.of(totals.memory(rows), strength=0.3, level="causal").memory
        if memory is not None:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "me.memory.gguf"
                write_memory(path, memory, fingerprint="sha256:" + "0" * 64, level="causal")
                print(f"  memory file {path.stat().st_size / 1e6:.0f} MB")

    print(f"{n_texts} texts of {N_TOKENS} tokens, without the model:")
    for name, what in (
        ("add the texts", add),
        ("choose the words", totals.tally.words),
        ("make and write the memory", save),
        (f"look up {N_SCORED} texts, a fold of the calibration", look_up),
    ):
        timed(name, what)


def timed(name: str, what: Callable[[], object]) -> None:
    """Print the processor time of something, and the resident memory that stays and its peak."""
    begin = time.process_time()
    what()
    seconds = time.process_time() - begin
    now, peak = resident()
    print(f"  {name}: {seconds:.2f} s, {now:.0f} MB, at most {peak:.0f} MB", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--without-model"]:
        without_model(int(sys.argv[2]))
    else:
        main()
