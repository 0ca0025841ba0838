"""Ways to make a memory, on held-out texts of real users: what each gives alone.

No directions, no logit bias, no calibration: for each way, the strength that is best on average is
taken for all users. Beside each user's own memory, one made of as many texts of the other users,
drawn at random (generic): own minus generic is the personal gain. Everything is computed from one
reading of each text, so a further way takes no pass of the model.

    python benchmarks/compare_memories.py DATA -m MODEL.gguf [--half odd] [--first 6] [--items 40]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from steerx_edge.llamacpp.waiting import wait_briefly

wait_briefly()

import numpy as np
from numpy.typing import NDArray

from steerx_edge import Engine, HistoryItem, Settings, User, read_users
from steerx_edge.history.budget import cut
from steerx_edge.learning.ablation import AblationResult, read_items
from steerx_edge.learning.effects import Effects, bootstrap_mean_interval
from steerx_edge.learning.memory_rows import MemoryRows, usual_words
from steerx_edge.learning.texts import usable
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import ScoreRequest, asked_for
from steerx_edge.steering.memory import KeySpace, Level, Memory, Offers, TextOffers

STRENGTHS = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8)
FIRST_WORDS = 8
CUT = 150
"""Tokens of a text, its request and a held-out text at most."""


@dataclass
class ReadText:
    """A text of the history: what its memory rows are made of."""

    effects: Effects
    request: str
    final: NDArray[np.float16]  # (T + 1, n_embd)
    block: NDArray[np.float32]  # (T + 1, n_embd), the residual stream two thirds up


@dataclass
class HeldOut:
    """A held-out text of T tokens."""

    tokens: list[int]
    log_prob: NDArray[np.float32]  # (T,)
    final: NDArray[np.float16]  # (T, n_embd)
    block: NDArray[np.float32]  # (T, n_embd)


@dataclass(frozen=True)
class Way:
    """How a memory is made."""

    level: Level = "causal"
    permuted: bool = False  # the same weights, dealt to tokens at random
    block: bool = False  # keys of a block in place of the final rows
    whitened: bool = True
    texts: int | None = None  # only the last so many
    kept: float = 1.0  # the share of the tokens that are kept, those of the highest weight
    asked_for: bool = False  # words of the request count as all others do
    opening: float = 1.0  # the strength in the first FIRST_WORDS tokens, as a multiple
    agreeing: bool = False  # the strength is multiplied by the share that neighbors agree on


WAYS: Mapping[str, Way] = {
    "causal": Way(),
    "causal weights at random": Way(permuted=True),
    "70% of the highest effect": Way(kept=0.7),
    "70% at random": Way(kept=0.7, permuted=True),
    "causal, words of the request too": Way(asked_for=True),
    "all": Way(level="all"),
    "shared": Way(level="shared"),
    "causal, first words twice": Way(opening=2.0),
    "causal, first words four times": Way(opening=4.0),
    "causal, by agreement": Way(agreeing=True),
    "causal, not whitened": Way(whitened=False),
    "causal, keys of a block": Way(block=True),
    "causal, that block not whitened": Way(block=True, whitened=False),
    "causal, 8 texts": Way(texts=8),
    "causal, 16 texts": Way(texts=16),
    "causal, 24 texts": Way(texts=24),
}


PAIRS = (
    ("causal", "causal weights at random"),
    ("70% of the highest effect", "70% at random"),
    ("causal", "causal, words of the request too"),
    ("causal", "all"),
    ("causal, first words twice", "causal"),
    ("causal, by agreement", "causal"),
    ("causal", "causal, not whitened"),
)
"""Ways that are compared user by user."""


def main() -> None:
    """Read the users, and print a row for each way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a per-author file")
    parser.add_argument("-m", "--model", required=True, help="GGUF")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--half", choices=("odd", "even"), default="odd")
    parser.add_argument("--first", type=int, default=6, help="users with enough texts")
    parser.add_argument("--min-items", type=int, default=13)
    parser.add_argument(
        "--items", type=int, default=40, help="use only the latest N texts of each history"
    )
    args = parser.parse_args()
    engine = Engine(args.model, n_threads=args.threads)
    users = list(read_users(args.data))[{"odd": 0, "even": 1}[args.half] :: 2]
    users = [u for u in users if len(u.history) >= args.min_items and u.queries][: args.first]
    histories, queries = {}, {}
    for user in users:
        histories[user.id] = read_history(engine, user, args.items)
        queries[user.id] = [held_out(engine, q.request, q.response) for q in user.queries]
        print(f"read {user.id}: {len(histories[user.id])} texts", flush=True)
    print(f"\n{len(users)} users, {engine.model_id.name}. Gains in nats/token, 95% over users.")
    own = {
        name: print_row(name, way, engine.end_of_turn, histories, queries)
        for name, way in WAYS.items()
    }
    for one, other in PAIRS:
        print(f"{one} over {other}: {shown(own[one] - own[other])}")


