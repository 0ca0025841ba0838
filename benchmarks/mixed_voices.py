"""Two voices in one history: headlines by one writer and reviews by another, as if by one person.

What is learned of the mixed history is tried on held-out texts of both voices, beside what is
learned of each voice alone. Asked: that it gives each voice 0.9 of its gain, and no word of the
other one. *Foreign* is the share of an answer's four-word runs that occur in the other voice's
texts, but not in its own texts or in the unsteered answer.

By default the memory alone, at the strength that is best over all pairs: one for both voices where
they are mixed. With --profiles, whole profiles as `learn` makes them, and each of their parts.
With --prefix, prefixes as `learn` makes them of the voice alone, of both if there may be only one,
and of both if the request may choose between two.

    python benchmarks/mixed_voices.py HEADLINES REVIEWS -m MODEL.gguf [--pairs 6] [--items 20]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from steerx_edge.llamacpp.waiting import wait_briefly

wait_briefly()

import numpy as np
from compare_memories import CUT, STRENGTHS, HeldOut, Way, gains, held_out, memory_as_learned
from compare_prefixes import always, by_request, log_probs
from numpy.typing import NDArray

from steerx_edge import Engine, HistoryItem, Settings, learn, read_users
from steerx_edge.history.budget import cut
from steerx_edge.learning.ablation import read_items
from steerx_edge.learning.prefix import chosen_prefixes
from steerx_edge.learning.texts import usable
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import GenerateRequest, ScoreRequest
from steerx_edge.profile import Entry
from steerx_edge.steering.memory import ActiveMemory, Memory
from steerx_edge.steering.requests import by_context, steered
from steerx_edge.steering.steering import Steering

MIN_ITEMS = 16
ANSWER = 48
"""Tokens."""

RUN = 4
"""Words."""

PARTS: dict[str, Callable[[Steering], Steering]] = {
    "whole": lambda whole: whole,
    "directions": lambda whole: replace(whole, logit_bias={}, memory=None),
    "logit bias": lambda whole: Steering(logit_bias=whole.logit_bias),
    "memory": lambda whole: Steering(memory=whole.memory),
}


@dataclass(frozen=True)
class Voice:
    """What one person wrote of one kind."""

    name: str
    items: list[HistoryItem]
    queries: list[HistoryItem]


Pair = tuple[Voice, Voice]


def main() -> None:
    """Print a line for each voice of each pair, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs=2, help="per-author files")
    parser.add_argument("-m", "--model", required=True, help="GGUF")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=6, help="of the odd half of both files")
    parser.add_argument("--items", type=int, default=20, help="use only the latest N texts of each")
    parser.add_argument("--profiles", action="store_true", help="whole profiles")
    parser.add_argument("--prefix", type=int, default=0, help="prefixes of so many tokens")
    args = parser.parse_args()
    engine = Engine(args.model, n_threads=args.threads)
    sides = [voices_of(engine, path, args.pairs, args.items) for path in args.data]
    pairs = list(zip(*sides, strict=True))
    print(f"{len(pairs)} pairs, {args.items} texts of each voice at most, {engine.model_id.name}")
    if args.profiles:
        compare_profiles(engine, pairs)
    elif args.prefix:
        compare_prefixes(engine, pairs, args.prefix)
    else:
        compare_memories(engine, pairs)


def voices_of(engine: Engine, path: str, n: int, most: int) -> list[Voice]:
    """The first users of the odd half that have enough texts."""
    users = [u for u in list(read_users(path))[::2] if len(u.history) >= MIN_ITEMS and u.queries]
    return [
        Voice(
            user.id,
            [shortened(engine, text.item) for text in usable(engine, user.history, most)],
            [shortened(engine, query) for query in user.queries],
        )
        for user in users[:n]
    ]


def shortened(engine: Engine, item: HistoryItem) -> HistoryItem:
    """An item whose text and request have CUT tokens at most."""
    return HistoryItem(cut(engine, item.response, CUT), cut(engine, item.request, CUT))


def mixed(pair: Pair) -> list[HistoryItem]:
    """Both voices' texts in turns, so that any sample holds both."""
    shares = [(np.arange(len(voice.items)) + 0.5) / len(voice.items) for voice in pair]
    items = [item for voice in pair for item in voice.items]
    return [items[i] for i in np.argsort(np.concatenate(shares), kind="stable")]


