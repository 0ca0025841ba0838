"""Ways to make a direction, each alone at one strength, on held-out texts of real users.

No calibration, no tilt, no phrases: what the directions themselves give of a user's own, set
against those made in the same way of as many items of other users. By backbone and block, with 95%
intervals over users, and the difference to the first way.

    python benchmarks/compare_directions.py DATA -m MODEL.gguf --half odd --first 8
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from steerx_edge.waiting import wait_briefly

wait_briefly()

import numpy as np

from steerx_edge import Engine, HistoryItem, Settings
from steerx_edge.analysis import Pass
from steerx_edge.carriers import Carrier, carriers_of, placebo_of, without_generic
from steerx_edge.description import describe, style_facts
from steerx_edge.effects import bootstrap_mean_interval, word_effects
from steerx_edge.evaluation import Plan, read_sample
from steerx_edge.evaluation.sample import drawn_items
from steerx_edge.interventions import Add
from steerx_edge.learning import default_layers
from steerx_edge.prompts import messages_for
from steerx_edge.reading import Reading, read_items

PLAIN = Settings(described=False)
WAYS = {
    "mean": PLAIN,
    "pca": replace(PLAIN, estimate="pca"),
    "logistic": replace(PLAIN, estimate="logistic"),
    "placebo removed": replace(PLAIN, generic="removed"),
    "placebo arm": replace(PLAIN, control="placebo"),
    "described": replace(PLAIN, described=True),
    "described logistic": replace(PLAIN, described=True, estimate="logistic"),
    "weighted": replace(PLAIN, selection="weighted"),
    "anchors": replace(PLAIN, selection="anchors"),
    "anchors logistic": replace(PLAIN, selection="anchors", estimate="logistic"),
    "anchors placebo logistic": replace(
        PLAIN, selection="anchors", control="placebo", estimate="logistic"
    ),
    "anchors described": replace(PLAIN, selection="anchors", described=True),
}


def carriers_by_way(
    engine: Engine, items: Sequence[HistoryItem], n_items: int, ways: Sequence[str]
) -> Iterator[tuple[str, Carrier]]:
    """Of one history, by every way; what several have in common is computed once."""
    layers = default_layers(engine.analysis.n_layer, PLAIN)
    known: dict[Settings, tuple[Reading, list[Carrier]]] = {}
    for way in ways:
        settings = WAYS[way]
        common = replace(settings, estimate="mean", generic="kept", max_items=n_items)
        if common not in known:
            reading = read_items(engine, items, layers, common)
            description = None
            if common.described:
                words = word_effects([contrast.effects for contrast in reading.contrasts])
                facts = style_facts([item.response for item in items])
                description = describe(engine, words, facts)
            known[common] = reading, carriers_of(engine, reading, description, layers, common)
        reading, carriers = known[common]
        if settings.generic == "removed":
            carriers = without_generic(carriers, placebo_of(engine, reading, carriers, common))
        for carrier in carriers:
            yield way, replace(carrier, estimate=settings.estimate)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a per-author file")
    parser.add_argument("-m", "--model", required=True, help="GGUF")
    parser.add_argument("-t", "--threads", type=int)
    parser.add_argument("--half", choices=("odd", "even"))
    parser.add_argument("--first", type=int)
    parser.add_argument("--strength", type=float, default=0.1)
    parser.add_argument("--ways", default=",".join(WAYS), help="the first is compared to")
    args = parser.parse_args()
    ways = args.ways.split(",")
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
        found: dict[tuple[str, str, int], list[float]] = defaultdict(list)
        for history in histories:
            for way, each in carriers_by_way(engine, history, plan.items, ways):
                change = Add((each.layer,), (args.strength * each.norm * each.direction())[None])
                results = engine.run_many([Pass(*text, interventions=(change,)) for text in texts])
                gain = float(np.mean([one.scored.mean() for one in results]) - unsteered)
                found[way, each.source, each.layer].append(gain)
        for place, both in found.items():
            if len(both) == len(histories):
                gains[place].append((both[0], both[1]))

    def interval(values: np.ndarray) -> str:
        low, high = bootstrap_mean_interval(values[:, None])
        return f"{values.mean():+.3f} [{low[0]:+.3f}, {high[0]:+.3f}]"

    first = ways[0]
    print(f"\n{engine.model_id.name}, {len(users)} users, strength {args.strength:g}")
    print(f"{'way':30} {'backbone':17} {'block':>5}  {'own':24} {'personal':24} against {first}")
    for (way, source, layer), pairs in sorted(gains.items(), key=lambda item: item[0][1:]):
        own, generic = np.array(pairs).T
        base = np.subtract(*np.array(gains[first, source, layer]).T)
        against = "" if way == first else interval(own - generic - base)
        print(
            f"{way:30} {source:17} {layer:5}  {interval(own):24} {interval(own - generic):24} "
            f"{against}"
        )


if __name__ == "__main__":
    main()
