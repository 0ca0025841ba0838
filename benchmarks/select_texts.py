"""What it costs to read a long history and to write it as JSON lines, as `read -o` does.

The history is a table whose texts are put together from the words of another one. Each length is
read in a process of its own; time is processor time.

    python benchmarks/select_texts.py docs/demo/history.jsonl [--texts 1000 10000 100000]
"""

from __future__ import annotations

import argparse
import csv
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from steerx_edge.history.opening import open_history
from steerx_edge.history.reading import read_history
from steerx_edge.history.tally import Tally
from steerx_edge.report.history_file import HistoryFile, read_through


def main() -> None:
    """Print one line a length."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("history")
    parser.add_argument("--texts", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--words", type=int, default=80, help="of a text")
    parser.add_argument("--only-read", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only_read:
        read(Path(args.history))
        return
    words = " ".join(item.response for item in read_history(args.history)).split()
    chance = random.Random(0)  # noqa: S311
    print(f"{'texts':>8} {'MB':>6} {'kept':>8} {'seconds':>8} {'ms/text':>8} {'peak MB':>8}")
    for n_texts in args.texts:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "texts.csv")
            with path.open("w", encoding="utf-8", newline="") as file:
                table = csv.writer(file)
                table.writerow(("title", "text"))
                for _ in range(n_texts):
                    table.writerow(("A letter", " ".join(chance.choices(words, k=args.words))))
            print(f"{n_texts:8} {path.stat().st_size / 1e6:6.1f}", end=" ", flush=True)
            subprocess.run([sys.executable, __file__, str(path), "--only-read"], check=True)  # noqa: S603


def read(path: Path) -> None:
    """Read one table, and print what it cost."""
    tally = Tally()
    with HistoryFile(path.with_suffix(".jsonl")) as file:
        read_through(open_history(path), tally, file, lambda *_: None)
        file.save(tally)
    seconds = time.process_time()
    n = tally.kept + tally.dropped.total()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # of Linux, in kB
    print(f"{tally.kept:8} {seconds:8.1f} {1e3 * seconds / n:8.2f} {peak:8.0f}")


if __name__ == "__main__":
    main()
