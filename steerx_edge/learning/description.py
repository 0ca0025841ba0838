"""From anchor words and style to a coherent description of how the user writes.

The model itself is asked (SteerX, arXiv 2510.22256). Small models often fail at it, so the answer
is checked, and where it fails a deterministic sentence stands in, built from what was measured.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import regex

from steerx_edge.history.words import (
    is_character,
    is_unspaced,
    letter_words,
    marks_sentences,
    sentences,
    without_spaces,
)
from steerx_edge.learning.effects import is_printable
from steerx_edge.llamacpp.prompts import Message
from steerx_edge.llamacpp.requests import GenerateRequest
from steerx_edge.profile import Description, Word

if TYPE_CHECKING:
    from steerx_edge.llamacpp.engine import Engine

_CONTRACTION = re.compile(
    r"\b(?:\w+(?:n['’]t|['’](?:m|re|ve|ll|d))|"
    r"(?:it|that|he|she|what|who|there|here|where|how|let)['’]s)\b",
    re.IGNORECASE,
)
_EMOJI = regex.compile(r"[\U0001f300-\U0001faff\u2600-\u27bf]|\p{RI}\p{RI}")
_QUESTION = regex.compile("[?\uff1f\u061f\u055e\u1367\u2e2e\ua60f\u2047-\u2049\u203d]")
_EXCLAMATION = regex.compile("[!\uff01\u055c\u07f9\u1944\u203c\u2048\u2049\u203d]")
_SEMICOLON = regex.compile("[;\uff1b\u061b]")
_DOTS = regex.compile(r"\.\.+|…+|。。+|・・+")
_DASHES = regex.compile(r"--|—+|–| - ")
# Not within a word, where it joins letters, as in Hebrew and Uzbek.
_QUOTE = regex.compile(r'[“„«「『]|["‘](?!(?<=\p{L}\p{M}*.)\p{L})')
# Scripts with capital letters in prose; Georgian has them in headlines, Cherokee has nothing else.
_CASED = regex.compile(r"[\p{Latin}\p{Greek}\p{Cyrillic}\p{Armenian}\p{Deseret}\p{Adlam}]")
_LATIN = regex.compile(r"\p{Latin}")
_LETTER = regex.compile(r"\p{L}")
_CHARACTER = regex.compile(r"(?=[\p{L}\p{N}])\X")
_GREEK = regex.compile(r"\p{Greek}")
_LEAKED = re.compile(
    r"<\||\|>|<start_of|<end_of|\[/?INST|</?s>|###|https?:|\b(?:assistant|user|system)\s*:",
    re.IGNORECASE,
)

_IN_ANY_DESCRIPTION = {"about", "most", "often", "sentences", "that", "words", "write"}
# What carries no meaning in a description, and what is said of the words that a user favours.
_EMPTY = frozenset(
    re.findall(
        r"\w+",
        "a about also an are as at by do for from in is it like of often on the them there they to "
        "use using with write writing you your yours",
    )
)
_OF_WORDS = frozenset({"favour", "favor", "word", "say", "such", "choose", "prefer"})
_CLAUSE_END = re.compile(r"[,;:]|\b(?:and|but|or|that|which)\b", re.IGNORECASE)
_QUOTED = re.compile(r"[\"“„«]([^\"“”„«»]*)[\"”“»]")
_PARROTED = re.compile(r"notes on a writer|typical words|tell the writer", re.IGNORECASE)

_EXAMPLE_FACTS = ["You write sentences of about 19 words.", "You use semicolons."]
_EXAMPLE_WORDS = ["perhaps", "harbour", "rather", ";", "weather", "one", "suppose"]
_EXAMPLE_ANSWER = (
    "You write in an unhurried, tentative voice, joining thoughts with semicolons and softening "
    "them with words such as perhaps, rather and suppose. You return to the harbour and the "
    "weather, and you prefer to say one where others say I."
)

_MIN_WORDS, _MAX_WORDS, _MAX_SENTENCES = 8, 90, 3
_LONGEST_ANSWER = 120  # tokens
_QUOTED_WORDS = 6


def style_facts(texts: Sequence[str]) -> list[str]:
    """What is measurably unusual in how the texts are written, each as "You ...".

    The bounds say when a habit is worth a sentence: they lie well outside of what edited English
    prose has (some 20 words a sentence, under one exclamation mark in a hundred words).

    Args:
        texts: the user's own texts.
    """
    text = "\n".join(texts)
    words = letter_words(text)
    if not words:
        return []
    spaced = [word for word in words if not is_unspaced(word)]
    # Rates are per word; where there are no spaces, a word is taken to have two characters.
    n_words = len(spaced) + (len(words) - len(spaced)) / 2
    capitals = sum(word[0].isupper() for word in words) / len(words)
    cased = len(_CASED.findall(text)) > 0.5 * len(_LETTER.findall(text))
    lower_starts = _share(s[0].islower() for s in map(str.lstrip, sentences(texts)))
    shouted = _share(len(word) > 2 and word.isupper() for word in words)
    english = _share(not word.replace("’", "").isascii() for word in words) < 0.05
    # The Greek question mark is a semicolon.
    greek = len(_GREEK.findall(text)) > len(_LATIN.findall(text))

    def per_hundred_words(pattern: re.Pattern[str] | regex.Pattern[str]) -> float:
        return 100 * len(pattern.findall(text)) / n_words

    asked = per_hundred_words(_QUESTION) + (per_hundred_words(_SEMICOLON) if greek else 0)
    first_person = _share(word in ("I", "i", "my", "My", "me") for word in words)
    habits = {
        "You capitalize most words, as in a title.": cased and capitals > 0.6,
        "You write without capital letters.": cased and lower_starts > 0.6 and capitals < 0.03,
        "You put words in capitals for emphasis.": shouted > 0.02 and capitals < 0.6,
        "You use exclamation marks often.": per_hundred_words(_EXCLAMATION) > 1,
        "You ask questions.": asked > 1,
        "You trail off with dots.": per_hundred_words(_DOTS) > 0.5,
        "You break sentences with dashes.": per_hundred_words(_DASHES) > 1,
        "You use contractions.": english and per_hundred_words(_CONTRACTION) > 1.5,
        "You use semicolons.": not greek and per_hundred_words(_SEMICOLON) > 0.8,
        "You quote what people say.": per_hundred_words(_QUOTE) > 3,
        "You write in the first person.": english and first_person > 0.04,
        "You use emoji.": per_hundred_words(_EMOJI) > 0.3,
    }
    return _length_facts(text, texts, english=english) + [
        sentence for sentence, holds in habits.items() if holds
    ]


def _length_facts(text: str, texts: Sequence[str], *, english: bool) -> list[str]:
    """How long the sentences are, in words, or in characters where there are no spaces."""
    if not marks_sentences(text):
        return []
    found = sentences(texts)
    if without_spaces(text) > 0.1:
        length = round(statistics.median(len(_CHARACTER.findall(s)) for s in found))
        return [f"You write sentences of about {_count(length, 'character')}."]
    length = round(statistics.median(len(letter_words(s)) for s in found))
    # What is short is known of English; Turkish and Finnish say in one word what it says in two.
    if english and length <= 12:
        return [f"You write short sentences, of about {_count(length, 'word')}."]
    if english and length >= 24:
        return [f"You write long sentences, of about {length} words."]
    return [f"You write sentences of about {_count(length, 'word')}."]


def describe(engine: Engine, words: Sequence[Word], facts: Sequence[str]) -> Description:
    """A description of the user, by the model if it can, else by a fixed sentence.

    Args:
        engine: the model.
        words: anchor words, the strongest first.
        facts: what `style_facts` found.
    """
    answer = _ask(engine, words, facts)
    if why_unusable(answer, words, facts) is None:
        return Description(text=answer, origin="model")
    return Description(text=fixed_description(words, facts), origin="statistics")


def fixed_description(words: Sequence[Word], facts: Sequence[str]) -> str:
    """The deterministic description: the facts, and the strongest anchor words."""
    written = [word.word for word in words if letter_words(word.word)]
    said = list(facts)
    for noun, favoured in (
        ("words", [word for word in written if not is_character(word)]),
        ("characters", [word for word in written if is_character(word)]),
    ):
        if favoured:
            quoted = ", ".join(f'"{word}"' for word in favoured[:_QUOTED_WORDS])
            said.append(f"You favour {noun} such as {quoted}.")
    return " ".join(said) or "You write in a manner of your own."


def why_unusable(answer: str, words: Sequence[Word], facts: Sequence[str]) -> str | None:
    """What is wrong with a model's description, or None if it may be used."""
    answer_words = [word.casefold() for word in letter_words(answer)]
    n_words = len(answer_words)
    trigrams = list(zip(answer_words, answer_words[1:], answer_words[2:], strict=False))
    known = {word.word.casefold() for word in words}
    known |= {word.casefold() for fact in facts for word in letter_words(fact)}
    # Short words, and words that any description has, are shared by chance.
    shared = {word for word in answer_words if len(word) > 3} & known - _IN_ANY_DESCRIPTION
    faults = (
        (f"it has {n_words} words", not _MIN_WORDS <= n_words <= _MAX_WORDS),
        ("it does not speak to the user", answer_words[:1] not in (["you"], ["your"])),
        ("it speaks of the model", {"i", "my", "me"} & set(answer_words[:12])),
        ("it holds template text", _LEAKED.search(answer) or not is_printable(answer)),
        ("it repeats itself", len(set(trigrams)) < 0.85 * len(trigrams)),
        ("it is a list", answer.count(",") > 0.25 * n_words),
        ("it is cut off", not re.search(r"[.!?][\"'”’)]*$", answer)),
        ("it repeats the question", _PARROTED.search(answer)),
        ("it shares too little with what was measured", len(shared) < 2),
        ("it claims what was not measured", not _is_measured(answer, words, facts)),
    )
    return next((fault for fault, is_there in faults if is_there), None)


