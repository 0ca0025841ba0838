"""What a user decides about words, with their tokens in the vocabulary of each model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from steerx_edge.errors import ProfileError
from steerx_edge.llamacpp.vocabulary import open_vocabulary
from steerx_edge.profile import Description, Edit, Entry, Profile
from steerx_edge.profile.editing import is_same, with_edit, with_edits, without_edit
from steerx_edge.steering.barred import spellings

if TYPE_CHECKING:
    from pathlib import Path

    from steerx_edge.llamacpp.vocabulary import Vocabulary
    from steerx_edge.model_id import ModelId
    from steerx_edge.profile import Action

_LONGEST = 100  # characters


class Wish(NamedTuple):
    """A decision about a word, without its tokens.

    Raises:
        ProfileError: it is no word, or a phrase, which can only be barred.
    """

    action: Action
    word: str

    @classmethod
    def of(cls, action: Action, text: str) -> Wish:
        """Check a word as a user gave it; white space around it does not count."""
        word = " ".join(text.split())
        if not word:
            raise ProfileError(f"The word for '{action}' is empty. Give a word of yours.")
        if len(word) > _LONGEST or not word.isprintable():
            raise ProfileError(
                f"{word[:40]!r} cannot be edited: a word has at most {_LONGEST} characters, and no "
                "control characters."
            )
        if " " in word and action != "never":
            raise ProfileError(
                f"'{word}' is several words. Give them one by one; only 'never' takes a phrase."
            )
        return cls(action, word)


def decided_twice(wishes: Sequence[Wish]) -> str | None:
    """A word with two different decisions, in whatever spelling; None if there is none."""
    for i, wish in enumerate(wishes):
        for other in wishes[:i]:
            if is_same(wish.word, other.word) and wish.action != other.action:
                return wish.word
    return None


class Touched(NamedTuple):
    """What an edit changes: words of the list, biased tokens, rows of the memory."""

    words: int
    tokens: int
    rows: int


def tokenized(
    profile: Profile, wishes: Sequence[Wish], model_file: Callable[[ModelId], Path]
) -> dict[str, list[Edit]]:
    """Look decisions up in the vocabulary of each model of a profile.

    Args:
        profile: its entries name the models.
        wishes: the decisions.
        model_file: finds the GGUF file of a model.

    Returns:
        The edits, by the model's fingerprint.

    Raises:
        ModelError: a model is not found, or llama.cpp cannot read it.
    """
    found = {}
    for entry in profile.entries:
        with open_vocabulary(model_file(entry.model)) as vocabulary:
            found[entry.model.fingerprint] = [_edit(wish, vocabulary) for wish in wishes]
    return found


def edited(entry: Entry, edits: Sequence[Edit]) -> Entry:
    """The entry with further edits, in the place of earlier ones of the same words."""
    all_edits = list(entry.edits)
    for edit in edits:
        all_edits = with_edit(all_edits, edit)
    return with_edits(entry, all_edits)


def undone(entry: Entry, words: Sequence[str]) -> Entry:
    """The entry without the edits of some words."""
    edits = list(entry.edits)
    for word in words:
        edits = without_edit(edits, word)
    return with_edits(entry, edits)


def described(entry: Entry, text: str) -> Entry:
    """The entry with the user's description; an empty one leaves the next to `learn`."""
    description = Description(text.strip(), "user")
    if not description.text:
        description = replace(entry.description, origin="statistics")
    return replace(entry, description=description)


def check_undo(profile: Profile, words: Sequence[str]) -> None:
    """Refuse words that have no edit.

    Raises:
        ProfileError: names the edits that there are.
    """
    known = {edit.word for entry in profile.entries for edit in entry.edits}
    for word in words:
        if not any(is_same(word, other) for other in known):
            others = f"Edited are {', '.join(sorted(known))}." if known else "No word was edited."
            raise ProfileError(f"There is no edit of '{word}' to undo. {others}")


def touched(profile: Profile, word: str) -> Touched:
    """Count what the edit of a word changes in all entries, each edit by itself."""
    words = tokens = rows = 0
    for entry in profile.entries:
        bias = entry.logit_bias
        memory = None if entry.memory is None else entry.memory.memory
        for edit in entry.edits:
            if not is_same(edit.word, word):
                continue
            silenced, pinned = ((), edit.tokens) if edit.action == "pin" else (edit.tokens, ())
            words += len(edit.learned)
            if bias is not None:
                tokens += int((bias.edited(silenced, pinned).values != bias.values).sum())
            if memory is not None:
                rows += int(np.isin(memory.tokens, edit.tokens).sum())
    return Touched(words, tokens, rows)


def carried(learned: Profile, existing: Profile | None, vocabulary: Vocabulary) -> Profile:
    """A newly learned profile with the decisions that its user made in entries for other models.

    An entry of the same model keeps its own when the profile is saved.

    Args:
        learned: the profile.
        existing: what was in its file before.
        vocabulary: of the model that was learned on.
    """
    others = existing.entries if existing else ()
    known = {each.model.fingerprint for each in others}
    for entry in learned.entries if others else ():
        if entry.model.fingerprint in known:
            continue
        latest = max(others, key=lambda each: each.created)
        edits = [_edit(Wish(edit.action, edit.word), vocabulary) for edit in latest.edits]
        own = latest.description.origin == "user"
        description = latest.description if own else entry.description
        learned = learned.with_entry(edited(replace(entry, description=description), edits))
    return learned


def _edit(wish: Wish, vocabulary: Vocabulary) -> Edit:
    is_phrase = " " in wish.word  # its words are not dropped one by one
    return Edit(*wish, () if is_phrase else vocabulary.tokens_of(spellings(wish.word)))
