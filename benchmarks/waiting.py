"""How llama.cpp's threads wait for each other, and what it costs: tokens generated per second.

In turns, alone on the machine and beside other busy processes, one for each core.

    python benchmarks/waiting.py [-m MODEL.gguf] [-t THREADS]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

from steerx_edge.llamacpp.models import find_model

GENERATE = """
import sys, time
from llama_cpp import Llama
model, n_threads, n_tokens = sys.argv[1], int(sys.argv[2]), 24
llama = Llama(model, n_ctx=512, n_threads=n_threads, n_threads_batch=n_threads, verbose=False)
prompt = llama.tokenize(b"Write a paragraph about an old man who walks in his garden.")
llama.eval(prompt)
begin = time.perf_counter()
for n, _ in enumerate(llama.generate(prompt, temp=0), start=1):
    if n == n_tokens:
        break
print(n_tokens / (time.perf_counter() - begin))
"""
POLICIES = {
    "nothing said": {},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "and GOMP_SPINCOUNT=1000": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000"},
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model")
    parser.add_argument("-t", "--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    command = [sys.executable, "-c", GENERATE, str(find_model(args.model)), str(args.threads)]
    names = {name for said in POLICIES.values() for name in said}
    unset = {name: value for name, value in os.environ.items() if name not in names}
    speeds: dict[tuple[str, int], list[float]] = {}
    for n_busy in (0, os.cpu_count() or 1):
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n_busy)]
        try:
            for _ in range(args.rounds):
                for name, said in POLICIES.items():
                    done = subprocess.run(  # noqa: S603
                        command, env=unset | said, capture_output=True, check=True, text=True
                    )
                    speeds.setdefault((name, n_busy), []).append(float(done.stdout))
        finally:
            for process in busy:
                process.kill()
    print(f"tokens/s with {args.threads} threads: median of {args.rounds}, least, most")
    for (name, n_busy), values in speeds.items():
        shown = f"{statistics.median(values):6.1f} [{min(values):.1f}, {max(values):.1f}]"
        print(f"{name:26} {n_busy} busy processes {shown}")


if __name__ == "__main__":
    main()
