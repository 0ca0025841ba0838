"""What edited drafts add to a profile that was learned from few texts: simulated users.

A user is a real author. A profile is learned from their first texts. For each of the next ones,
the model proposes an answer to its request under the profile, greedily, and the author's text is
what they make of it; with --keeps 0.5 it is the first half of that, and the second half of the
proposal. The gain is over the unsteered model, in nats per token, on the author's last texts, which
nothing was learned from. The ways to learn from the same drafts:

    plain        their final texts are added like any other texts (`learn --add`)
    accepted     the same, but taken only if held-out drafts become more probable (`feedback`)
    changed      tokens that the proposal has too count for nothing, in the memory and in the bias
    proposals    the logit bias expects what was proposed instead of what the model expects
    pairs        plain, and the direction moves to the final texts from the proposals
    replies      plain, and the direction moves to the final texts from the model's own replies

    python benchmarks/simulated_edits.py DATA -m MODEL.gguf --half odd --first 3 -o FOLDER
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import cached_property
from pathlib import Path

from steerx_edge.llamacpp.waiting import wait_briefly

wait_briefly()

import numpy as np
from numpy.typing import NDArray

from steerx_edge import Draft, Engine, Entry, Profile, User, learn, learn_more, read_users
from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.ablation import Further, read_further
from steerx_edge.learning.adding import base_of
from steerx_edge.learning.contrasts import mean_rows
from steerx_edge.learning.effects import Effects, bootstrap_mean_interval
from steerx_edge.learning.feedback import learn_from_drafts
from steerx_edge.learning.memory_rows import MemoryRows
from steerx_edge.learning.settings import Settings
from steerx_edge.learning.texts import shortened
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import GenerateRequest, ScoreRequest
from steerx_edge.profile import LogitBias, MemoryPart
from steerx_edge.steering.logit_bias import TokenCounts
from steerx_edge.steering.requests import by_context, steered

EDITS = (5, 10, 20)
N_PROPOSED = 48
"""Tokens of a proposal at most."""

WAYS = ("plain", "accepted", "changed", "proposals", "pairs", "replies")


@dataclass(frozen=True)
class Case:
    """A simulated user: what their profile was learned from, their drafts, and what is held out."""

    engine: Engine
    profile: Profile
    first: Sequence[HistoryItem]
    own: Sequence[HistoryItem]
    held_out: Sequence[HistoryItem]
    keeps: float

    @property
    def entry(self) -> Entry:
        """The profile before any draft."""
        return self.profile.entry_for(self.engine.model_id)

    @cached_property
    def contexts(self) -> list[list[int]]:
        """The prompt of each draft."""
        return [self.engine.prompt(messages_for(item.request)) for item in self.own]

    @cached_property
    def edits(self) -> list[HistoryItem]:
        """What the author makes of each proposal."""
        return [
            replace(item, response=_joined(item.response, self._text(tokens), self.keeps))
            for item, tokens in zip(self.own, self.proposals, strict=True)
        ]

    @cached_property
    def finals(self) -> list[list[int]]:
        """The same as tokens."""
        return [self.engine.tokenize(item.response) for item in self.edits]

    @cached_property
    def proposals(self) -> list[list[int]]:
        """The model's, under the profile."""
        steerings = by_context(self.engine, self.entry.steering(), self.contexts)
        requests = [GenerateRequest(context, N_PROPOSED) for context in self.contexts]
        return self.engine.analysis.generate_many(
            [steered(*each) for each in zip(requests, steerings, strict=True)]
        )

    @cached_property
    def drafts(self) -> list[Draft]:
        """Those whose proposal has any text."""
        return [
            Draft(self._text(tokens), item.response, item.request)
            for tokens, item in zip(self.proposals, self.edits, strict=True)
            if self._text(tokens).strip()
        ]

    def _text(self, tokens: Sequence[int]) -> str:
        return b"".join(self.engine.pieces(tokens)).decode(errors="replace")

    @cached_property
    def read(self) -> list[Further]:
        """The ablation passes over the final texts, with the first ones in the context."""
        return read_further(self.engine, self.edits, self.first, Settings())

    @cached_property
    def changed(self) -> list[NDArray[np.bool_]]:
        """Which tokens of each final text the proposal does not have in their place."""
        return [_changed(*each) for each in zip(self.proposals, self.finals, strict=True)]

    @cached_property
    def from_proposals(self) -> NDArray[np.float32]:
        """(draft, layer, n_embd) mean rows of the final texts, minus those of the proposals."""
        return self._differences(self.proposals)

    @cached_property
    def from_replies(self) -> NDArray[np.float32]:
        """The same, minus those of the unsteered model's greedy replies."""
        return self._differences(
            self.engine.analysis.generate_many(
                [GenerateRequest(context, N_PROPOSED) for context in self.contexts]
            )
        )

    def _differences(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        final, other = (
            mean_rows(self.engine, self.contexts, each, self.entry.layers, "predicts")
            for each in (self.finals, texts)
        )
        differences: NDArray[np.float32] = np.nan_to_num(final - other)
        return differences

    @cached_property
    def requests(self) -> list[ScoreRequest]:
        """The held-out texts."""
        return [
            ScoreRequest(
                self.engine.prompt(messages_for(item.request)),
                self.engine.tokenize(item.response),
            )
            for item in self.held_out
        ]

    @cached_property
    def unsteered(self) -> NDArray[np.float64]:
        """Their log-probabilities per token without a profile."""
        return self._log_probs(self.requests)

    def _log_probs(self, requests: Sequence[ScoreRequest]) -> NDArray[np.float64]:
        return np.array([result.scored.mean() for result in self.engine.run_many(requests)])

    def gain(self, entry: Entry) -> float:
        """Mean over the held-out texts, over unsteered."""
        contexts = [request.context for request in self.requests]
        steerings = by_context(self.engine, entry.steering(), contexts)
        requests = [steered(*each) for each in zip(self.requests, steerings, strict=True)]
        return float((self._log_probs(requests) - self.unsteered).mean())


def main() -> None:
    """Measure each user that the folder does not hold yet, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", help="a per-author file")
    parser.add_argument("-m", "--model", help="GGUF")
    parser.add_argument("-o", "--output", required=True, type=Path, help="folder of the figures")
    parser.add_argument("-t", "--threads", type=int, default=1)
    parser.add_argument("--half", choices=("odd", "even"), help="every other user of the file")
    parser.add_argument("--users", default="", help="ids, by commas; all with enough texts")
    parser.add_argument("--first", type=int, help="of these, only the first so many")
    parser.add_argument("--texts", type=int, default=16, help="that a profile is learned from")
    parser.add_argument("--held-out", type=int, default=16, help="texts")
    parser.add_argument("--keeps", type=float, default=0, help="share of a proposal that stays")
    parser.add_argument("--ways", default=",".join(WAYS), help="by commas")
    args = parser.parse_args()
    args.output.mkdir(exist_ok=True)
    engine = Engine(args.model, n_ctx=256, n_threads=args.threads)
    ways = args.ways.split(",")
    least = args.texts + max(EDITS) + args.held_out
    everyone = list(read_users(args.data))[
        {"odd": 0, "even": 1}.get(args.half, 0) :: 2 if args.half else 1
    ]
    names = [name for name in args.users.split(",") if name]
    users = [
        user
        for user in everyone
        if len(user.history) + len(user.queries) >= least and user.id in (names or [user.id])
    ]
    rows = []
    for user in users[: args.first]:
        path = args.output / f"{user.id}.keeps-{args.keeps:g}.json"
        if not path.exists():
            case = _case(engine, user, args)
            path.write_text(json.dumps(_figures(case, ways)), "utf-8")
        rows.append(json.loads(path.read_text("utf-8")))
        print(f"{user.id}: {rows[-1]}", flush=True)
    _print(rows, ways)


def _case(engine: Engine, user: User, args: argparse.Namespace) -> Case:
    path = args.output / f"{user.id}.profile.json"
    texts = [shortened(engine, item) for item in (*user.history, *user.queries)]
    first, rest = texts[: args.texts], texts[args.texts :]
    if not path.exists():
        learn(engine, first).save(path)
    own, held_out = rest[: max(EDITS)], rest[max(EDITS) :][-args.held_out :]
    return Case(engine, Profile.load(path), first, own, held_out, args.keeps)


def _figures(case: Case, ways: Sequence[str]) -> dict[str, float]:
    """The gain with each number of edits in each way, and what describes the drafts."""
    kept = [1 - float(changed.mean()) for changed in case.changed]
    figures = {"kept": float(np.mean(kept))}
    entries = {"0": case.entry}
    for n in EDITS:
        plain = learn_more(case.engine, case.profile, case.edits[:n])
        added = plain.entry_for(case.engine.model_id)
        for way in ways:
            if way == "accepted":
                drafts = [draft for draft in case.drafts if draft.item in case.edits[:n]]
                found = learn_from_drafts(case.engine, case.profile, drafts)
                figures[f"taken {n}"] = float(found.is_taken)
                entries[f"{way} {n}"] = found.profile.entry_for(case.engine.model_id)
            else:
                entries[f"{way} {n}"] = LEARNED[way](case, added, n)
    with case.engine.analysis.storing([request.context for request in case.requests]):
        return figures | {name: case.gain(entry) for name, entry in entries.items()}


def _of_changed_tokens(case: Case, added: Entry, n: int) -> Entry:
    """Tokens that were proposed have no weight."""
    part, memory, ledger = base_of(case.engine, case.entry)
    rows = MemoryRows.continuing(memory, ledger, part.level)
    used, expected = ledger.used.copy(), ledger.expected.copy()
    for tokens, changed, read, item in zip(
        case.finals[:n], case.changed, case.read, case.edits, strict=False
    ):
        # An effect of minus infinity is a weight of 0.
        nats = np.where(changed, read.effects.nats, -np.inf).astype(np.float32)
        effects = Effects(tokens, read.effects.pieces, nats)
        rows.add(effects, item.request, rows.keys(read.final))
        np.add.at(used, np.array(tokens)[changed], 1)
        expected += read.expected.astype(np.float32) * float(changed.mean())
    strength = added.memory.strength if added.memory else 0.0
    return replace(
        added,
        memory=MemoryPart.of(rows.memory(), strength=strength, level=part.level),
        logit_bias=_bias(case, added, used, expected),
    )


def _against_proposals(case: Case, added: Entry, n: int) -> Entry:
    """As many tokens are expected as there are in the final texts, spread as in the proposals."""
    ledger = base_of(case.engine, case.entry).ledger
    used, expected = ledger.used.copy(), ledger.expected.copy()
    for final, proposed in zip(case.finals[:n], case.proposals, strict=False):
        np.add.at(used, final, 1)
        if proposed:
            np.add.at(expected, proposed, len(final) / len(proposed))
    return replace(added, logit_bias=_bias(case, added, used, expected))


def _bias(
    case: Case, added: Entry, used: NDArray[np.float32], expected: NDArray[np.float32]
) -> LogitBias | None:
    expected[case.engine.end_tokens] = 0
    values = TokenCounts(used[None], expected[None]).values()
    return added.logit_bias and LogitBias.of(values, added.logit_bias.strength)


def _moved(case: Case, added: Entry, differences: NDArray[np.float32]) -> Entry:
    """The direction, and that of the drafts, by the number of their texts."""
    drafts = differences.mean(axis=0)
    drafts = drafts / np.linalg.norm(drafts, axis=-1, keepdims=True)
    directions = len(case.first) * added.directions + len(differences) * drafts
    directions = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    return replace(added, directions=directions)


LEARNED: dict[str, Callable[[Case, Entry, int], Entry]] = {
    "plain": lambda _case, added, _n: added,
    "changed": _of_changed_tokens,
    "proposals": _against_proposals,
    "pairs": lambda case, added, n: _moved(case, added, case.from_proposals[:n]),
    "replies": lambda case, added, n: _moved(case, added, case.from_replies[:n]),
}


def _joined(own: str, proposed: str, keeps: float) -> str:
    """The beginning of a text and the end of a proposal, by words."""
    first, last = own.split(), proposed.split()
    kept = last[len(last) - round(keeps * len(last)) :]
    return " ".join([*first[: len(first) - round(keeps * len(first))], *kept]) if kept else own


def _changed(proposed: Sequence[int], final: Sequence[int]) -> NDArray[np.bool_]:
    changed = np.ones(len(final), np.bool_)
    for block in SequenceMatcher(None, proposed, final, autojunk=False).get_matching_blocks():
        changed[block.b : block.b + block.size] = False
    return changed


def _print(rows: Sequence[dict[str, float]], ways: Sequence[str]) -> None:
    """Two tables: gains, and what each way gains over plain texts, user by user."""
    print(f"\n{len(rows)} users; of the final texts, ", end="")
    print(f"{100 * np.mean([row['kept'] for row in rows]):.0f}% of the tokens were proposed")
    before = np.array([row["0"] for row in rows])
    print(f"Gain of the profile without drafts: {_interval(before)}")
    head = " | ".join(f"{n} edits" for n in EDITS)
    rule = "|---|" + "---|" * len(EDITS)
    print(f"\n| added to that by | {head} |\n{rule}")
    for way in ways:
        gains = [np.array([row[f"{way} {n}"] for row in rows]) - before for n in EDITS]
        print(f"| {way} | {' | '.join(map(_interval, gains))} |")
    print(f"\n| over plain texts | {head} |\n{rule}")
    for way in (way for way in ways if way != "plain"):
        gains = [np.array([row[f"{way} {n}"] - row[f"plain {n}"] for row in rows]) for n in EDITS]
        print(f"| {way} | {' | '.join(map(_interval, gains))} |")
    if "accepted" in ways:
        taken = [int(sum(row[f"taken {n}"] for row in rows)) for n in EDITS]
        print(f"\nTaken: {', '.join(f'{n} of {len(rows)}' for n in taken)} users")


def _interval(values: NDArray[np.float64]) -> str:
    low, high = bootstrap_mean_interval(values[:, None])
    return f"{values.mean():+.3f} [{low[0]:+.3f}, {high[0]:+.3f}]"


if __name__ == "__main__":
    main()
