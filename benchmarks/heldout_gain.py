"""Does a profile help on held-out texts? Against unsteered, and history in the prompt.

For each user: learn from the last items of the history, then score the user's real held-out texts.
Gains are in nats per token, the mean over the user's held-out texts; then the mean over users with
a 95% bootstrap interval over users. `others` is the mean gain of the other users' profiles on this
user's texts: what they give as well is the task, not the person.

    python benchmarks/heldout_gain.py DATA.jsonl -m MODEL.gguf --users a,b,c
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np

from steerx_edge import Engine, Entry, HistoryItem, Settings, User, learn, read_users
from steerx_edge.history.retrieval import Retriever
from steerx_edge.learning.effects import bootstrap_mean_interval
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import ScoreRequest
from steerx_edge.steering.requests import by_context, steered

COLUMNS = ("profile", "others", "personal", "prompt", "prompt+profile", "description")


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="per-author file: user_id, profile, queries")
    parser.add_argument("-m", "--model", help="GGUF model (default: as steerx-edge)")
    parser.add_argument("-t", "--threads", type=int)
    parser.add_argument("--users", help="ids, by commas (default: the first three)")
    parser.add_argument("--items", type=int, default=16, help="history items used (default 16)")
    parser.add_argument("--retrieve", type=int, default=4, help="items in the prompt (default 4)")
    parser.add_argument("--layers", help="blocks to steer, by commas")
    parser.add_argument("--fold", type=int, default=4, help="items that share a context")
    parser.add_argument("--contrast-methods", help="by commas (default: as learn)")
    parser.add_argument("--strength", type=float, help="share of the residual norm; not calibrated")
    args = parser.parse_args()

    engine = Engine(args.model, n_threads=args.threads)
    everyone = list(read_users(args.data))
    wanted = args.users.split(",") if args.users else [user.id for user in everyone[:3]]
    users = [user for user in everyone if user.id in wanted]
    defaults = Settings()
    settings = Settings(
        layers=tuple(map(int, args.layers.split(","))) if args.layers else None,
        contrast_methods=tuple(args.contrast_methods.split(","))
        if args.contrast_methods
        else defaults.contrast_methods,
        calibrate=args.strength is None,
        strength=defaults.strength if args.strength is None else args.strength,
        max_items=args.items,
        fold=args.fold,
    )
    entries = []
    for user in users:
        begin = time.perf_counter()
        entries.append(learn(engine, user.history, settings).entries[0])
        report(user, entries[-1], time.perf_counter() - begin)

    print(f"\n{engine.model_id.name}, {args.data}: gain over unsteered, nats/token")
    print(f"{'user':10} {'unsteered':>10} " + " ".join(f"{name:>22}" for name in COLUMNS))
    rows = np.array([gains(engine, user, users, entries, args) for user in users])
    for user, row in zip(users, rows, strict=True):
        print(f"{user.id:10} {row[0]:10.3f} " + " ".join(f"{gain:+22.3f}" for gain in row[1:]))
    print(f"{'mean':10} {rows[:, 0].mean():10.3f} " + " ".join(map(interval, rows[:, 1:].T)))


def report(user: User, entry: Entry, seconds: float) -> None:
    """What was learned of a user."""
    words = " ".join(word.word for word in entry.words[:12])
    print(f"{user.id}: {entry.counts['items']} items, {entry.counts['tokens']} tokens, ", end="")
    carried = [
        f"{method} at {layer} by {strength:.2g}"
        for method, layer, strength in zip(
            entry.contrast_methods, entry.layers, entry.strengths, strict=True
        )
    ]
    logit_bias = (
        f"logit bias {entry.logit_bias.strength:g}" if entry.logit_bias else "no logit bias"
    )
    memory = f"memory {entry.memory.strength:g}" if entry.memory else "no memory"
    print(f"{', '.join(carried)}, {logit_bias}, {memory}, expected {entry.gain}, ", end="")
    print(f"{seconds:.0f} s\n  words: {words}\n  {entry.description.origin}: ", end="")
    print(entry.description.text, flush=True)


def gains(
    engine: Engine,
    user: User,
    users: Sequence[User],
    entries: Sequence[Entry],
    args: argparse.Namespace,
) -> list[float]:
    """Unsteered log-probability per token, then a gain for each of COLUMNS."""
    own = users.index(user)
    history = user.history[-args.items :]
    retriever = Retriever(history)
    passes = []
    for query in user.queries:
        found = retriever.retrieve(query.request, args.retrieve)[::-1]
        shown = [history[i] for i in found]
        description = entries[own].description.text
        passes += [
            scoring_pass(engine, query),
            *(scoring_pass(engine, query, entry=entry) for entry in entries),
            scoring_pass(engine, query, shown=shown),
            scoring_pass(engine, query, shown=shown, entry=entries[own], with_history=True),
            scoring_pass(engine, query, description=description),
        ]
    scores = np.array([result.scored.mean() for result in engine.run_many(passes)])
    table = scores.reshape(len(user.queries), -1)
    base = table[:, 0]
    by_entry, (shown, both, described) = table[:, 1:-3].T - base, table[:, -3:].T - base
    others = np.delete(by_entry, own, axis=0).mean(axis=0) if len(users) > 1 else np.nan
    columns = [base, by_entry[own], others, by_entry[own] - others, shown, both, described]
    return [float(np.mean(column)) for column in columns]


def scoring_pass(
    engine: Engine,
    query: HistoryItem,
    *,
    shown: Sequence[HistoryItem] = (),
    description: str = "",
    entry: Entry | None = None,
    with_history: bool = False,
) -> ScoreRequest:
    """The user's real text after its request."""
    context = engine.prompt(messages_for(query.request, history=shown, description=description))
    response = engine.tokenize(query.response)[: max(1, engine.analysis.n_ctx - len(context))]
    request = ScoreRequest(context, response)
    if entry is None:
        return request
    (steering,) = by_context(engine, entry.steering(with_history=with_history), [context])
    return steered(request, steering)


def interval(column: np.ndarray) -> str:
    """Mean and bootstrap interval, 22 characters."""
    low, high = bootstrap_mean_interval(column[:, None])
    return f"{column.mean():+.3f}[{low[0]:+.2f},{high[0]:+.2f}]".rjust(22)


if __name__ == "__main__":
    main()
