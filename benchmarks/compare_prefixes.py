"""Which texts of a user every prompt should begin with, on held-out texts of real users.

Gains over the plain request in nats per token, for the user's own texts and for as many texts of
other users; own minus others is personal. Choices: the latest texts, the shortest, varied ones, and
those that `learn --prefix` takes; against texts that are retrieved for each request. *Influence* is
what a text in the context does for the user's other texts (SteerX's ablation, a text at a time):
the texts with the highest mean, or by greedy selection those that together leave no text without
one that helps it (facility location). A description comes before the latest texts, as a system
message.

    python benchmarks/compare_prefixes.py DATA -m MODEL.gguf [--half odd] [--first 5]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from steerx_edge.llamacpp.waiting import wait_briefly

wait_briefly()

import numpy as np
from numpy.typing import NDArray

from steerx_edge import Engine, HistoryItem
from steerx_edge.evaluation import Plan, read_sample
from steerx_edge.evaluation.sample import Sample, drawn_items
from steerx_edge.history.budget import cut, shortened
from steerx_edge.history.item import User
from steerx_edge.history.retrieval import GroupRetriever, Retriever
from steerx_edge.learning.ablation import read_items
from steerx_edge.learning.description import describe, style_facts
from steerx_edge.learning.effects import word_effects
from steerx_edge.learning.prefix import chosen_prefixes, fitting, latest, varied
from steerx_edge.learning.settings import Settings
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import ScoreRequest

Prefix = Callable[[HistoryItem], Sequence[HistoryItem]]
"""The in-context texts of a query."""

SHORTENED = 64, 256
"""Tokens of the request and of the text, in a prefix."""

MOST_ABLATED = 16
"""Latest texts whose influence is measured."""

Influence = NDArray[np.float64]


def shortest(items: Sequence[HistoryItem]) -> list[int]:
    """Places of the texts, the shortest first."""
    return sorted(range(len(items)), key=lambda i: len(items[i].request + items[i].response))


ORDERS = {"latest": latest, "shortest": shortest, "varied": varied}


def main() -> None:
    """Print a row for each choice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a per-author file")
    parser.add_argument("-m", "--model", required=True, help="GGUF")
    parser.add_argument("-t", "--threads", type=int, default=1)
    parser.add_argument("--half", choices=("odd", "even"), default="odd")
    parser.add_argument("--first", type=int, default=5, help="users")
    parser.add_argument("--queries", type=int, default=3, help="held-out texts of each")
    args = parser.parse_args()
    plan = Plan(items=32, min_items=16)
    sample = read_sample(args.data, plan, half=args.half)
    engine = Engine(args.model, n_threads=args.threads)
    gains: dict[str, list[tuple[float, float]]] = {}
    for name in sample.reported[: args.first]:
        figures = measured(engine, sample, sample.by_id[name], args.queries)
        for choice, found in figures.items():
            gains.setdefault(choice, []).append(found)
        print(
            f"measured {name}: "
            + ", ".join(f"{choice} {found[0]:+.3f}" for choice, found in figures.items()),
            flush=True,
        )
    print(f"{'choice':28}{'own':>8}{'median':>9}{'personal':>10}")
    for choice, pairs in gains.items():
        own, others = np.array(pairs).T
        print(
            f"{choice:28}{own.mean():>+8.3f}{np.median(own):>+9.3f}{(own - others).mean():>+10.3f}"
        )


def measured(
    engine: Engine, sample: Sample, user: User, n_queries: int
) -> dict[str, tuple[float, float]]:
    """The gain of each choice from the user's own texts, and from others'."""
    queries = user.queries[:n_queries]
    plain = log_probs(engine, queries, always([]))
    found = {}
    others = drawn_items(sample, user, 0, Plan().seed)
    own_choices, other_choices = choices(engine, user.history), choices(engine, others)
    for name, prefix in own_choices.items():
        own = log_probs(engine, queries, prefix) - plain
        other = log_probs(engine, queries, other_choices[name]) - plain
        found[name] = float(own.mean()), float(other.mean())
    first = "latest, 1024 tokens"
    own, other = (
        log_probs(engine, queries, own_or_other[first], description_of(engine, items)) - plain
        for own_or_other, items in ((own_choices, user.history), (other_choices, others))
    )
    found["description, then latest"] = float(own.mean()), float(other.mean())
    return found


