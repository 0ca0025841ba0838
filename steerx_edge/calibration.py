"""Which carriers, how strong, and whether it is worth it: by the user's own held-out texts.

Fold by fold, everything is made of the other folds, and the texts of this one are scored under a
grid of settings. The gain of a setting is the mean over texts of the gain in log-probability per
token. Of the settings within one standard error of the best, the one that does the least to plain
text of nobody's is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from steerx_edge.analysis import Continuation, Pass, asked_for
from steerx_edge.effects import bootstrap_mean_interval
from steerx_edge.interventions import Add
from steerx_edge.phrases import Mixed, PhraseBook, weigh_grams
from steerx_edge.profile import Gain
from steerx_edge.prompts import messages_for
from steerx_edge.reading import Text
from steerx_edge.tilt import TiltCounts

if TYPE_CHECKING:
    from steerx_edge.carriers import Carrier, Placebo
    from steerx_edge.engine import Engine

STRENGTH = 0.1
"""The share of the residual norm that every carrier is tried with first."""

TILTS = (0.0, 0.5, 1.0, 1.5, 2.0)

MOST_HARM = 0.02
"""What plain texts of nobody's may lose, nats/token."""

PHRASES = (0.0, 0.03, 0.1, 0.3, 1.0)
"""Strengths of phrases that are tried."""

# What is said here is nobody's manner. Written for this purpose, so that no model has it by heart.
_PLAIN_TEXTS = (
    "Bread dough rises because yeast turns sugar into gas. In a warm kitchen it doubles in an "
    "hour, in a cold one it takes all night. When it is baked the bubbles set, and the loaf keeps "
    "its shape.",
    "The ferry leaves the north pier every forty minutes and takes twelve cars. In fog it waits. "
    "Tickets are sold on board, and children under six travel free with an adult.",
    "A key works because its cuts lift each pin of the lock to one height. Then nothing stands "
    "across the edge of the cylinder, and it turns. A single cut that is too deep leaves it shut.",
)

# What anybody might ask, and no user's texts answer.
_PLAIN_REQUESTS = (
    "Why does bread dough rise?",
    "How often does the ferry leave?",
    "How does a key open a lock?",
)

_BESIDE = (0.5, 1.0)
"""Shares of the directions' strengths, tried where texts of the user's stand in the prompt."""

_GUARDED_TEXTS, _GUARDED_TOKENS = 4, 48
_MOST_REPEATED = 0.1  # share of repeated, or of shared, 4-grams that may be added
_WEAKER = (0.7, 0.5, 0.35, 0.25, 0.125)


@dataclass(frozen=True)
class Setting:
    """Strengths of some carriers, by their place, of the tilt, and of the phrases."""

    strengths: tuple[tuple[int, float], ...] = ()
    tilt: float = 0.0
    phrases: float = 0.0

    def scaled(self, factor: float) -> Setting:
        """The same, weaker."""
        strengths = tuple((place, factor * strength) for place, strength in self.strengths)
        return Setting(strengths, factor * self.tilt, factor * self.phrases)


@dataclass(frozen=True)
class Calibration:
    """What was chosen, and what it gave.

    Args:
        setting: strengths; 0 where nothing reliable was found.
        gain: of the setting, or, where its interval reaches 0, of the one that was not reliable;
            None where it was not measured.
        personal: what of the gain placebo authors would not have given, or None.
        with_history: strengths where other texts of the user's stand in the prompt.
        gain_with_history: what these give over the prompt alone, or None.
    """

    setting: Setting
    gain: Gain | None
    personal: Gain | None = None
    with_history: Setting = Setting()
    gain_with_history: Gain | None = None


