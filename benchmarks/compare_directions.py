"""Ways to make a direction, each alone at one strength, on held-out texts of real users.

No calibration, no tilt, no phrases: what the directions themselves give of a user's own, set
against those made in the same way of as many items of other users. By backbone and block, with 95%
intervals over users, and the difference to the first way.

    python benchmarks/compare_directions.py DATA -m MODEL.gguf --half odd --first 8
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np

from steerx_edge import Engine, HistoryItem, Settings
from steerx_edge.analysis import Pass
from steerx_edge.carriers import Carrier, carriers_of, placebo_of
from steerx_edge.description import describe, style_facts
from steerx_edge.effects import bootstrap_mean_interval, word_effects
from steerx_edge.evaluation import Plan, read_sample
from steerx_edge.evaluation.sample import drawn_items
from steerx_edge.interventions import Add
from steerx_edge.learning import default_layers
from steerx_edge.prompts import messages_for
from steerx_edge.reading import read_items

WAYS = {
    "mean": Settings(described=False),
    "described": Settings(),
    "anchors": Settings(selection="anchors", described=False),
    "anchors described": Settings(selection="anchors"),
    "weighted": Settings(selection="weighted", described=False),
    "pca": Settings(described=False, estimate="pca"),
    "logistic": Settings(described=False, estimate="logistic"),
    "placebo arm": Settings(described=False, control="placebo"),
    "placebo removed": Settings(described=False, generic="removed"),
}


def carriers(engine: Engine, items: Sequence[HistoryItem], settings: Settings) -> list[Carrier]:
    """Of one history."""
    layers = default_layers(engine.analysis.n_layer, settings)
    reading = read_items(engine, items, layers, settings)
    description = None
    if settings.described:
        words = word_effects([contrast.effects for contrast in reading.contrasts])
        description = describe(engine, words, style_facts([item.response for item in items]))
    placebo = None
    if settings.generic == "removed":
        placebo = placebo_of(engine, reading, layers, settings)
    return carriers_of(engine, reading, description, layers, settings, placebo=placebo)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a per-author file")
    parser.add_argument("-m", "--model", required=True, help="GGUF")
    parser.add_argument("-t", "--threads", type=int)
    parser.add_argument("--half", choices=("odd", "even"))
    parser.add_argument("--first", type=int)
    parser.add_argument("--strength", type=float, default=0.1)
    parser.add_argument("--ways", default=",".join(WAYS))
    args = parser.parse_args()
    engine = Engine(args.model, n_threads=args.threads)
    plan = Plan(draws=1)
    sample = read_sample(args.data, plan, half=args.half)
    users = [sample.by_id[name] for name in sample.reported[: args.first]]
    gains: dict[tuple[str, str, int], list[tuple[float, float]]] = defaultdict(list)
    for number, user in enumerate(users):
        print(f"{number} of {len(users)}", flush=True)
        texts = [
            (engine.prompt(messages_for(query.request)), engine.tokenize(query.response)[:512])
            for query in user.queries
        ]
        unsteered = np.mean(
            [one.scored.mean() for one in engine.run_many([Pass(*text) for text in texts])]
        )
        histories = [user.history, drawn_items(sample, user, 0, plan.seed)]
        histories = [history[-plan.items :] for history in histories]
        for way in args.ways.split(","):
            settings = replace(WAYS[way], max_items=plan.items)
            found: dict[tuple[str, int], list[float]] = defaultdict(list)
            for history in histories:
                for each in carriers(engine, history, settings):
                    change = Add(
                        (each.layer,), (args.strength * each.norm * each.direction())[None]
                    )
                    results = engine.run_many(
                        [Pass(*text, interventions=(change,)) for text in texts]
                    )
                    gain = float(np.mean([one.scored.mean() for one in results]) - unsteered)
                    found[each.source, each.layer].append(gain)
            for (source, layer), (own, generic) in found.items():
                gains[way, source, layer].append((own, generic))

    def interval(values: np.ndarray) -> str:
        low, high = bootstrap_mean_interval(values[:, None])
        return f"{values.mean():+.3f} [{low[0]:+.3f}, {high[0]:+.3f}]"

    first = args.ways.split(",")[0]
    print(f"\n{engine.model_id.name}, {len(users)} users, strength {args.strength:g}")
    print(f"{'way':20} {'backbone':17} {'block':>5}  {'own':24} {'personal':24} against {first}")
    for (way, source, layer), pairs in sorted(gains.items(), key=lambda item: item[0][1:]):
        own, generic = np.array(pairs).T
        base = np.subtract(*np.array(gains[first, source, layer]).T)
        against = "" if way == first else interval(own - generic - base)
        print(
            f"{way:20} {source:17} {layer:5}  {interval(own):24} {interval(own - generic):24} "
            f"{against}"
        )


if __name__ == "__main__":
    main()
