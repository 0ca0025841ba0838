"""Where the words of a reply come from: the model, or a part of the profile."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from steerx_edge.explaining.answers import Attribution
from steerx_edge.explaining.words import segments
from steerx_edge.report.answer_facts import PARTS, origin_of

NAMES = {"directions": "direction", "logit_bias": "logit bias", "memory": "memory"}

_MOST = 1e6  # times, above which a number says no more


@dataclass(frozen=True)
class Word:
    """A word of a reply.

    Attributes:
        begin: its first character in the text of the reply.
        text: as it stands there, without white space around it.
        origin: "model", or the part of the profile that added most: one of `NAMES`.
        added: what each part adds to the word's log-probability, nats.
    """

    begin: int
    text: str
    origin: str
    added: Mapping[str, float]

    @property
    def sentence(self) -> str:
        """Say where it comes from."""
        parts = ", ".join(f"{name} {_times(self.added[part])}" for part, name in NAMES.items())
        whole = _times(sum(self.added.values()))
        if self.origin == "model":
            return (
                f"“{self.text}”, from the model: {whole} as probable with your profile ({parts})."
            )
        name = NAMES[self.origin]
        return f"“{self.text}”, from your {name}: {whole} as probable with your profile ({parts})."


@dataclass(frozen=True)
class Origins:
    """The words of a reply, and what is to be said of all of them, which may be nothing."""

    words: list[Word]
    note: str = ""

    @property
    def counts(self) -> Counter[str]:
        """How many words come from where."""
        return Counter(word.origin for word in self.words)


def origins_of(found: Attribution, strength: float, *, is_mixed: bool) -> Origins:
    """Sum up over the tokens of each word what made it probable.

    Args:
        found: the tokens.
        strength: that they were scored with.
        is_mixed: whether the strength was changed while they were written.
    """
    words: list[Word] = []
    begin = 0
    for segment in segments(found.pieces):
        text = segment.text.strip()
        if text:
            tokens = slice(segment.begin, segment.end)
            added = {part: float(getattr(found, part)[tokens].sum()) for part in PARTS}
            at = begin + segment.text.index(text)
            words.append(Word(at, text, origin_of(added), added))
        begin += len(segment.text)
    if not found.has_steering:
        return Origins(words, "Nothing was steered: the strength is 0, here or in the profile.")
    if not found.is_steered:
        return Origins(
            words, "This mail is unlike those that you answered, so the reply is the model's own."
        )
    if is_mixed:
        return Origins(
            words, f"You moved the strength meanwhile: words are marked as of {strength:.0%}."
        )
    return Origins(words)


def _times(nats: float) -> str:
    """A change of log-probability as a factor."""
    if nats > math.log(_MOST):
        return "×1,000,000 or more"
    factor = float(f"{math.exp(nats):.2g}")
    return f"×{factor:,.0f}" if factor >= 10 else f"×{factor:g}"