def compare_memories(engine: Engine, pairs: Sequence[Pair]) -> None:
    """Memories alone."""
    own: list[list[list[float]]] = []  # [pair][voice][strength]
    both: list[list[list[float]]] = []
    memories = []
    for pair in pairs:
        queries = [[held_out(engine, q.request, q.response) for q in v.queries] for v in pair]
        memory = memory_from(engine, mixed(pair))
        memories.append(memory)
        own.append(
            [of(memory_from(engine, v.items), q) for v, q in zip(pair, queries, strict=True)]
        )
        both.append([of(memory, q) for q in queries])
        print(f"read {pair[0].name} + {pair[1].name}", flush=True)
    gain, mixed_gain = np.array(own), np.array(both)
    best = gain.mean(axis=0).argmax(axis=1)  # of each voice
    common = int(mixed_gain.mean(axis=(0, 1)).argmax())
    print(f"Strengths: each voice alone {[STRENGTHS[i] for i in best]}, mixed {STRENGTHS[common]}")
    print("voice     alone    mixed    foreign 4-grams: mixed memory, unsteered")
    for i, pair in enumerate(pairs):
        steering = Steering(memory=ActiveMemory(memories[i], STRENGTHS[common]))
        for j in (0, 1):
            line = f"{gain[i, j, best[j]]:+.3f}   {mixed_gain[i, j, common]:+.3f}"
            shares = foreign(engine, pair[j], pair[1 - j], [steering] * len(pair[j].queries))
            print(f"{pair[j].name:8} {line}   {shares}", flush=True)
    for j in (0, 1):
        print_ratio(f"voice {j + 1}", gain[:, j, best[j]], mixed_gain[:, j, common])
    print("At equal strengths, means over the pairs:")
    for j in (0, 1):
        for name, values in (("alone", gain[:, j]), ("mixed", mixed_gain[:, j])):
            cells = "  ".join(
                f"{strength:g}: {mean:+.3f}"
                for strength, mean in zip(STRENGTHS, values.mean(axis=0), strict=True)
            )
            print(f"voice {j + 1} {name}  {cells}", flush=True)


def of(memory: Memory, queries: Sequence[HeldOut]) -> list[float]:
    """Gains at each of STRENGTHS."""
    return gains(memory, queries, Way())


def memory_from(engine: Engine, items: Sequence[HistoryItem]) -> Memory:
    """Run the ablation passes, and make a memory."""
    layer = engine.analysis.n_layer // 2
    results = read_items(engine, items, (layer,), Settings(fold=8)).results
    return memory_as_learned(results, engine.end_of_turn)


def compare_profiles(engine: Engine, pairs: Sequence[Pair]) -> None:
    """Whole profiles."""
    alone: list[list[float]] = [[], []]
    together: list[list[float]] = [[], []]
    for pair in pairs:
        mix = learned(engine, mixed(pair))
        print(f"{pair[0].name} + {pair[1].name}: {chosen(mix)}", flush=True)
        for j, voice in enumerate(pair):
            entry = learned(engine, voice.items)
            figures = [gains_of(engine, each, voice) for each in (entry, mix)]
            alone[j].append(figures[0]["whole"])
            together[j].append(figures[1]["whole"])
            print(f"{voice.name}: {chosen(entry)}")
            for name, (whole, *parts) in zip(
                ("alone", "mixed"), (figure.items() for figure in figures), strict=True
            ):
                cells = ", ".join(f"{part} {value:+.3f}" for part, value in parts)
                print(f"  {name}: {whole[1]:+.3f} ({cells})")
            contexts = contexts_of(engine, voice)
            per_query = by_context(engine, mix.steering(), contexts)
            print(f"  foreign: {foreign(engine, voice, pair[1 - j], per_query)}", flush=True)
    for j in (0, 1):
        print_ratio(f"voice {j + 1}", np.array(alone[j]), np.array(together[j]))


def learned(engine: Engine, items: Sequence[HistoryItem]) -> Entry:
    """A profile's entry."""
    return learn(engine, items, Settings()).entry_for(engine.model_id)