def _is_measured(answer: str, words: Sequence[Word], facts: Sequence[str]) -> bool:
    """Whether each clause says what a fact says, or names words that the user favours.

    A clause says what a fact says if the words that it has its meaning from follow each other in
    the fact, and it denies nothing that the fact does not.
    """
    favoured = {word.word.casefold() for word in words if letter_words(word.word)}
    nameable = {content for word in favoured for content in _contents(word)}
    measured = [_contents(fact) for fact in facts]
    for sentence in re.split(r"(?<=[.!?])[\"'”’)]*\s+", answer):
        if (
            not {quoted.strip(" .,!?").casefold() for quoted in _QUOTED.findall(sentence)}
            <= favoured
        ):
            return False
        names = False  # whether words that the user favours are being listed
        for clause in _CLAUSE_END.split(_QUOTED.sub(" ", sentence)):
            claim, such_as, named = clause.partition(" such as ")
            if names and not re.match(r"\s*you\b", clause, re.IGNORECASE):
                claim, named = "", clause
            names = names or bool(such_as)
            said = _contents(claim)
            if not set(_contents(named)) <= nameable:
                return False
            if not set(said) <= _OF_WORDS and not any(_says(fact, said) for fact in measured):
                return False
    return True


def _says(fact: list[str], clause: list[str]) -> bool:
    runs = (fact[i : i + len(clause)] for i in range(len(fact)))
    return clause in runs and ("without" in fact) == ("without" in clause)