class Calibrator:
    """Scores settings on held-out texts, each at most once.

    Gains and harm are against the choice of no carrier, (), which is to be scored too.

    Args:
        engine: the model.
        texts: the user's items.
        folds: every item in one of them.
        carriers: at distinct (source, layer).
        tilt: counts by fold, or None for no tilt.
        phrase_texts: texts that a phrase must occur in, or None for no phrases.
    """

    def __init__(
        self,
        engine: Engine,
        texts: Sequence[Text],
        folds: Sequence[Sequence[int]],
        carriers: Sequence[Carrier],
        tilt: TiltCounts | None,
        phrase_texts: int | None = None,
    ) -> None:
        self._engine = engine
        self._n_items = len(texts)
        context = engine.prompt(messages_for(""))
        plain = [Text(context, engine.tokenize(text)) for text in _PLAIN_TEXTS]
        self._texts = [*texts, *plain]
        # The plain texts are one more fold, which nothing is made of.
        self._folds = [*folds, range(len(texts), len(texts) + len(plain))]
        self._carriers = carriers
        self._tilts = (0.0,) if tilt is None else TILTS
        self._phrases = (0.0,) if phrase_texts is None else PHRASES
        everything = set(range(len(texts)))
        others = [sorted(everything - set(fold)) for fold in self._folds]
        self._directions = [[carrier.direction(items) for carrier in carriers] for items in others]
        self._values = [
            None if tilt is None else tilt.values([f for f in range(len(folds)) if f != fold])
            for fold in range(len(self._folds))
        ]
        self._grams = [
            None
            if phrase_texts is None
            else weigh_grams([texts[i].response for i in items], phrase_texts)
            for items in others
        ]
        self._phrase_texts = phrase_texts
        self._mixed: dict[float, dict[int, Mixed]] = {}
        self._scores: dict[Setting, NDArray[np.float64]] = {}

    def score(
        self,
        choices: Sequence[tuple[tuple[int, float], ...]],
        done: Callable[[int], None] | None = None,
        *,
        tilts: Sequence[float] | None = None,
        phrases: Sequence[float] | None = None,
    ) -> None:
        """Score strengths of carriers, each with every strength of the tilt and of the phrases.

        Args:
            choices: strengths of carriers.
            done: told how many passes are done.
            tilts: None takes TILTS.
            phrases: None takes PHRASES.
        """
        strengths = self._tilts if tilts is None else tilts
        weights = self._phrases if phrases is None else phrases
        choices = [
            choice
            for choice in choices
            if any(Setting(choice, t, p) not in self._scores for t in strengths for p in weights)
        ]
        jobs, owners = [], []
        for fold, values in zip(range(len(self._folds)), self._values, strict=True):
            biases = None if values is None else np.outer(strengths, values).astype(np.float32)
            for choice in choices:
                changes = self._changes(choice, self._directions[fold])
                for j in self._folds[fold]:
                    text = self._texts[j]
                    jobs.append(
                        Pass(text.context, text.response, tilts=biases, interventions=changes)
                    )
                    owners.append((choice, j))
        for choice in choices:
            for tilt in strengths:
                for weight in weights:
                    self._scores[Setting(choice, tilt, weight)] = np.zeros(len(self._texts))
        for (choice, j), result in zip(owners, self._engine.run_many(jobs, done), strict=True):
            rows = [result.scored] if result.tilted is None else list(result.tilted)
            for tilt, row in zip(strengths, rows, strict=True):
                for weight in weights:
                    scores = self._with_phrases(j, weight, row)
                    self._scores[Setting(choice, tilt, weight)][j] = scores.mean(dtype=np.float64)

    def _with_phrases(
        self, j: int, strength: float, log_prob: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Scores of a text with the phrases of the other folds."""
        if strength not in self._mixed:
            self._mixed[strength] = {
                i: PhraseBook(grams, strength).of_text(self._texts[i].response)
                for fold, grams in zip(self._folds, self._grams, strict=True)
                if grams is not None and strength
                for i in fold
            }
        mixed = self._mixed[strength].get(j)
        return log_prob if mixed is None else mixed.log_prob(log_prob)

    def gains(self, setting: Setting) -> NDArray[np.float64]:
        """(item,) over unsteered, nats/token."""
        gains: NDArray[np.float64] = self._scores[setting] - self._scores[Setting()]
        return gains[: self._n_items]

    def harm(self, setting: Setting) -> float:
        """What the plain texts lose, nats/token."""
        lost = self._scores[Setting()] - self._scores[setting]
        return float(lost[self._n_items :].mean())

    def gain(self, setting: Setting) -> Gain:
        """The mean of `gains`, with its interval."""
        return _mean(self.gains(setting))

    def personal(self, setting: Setting, placebo: Placebo) -> Gain:
        """What of the gain other authors would not have given, with the interval.

        These are given the strengths that suit the user's texts best: those of the setting for
        their directions, or none; any of the tilt, and of the phrases.
        """
        theirs = placebo.directions()
        changes: list[tuple[Add, ...]] = [()]
        if setting.strengths:
            used = [(self._carriers[place], strength) for place, strength in setting.strengths]
            changes.append(
                tuple(
                    Add((own.layer,), (strength * own.norm * theirs[own.source, own.layer])[None])
                    for own, strength in used
                    if (own.source, own.layer) in theirs
                )
            )
        biases = np.outer(self._tilts, placebo.tilt.values()).astype(np.float32)
        texts = self._texts[: self._n_items]
        results = self._engine.run_many(
            [
                Pass(text.context, text.response, tilts=biases, interventions=change)
                for change in changes
                for text in texts
            ]
        )
        # (change, text, tilt), each of the text's tokens
        tilted = [list(asked_for(result.tilted)) for result in results]
        grams = weigh_grams(placebo.texts, self._phrase_texts or 1)
        found = []
        for weight in self._phrases:
            book = PhraseBook(grams, weight)
            mixed = [book.of_text(text.response) for text in texts]
            found.append(
                [
                    [mixed[i % len(texts)].log_prob(row).mean(dtype=np.float64) for row in rows]
                    for i, rows in enumerate(tilted)
                ]
            )
        # (setting, text)
        scores = np.moveaxis(
            np.reshape(found, (len(self._phrases), len(changes), len(texts), -1)), 2, -1
        ).reshape(-1, len(texts))
        best = scores[scores.mean(axis=1).argmax()]
        return _mean(self._scores[setting][: self._n_items] - best)

    def _by_gain(self, settings: Iterable[Setting]) -> list[Setting]:
        """Those that do little harm, the largest gain first."""
        mild = [setting for setting in settings if self.harm(setting) <= MOST_HARM]
        return sorted(mild, key=lambda setting: self.gains(setting).mean(), reverse=True)

    def _highest(self) -> Setting:
        return self._by_gain(self._scores)[0]

    def best(self) -> Setting:
        """Of the settings within one standard error of the best, the one with the least harm.

        The error is that of the difference over texts, and no more than that of the best itself:
        how unlike the texts a setting is does not speak for it. What harms plain texts by more than
        MOST_HARM is no choice.
        """
        best = self._highest()
        error = _standard_error(self.gains(best))

        def is_near(setting: Setting) -> bool:
            behind = self.gains(best) - self.gains(setting)
            return bool(behind.mean() <= min(_standard_error(behind), error))

        return min(filter(is_near, self._scores), key=self.harm)

    def finer(self) -> list[tuple[tuple[int, float], ...]]:
        """Choices around the best: weaker, stronger, and with another carrier beside it."""
        best = self._highest().strengths
        if not best:
            return []
        taken = {self._carriers[place].layer for place, _ in best}
        around = [tuple((place, factor * s) for place, s in best) for factor in (0.5, 2.0)]
        beside = [
            tuple(sorted((*best, (place, STRENGTH))))
            for place, carrier in enumerate(self._carriers)
            if carrier.layer not in taken
        ]
        return [*around, *beside]

    def _changes(
        self, choice: Sequence[tuple[int, float]], directions: Sequence[NDArray[np.float32]]
    ) -> tuple[Add, ...]:
        return tuple(
            Add(
                (self._carriers[place].layer,),
                (strength * self._carriers[place].norm * directions[place])[None],
            )
            for place, strength in choice
        )

    def guarded(self, setting: Setting) -> Setting:
        """The setting, or what of it writes fluent text.

        Unsteered, what the model writes itself is the least surprising, and the user's own text
        much more so. Steered text may be as surprising as that, and repeat hardly more than
        unsteered; and what nobody's requests are answered with may hardly be more alike. Otherwise
        all of it is made weaker, or the parts with the most gain that are fluent are kept and the
        rest is made weaker or given up: whichever gains more. What is returned has been scored.
        """
        texts = self._texts[: min(_GUARDED_TEXTS, self._n_items)]
        contexts = [text.context for text in texts]
        contexts += [self._engine.prompt(messages_for(request)) for request in _PLAIN_REQUESTS]
        directions, bias, grams = self._directions[-1], self._values[-1], self._grams[-1]

        def write(setting: Setting) -> tuple[float, float, float]:
            tilt: dict[int, float] = {}
            if bias is not None and setting.tilt:
                tilt = {int(v): float(setting.tilt * bias[v]) for v in np.flatnonzero(bias)}
            book = None
            if grams is not None and setting.phrases:
                book = PhraseBook(grams, setting.phrases)
            changes = self._changes(setting.strengths, directions)
            written = self._engine.analysis.generate_many(
                [
                    Continuation(
                        context,
                        _GUARDED_TOKENS,
                        interventions=changes,
                        logit_bias=tilt,
                        phrases=book,
                    )
                    for context in contexts
                ]
            )
            own, plain = written[: len(texts)], written[len(texts) :]
            jobs = [
                Pass(text.context, tokens)
                for text, tokens in zip(texts, own, strict=True)
                if tokens
            ]
            surprise = [-each.scored.mean() for each in self._engine.run_many(jobs)]
            return (
                float(np.mean(surprise)) if surprise else 0.0,
                float(np.mean([repeated_four_grams(tokens) for tokens in own])),
                shared_four_grams(plain),
            )

        plain_surprise, plain_repeated, plain_shared = write(Setting())
        own_surprise = -self._scores[Setting()][: self._n_items].mean()
        most = max(plain_surprise, own_surprise)

        @cache
        def is_fluent(setting: Setting) -> bool:
            surprise, repeated, shared = write(setting)
            return (
                surprise <= most
                and repeated <= plain_repeated + _MOST_REPEATED
                and shared <= plain_shared + _MOST_REPEATED
            )

        if is_fluent(setting):
            return setting
        parts = self._by_gain(_parts(setting))
        kept = next(part for part in parts if part == Setting() or is_fluent(part))
        weaker = [setting.scaled(share) for share in _WEAKER]
        rest_weaker = [
            Setting(
                kept.strengths or weakened.strengths,
                kept.tilt or weakened.tilt,
                kept.phrases or weakened.phrases,
            )
            for weakened in weaker
        ]
        fluent = [next(filter(is_fluent, each), kept) for each in (weaker, rest_weaker)]
        for each in fluent:
            self.score([each.strengths], tilts=(each.tilt,), phrases=(each.phrases,))
        return self._by_gain([kept, *fluent])[0]


def calibrate(
    engine: Engine,
    texts: Sequence[Text],
    folds: Sequence[Sequence[int]],
    carriers: Sequence[Carrier],
    tilt: TiltCounts | None,
    phrase_texts: int | None = None,
    *,
    prompted: Sequence[Text] | None = None,
    placebo: Callable[[Sequence[Carrier]], Placebo] | None = None,
    done: Callable[[int, int], None] = lambda _done, _of: None,
) -> Calibration:
    """Choose strengths by cross-validated gain.

    Args:
        engine: the model.
        texts: the user's items.
        folds: every item in one of them.
        carriers: what can be added, at distinct (source, layer).
        tilt: counts by fold, or None.
        phrase_texts: texts that a phrase must occur in, or None for no phrases.
        prompted: the same texts with others in their prompts, to find strengths for that, too.
        placebo: makes what the gain is set against to tell its personal part: the counterparts of
            the carriers that are used.
        done: told how many of how many passes are done.

    Raises:
        ModelError: llama.cpp fails.
    """
    calibrator = Calibrator(engine, texts, folds, carriers, tilt, phrase_texts)
    coarse = [((place, STRENGTH),) for place in range(len(carriers))]
    n_scored = len(texts) + len(_PLAIN_TEXTS)
    n_coarse, n_fine = (1 + len(coarse)) * n_scored, (1 + len(carriers)) * n_scored
    n_beside = 0 if prompted is None else (1 + len(_BESIDE)) * n_scored
    total = n_coarse + n_fine + n_beside + 1
    # Unsteered together with the rest: what they begin with is computed once.
    calibrator.score([(), *coarse], lambda n: done(n, total))
    calibrator.score(calibrator.finer(), lambda n: done(n_coarse + n, total))
    done(n_coarse + n_fine, total)
    setting = calibrator.best()
    gain = calibrator.gain(setting)
    if gain.low > 0:
        setting = calibrator.guarded(setting)
        gain = calibrator.gain(setting)
    if gain.low <= 0:
        done(total, total)
        return Calibration(Setting(), gain)
    found = Calibration(setting, gain)
    if placebo is not None:
        used = [carriers[place] for place, _ in setting.strengths]
        found = replace(found, personal=calibrator.personal(setting, placebo(used)))
    if prompted is not None:
        beside = Calibrator(engine, prompted, folds, carriers, tilt, phrase_texts)
        weaker = [setting.scaled(share).strengths for share in _BESIDE if setting.strengths]
        beside.score([(), *weaker], lambda n: done(n_coarse + n_fine + n, total))
        with_history = beside.best()
        gain = beside.gain(with_history)
        found = replace(
            found,
            with_history=with_history if gain.low > 0 else Setting(),
            gain_with_history=gain,
        )
    done(total, total)
    return found


def _parts(setting: Setting) -> list[Setting]:
    """What is left of a setting without its directions, its tilt, its phrases, or several."""
    parts = {
        Setting(strengths, tilt, phrases)
        for strengths in (setting.strengths, ())
        for tilt in (setting.tilt, 0.0)
        for phrases in (setting.phrases, 0.0)
    }
    return sorted(parts - {setting}, key=repr)


def _mean(values: NDArray[np.float64]) -> Gain:
    low, high = bootstrap_mean_interval(values[:, None])
    return Gain(float(values.mean()), float(low[0]), float(high[0]), len(values))


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
