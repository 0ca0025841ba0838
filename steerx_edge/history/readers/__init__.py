"""The formats of histories.

A reader is a module, one file a format, or any object with the same names. Packages add readers
by an entry point of the group ``steerx_edge.readers``.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Protocol

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers import (
    bluesky,
    chatgpt,
    claude,
    discord,
    discord_exporter,
    eml,
    emlx,
    gmail,
    llama_web,
    maildir,
    markdown,
    mastodon,
    mbox,
    meta_messages,
    msg,
    open_document,
    pst,
    rich_text,
    signal_export,
    slack,
    tables,
    telegram,
    thunderbird,
    web_page,
    whatsapp,
    word,
    x_archive,
)
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Found


class Reader(Protocol):
    """A format that people's programs write: their own texts are found among other things.

    Attributes:
        NAME: The format, as sentences name it: ``a mailbox (mbox)``.
    """

    @property
    def NAME(self) -> str: ...  # noqa: D102, N802

    def recognize(self, source: Source, /) -> str:
        """Return what shows that the source is in this format; empty if it is not.

        The content decides, not the name, and no more of a large file is read than is needed. It
        completes the sentence "... because": ``it begins with a line 'From '``.

        Raises:
            HistoryError: The source cannot be read.
        """

    def read(self, source: Source, options: Options, /) -> Found:
        """Yield the person's texts, and what is left out, in the order of the source.

        It is called once, and reads piece by piece. A broken record is yielded as a
        `steerx_edge.history.readers.texts.Dropped`; nothing of a text is logged.

        Raises:
            HistoryError: The source as a whole cannot be read, or it is not known who the person
                is; says what to do.
        """


_MAIL: tuple[Reader, ...] = (thunderbird, gmail, mbox, maildir, emlx, eml, msg, pst)
_CHATS: tuple[Reader, ...] = (
    telegram,
    signal_export,
    slack,
    discord,
    discord_exporter,
    meta_messages,
    whatsapp,
)
_POSTS: tuple[Reader, ...] = (mastodon, x_archive, bluesky)
OF_PROMPTS: tuple[Reader, ...] = (chatgpt, claude, llama_web)
"""Those of what a person wrote to an assistant: poor examples of a style."""

_DOCUMENTS: tuple[Reader, ...] = (word, open_document, rich_text, tables, markdown, web_page)

READERS: tuple[Reader, ...] = (*_MAIL, *_CHATS, *_POSTS, *OF_PROMPTS, *_DOCUMENTS)
"""Our own readers, those of the most telling formats first."""


def all_readers() -> tuple[Reader, ...]:
    """Return the readers of other packages, then our own.

    Raises:
        HistoryError: One of another package cannot be loaded; says which.
    """
    added: list[Reader] = []
    for point in entry_points(group="steerx_edge.readers"):
        try:
            added.append(point.load())
        except Exception as error:
            raise HistoryError(
                f"The reader '{point.name}' of {point.value} cannot be loaded ({error}). Update or "
                "remove the package that it comes from."
            ) from error
    return (*added, *READERS)
