"""Who of the authors in a chat is the person whose history it is."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from unicodedata import normalize

import regex

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers.source import Source

logger = logging.getLogger(__name__)

_MARKS = regex.compile(r"\p{Cf}+")
_PHONE = regex.compile(r"\+?[\d\s().-]+")
_MOST_NAMED = 10


def normalized_name(name: str) -> str:
    """Return a name as it is compared: without case, ``@`` or ``~`` before it, and invisible marks.

    Of a phone number only the digits count.
    """
    bare = _MARKS.sub("", normalize("NFKC", name))
    bare = " ".join(bare.split()).lstrip("@~ ").casefold()
    return "".join(filter(str.isdigit, bare)) if _PHONE.fullmatch(bare) else bare


def authors_who_are(
    me: Iterable[str], authors: Iterable[str], aliases: Mapping[str, Collection[str]]
) -> frozenset[str]:
    """Return the authors with one of the names, ids and handles of the person.

    Args:
        me: What the user says.
        authors: As the chat names them.
        aliases: Their other names.
    """
    wanted = {normalized_name(name) for name in me} - {""}
    return frozenset(
        author
        for author in authors
        if wanted & {normalized_name(name) for name in (author, *aliases.get(author, ()))}
    )


def who_is_the_person(
    source: Source,
    kind: str,
    chats: Sequence[Counter[str]],
    me: Sequence[str],
    aliases: Mapping[str, Collection[str]] | None = None,
) -> frozenset[str]:
    """Decide which authors are the person, where the export does not say it.

    It is the one that the user names; else the only author that all of several chats have.

    Args:
        source: The export, for messages.
        kind: Its format.
        chats: The number of messages by each author, of each chat.
        me: What the user says.
        aliases: Other names of the authors.

    Raises:
        HistoryError: It is not known who the person is; lists the authors.
    """
    counts: Counter[str] = Counter()
    for chat in chats:
        counts.update(chat)
    if not counts:
        return frozenset()
    if me:
        found = authors_who_are(me, counts, aliases or {})
        if found:
            return found
        names = " or ".join(repr(name) for name in me)
        raise HistoryError(
            f"{source} is {kind}, and none of its authors is {names}. They are {_listed(counts)}. "
            "Give your name as it stands there (me, --me)."
        )
    common = set(counts).intersection(*chats)
    if len(chats) > 1 and len(common) == 1:
        (person,) = common
        logger.warning(
            "%s: read as the messages by %s, the only author of all %d chats. If that is not you, "
            "give your name (me, --me).",
            source,
            person,
            len(chats),
        )
        return frozenset(common)
    raise HistoryError(
        f"{source} is {kind}, and it does not say which messages are yours. Its authors are "
        f"{_listed(counts)}. Give your name as it stands there (me, --me)."
    )


def _listed(counts: Counter[str]) -> str:
    named = ", ".join(f"{name} ({n})" for name, n in counts.most_common(_MOST_NAMED))
    more = len(counts) - _MOST_NAMED
    return f"{named or 'unknown'}" + (f", and {more} more" if more > 0 else "")
