"""What is known in words: the person's, what they decided about them, and where they are from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from steerx_edge.profile.fields import check_order

Action = Literal["drop", "never", "pin"]
"""What a user can decide about a word; see docs/editing.md."""


@dataclass(frozen=True)
class Word:
    """One anchor word with its causal effect.

    Attributes:
        word: the word as the user writes it.
        effect: summed effect in an item, 0 where the word does not occur; the mean over all
            items, in nats.
        low: lower end of the 95% bootstrap interval of `effect` over items; nats.
        high: upper end of that interval; nats. At least `low`.
        count: occurrences in the history.
        items: items of the history it occurs in. At most `count`.

    Raises:
        ProfileError: `low` is above `high`, or `items` above `count`.
    """

    word: str
    effect: float
    low: float
    high: float
    count: int
    items: int

    def __post_init__(self) -> None:
        check_order(self, "low", "high")
        check_order(self, "items", "count")


@dataclass(frozen=True)
class Edit:
    """What the user decided about a word. Nothing that was learned is lost by it.

    Attributes:
        action: "drop": the profile adds nothing for it; "never": and no answer contains it; "pin":
            the memory offers it with full weight, and the logit bias does not make it rarer.
        word: the word; of "never" also a phrase.
        tokens: ids of the tokens that spell it in the model's vocabulary, increasing; may be empty.
        learned: what was taken out of `Entry.words`, one for each spelling.
    """

    action: Action
    word: str
    tokens: tuple[int, ...] = ()
    learned: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Description:
    """How the user writes, in a sentence or a few.

    Attributes:
        text: the description, 1 to 20,000 characters.
        origin: who wrote it: the model, our deterministic sentence, or the user.
    """

    text: str
    origin: Literal["model", "statistics", "user"]


@dataclass(frozen=True)
class TextSource:
    """A history that was learned from.

    Attributes:
        format: what it was, such as "a mailbox (mbox)"; no name of a file.
        texts: how many texts of the user were in it; at least 1.
        first: day of the first text, such as "2024-01-31"; empty where it is not known.
        last: day of the last text.
    """

    format: str
    texts: int
    first: str = ""
    last: str = ""