def always(items: Sequence[HistoryItem]) -> Prefix:
    """The same in-context texts for every query."""
    return lambda _query: items


def by_request(prefixes: Sequence[Sequence[HistoryItem]]) -> Prefix:
    """The prefix that the query's request calls for."""
    groups = GroupRetriever(prefixes)
    return lambda query: groups.retrieve(query.request)


def choices(engine: Engine, items: Sequence[HistoryItem]) -> dict[str, Prefix]:
    """What is compared."""
    texts = [shortened(engine, item, request=256, response=256) for item in items]
    retriever = Retriever(texts)

    def retrieved(query: HistoryItem) -> list[HistoryItem]:
        return [texts[i] for i in reversed(retriever.retrieve(query.request, 4))]

    found: dict[str, Prefix] = {"4 retrieved": retrieved}
    request, response = SHORTENED
    short = [shortened(engine, item, request=request, response=response) for item in items]
    for n_tokens, names in ((512, ["latest"]), (1024, list(ORDERS))):
        for name in names:
            fixed = fitting(engine, short, ORDERS[name](short), n_tokens)
            found[f"{name}, {n_tokens} tokens"] = always(fixed)
    whole = fitting(engine, texts, latest(texts), 1024)
    found["latest, 1024, whole requests"] = always(whole)
    pool = short[-MOST_ABLATED:]
    influence = influences(engine, pool)
    for n_tokens in (512, 1024):
        for name, order in (("influence", strongest), ("greedy influence", greedy)):
            fixed = fitting(engine, pool, order(influence), n_tokens)
            found[f"{name}, {n_tokens} tokens"] = always(fixed)
    found["as learn takes them, 1024"] = by_request(chosen_prefixes(engine, items, 1024))
    return found


def influences(engine: Engine, items: Sequence[HistoryItem]) -> Influence:
    """(n, n) by how much text i in the context changes the log-probability per token of text j."""
    alone = log_probs(engine, items, always([]))
    rows = [log_probs(engine, items, always([item])) - alone for item in items]
    found = np.array(rows)
    np.fill_diagonal(found, 0)
    return found


def strongest(influence: Influence) -> list[int]:
    """Places of the texts, first the one that helps the others most on average."""
    return [int(i) for i in influence.mean(axis=1).argsort()[::-1]]


def greedy(influence: Influence) -> list[int]:
    """Places of the texts, each time the one that adds most to the best help that each text has."""
    order: list[int] = []
    best = np.zeros(len(influence))
    while len(order) < len(influence):
        added = np.maximum(influence - best, 0).sum(axis=1)
        added[order] = -1
        order.append(int(added.argmax()))
        best = np.maximum(best, influence[order[-1]])
    return order


def description_of(engine: Engine, items: Sequence[HistoryItem]) -> str:
    """The user's description, as `learn` makes it."""
    short = [shortened(engine, item, request=256, response=256) for item in items]
    ablation = read_items(engine, short, (engine.analysis.n_layer // 2,), Settings())
    words = word_effects([result.effects for result in ablation.results])
    return describe(engine, words, style_facts([item.response for item in items])).text


def log_probs(
    engine: Engine, queries: Sequence[HistoryItem], prefix: Prefix, description: str = ""
) -> NDArray[np.float64]:
    """Of each query's text, per token."""
    requests = [
        ScoreRequest(
            engine.prompt(
                messages_for(
                    cut(engine, query.request, 384), history=prefix(query), system=description
                )
            ),
            engine.tokenize(query.response)[:256],
        )
        for query in queries
    ]
    return np.array([each.scored.mean(dtype=np.float64) for each in engine.run_many(requests)])


if __name__ == "__main__":
    main()
