"""Against repeng 0.4 (PyTorch on the CPU): the same weights, the same 13 pairs of texts.

Whole processes, loading included, in turns. repeng makes a control vector and no more, so it is
set against learning without calibration and logit bias, which finds the anchors, writes a
description and saves the profile on its way. What `learn` takes as it is, with a grid of settings
scored on texts held out, which has no counterpart there, is run once and printed beside. repeng has
an environment of its own:

    make bench-repeng
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from in_turns import ratio
from performance import Line, short_items

from steerx_edge.llamacpp.models import find_model
from steerx_edge.llamacpp.waiting import wait_briefly

N_PAIRS, N_TOKENS = 13, 48
PROMPT = "Write a paragraph about an old man who walks in his garden."

OURS = """
import json, sys, time
from steerx_edge import Engine, HistoryItem, Settings, learn, steer
task = json.loads(open(sys.argv[1]).read())
engine = Engine(task["model"], n_ctx=512, n_threads=task["threads"])
history = [HistoryItem(text, request) for text, request in task["items"]]
vector = Settings(contrast_methods=("context-contrast",), logit bias=False, calibrate=False)
profile = learn(engine, history, vector if sys.argv[2] == "vector" else None)
profile.save(sys.argv[1] + ".me.json")
prompt = engine.llama.tokenize(task["prompt"].encode())
with steer(engine.llama, profile):
    for n_tokens in (4, task["n_tokens"]):
        start = time.perf_counter()
        for n, _ in enumerate(engine.llama.generate(prompt, temp=0), start=1):
            if n == n_tokens:
                break
        seconds = time.perf_counter() - start
print(json.dumps({"tokens_per_second": task["n_tokens"] / seconds}))
"""


def main() -> None:
    """Print the lines, and what each process said."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeng-python", required=True, help="interpreter that has repeng")
    parser.add_argument("-m", "--model")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    wait_briefly()  # the processes that are measured inherit it
    items = short_items(N_PAIRS)
    others = "\n\n".join(item.response for item in items[:4])
    task = {
        "model": str(find_model(args.model)),
        "threads": args.threads,
        "items": [[item.response, item.request] for item in items],
        # With the person's other texts before it, and without.
        "pairs": [
            [f"{others}\n\n{item.request}\n\n{item.response}", f"{item.request}\n\n{item.response}"]
            for item in items
        ],
        "prompt": PROMPT,
        "n_tokens": N_TOKENS,
    }
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "repeng": [], "ours, calibrated": []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "task.json"
        file.write_text(json.dumps(task))
        theirs = str(Path(__file__).parent / "peer_repeng.py")
        ours = [sys.executable, "-c", OURS, str(file)]
        for _ in range(args.rounds):
            runs["ours"].append(run([*ours, "vector"]))
            runs["repeng"].append(run([args.repeng_python, theirs, str(file)]))
        runs["ours, calibrated"].append(run([*ours, "calibrated"]))
    for name, results in runs.items():
        for result in results:
            print(name, json.dumps({key: round(value, 2) for key, value in result.items()}))

    def column(name: str, key: str) -> list[float]:
        return [result[key] for result in runs[name]]

    lines = [
        Line(
            "a vector from 13 pairs, loading included",
            "times faster than repeng",
            ratio(column("repeng", "seconds"), column("ours", "seconds")),
            4,
            at_least=True,
        ),
        Line(
            "its peak memory",
            "share of repeng's",
            ratio(column("ours", "megabytes"), column("repeng", "megabytes")),
            1 / 6,
            at_least=False,
        ),
        Line(
            "steered generation, tokens per second",
            "times repeng's",
            ratio(column("ours", "tokens_per_second"), column("repeng", "tokens_per_second")),
            3,
            at_least=True,
        ),
    ]
    for line in lines:
        print(line)
    raise SystemExit(any(line.verdict == "MISSED" for line in lines))


def run(command: list[str]) -> dict[str, float]:
    """What a process printed, with its wall seconds without generating and its peak memory."""
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints)  # noqa: S603
        assert process.stdout is not None  # noqa: S101
        answer = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            complaints.seek(0)
            why = complaints.read().decode(errors="replace")[-1000:]
            raise SystemExit(f"{command[0]} failed with {process.returncode}:\n{why}")
    result: dict[str, float] = json.loads(answer.splitlines()[-1])
    generating = (N_TOKENS + 4) / result["tokens_per_second"]
    return result | {"seconds": seconds - generating, "megabytes": usage.ru_maxrss / 1000}


if __name__ == "__main__":
    main()
