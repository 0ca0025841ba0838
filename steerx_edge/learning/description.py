"""From anchor words and style to a coherent description of how the user writes.

The model itself is asked (SteerX, arXiv 2510.22256). Small models often fail at it, so the answer
is checked, and where it fails a deterministic sentence stands in, built from what was measured.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from steerx_edge.learning.effects import is_printable
from steerx_edge.llamacpp.prompts import Message
from steerx_edge.llamacpp.requests import GenerateRequest
from steerx_edge.profile import Description, Word

if TYPE_CHECKING:
    from steerx_edge.llamacpp.engine import Engine

_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)]*\s+|\n\s*\n")
_LETTER_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_CONTRACTION = re.compile(
    r"\b(?:\w+(?:n['’]t|['’](?:m|re|ve|ll|d))|"
    r"(?:it|that|he|she|what|who|there|here|where|how|let)['’]s)\b",
    re.IGNORECASE,
)
_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]")
_LEAKED = re.compile(
    r"<\||\|>|<start_of|<end_of|\[/?INST|</?s>|###|https?:|\b(?:assistant|user|system)\s*:",
    re.IGNORECASE,
)

_IN_ANY_DESCRIPTION = {"about", "most", "often", "sentences", "that", "words", "write"}
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
    words = _LETTER_WORD.findall(text)
    if not words:
        return []
    sentences = [s for t in texts for s in _SENTENCE_END.split(t) if _LETTER_WORD.search(s)]
    lengths = [len(_LETTER_WORD.findall(s)) for s in sentences]
    length = round(statistics.median(lengths))
    capitals = sum(word[0].isupper() for word in words) / len(words)
    lower_starts = _share(s[0].islower() for s in map(str.lstrip, sentences))
    shouted = _share(len(word) > 2 and word.isupper() for word in words)

    def per_hundred_words(count: int) -> float:
        return 100 * count / len(words)

    facts = []
    if length <= 12:
        facts.append(f"You write short sentences, of about {_count(length, 'word')}.")
    elif length >= 24:
        facts.append(f"You write long sentences, of about {length} words.")
    else:
        facts.append(f"You write sentences of about {length} words.")
    habits = {
        "You capitalize most words, as in a title.": capitals > 0.6,
        "You write without capital letters.": lower_starts > 0.6 and capitals < 0.03,
        "You put words in capitals for emphasis.": shouted > 0.02 and capitals < 0.6,
        "You use exclamation marks often.": per_hundred_words(text.count("!")) > 1,
        "You ask questions.": per_hundred_words(text.count("?")) > 1,
        "You trail off with dots.": per_hundred_words(len(re.findall(r"\.\.+|…", text))) > 0.5,
        "You break sentences with dashes.": per_hundred_words(len(re.findall(r"--|—|–| - ", text)))
        > 1,
        "You use contractions.": per_hundred_words(len(_CONTRACTION.findall(text))) > 1.5,
        "You use semicolons.": per_hundred_words(text.count(";")) > 0.8,
        "You quote what people say.": per_hundred_words(len(re.findall(r"[\"“‘]", text))) > 3,
        "You write in the first person.": _share(w in ("I", "i", "my", "My", "me") for w in words)
        > 0.04,
        "You use emoji.": per_hundred_words(len(_EMOJI.findall(text))) > 0.3,
    }
    return facts + [sentence for sentence, holds in habits.items() if holds]


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
    favoured = [f'"{word.word}"' for word in words if _LETTER_WORD.search(word.word)]
    sentences = list(facts)
    if favoured:
        sentences.append(f"You favour words such as {', '.join(favoured[:_QUOTED_WORDS])}.")
    return " ".join(sentences) or "You write in a manner of your own."


def why_unusable(answer: str, words: Sequence[Word], facts: Sequence[str]) -> str | None:
    """What is wrong with a model's description, or None if it may be used."""
    answer_words = [word.casefold() for word in _LETTER_WORD.findall(answer)]
    n_words = len(answer_words)
    trigrams = list(zip(answer_words, answer_words[1:], answer_words[2:], strict=False))
    known = {word.word.casefold() for word in words}
    known |= {word.casefold() for fact in facts for word in _LETTER_WORD.findall(fact)}
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
    )
    return next((fault for fault, is_there in faults if is_there), None)


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
    words = [word.casefold() for word in _LETTER_WORD.findall(text)]
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
