"""Settings scored on the user's own texts, each text with what the others give.

Fold by fold, everything is made from the other folds, and the texts of this one are scored. The
gain of a setting is the mean over texts of the gain in log-probability per token. Only directions
take passes of the model: one pass gives the log-probabilities under every strength of the logit
bias, and the final rows, with which every strength of the memory is scored without a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from steerx_edge.learning.ablation import Text
from steerx_edge.learning.calibration.fold import Fold, Memories, Rows
from steerx_edge.learning.calibration.grid import UNSTEERED, Setting, Strengths, settings_of
from steerx_edge.learning.effects import bootstrap_mean_interval
from steerx_edge.learning.neutral import neutral_items
from steerx_edge.llamacpp.requests import ScoreRequest, ScoreResult, asked_for
from steerx_edge.profile import Gain
from steerx_edge.steering.gate import Gate, held_out
from steerx_edge.steering.logit_bias import BIAS_STRENGTHS, TokenCounts
from steerx_edge.steering.memory import TextOffers
from steerx_edge.steering.requests import steered
from steerx_edge.steering.steering import Steering

if TYPE_CHECKING:
    from steerx_edge.learning.candidates import Candidate
    from steerx_edge.llamacpp.engine import Engine


class Scored(NamedTuple):
    """A text of T tokens, scored under some directions."""

    biased: NDArray[np.float32]  # (bias, T) log-probabilities under BIAS_STRENGTHS
    final: NDArray[np.float16]  # (T + 1, n_embd) final normed rows; the last predicts no token


@dataclass(eq=False)
class HeldOutScores:
    """Scores of settings on texts that took no part in them.

    Args:
        engine: the model.
        texts: the user's.
        folds: every text in one of them.
        candidates: candidate directions, at distinct (contrast method, layer).
        counts: token counts by fold, or None for no logit bias.
        rows: of the memory, those of the texts first; or None for no memory.
        gated: whether a profile leaves answers to requests alone that are unlike the user's.
        spares_neutral: whether the loss on neutral text is bounded.
    """

    engine: Engine
    texts: Sequence[Text]
    folds: Sequence[Sequence[int]]
    candidates: Sequence[Candidate]
    counts: TokenCounts | None
    rows: Rows | None = None
    gated: bool = True
    spares_neutral: bool = True
    _scored: dict[Strengths, dict[int, Scored]] = field(default_factory=dict, init=False)
    _offers: dict[tuple[Strengths, int], TextOffers] = field(default_factory=dict, init=False)
    _means: dict[tuple[Setting, int], float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.n_items = len(self.texts)
        neutral = [Text.of(self.engine, item) for item in neutral_items("calibration")]
        self.all_texts = [*self.texts, *neutral]
        self._memories = None if self.rows is None else Memories(self.rows)
        # The neutral texts are one more fold, which gives nothing to the others.
        folds = [*self.folds, range(self.n_items, self.n_texts)]
        self._folds = [self._fold(number, list(members)) for number, members in enumerate(folds)]
        self._fold_of = {j: number for number, fold in enumerate(self._folds) for j in fold.members}

    def _fold(self, number: int, members: list[int]) -> Fold:
        others = sorted(set(range(self.n_items)) - set(members))
        return Fold(
            members,
            self.candidates,
            [candidate.direction(others) for candidate in self.candidates],
            None if self.counts is None else self.counts.tried(without=number),
            # In the memory, the items are followed by further texts, not by the neutral ones.
            tuple(j for j in members if j < self.n_items),
            self._memories,
        )

    def in_prompts(self, scored: Sequence[Scored]) -> HeldOutScores:
        """Scores for prompts that hold texts of the user: no directions, and no gate.

        Args:
            scored: the texts, scored with others in their prompts.
        """
        prompted = replace(self, candidates=(), gated=False, spares_neutral=False)
        neutral = range(self.n_items, self.n_texts)
        prompted._scored[()] = (  # noqa: SLF001  # of this class
            dict(enumerate(scored)) | {j: self._scored[()][j] for j in neutral}
        )
        return prompted

    def with_rows(self, rows: Rows) -> HeldOutScores:
        """The same scores with the memory of other rows; this takes no passes."""
        scores = replace(self, rows=rows)
        scores._scored.update(self._scored)  # noqa: SLF001  # of this class
        return scores

    def renew_memory(self) -> None:
        """Make the folds' memories of all rows that there are now."""
        self._offers.clear()
        self._means.clear()
        if self._memories is not None:
            self._memories.clear()

    @property
    def n_texts(self) -> int:
        """How many texts are scored: the user's, and the neutral ones."""
        return len(self.all_texts)

    @property
    def layers(self) -> list[int]:
        """The block of each candidate direction."""
        return [candidate.layer for candidate in self.candidates]

    def steering(self, setting: Setting, held_out: int | None = None) -> Steering:
        """The steering of a setting, without a gate: from all texts, or as one is scored.

        Args:
            setting: strengths.
            held_out: a text; what is made from its fold is left out.
        """
        fold = self._folds[-1 if held_out is None else self._fold_of[held_out]]
        return fold.steering(setting)

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
        missing = [
            (choice, j)
            for choice in choices
            for j in wanted
            if j not in self._scored.get(choice, {})
        ]
        steerings = {
            (choice, number): fold.steering(Setting(choice))
            for choice in choices
            for number, fold in enumerate(self._folds)
        }
        requests = [
            steered(self._request(j), steerings[choice, self._fold_of[j]]) for choice, j in missing
        ]
        results = self.engine.run_many(requests, done)
        for (choice, j), result in zip(missing, results, strict=True):
            self._scored.setdefault(choice, {})[j] = _scored(result)

    def _request(self, j: int) -> ScoreRequest:
        text, fold = self.all_texts[j], self._folds[self._fold_of[j]]
        return ScoreRequest(text.context, text.response, final=True, biases=fold.biases)

    @cached_property
    def gate(self) -> Gate | None:
        """Made of all texts; None where a profile acts on every answer."""
        return Gate.fit(*self._opening_rows) if self.gated else None

    @property
    def _opening_rows(self) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        """Unsteered rows that predict the first token, of the user's and of neutral texts."""
        rows = np.stack([self._scored[()][j].final[0] for j in range(self.n_texts)])
        return rows[: self.n_items], rows[self.n_items :]

    @cached_property
    def is_open(self) -> NDArray[np.bool_]:
        """(text,) whether a gate made of others lets each text through."""
        if not self.gated:
            return np.ones(self.n_texts, np.bool_)
        return np.concatenate(held_out(*self._opening_rows))

    def _needed(self) -> list[int]:
        """The texts that a profile may change; all of them before that is known."""
        if not self._scored:
            return list(range(self.n_texts))
        return [j for j in range(self.n_texts) if j < self.n_items or self.is_open[j]]

    def complete(self) -> list[Strengths]:
        """Strengths of directions that were scored on all texts that they need."""
        needed = self._needed()
        return [c for c, texts in self._scored.items() if all(j in texts for j in needed)]

    def settings(self, choice: Strengths) -> list[Setting]:
        """The settings of these strengths of directions."""
        return list(
            settings_of(
                choice, with_logit_bias=self.counts is not None, with_memory=self.rows is not None
            )
        )

    def log_prob(self, setting: Setting, j: int) -> float:
        """Mean over the tokens of a text, in nats."""
        if not self.is_open[j]:
            setting = UNSTEERED
        if (setting, j) not in self._means:
            choice = setting.strengths
            scored = self._scored[choice][j]
            place = BIAS_STRENGTHS.index(setting.logit_bias) if self.counts is not None else 0
            log_prob = scored.biased[place]
            if setting.memory and self.rows is not None:
                if (choice, j) not in self._offers:
                    self._look_up(choice, self._folds[self._fold_of[j]])
                log_prob = self._offers[choice, j].log_prob(log_prob, setting.memory)
            self._means[setting, j] = float(log_prob.mean(dtype=np.float64))
        return self._means[setting, j]

    def _look_up(self, choice: Strengths, fold: Fold) -> None:
        """What the memory of a fold offers its texts that were scored."""
        memory = fold.memory
        if memory is None:
            return
        for j in fold.members:
            if j in self._scored[choice] and (choice, j) not in self._offers:
                offers = memory.offers(self._scored[choice][j].final[:-1])
                self._offers[choice, j] = offers.of_text(self.all_texts[j].response)

    def gains(self, setting: Setting, items: Sequence[int] | None = None) -> NDArray[np.float64]:
        """(text,) over unsteered, nats/token."""
        wanted = range(self.n_items) if items is None else items
        return np.array([self.log_prob(setting, j) - self.log_prob(UNSTEERED, j) for j in wanted])

    def loss(self, setting: Setting) -> float:
        """What neutral text loses, nats/token; 0 where that is not bounded."""
        if not self.spares_neutral:
            return 0.0
        return -float(self.gains(setting, range(self.n_items, self.n_texts)).mean())

    def gain(self, setting: Setting) -> Gain:
        """The mean of `gains`, with its interval."""
        gains = self.gains(setting)
        low, high = bootstrap_mean_interval(gains[:, None])
        return Gain(float(gains.mean()), float(low[0]), float(high[0]), len(gains))


def _scored(result: ScoreResult) -> Scored:
    biased = result.scored[None] if result.biased is None else result.biased
    return Scored(biased, asked_for(result.final).astype(np.float16))
