"""Which directions, how strong, and whether it is worth it: by the user's own held-out texts.

Fold by fold, everything is made of the other folds, and the texts of this one are scored under a
grid of settings. The gain of a setting is the mean over texts of the gain in log-probability per
token. Only directions take passes of the model: one pass gives the log-probabilities under every
strength of the logit bias, and the final rows, with which every strength of the memory is scored
without a pass. Of the settings within one standard error of the best, the most selective one is
chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from steerx_edge.learning.ablation import Text
from steerx_edge.learning.effects import bootstrap_mean_interval
from steerx_edge.learning.neutral import neutral_items
from steerx_edge.llamacpp.interventions import Add
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import GenerateRequest, ScoreRequest, ScoreResult, asked_for
from steerx_edge.profile import Gain
from steerx_edge.steering.gate import Gate, held_out
from steerx_edge.steering.logit_bias import BIAS_STRENGTHS, TokenCounts
from steerx_edge.steering.memory import ActiveMemory, Memory, TextOffers

if TYPE_CHECKING:
    from steerx_edge.learning.candidates import Candidate
    from steerx_edge.learning.memory_rows import MemoryRows
    from steerx_edge.llamacpp.engine import Engine

STRENGTH = 0.1
"""The share of the residual norm that every direction is tried with first."""

MEMORIES = (0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8)
"""Strengths of the memory that are tried."""

MOST_LOSS = 0.005
"""What neutral text may lose, nats/token."""

_BEHIND = 2.0
"""A choice that is so many standard errors behind on half of the texts is scored on no more."""

_WRITTEN_TEXTS, _WRITTEN_NEUTRAL, _WRITTEN_TOKENS = 8, 3, 48
_MOST_REPEATED = 0.1  # share of repeated, or of shared, 4-grams that may be added

Strengths = tuple[tuple[int, float], ...]
"""Of some candidate directions, by their place."""


@dataclass(frozen=True)
class Setting:
    """Strengths of some candidate directions, of the logit bias, and of the memory."""

    strengths: Strengths = ()
    logit_bias: float = 0.0
    memory: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """What was chosen, and what it gave.

    Args:
        setting: strengths; 0 where nothing reliable was found.
        gain: of the setting, or, where its interval reaches 0, of the one that was not reliable;
            None where it was not measured.
        with_history: strengths where other texts of the user's stand in the prompt.
        gain_with_history: what these give over the prompt alone, or None.
        gate: which answers the setting is for; None for all.
    """

    setting: Setting
    gain: Gain | None
    with_history: Setting = Setting()
    gain_with_history: Gain | None = None
    gate: Gate | None = None


class Scored(NamedTuple):
    """A text of T tokens, scored under some directions."""

    biased: NDArray[np.float32]  # (bias, T) log-probabilities under BIAS_STRENGTHS
    final: NDArray[np.float16]  # (T + 1, n_embd) final normed rows; the last predicts no token


class _Memories:
    """Memories of all texts but some. The last one is kept: each holds nearly all keys."""

    def __init__(self, rows: MemoryRows) -> None:
        self._rows = rows
        self._last: tuple[tuple[int, ...], Memory] | None = None

    def without(self, texts: tuple[int, ...]) -> Memory:
        """The memory of all texts but these."""
        if self._last is None or self._last[0] != texts:
            self._last = None  # before the next one is made
            self._last = texts, self._rows.memory(without=texts)
        return self._last[1]

    def clear(self) -> None:
        """The rows are others now."""
        self._last = None


@dataclass
class _Fold:
    """Texts that are scored with what is made of the other folds."""

    members: list[int]
    directions: list[NDArray[np.float32]]
    biases: NDArray[np.float32] | None  # (bias, n_vocab)
    held_out: tuple[int, ...]
    memories: _Memories | None

    @property
    def memory(self) -> Memory | None:
        """Of all texts but those that are held out."""
        return None if self.memories is None else self.memories.without(self.held_out)


@dataclass(eq=False)
class Calibrator:
    """Scores settings on held-out texts.

    Args:
        engine: the model.
        texts: the user's items.
        folds: every item in one of them.
        candidates: candidate directions, at distinct (contrast method, layer).
        logit_bias: counts by fold, or None for no logit bias.
        rows: of the memory, those of the items first; or None for no memory.
        gated: whether a profile leaves answers to requests alone that are unlike the person's.
        spares_neutral: whether neutral text may lose no more than MOST_LOSS.
    """

    engine: Engine
    texts: Sequence[Text]
    folds: Sequence[Sequence[int]]
    candidates: Sequence[Candidate]
    logit_bias: TokenCounts | None
    rows: MemoryRows | None = None
    gated: bool = True
    spares_neutral: bool = True
    _scored: dict[Strengths, dict[int, Scored]] = field(default_factory=dict, init=False)
    _offers: dict[tuple[Strengths, int], TextOffers] = field(default_factory=dict, init=False)
    _means: dict[tuple[Setting, int], float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.n_items = len(self.texts)
        neutral = [
            Text(
                self.engine.prompt(messages_for(item.request)),
                self.engine.tokenize(item.response),
            )
            for item in neutral_items("calibration")
        ]
        self._all_texts = [*self.texts, *neutral]
        self._memories = None if self.rows is None else _Memories(self.rows)
        # The neutral texts are one more fold, which nothing is made of.
        folds = [*self.folds, range(self.n_items, len(self._all_texts))]
        self._folds = [self._fold(number, list(members)) for number, members in enumerate(folds)]
        self._fold_of = {j: fold for fold in self._folds for j in fold.members}

    def _fold(self, number: int, members: list[int]) -> _Fold:
        others = sorted(set(range(self.n_items)) - set(members))
        return _Fold(
            members,
            [candidate.direction(others) for candidate in self.candidates],
            None if self.logit_bias is None else self.logit_bias.tried(without=number),
            # After the items come rows of further texts, whose places are no neutral texts'.
            tuple(j for j in members if j < self.n_items),
            self._memories,
        )

    def in_prompts(self, beside: Sequence[Scored]) -> Calibrator:
        """A calibrator for prompts that hold texts of the user's: no directions, and no gate.

        Args:
            beside: the items, scored with others in their prompts.
        """
        prompted = replace(self, candidates=(), gated=False, spares_neutral=False)
        neutral = range(self.n_items, self.n_texts)
        prompted._scored[()] = dict(enumerate(beside)) | {j: self._scored[()][j] for j in neutral}
        return prompted

    def renew_memory(self) -> None:
        """Make the folds' memories of all rows that there are now."""
        self._offers.clear()
        self._means.clear()
        if self._memories is not None:
            self._memories.clear()

    @property
    def n_texts(self) -> int:
        """How many texts are scored: the items, and the neutral ones."""
        return len(self._all_texts)

    @property
    def whole(self) -> _Fold:
        """What is made of all texts."""
        return self._folds[-1]

    def score(
        self,
        choices: Sequence[Strengths],
        items: Iterable[int] | None = None,
        done: Callable[[int], None] | None = None,
    ) -> None:
        """Score strengths of directions, each with every logit bias and memory strength.

        Args:
            choices: strengths of directions.
            items: which texts; None for all that can make a difference.
            done: called with how many passes are done.
        """
        wanted = self._needed() if items is None else list(items)
        owners = [
            (choice, j)
            for choice in choices
            for j in wanted
            if j not in self._scored.get(choice, {})
        ]
        changes = {
            (choice, id(fold)): self._changes(choice, fold)
            for choice in choices
            for fold in self._folds
        }
        results = self.engine.run_many(
            [self._pass(j, changes[choice, id(self._fold_of[j])]) for choice, j in owners], done
        )
        for (choice, j), result in zip(owners, results, strict=True):
            self._scored.setdefault(choice, {})[j] = _scored(result)

    def _pass(self, j: int, changes: tuple[Add, ...]) -> ScoreRequest:
        text, fold = self._all_texts[j], self._fold_of[j]
        return ScoreRequest(
            text.context,
            text.response,
            final=True,
            biases=fold.biases,
            interventions=changes,
        )

    def _changes(self, choice: Strengths, fold: _Fold) -> tuple[Add, ...]:
        return tuple(
            Add(
                (self.candidates[place].layer,),
                (strength * self.candidates[place].norm * fold.directions[place])[None],
            )
            for place, strength in choice
        )

    @cached_property
    def gate(self) -> Gate | None:
        """Made of all texts; None where a profile acts on every answer."""
        return Gate.fit(*self._opening_rows) if self.gated else None

    @property
    def _opening_rows(self) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        """Rows that predict the first token, unsteered: of the items, and of the neutral texts."""
        rows = np.stack([self._scored[()][j].final[0] for j in range(self.n_texts)])
        return rows[: self.n_items], rows[self.n_items :]

    @cached_property
    def _is_open(self) -> NDArray[np.bool_]:
        """Which texts a gate made of others lets through."""
        if not self.gated:
            return np.ones(self.n_texts, np.bool_)
        return np.concatenate(held_out(*self._opening_rows))

    def race(self, choices: Sequence[Strengths], done: Callable[[int], None] | None = None) -> None:
        """Score choices on every second text, and those that are not clearly behind on all."""
        half = range(0, self.n_items, 2)
        self.score(choices, half, done)
        gains = {c: self._best_gains(c, half) for c in (*choices, *self._complete())}
        leader = max(gains.values(), key=lambda each: each.mean())
        near = [
            choice
            for choice in choices
            if (leader - gains[choice]).mean() <= _BEHIND * _standard_error(leader - gains[choice])
        ]
        n_done = len(choices) * len(half)
        self.score(near, None, None if done is None else lambda n: done(n_done + n))

    def _needed(self) -> list[int]:
        """The items, and the neutral texts that a profile may change: all, before that is known."""
        if not self._scored:
            return list(range(self.n_texts))
        return [j for j in range(self.n_texts) if j < self.n_items or self._is_open[j]]

    def _complete(self) -> list[Strengths]:
        """Choices that were scored on all texts that they need."""
        needed = self._needed()
        return [c for c, texts in self._scored.items() if all(j in texts for j in needed)]

    def _best_gains(self, choice: Strengths, items: Sequence[int]) -> NDArray[np.float64]:
        """Of the choice, with the strengths of logit bias and memory that suit it best."""
        each = [self.gains(setting, items) for setting in self._settings(choice)]
        return max(each, key=lambda gains: float(gains.mean()))

    def _settings(self, choice: Strengths) -> Iterator[Setting]:
        biases = (0.0,) if self.logit_bias is None else BIAS_STRENGTHS
        memories = (0.0,) if self.rows is None else MEMORIES
        for logit_bias, memory in product(biases, memories):
            yield Setting(choice, logit_bias, memory)

    def _log_prob(self, setting: Setting, j: int) -> float:
        """Mean over the tokens of a text."""
        if not self._is_open[j]:
            setting = Setting()
        if (setting, j) not in self._means:
            choice = setting.strengths
            scored = self._scored[choice][j]
            log_prob = scored.biased[
                BIAS_STRENGTHS.index(setting.logit_bias) if self.logit_bias is not None else 0
            ]
            if setting.memory and self.rows is not None:
                if (choice, j) not in self._offers:
                    self._look_up(choice, self._fold_of[j])
                log_prob = self._offers[choice, j].log_prob(log_prob, setting.memory)
            self._means[setting, j] = float(log_prob.mean(dtype=np.float64))
        return self._means[setting, j]

    def _look_up(self, choice: Strengths, fold: _Fold) -> None:
        """What the memory of a fold offers its texts that were scored."""
        memory = fold.memory
        if memory is None:
            return
        for j in fold.members:
            if j in self._scored[choice] and (choice, j) not in self._offers:
                offers = memory.offers(self._scored[choice][j].final[:-1])
                self._offers[choice, j] = offers.of_text(self._all_texts[j].response)

    def gains(self, setting: Setting, items: Sequence[int] | None = None) -> NDArray[np.float64]:
        """(item,) over unsteered, nats/token."""
        wanted = range(self.n_items) if items is None else items
        return np.array([self._log_prob(setting, j) - self._log_prob(Setting(), j) for j in wanted])

    def loss(self, setting: Setting) -> float:
        """What neutral text loses, nats/token."""
        if not self.spares_neutral:
            return 0.0
        return -float(self.gains(setting, range(self.n_items, len(self._all_texts))).mean())

    def gain(self, setting: Setting) -> Gain:
        """The mean of `gains`, with its interval."""
        gains = self.gains(setting)
        low, high = bootstrap_mean_interval(gains[:, None])
        return Gain(float(gains.mean()), float(low[0]), float(high[0]), len(gains))

    def best(self) -> Setting:
        """Of the settings within one standard error of the best, the most selective one.

        That is the one with the weakest directions, then the weakest logit bias, which act on all
        that is written, then the memory that gains most, which acts only where the person has
        written the like. The error is that of the difference over texts, and no more than that of
        the best itself: how unlike the texts a setting is does not speak for it. What takes more
        than MOST_LOSS from neutral text is no choice.
        """
        gains = {s: self.gains(s) for choice in self._complete() for s in self._settings(choice)}
        losses = {setting: self.loss(setting) for setting in gains}
        mild = [setting for setting, loss in losses.items() if loss <= MOST_LOSS]
        best = gains[max(mild, key=lambda setting: gains[setting].mean())]
        error = _standard_error(best)

        def is_near(setting: Setting) -> bool:
            behind = best - gains[setting]
            return bool(behind.mean() <= min(_standard_error(behind), error))

        return min(
            filter(is_near, mild),
            key=lambda each: (
                sum(s for _, s in each.strengths),
                each.logit_bias,
                -gains[each].mean(),
            ),
        )

    def finer(self) -> list[Strengths]:
        """Choices around the best: weaker, stronger, and with another direction beside it."""
        items = range(self.n_items)
        gains = {choice: self._best_gains(choice, items) for choice in self._complete()}
        best = max(gains, key=lambda choice: gains[choice].mean())
        ahead = gains[best] - gains[()]
        if ahead.mean() <= _standard_error(ahead):
            return []
        taken = {self.candidates[place].layer for place, _ in best}
        around = [tuple((place, factor * s) for place, s in best) for factor in (0.5, 2.0)]
        beside = [
            tuple(sorted((*best, (place, STRENGTH))))
            for place, candidate in enumerate(self.candidates)
            if candidate.layer not in taken
        ]
        return [*around, *beside]

    def fluent(self, setting: Setting) -> Setting:
        """The setting, or the first weaker one that writes fluent text.

        Unsteered, what the model writes itself is the least surprising, and the user's own text
        much more so. Steered text may be as surprising as that, and repeat hardly more than
        unsteered; and what neutral requests are answered with may hardly be more alike.
        """
        while setting != Setting() and not self.writes_fluently(setting):
            setting = self._weaker(setting)
        return setting

    def writes_fluently(self, setting: Setting) -> bool:
        """Whether what is written under a setting passes the check of `fluent`."""
        written, plain = self._written(setting), self._plain
        own_surprise = -np.mean([self._log_prob(Setting(), j) for j in range(self.n_items)])
        return bool(
            written.surprise <= max(plain.surprise, own_surprise)
            and written.repeated <= plain.repeated + _MOST_REPEATED
            and written.shared <= plain.shared + _MOST_REPEATED
        )

    @cached_property
    def _plain(self) -> _Written:
        return self._written(Setting())

    @staticmethod
    def _weaker(setting: Setting) -> Setting:
        """The next weaker setting of those that were scored: what is least selective goes first."""
        if setting.strengths:
            return replace(setting, strengths=())
        if setting.logit_bias:
            return replace(setting, logit_bias=0.0)
        return replace(setting, memory=max(m for m in MEMORIES if m <= setting.memory / 2))

    def _written(self, setting: Setting) -> _Written:
        own = range(min(_WRITTEN_TEXTS, self.n_items))
        neutral = range(self.n_items, self.n_items + _WRITTEN_NEUTRAL)
        bias: dict[int, float] = {}
        if self.whole.biases is not None and setting.logit_bias:
            values = self.whole.biases[BIAS_STRENGTHS.index(1.0)]
            bias = {int(v): float(setting.logit_bias * values[v]) for v in np.flatnonzero(values)}
        memory = None
        if self.whole.memory is not None and setting.memory:
            memory = ActiveMemory(self.whole.memory, setting.memory)
        changes = self._changes(setting.strengths, self.whole)
        texts = self.engine.analysis.generate_many(
            [
                GenerateRequest(
                    self._all_texts[j].context,
                    _WRITTEN_TOKENS,
                    changes if self._is_open[j] else (),
                    logit_bias=bias if self._is_open[j] else {},
                    memory=memory if self._is_open[j] else None,
                )
                for j in (*own, *neutral)
            ]
        )
        jobs = [ScoreRequest(self.texts[j].context, texts[j]) for j in own if texts[j]]
        surprise = [-each.scored.mean() for each in self.engine.run_many(jobs)]
        return _Written(
            float(np.mean(surprise)) if surprise else 0.0,
            float(np.mean([repeated_four_grams(texts[j]) for j in own])),
            shared_four_grams(texts[len(own) :]),
        )


