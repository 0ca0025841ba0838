"""In which language a text is, and which languages are a person's own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from steerx_edge.history.words import letter_words

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

_LEAST_WORDS = 5
_LEAST_PROBABILITY = 0.9
_LOOKED_AT = 250  # characters
_SHARE = 0.2

# Languages, by their codes, that are taken for each other in short texts.
_CLOSE = (
    "da nn no",
    "bs hr sl sr",
    "ca es ext gl oc pt",
    "cs pl sk",
    "be bg mk ru uk",
    "id ms",
    "wuu yue zh",
    "en pcm",
    "de lb",
    "af nl fy",
    "it lij vec",
    "fr gcr ht wa",
    "az crh tr",
    "hi mr ne",
    "ar ary arz",
)
_GROUP = {code: group.split()[0] for group in _CLOSE for code in group.split()}


def language_of(text: str) -> str:
    """Return the ISO 639 code of a text's language; empty if it is not clear.

    It is clear if the text has five words or more, and the language a probability of 0.9 or more.
    """
    beginning = text[:_LOOKED_AT]
    if len(letter_words(beginning)) < _LEAST_WORDS:
        return ""
    code, probability = _identifier().classify(beginning)
    return str(code) if probability >= _LEAST_PROBABILITY else ""


def foreign(counts: Mapping[str, int]) -> set[str]:
    """Return the languages that are not the person's.

    Theirs are those with a fifth of the texts whose language is clear, or more, and what is close
    to them, as Danish is to Norwegian. If none has a fifth, all are theirs.

    Args:
        counts: How many texts are in each language; those in the language "" do not count.
    """
    clear = {code: n for code, n in counts.items() if code and n}
    groups: dict[str, int] = {}
    for code, n in clear.items():
        group = _GROUP.get(code, code)
        groups[group] = groups.get(group, 0) + n
    own = {group for group, n in groups.items() if n >= _SHARE * sum(clear.values())}
    return {code for code in clear if own and _GROUP.get(code, code) not in own}


@cache
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
