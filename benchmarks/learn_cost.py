"""What `steerx-edge learn` costs as a whole process: time, peak memory, size of the profile.

The peak is set against a process that loads the same model into a plain context and evaluates one
prompt; the time, on the texts of one sample, against learning without calibration.

    python benchmarks/learn_cost.py HISTORY -m MODEL.gguf [--user ID]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from steerx_edge.learning.settings import Settings
from steerx_edge.llamacpp.models import find_model

PLAIN = """
import sys
from llama_cpp import Llama
llama = Llama(sys.argv[1], n_ctx=4096, n_threads=2, n_threads_batch=2, verbose=False)
llama.eval(llama.tokenize(b"It was the best of times, it was the worst of times. " * 30))
"""


MOST_MORE = 150  # megabytes
MOST_TIMES = 2.5  # learning without calibration


def main() -> None:
    """Print a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("history")
    parser.add_argument("-m", "--model", action="append")
    parser.add_argument("--user")
    args = parser.parse_args()
    missed = False
    for given in args.model or [None]:
        model = str(find_model(given))
        with tempfile.TemporaryDirectory() as folder:
            profile = Path(folder) / "me.json"
            command = [sys.executable, "-m", "steerx_edge", "learn", args.history, "-m", model]
            command += ["-o", str(profile), *(["--user", args.user] if args.user else [])]
            seconds, peak = run(command)
            _, plain = run([sys.executable, "-c", PLAIN, model])
            kilobytes = profile.stat().st_size / 1000
            memory = profile.with_suffix(".memory.gguf")
            memory_kilobytes = memory.stat().st_size / 1000 if memory.exists() else 0
            sample = [*command, "--max-items", str(Settings().sample)]
            calibrated, _ = run(sample)
            uncalibrated, _ = run([*sample, "--strength", "0.1"])
        times = calibrated / uncalibrated
        missed = missed or peak - plain > MOST_MORE or times > MOST_TIMES
        print(
            f"{Path(model).stem}: learn {seconds:.1f} s, profile {kilobytes:.1f} kB, memory "
            f"{memory_kilobytes:.1f} kB, peak {peak:.0f} MB (plain context {plain:.0f} MB), "
            f"{peak - plain:+.0f} <= +{MOST_MORE} MB\n"
            f"  of a sample: {calibrated:.1f} s, without calibration {uncalibrated:.1f} s, "
            f"{times:.2f} <= {MOST_TIMES:g}"
        )
    raise SystemExit(missed)


def run(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak resident megabytes of one process."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command[:5])} ... failed with {process.returncode}")
    return time.perf_counter() - begin, usage.ru_maxrss / 1000


if __name__ == "__main__":
    main()