class _Written(NamedTuple):
    """How texts are that were written under a setting."""

    surprise: float  # of those for the user's requests, unsteered, nats/token
    repeated: float  # share of 4-grams within each of these
    shared: float  # share of 4-grams among those for neutral requests


def calibrate(
    calibrator: Calibrator,
    *,
    beside: Sequence[Scored] = (),
    done: Callable[[int, int], None] = lambda _done, _of: None,
) -> Calibration:
    """Choose strengths by cross-validated gain.

    Args:
        calibrator: what can be added, and the texts to score.
        beside: the texts, scored with others in their prompts, to find strengths for that, too.
        done: called with how many of how many passes are done, at most.

    Raises:
        ModelError: llama.cpp fails.
    """
    n_candidates = len(calibrator.candidates)
    stages = (1, n_candidates, 1 + n_candidates)
    ends = (0, *(int(end) * calibrator.n_texts for end in np.cumsum(stages)))
    total = ends[-1] + 1

    def report(stage: int) -> Callable[[int], None]:
        return lambda n: done(ends[stage] + n, total)

    calibrator.score([()], None, report(0))
    calibrator.race([((place, STRENGTH),) for place in range(n_candidates)], report(1))
    calibrator.race(calibrator.finer(), report(2))
    setting = calibrator.best()
    gain = calibrator.gain(setting)
    if gain.low > 0:
        setting = calibrator.fluent(setting)
        gain = calibrator.gain(setting)
    if gain.low <= 0:
        done(total, total)
        return Calibration(Setting(), gain)
    found = Calibration(setting, gain, gate=calibrator.gate)
    if beside:
        prompted = calibrator.in_prompts(beside)
        with_history = prompted.best()
        gain = prompted.gain(with_history)
        found = replace(
            found,
            with_history=with_history if gain.low > 0 else Setting(),
            gain_with_history=gain,
        )
    done(total, total)
    return found


