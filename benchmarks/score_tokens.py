"""Scores tokens and does nothing else, to be watched by a profiler.

    perf record -e cpu-clock -o OUT python benchmarks/score_tokens.py -m MODEL.gguf
    perf report -i OUT --stdio --sort dso

The shares that it prints stand in docs/performance.md.
"""

from __future__ import annotations

import argparse

import numpy as np

from steerx_edge import Engine
from steerx_edge.llamacpp.requests import ScoreRequest


def main() -> None:
    """Score texts of random tokens on one thread."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", required=True, help="GGUF")
    parser.add_argument("--texts", type=int, default=8, help="of 500 tokens each")
    args = parser.parse_args()
    engine = Engine(args.model, n_threads=1)
    rng = np.random.default_rng(0)
    tokens = rng.integers(300, engine.analysis.n_vocab - 300, (args.texts, 500)).tolist()
    engine.run_many([ScoreRequest([1], text) for text in tokens])


if __name__ == "__main__":
    main()