def _contents(text: str) -> list[str]:
    """The words of a text that carry its meaning, and its numbers, in lower case, singular."""
    found = re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.casefold())
    return [re.sub(r"(?<=[^\Ws]{2})s$", "", word) for word in found if word not in _EMPTY]


def _ask(engine: Engine, words: Sequence[Word], facts: Sequence[str]) -> str:
    """The model's own description, after one worked example of the task."""
    turns = [
        ("user", _request(_EXAMPLE_FACTS, _EXAMPLE_WORDS)),
        ("assistant", _EXAMPLE_ANSWER),
        ("user", _request(facts, [word.word for word in words[:15]])),
    ]
    prompt = engine.prompt([Message(role=role, content=content) for role, content in turns])
    # Not in the Llama's own context, which may be a small one, and hold a chat.
    [answer] = engine.generate_many([GenerateRequest(prompt, _LONGEST_ANSWER)])
    return tidied(answer)


def tidied(answer: str) -> str:
    """The first few sentences of an answer that are neither the example's nor said already."""
    example = _ngrams(_EXAMPLE_ANSWER, 5)
    kept: list[str] = []
    paragraph = " ".join(answer.strip().partition("\n\n")[0].split())
    for sentence in re.findall(r".+?[.!?][\"'”’)]*(?=\s|$)", paragraph):
        said = _ngrams(" ".join(kept), 3)
        grams = _ngrams(sentence, 3)
        if _ngrams(sentence, 5) & example or len(grams & said) > 0.3 * len(grams):
            continue
        kept.append(sentence.strip())
    return " ".join(kept[:_MAX_SENTENCES])


def _ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    words = [word.casefold() for word in letter_words(text)]
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def _request(facts: Sequence[str], words: Sequence[str]) -> str:
    return (
        f"Notes on a writer: {' '.join(facts)} Typical words: {', '.join(words)}\n\n"
        "Tell the writer in two sentences how they write. Start with the word You."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _share(holds: Iterable[bool]) -> float:
    values = list(holds)
    return sum(values) / max(1, len(values))
