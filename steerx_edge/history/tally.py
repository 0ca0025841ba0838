"""What was found in a history: how much of it is kept, how much is not, and why."""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Iterator
from datetime import datetime

from steerx_edge.history.language import foreign
from steerx_edge.history.readers.texts import Dropped, Text

OTHER_LANGUAGE = "in another language"

_SAMPLES = 3
_NO_DATE = float("-inf")


class Tally:
    """Counts texts, and what was left out, in a few bytes for each text.

    Which texts are in a language that is not the person's is known only at the end: they are taken
    back then. What the attributes and methods return holds for what was added up to then.
    """

    def __init__(self) -> None:
        self._reasons: Counter[str] = Counter()
        self._samples: dict[str, list[Dropped]] = {}
        self._codes: list[str] = []
        self._languages = array("H")  # of each text, its place in the codes
        self._counts: Counter[str] = Counter()
        self._seconds = array("d")
        self._of_language: dict[str, deque[Text]] = {}
        self._first: dict[str, tuple[datetime, datetime]] = {}

    def add(self, each: Text | Dropped) -> None:
        """Count a text, or what was left out."""
        if isinstance(each, Dropped):
            self._reasons[each.reason] += 1
            samples = self._samples.setdefault(each.reason, [])
            if len(samples) < _SAMPLES:
                samples.append(each)
            return
        code = each.language
        if code not in self._of_language:
            self._codes.append(code)
            self._of_language[code] = deque(maxlen=_SAMPLES)
        self._languages.append(self._codes.index(code))
        self._counts[code] += 1
        self._seconds.append(each.written.timestamp() if each.written else _NO_DATE)
        n = len(self._languages)
        if n & (n - 1) == 0 or len(self._of_language[code]) < _SAMPLES:  # spread over all of them
            self._of_language[code].append(each)
        if each.written:
            first, last = self._first.get(code, (each.written, each.written))
            self._first[code] = min(first, each.written), max(last, each.written)

    @property
    def foreign(self) -> set[str]:
        """The languages whose texts are not kept."""
        return foreign(self._counts)

    @property
    def kept(self) -> int:
        """How many texts are kept."""
        return len(self._languages) - self._n_foreign()

    @property
    def dropped(self) -> Counter[str]:
        """How many things are left out, by reason."""
        return +(self._reasons + Counter({OTHER_LANGUAGE: self._n_foreign()}))

    @property
    def samples(self) -> dict[str, list[Dropped]]:
        """A few of the things that are left out, by reason."""
        others = [
            Dropped(OTHER_LANGUAGE, text.where, text.item.response)
            for code in sorted(self.foreign)
            for text in self._of_language[code]
        ]
        return self._samples | ({OTHER_LANGUAGE: others[:_SAMPLES]} if others else {})

    @property
    def examples(self) -> list[Text]:
        """A few of the texts that are kept."""
        own = [
            text
            for code, texts in self._of_language.items()
            if code not in self.foreign
            for text in texts
        ]
        return own[-_SAMPLES:]

    @property
    def dates(self) -> tuple[datetime, datetime] | None:
        """When the first and the last of the kept texts were written, where that is known."""
        own = [dates for code, dates in self._first.items() if code not in self.foreign]
        if not own:
            return None
        return min(first for first, _ in own), max(last for _, last in own)

    def order(self) -> Iterator[int]:
        """The places of the kept texts as they were added: by date, if all have one."""
        others = {self._codes.index(code) for code in self.foreign}
        places = [i for i, language in enumerate(self._languages) if language not in others]
        if all(self._seconds[i] != _NO_DATE for i in places):
            places.sort(key=self._seconds.__getitem__)
        return iter(places)

    def _n_foreign(self) -> int:
        return sum(self._counts[code] for code in self.foreign)