def chosen(entry: Entry) -> str:
    """The strengths of an entry."""
    directions = "+".join(f"{strength:.2f}" for strength in entry.strengths)
    logit_bias = entry.logit_bias.strength if entry.logit_bias else 0
    memory = entry.memory.strength if entry.memory else 0
    return f"directions {directions}, logit bias {logit_bias:g}, memory {memory:g}"


def gains_of(engine: Engine, entry: Entry, voice: Voice) -> dict[str, float]:
    """Mean gain on a voice's held-out texts, of the whole and of each part."""
    contexts = contexts_of(engine, voice)
    responses = [engine.tokenize(query.response) for query in voice.queries]
    steerings = by_context(engine, entry.steering(), contexts)

    def scores(part: Callable[[Steering], Steering]) -> NDArray[np.float64]:
        requests = [
            steered(ScoreRequest(context, response), part(steering))
            for context, response, steering in zip(contexts, responses, steerings, strict=True)
        ]
        return np.array([result.scored.mean() for result in engine.run_many(requests)])

    plain = scores(lambda _: Steering())
    return {name: float((scores(part) - plain).mean()) for name, part in PARTS.items()}


def contexts_of(engine: Engine, voice: Voice) -> list[list[int]]:
    """The prompt of each held-out text."""
    return [engine.prompt(messages_for(query.request)) for query in voice.queries]


def compare_prefixes(engine: Engine, pairs: Sequence[Pair], n_tokens: int) -> None:
    """Prefixes alone."""
    gain: list[list[list[float]]] = []  # [pair][voice][alone, one for both, as learned]
    for pair in pairs:
        alone = [chosen_prefixes(engine, voice.items, n_tokens) for voice in pair]
        one = chosen_prefixes(engine, mixed(pair), n_tokens, most=1)
        learned = chosen_prefixes(engine, mixed(pair), n_tokens)
        print(f"{pair[0].name} + {pair[1].name}: {len(learned)}; alone {[*map(len, alone)]}")
        figures = []
        for own, voice in zip(alone, pair, strict=True):
            plain = log_probs(engine, voice.queries, always([]))
            arms = [
                log_probs(engine, voice.queries, by_request(each)) for each in (own, one, learned)
            ]
            figures.append([float((arm - plain).mean()) for arm in arms])
            cells = "  ".join(f"{value:+.3f}" for value in figures[-1])
            print(f"{voice.name:8} {cells}", flush=True)
        gain.append(figures)
    for j in (0, 1):
        own, one_for_both, as_learned = np.array(gain)[:, j].T
        print_ratio(f"voice {j + 1}, one prefix", own, one_for_both)
        print_ratio(f"voice {j + 1}, as learned", own, as_learned)


def foreign(engine: Engine, voice: Voice, other: Voice, steerings: Sequence[Steering]) -> str:
    """How much of the answers to held-out requests is the other voice's."""
    contexts = contexts_of(engine, voice)
    plain = engine.generate_many([GenerateRequest(context, ANSWER) for context in contexts])
    answers = engine.generate_many(
        [
            steered(GenerateRequest(context, ANSWER), each)
            for context, each in zip(contexts, steerings, strict=True)
        ]
    )
    theirs = runs_of([item.response for item in other.items])
    theirs -= runs_of([item.response for item in voice.items])
    found = total = 0
    for before, after in zip(plain, answers, strict=True):
        runs = runs_of([after])
        total += len(runs)
        found += len(runs & theirs - runs_of([before]))
    common = sum(len(runs_of([before]) & theirs) for before in plain)
    return f"{found} of {total}, {common}"


def runs_of(texts: Sequence[str]) -> set[tuple[str, ...]]:
    """Runs of words, in lower case."""
    runs = set()
    for text in texts:
        words = text.casefold().split()
        runs |= {tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1)}
    return runs


def print_ratio(name: str, alone: NDArray[np.float64], together: NDArray[np.float64]) -> None:
    """What is left of the mean gain, where there is one."""
    kept = f"{together.mean() / alone.mean():.2f}" if alone.mean() > 0 else "no gain to keep"
    print(
        f"{name}: mixed {together.mean():+.3f} / alone {alone.mean():+.3f} = "
        f"{kept}; of the pairs, "
        f"{int((together >= 0.9 * alone).sum())} of {len(alone)} keep 0.9",
        flush=True,
    )


if __name__ == "__main__":
    main()
