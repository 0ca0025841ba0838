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
from functools import cache
from typing import NamedTuple

from steerx_edge.waiting import wait_briefly

wait_briefly()

import numpy as np
from numpy.typing import NDArray

from steerx_edge import Engine, HistoryItem, Settings
from steerx_edge.analysis import Continuation, Pass
from steerx_edge.carriers import (
    Carrier,
    Placebo,
    carriers_of,
    placebo_of,
    reply_lengths,
    without_generic,
)
from steerx_edge.contrasts import mean_rows
from steerx_edge.description import describe, style_facts
from steerx_edge.effects import bootstrap_mean_interval, word_effects
from steerx_edge.evaluation import Plan, read_sample
from steerx_edge.evaluation.sample import drawn_items
from steerx_edge.interventions import Add
from steerx_edge.learning import default_layers
from steerx_edge.prompts import messages_for
from steerx_edge.reading import Reading, read_items

PLAIN = Settings(described=False)
_SPLIT = {
    "generic 1 personal 2": (1, 2),
    "generic 0.5 personal 1": (0.5, 1),
    "generic 0.5 personal 2": (0.5, 2),
}
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
    "ten rows of most effect": replace(PLAIN, selection="anchors", threshold=1e6, min_anchors=10),
    "rows at the tokens": replace(PLAIN, row="at"),
    "retrieved for each": replace(PLAIN, fold=1),
    **dict.fromkeys(("against a rewrite", "band", "increments", *_SPLIT), PLAIN),
}

_REWRITE = "Write this text anew in plain words. Keep what it says, and leave its manner out.\n\n"


class Direction(NamedTuple):
    """What is added at strength 1, by one way."""

    way: str
    source: str
    layers: tuple[int, ...]
    vectors: NDArray[np.float32]  # (layer, n_embd)


def directions_by_way(
    engine: Engine, items: Sequence[HistoryItem], n_items: int, ways: Sequence[str]
) -> Iterator[Direction]:
    """Of one history, by every way; what several have in common is computed once."""
    ends = default_layers(engine.analysis.n_layer, PLAIN)
    layers = tuple(range(ends[0], ends[-1] + 1)) if {"band", "increments"} & {*ways} else ends
    known: dict[Settings, tuple[Reading, list[Carrier]]] = {}

    @cache
    def placebo(common: Settings) -> Placebo:
        reading, carriers = known[common]
        return placebo_of(
            engine, reading, [each for each in carriers if each.layer in ends], common
        )

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
        if way in ("band", "increments"):
            yield from _along(way, carriers)
            continue
        carriers = [carrier for carrier in carriers if carrier.layer in ends]
        if way in _SPLIT:
            yield from _apart(way, carriers, placebo(common))
            continue
        if way == "against a rewrite":
            carriers = _against_rewrites(engine, reading, layers, carriers)
        if settings.generic == "removed":
            carriers = without_generic(carriers, placebo(common))
        for each in carriers:
            direction = replace(each, estimate=settings.estimate).direction()
            yield Direction(way, each.source, (each.layer,), (each.norm * direction)[None])


def _along(way: str, carriers: Sequence[Carrier]) -> Iterator[Direction]:
    """At all blocks between the two: a share of it at each, or what it grows by to the next."""
    for source in dict.fromkeys(carrier.source for carrier in carriers):
        own = [carrier for carrier in carriers if carrier.source == source]
        vectors = np.stack([each.norm * each.direction() for each in own])
        if way == "band":
            vectors = vectors / len(own)
        else:
            vectors[1:] = np.diff(vectors, axis=0)
        yield Direction(way, source, tuple(each.layer for each in own), vectors)


def _apart(way: str, carriers: Sequence[Carrier], placebo: Placebo) -> Iterator[Direction]:
    """The part that is shared with placebo authors, and the rest, each with its own strength."""
    shared, rest = _SPLIT[way]
    theirs = placebo.directions()
    for each in carriers:
        whole = each.direction()
        generic = theirs.get((each.source, each.layer), np.zeros_like(whole))
        common = (whole @ generic) * generic
        vector = each.norm * (shared * common + rest * (whole - common))
        yield Direction(way, each.source, (each.layer,), vector[None])


def _against_rewrites(
    engine: Engine, reading: Reading, layers: Sequence[int], carriers: Sequence[Carrier]
) -> list[Carrier]:
    """The user's texts against the model's own rewrites of them, which say the same."""
    rewrites = engine.analysis.generate_many(
        [
            Continuation(engine.prompt(messages_for(_REWRITE + item.response)), n)
            for item, n in zip(reading.items, reply_lengths(reading), strict=True)
        ]
    )
    contexts = [text.context for text in reading.texts]
    own = np.stack([contrast.alone for contrast in reading.contrasts])
    differences = np.nan_to_num(own - mean_rows(engine, contexts, rewrites, layers, PLAIN.row))
    return [
        replace(each, differences=differences[:, layers.index(each.layer)])
        for each in carriers
        if each.source == "stylevector"
    ]


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
    gains: dict[tuple[str, str, str], list[tuple[float, float]]] = defaultdict(list)
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
        found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        for history in histories:
            for each in directions_by_way(engine, history, plan.items, ways):
                change = Add(each.layers, (args.strength * each.vectors).astype(np.float32))
                results = engine.run_many([Pass(*text, interventions=(change,)) for text in texts])
                gain = float(np.mean([one.scored.mean() for one in results]) - unsteered)
                blocks = "-".join(map(str, sorted({each.layers[0], each.layers[-1]})))
                found[each.way, each.source, blocks].append(gain)
        for place, both in found.items():
            if len(both) == len(histories):
                gains[place].append((both[0], both[1]))

    def interval(values: np.ndarray) -> str:
        low, high = bootstrap_mean_interval(values[:, None])
        return f"{values.mean():+.3f} [{low[0]:+.3f}, {high[0]:+.3f}]"

    first = ways[0]
    print(f"\n{engine.model_id.name}, {len(users)} users, strength {args.strength:g}")
    print(f"{'way':30} {'backbone':17} {'block':>5}  {'own':24} {'personal':24} against {first}")
    for (way, source, blocks), pairs in sorted(gains.items(), key=lambda item: item[0][1:]):
        own, generic = np.array(pairs).T
        against = ""
        if way != first and (first, source, blocks) in gains:
            base = np.subtract(*np.array(gains[first, source, blocks]).T)
            against = interval(own - generic - base)
        print(
            f"{way:30} {source:17} {blocks:>5}  {interval(own):24} {interval(own - generic):24} "
            f"{against}"
        )


if __name__ == "__main__":
    main()
