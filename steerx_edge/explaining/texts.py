"""The causal effect of every token of a history, and what of it a profile holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from steerx_edge.errors import HistoryError
from steerx_edge.explaining.held import Held, held, without
from steerx_edge.learning.ablation import Further, Progress, read_further
from steerx_edge.learning.effects import Effects
from steerx_edge.learning.settings import MIN_ITEMS, Settings
from steerx_edge.learning.texts import BLANK_LINES, chosen, requests_for, sampled, shortened
from steerx_edge.learning.totals import CHUNK
from steerx_edge.llamacpp.requests import asked_for
from steerx_edge.steering.ledger import text_hash
from steerx_edge.steering.memory import hashes_of
from steerx_edge.steering.requests import by_context, steered

if TYPE_CHECKING:
    from steerx_edge.history.item import HistoryItem
    from steerx_edge.llamacpp.engine import Engine
    from steerx_edge.profile import Entry
    from steerx_edge.steering.memory import Memory


@dataclass(frozen=True, eq=False)
class ExplainedText:
    """A text of T tokens.

    Attributes:
        place: in the history, from 0.
        item: the text and its request, cut to their shares of the analysis context.
        effects: of its tokens.
        treatment: (T,) log-probabilities with other texts of the history in the context, nats.
        control: (T,) without, nats.
        held: what the memory holds of its tokens and of its end, (T + 1); None if the profile has
            no memory that can be used.
        was_read: whether the profile was learned from it; None if that is not known.
        gain: what the profile adds to its log-probability, nats/token, from a memory without its
            own rows; None if the profile changes nothing.
    """

    place: int
    item: HistoryItem
    effects: Effects
    treatment: NDArray[np.float32]
    control: NDArray[np.float32]
    held: Held | None
    was_read: bool | None
    gain: float | None


class _Place(NamedTuple):
    number: int
    item: HistoryItem  # as given
    read: HistoryItem  # cut


def explain_texts(
    engine: Engine,
    entry: Entry,
    history: Sequence[HistoryItem],
    last: int,
    progress: Progress = lambda _what, _done, _of: None,
) -> list[ExplainedText]:
    """Read the last texts of a history in both arms, as `learn` reads further texts.

    Args:
        engine: the model.
        entry: what was learned on it.
        history: all texts; those in the context are chosen from them. No text is in its own.
        last: how many texts are explained.
        progress: called with "texts".

    Returns:
        The texts in the order of the history; of texts that differ only in white space and case,
        the last.

    Raises:
        HistoryError: there are fewer than two different texts.
        ModelError: llama.cpp fails.
    """
    numbers = {id(item): number for number, item in enumerate(history)}
    items = chosen(history, None)
    if len(items) < MIN_ITEMS:
        raise HistoryError(
            f"There is {'only one text' if items else 'no text'}, but at least {MIN_ITEMS} "
            "different ones are needed, because each is read in the context of the others. "
            f"{BLANK_LINES}"
        )
    memory = entry.memory.memory if entry.memory else None
    in_two = np.empty(0, np.uint32) if memory is None else _runs_in_two(engine, items, memory)
    size = min(CHUNK, -(-len(items) // 2))
    explained: list[ExplainedText] = []
    first = max(0, len(items) - last)
    for begin in range(first, len(items), size):
        progress("texts", begin - first, len(items) - first)
        end = begin + size
        chunk = [
            _Place(numbers[id(item)], item, shortened(engine, item)) for item in items[begin:end]
        ]
        others = [*items[:begin], *items[end:]]
        explained += _explained(engine, entry, chunk, others, in_two)
    progress("texts", len(items) - first, len(items) - first)
    return explained


def _explained(
    engine: Engine,
    entry: Entry,
    chunk: Sequence[_Place],
    others: Sequence[HistoryItem],
    in_two: NDArray[np.uint32],
) -> list[ExplainedText]:
    settings = _settings(entry)
    pool = [shortened(engine, others[place]) for place in sampled(len(others), settings.sample)]
    items = [each.read for each in chunk]
    results = read_further(engine, items, pool, settings)
    memory = entry.memory.memory if entry.memory else None
    found = [None if memory is None else _held(engine, memory, each) for each in results]
    gains = _gains(engine, entry, items, results, found, in_two)
    read = None if memory is None else _read(memory)
    return [
        ExplainedText(
            place=each.number,
            item=each.read,
            effects=result.effects,
            treatment=result.treatment,
            control=result.control,
            held=tokens,
            was_read=None if read is None else text_hash(each.item.response) in read,
            gain=gain,
        )
        for each, result, tokens, gain in zip(chunk, results, found, gains, strict=True)
    ]


def _settings(entry: Entry) -> Settings:
    in_context = entry.settings.get("in_context")
    return Settings(in_context=in_context) if isinstance(in_context, int) else Settings()


def _read(memory: Memory) -> set[int] | None:
    """Hashes of the texts that a memory was made from, if it tells."""
    return None if memory.ledger is None else set(memory.ledger.texts.tolist())


def _runs_in_two(
    engine: Engine, items: Sequence[HistoryItem], memory: Memory
) -> NDArray[np.uint32]:
    """Hashes of the runs of tokens that occur in exactly two of the texts of a memory."""
    read = _read(memory)
    runs = [
        hashes_of(np.array([*engine.tokenize(shortened(engine, item).response), memory.end]))
        for item in items
        if read is None or text_hash(item.response) in read
    ]
    hashes, counts = np.unique(np.concatenate([np.empty(0, np.uint32), *runs]), return_counts=True)
    in_two: NDArray[np.uint32] = hashes[counts == 2]
    return in_two


def _held(engine: Engine, memory: Memory, result: Further) -> Held:
    tokens = [*result.effects.tokens, engine.end_of_turn]
    return held(memory, tokens, memory.space.keys(result.final))


def _gains(
    engine: Engine,
    entry: Entry,
    items: Sequence[HistoryItem],
    results: Sequence[Further],
    found: Sequence[Held | None],
    in_two: NDArray[np.uint32],
) -> list[float | None]:
    """What the profile adds to each text, nats/token; its memory without the text's own rows."""
    steering = entry.steering()
    if not steering:
        return [None] * len(items)
    requests = requests_for(engine, items, final=True)
    kinds = by_context(engine, steering, [request.context for request in requests])
    scores = engine.run_many(
        [
            steered(request, replace(kind, memory=None))
            for request, kind in zip(requests, kinds, strict=True)
        ]
    )
    gains: list[float | None] = []
    for kind, score, result, own in zip(kinds, scores, results, found, strict=True):
        tokens, log_prob = result.effects.tokens, score.scored
        if kind.memory is not None and own is not None:
            whole = [*tokens, engine.end_of_turn]
            rest = without(kind.memory.memory, own, whole, in_two)
            if rest is not None:
                active = replace(kind.memory, memory=rest)
                log_prob = active.log_prob(asked_for(score.final)[:-1], tokens, log_prob)
        gains.append(float(np.mean(log_prob - result.control)) if len(tokens) else 0.0)
    return gains
