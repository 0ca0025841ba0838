"""Several settings of `learn` side by side, with the baselines, on held-out texts of real users.

As `steerx-edge evaluate`, which measures the default settings alone; what the folder holds already
is not measured again.

    python benchmarks/compare_methods.py DATA -m MODEL.gguf -o FOLDER [--methods steerx,shared]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path

from steerx_edge.llamacpp.waiting import wait_briefly

wait_briefly()

import numpy as np

from steerx_edge import Engine, Settings
from steerx_edge.evaluation import Evaluation, Plan, evaluate, read_sample
from steerx_edge.learning.effects import bootstrap_mean_interval
from steerx_edge.report.html import html_page
from steerx_edge.report.terminal import PlainConsole, print_report

METHODS = {
    "steerx": Settings(),
    "shared": Settings(memory="shared"),
    "all": Settings(memory="all"),
    "no memory": Settings(memory="none"),
    "both contrast methods": Settings(contrast_methods=("stylevector", "context-contrast")),
    "described": Settings(described=True),
    "anchors": Settings(selection="anchors"),
    "logistic": Settings(estimate="logistic"),
    "directions alone": Settings(logit_bias=False, memory="none"),
}


def main() -> None:
    """Measure, print the tables, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a per-author file")
    parser.add_argument("-m", "--model", required=True, help="GGUF")
    parser.add_argument("-o", "--output", required=True, type=Path, help="folder of the figures")
    parser.add_argument("-t", "--threads", type=int, default=1, help="of each process")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--methods", default="steerx", help=", ".join(METHODS))
    parser.add_argument("--half", choices=("odd", "even"), help="every other user of the file")
    parser.add_argument("--first", type=int, help="of these, only the first so many")
    parser.add_argument("--users", default="", help="ids, by commas")
    parser.add_argument("--items", type=int, help="the last so many texts; all by default")
    parser.add_argument("--sweep-items", default="", help="also learn from so many, by commas")
    parser.add_argument("--prefix", type=int, default=0, help="tokens of texts as a prefix")
    parser.add_argument("--draws", type=int, default=1, help="generic profiles for each user")
    parser.add_argument("--generate", type=int, default=0, help="tokens of a generated text")
    args = parser.parse_args()
    counts = tuple(int(count) for count in args.sweep_items.split(",") if count)
    plan = Plan(
        items=args.items,
        generate=args.generate,
        draws=args.draws,
        item_counts=counts,
        prefix=args.prefix,
    )
    users = [name for name in args.users.split(",") if name]
    sample = read_sample(args.data, plan, users=users, half=args.half)
    if args.first:
        sample = replace(sample, reported=sample.reported[: args.first])
    evaluation = evaluate(
        partial(Engine, args.model, n_threads=args.threads),
        sample,
        plan,
        args.output,
        methods={name: METHODS[name] for name in args.methods.split(",")},
        processes=args.processes,
        progress=lambda what, done, of: print(f"{what}: {done} of {of}", flush=True),
    )
    print_report(evaluation, PlainConsole(width=200))
    print_differences(evaluation)
    (args.output / "report.html").write_text(html_page(evaluation), "utf-8")


def print_differences(evaluation: Evaluation) -> None:
    """Every method against each one after it, user by user."""
    for one, other in combinations(evaluation.header["methods"], 2):
        for arm in ("own", "own - generic", "prompt + own"):
            gains = [
                np.array([user[arm]["gain"] for user in evaluation.by_user(method).values()])
                for method in (one, other)
            ]
            behind = gains[0] - gains[1]
            low, high = bootstrap_mean_interval(behind[:, None])
            print(
                f"{one} over {other}, {arm}: {behind.mean():+.3f} [{low[0]:+.3f}, {high[0]:+.3f}]"
            )


if __name__ == "__main__":
    main()