def read_history(engine: Engine, user: User, most: int) -> list[ReadText]:
    """Run the ablation passes over a user's texts."""
    layer = 2 * engine.analysis.n_layer // 3
    settings = Settings(fold=8)
    items = [
        HistoryItem(cut(engine, text.item.response, CUT), cut(engine, text.item.request, CUT))
        for text in usable(engine, user.history, most)
    ]
    results = read_items(engine, items, (layer,), settings).results
    blocks = engine.run_many(
        [ScoreRequest(*_tokens(each), score=False, layers=(layer,)) for each in results]
    )
    return [
        ReadText(each.effects, each.item.request, each.final, block.captured[0])
        for each, block in zip(results, blocks, strict=True)
    ]


def _tokens(result: AblationResult) -> tuple[list[int], list[int]]:
    return result.text.context, result.text.response


def held_out(engine: Engine, request: str, response: str) -> HeldOut:
    """Score a held-out text, unsteered."""
    tokens = engine.tokenize(response)[:CUT]
    layer = 2 * engine.analysis.n_layer // 3
    context = engine.prompt(messages_for(cut(engine, request, CUT)))
    result = engine.run(ScoreRequest(context, tokens, layers=(layer,), final=True))
    final = asked_for(result.final)[:-1].astype(np.float16)
    return HeldOut(tokens, result.scored, final, result.captured[0, :-1])


def print_row(
    name: str,
    way: Way,
    end: int,
    histories: Mapping[str, Sequence[ReadText]],
    queries: Mapping[str, Sequence[HeldOut]],
) -> NDArray[np.float64]:
    """Own and generic gain of a way, at its best strength; returns the former for each user."""
    own, generic = [], []
    for number, (user, texts) in enumerate(histories.items()):
        texts = texts[-way.texts :] if way.texts else texts
        rng = np.random.default_rng(number)
        pool = [text for other, some in histories.items() if other != user for text in some]
        drawn = [pool[i] for i in rng.permutation(len(pool))[: len(texts)]]
        own.append(gains(memory_of(texts, way, end), queries[user], way))
        generic.append(gains(memory_of(drawn, way, end), queries[user], way))
    best = int(np.mean(own, axis=0).argmax())
    own_gains, generic_gains = np.array(own)[:, best], np.array(generic)[:, best]
    cells = [shown(own_gains), f"median {np.median(own_gains):+.3f}", shown(generic_gains)]
    cells.append(shown(own_gains - generic_gains))
    print(f"{name:32} strength {STRENGTHS[best]:4}  own {'  '.join(cells)}", flush=True)
    return own_gains


def shown(values: NDArray[np.float64]) -> str:
    """A mean with its interval."""
    low, high = bootstrap_mean_interval(values[:, None])
    return f"{values.mean():+.3f} [{low[0]:+.3f}, {high[0]:+.3f}]"


def memory_of(texts: Sequence[ReadText], way: Way, end: int) -> Memory:
    """Make a memory of texts."""
    rows_of: Callable[[ReadText], NDArray[np.floating]] = (
        (lambda text: text.block) if way.block else (lambda text: text.final)
    )
    space = KeySpace.fit(np.concatenate([rows_of(text) for text in texts]))
    if not way.whitened:
        lengths = np.linalg.norm(space.basis, axis=0)
        space = KeySpace(space.mean, space.basis / lengths)
    usual = usual_words([text.request for text in texts])
    rows = MemoryRows(space, way.level, end, usual=usual)
    for text in texts:
        rows.add(text.effects, "" if way.asked_for else text.request, rows.keys(rows_of(text)))
    memory = rows.memory()
    if way.permuted:
        order = np.random.default_rng(0).permutation(len(memory.weights))
        memory = replace(memory, weights=memory.weights[order])
    if way.kept < 1:
        bar = np.quantile(memory.weights, 1 - way.kept)
        memory = replace(memory, weights=(memory.weights >= bar).astype(np.float32))
    return memory


def memory_as_learned(
    results: Sequence[AblationResult],
    end: int,
    level: Level = "causal",
) -> Memory:
    """The memory that `learn` makes from ablation results."""
    no_block = np.empty(0, np.float32)
    texts = [ReadText(each.effects, each.item.request, each.final, no_block) for each in results]
    return memory_of(texts, Way(level=level), end)


def gains(memory: Memory, texts: Sequence[HeldOut], way: Way) -> list[float]:
    """Mean gain over held-out texts at each of STRENGTHS."""
    offers: list[TextOffers] = []
    for text in texts:
        found = memory.offers(text.block if way.block else text.final)
        offer = found.of_text(text.tokens)
        offer.gates[:FIRST_WORDS] *= way.opening
        if way.agreeing:
            offer.gates[:] *= agreement(found)
        offers.append(offer)
    return [
        float(
            np.mean(
                [
                    (offer.log_prob(text.log_prob, strength) - text.log_prob).mean()
                    for offer, text in zip(offers, texts, strict=True)
                ]
            )
        )
        for strength in STRENGTHS
    ]


def agreement(offers: Offers) -> NDArray[np.float32]:
    """(T,) the share of the token that is offered most."""
    return np.array(
        [
            np.bincount(np.unique(tokens, return_inverse=True)[1], weights=shares).max()
            for tokens, shares in zip(offers.tokens, offers.shares, strict=True)
        ],
        np.float32,
    )


if __name__ == "__main__":
    main()
