"""Ways to make a logit bias, each alone at several strengths, on held-out texts of real users.

No directions, no memory, no calibration: how much the logit bias gives, how much more than the
logit bias of as many items of other users, and what neutral text loses.

    python benchmarks/compare_tilts.py DATA -m MODEL.gguf --half odd --first 8
"""

from __future__ import annotations

import argparse
from collections import defaultdict

from steerx_edge.llamacpp.waiting import wait_briefly

wait_briefly()

import numpy as np
from numpy.typing import NDArray

from steerx_edge import Engine, Settings
from steerx_edge.evaluation import Plan, read_sample
from steerx_edge.evaluation.figures import WORSE
from steerx_edge.evaluation.sample import drawn_items
from steerx_edge.learning.ablation import read_items
from steerx_edge.learning.neutral import neutral_items
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import ScoreRequest

SMOOTHINGS = (0.5, 1.0, 2.0, 4.0)
ABSENT = (1.0, 0.5, 0.2, 0.0)
STRENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0)
PLACES = [(k, absent, s) for k in SMOOTHINGS for absent in ABSENT for s in STRENGTHS]


def biases(used: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float32]:
    """(place, n_vocab)."""
    made = []
    for k, absent, strength in PLACES:
        values = np.log((used + k) / (expected + k))
        values[values < 0] *= absent
        values[np.abs(values) < 0.1] = 0
        made.append(strength * values)
    return np.stack(made).astype(np.float32)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a per-author file")
    parser.add_argument("-m", "--model", required=True, help="GGUF")
    parser.add_argument("-t", "--threads", type=int)
    parser.add_argument("--half", choices=("odd", "even"))
    parser.add_argument("--first", type=int)
    args = parser.parse_args()
    engine = Engine(args.model, n_threads=args.threads)
    plan = Plan(items=16, draws=1)
    sample = read_sample(args.data, plan, half=args.half)
    users = [sample.by_id[name] for name in sample.reported[: args.first]]
    settings = Settings()
    gains: dict[str, list[NDArray[np.float64]]] = defaultdict(list)  # (place,) of each user
    for number, user in enumerate(users):
        print(f"{number} of {len(users)}", flush=True)
        texts = [
            (engine.prompt(messages_for(query.request)), engine.tokenize(query.response)[:512])
            for query in user.queries
        ]
        neutral = [
            (engine.prompt(messages_for(item.request)), engine.tokenize(item.response))
            for item in neutral_items("evaluation")
        ]
        for whose, history in (
            ("own", user.history),
            ("generic", drawn_items(sample, user, 0, plan.seed)),
        ):
            counts = read_items(engine, history, (1,), settings).counts
            added = biases(counts.used.sum(axis=0), counts.expected.sum(axis=0))
            requests = [ScoreRequest(*text, biases=added) for text in (*texts, *neutral)]
            gained = np.stack(
                [
                    result.biased.mean(axis=1, dtype=np.float64) - result.scored.mean()
                    for result in engine.run_many(requests)
                    if result.biased is not None
                ]
            )
            gains[whose].append(gained[: len(texts)].mean(axis=0))
            if whose == "own":
                gains["neutral"].append(gained[len(texts) :].mean(axis=0))
    own, generic, cost = (np.stack(gains[name]) for name in ("own", "generic", "neutral"))
    print(f"\n{engine.model_id.name}, {len(users)} users")
    print("smoothing absent strength    own  personal neutral text  users below -0.01")
    for place, (k, absent, strength) in enumerate(PLACES):
        mine, theirs = own[:, place], generic[:, place]
        print(
            f"{k:9g} {absent:6g} {strength:8g} {mine.mean():+6.3f} {(mine - theirs).mean():+9.3f} "
            f"{cost[:, place].mean():+12.3f} {(mine < WORSE).sum():12}"
        )


if __name__ == "__main__":
    main()
