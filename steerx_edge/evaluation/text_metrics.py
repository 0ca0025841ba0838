"""Figures of a generated text: is it like the real one, whose, on topic, copied, repetitive.

Needs the packages of the extra `eval`. Nothing is downloaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steerx_edge.errors import SteerxError
from steerx_edge.history.words import bare_words


class _Words:
    """ROUGE's own tokens, which are runs of a-z and 0-9, for any script; see `bare_words`."""

    def tokenize(self, text: str) -> list[str]:
        return bare_words(text.lower())


class _NoSynonyms:
    """In place of WordNet, whose data would have to be downloaded."""

    def synsets(self, *_: object) -> tuple[()]:
        return ()


def check_installed() -> None:
    """Find out before the work whether it can be done.

    Raises:
        SteerxError: the packages of the extra are missing.
    """
    for name in ("nltk", "rouge_score", "sklearn"):
        if find_spec(name) is None:
            raise SteerxError(
                f"Measuring generated texts needs the package {name}, which is not installed. "
                "Install it: pip install 'steerx-edge[eval]', or pass --no-generate."
            )


def overlap(real: str, text: str) -> dict[str, float]:
    """How much of the real text is in a generated one: each from 0 to 1.

    `rouge1` and `rougeL` are F-measures of words and of their longest common subsequence; `meteor`
    matches words and their stems, and no synonyms.
    """
    from nltk.translate.meteor_score import single_meteor_score

    rouge = _rouge().score(real, text)
    words = _Words().tokenize
    meteor = single_meteor_score(words(real), words(text), wordnet=_NoSynonyms())
    return {
        "rouge1": rouge["rouge1"].fmeasure,
        "rougeL": rouge["rougeL"].fmeasure,
        "meteor": float(meteor),
    }


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rougeL"], tokenizer=_Words())


def request_fit(log_probs: Sequence[float]) -> dict[str, float]:
    """Whether a text is on topic, where it has a request.

    Args:
        log_probs: of the text per token, after its own request; where it has one, also after the
            empty request and after each request that its own is compared with.

    Returns:
        `topic`, what its own request adds; `own_request`, 1 where it fits its own request better
        than each of the others.
    """
    own, *rest = log_probs
    figures = {"topic": own - rest[0]} if rest else {}
    if others := rest[1:]:
        figures["own_request"] = float(own > max(others))
    return figures


def copied(texts: Sequence[str], history: Sequence[str]) -> dict[str, float]:
    """Which shares of the texts' runs of six words occur in a history.

    Returns:
        `leaked`, in exactly one text of it; `habit`, in two or more. Texts of the same words count
        as one. Nothing where no text has six words.
    """
    runs = [run for text in texts for run in _runs_of_six(_folded_words(text))]
    if not runs:
        return {}
    different = {_folded_words(text) for text in history}
    found_in = Counter(run for words in different for run in set(_runs_of_six(words)))
    return {
        "leaked": sum(found_in[run] == 1 for run in runs) / len(runs),
        "habit": sum(found_in[run] > 1 for run in runs) / len(runs),
    }


def _folded_words(text: str) -> tuple[str, ...]:
    return tuple(bare_words(text.casefold()))


def _runs_of_six(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [words[i : i + 6] for i in range(len(words) - 5)]


class Attribution:
    """Who wrote it? A linear support vector machine over runs of 1 to 4 characters.

    Args:
        texts: of each author; two authors at least.
    """

    def __init__(self, texts: Mapping[str, Sequence[str]]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.svm import LinearSVC

        self._vectorizer = TfidfVectorizer(
            analyzer="char", ngram_range=(1, 4), lowercase=False, sublinear_tf=True
        )
        rows = self._vectorizer.fit_transform([text for some in texts.values() for text in some])
        authors = [author for author, some in texts.items() for _ in some]
        self._classifier = LinearSVC(random_state=0).fit(rows, authors)
        self._authors = list(self._classifier.classes_)

    def rank(self, author: str, text: str) -> int:
        """The author's place among all for this text; 1 is the first, and of equals the last."""
        scores: NDArray[np.float64] = self._classifier.decision_function(
            self._vectorizer.transform([text])
        )[0]
        if len(self._authors) == 2:  # one number, for the second of them
            scores = np.array([-scores, scores])
        return int((scores >= scores[self._authors.index(author)]).sum())