def recalibrate(calibrator: Calibrator, calibration: Calibration) -> Calibration:
    """Choose the memory's strength anew, now that it has more rows. Scoring it takes no pass.

    It rises only where that writes fluent text.
    """
    if calibrator.rows is None or calibration.gain is None or calibration.gain.low <= 0:
        return calibration
    calibrator.renew_memory()
    near = [replace(calibration.setting, memory=strength) for strength in MEMORIES]
    mild = [s for s in near if calibrator.loss(s) <= MOST_LOSS] or [calibration.setting]
    setting = max(mild, key=lambda each: calibrator.gains(each).mean())
    rises = setting.memory > calibration.setting.memory
    if rises and not calibrator.writes_fluently(setting):
        setting = calibration.setting
    return replace(
        calibration,
        setting=setting,
        gain=calibrator.gain(setting),
    )


def _scored(result: ScoreResult) -> Scored:
    biased = result.scored[None] if result.biased is None else result.biased
    return Scored(biased, asked_for(result.final).astype(np.float16))


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def repeated_four_grams(tokens: Sequence[int]) -> float:
    """The share of 4-grams that have occurred before, 0 to 1."""
    grams = _four_grams(tokens)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def shared_four_grams(texts: Sequence[Sequence[int]]) -> float:
    """The share of the texts' distinct 4-grams that an earlier one of them has, 0 to below 1."""
    each = [set(_four_grams(tokens)) for tokens in texts]
    n_grams = sum(map(len, each))
    return 1 - len(set().union(*each)) / n_grams if n_grams else 0.0


def _four_grams(tokens: Sequence[int]) -> list[tuple[int, ...]]:
    return [tuple(tokens[i : i + 4]) for i in range(len(tokens) - 3)]
