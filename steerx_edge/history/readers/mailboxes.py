"""Mails of any program, as texts of the user: what the readers of mail share.

All mails are gone through twice. First their headers tell who the user is, and where the mail with
a Message-ID lies; about 30 bytes for each mail are kept. Then those of the user are read, one at a
time, and the mail that each of them answers.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem
from steerx_edge.history.mail import kinds
from steerx_edge.history.mail.endings import Signatures
from steerx_edge.history.mail.folders import is_drafts, is_sent, is_spam
from steerx_edge.history.mail.head import Head
from steerx_edge.history.mail.message import read_mail
from steerx_edge.history.mail.request import request_of
from steerx_edge.history.mail.senders import Me, Senders
from steerx_edge.history.readers.texts import Dropped, Found, Text

LARGEST = 1 << 18
"""Bytes that are read of a mail: attachments come after the text."""

_SIGNATURE_MAILS = 300  # that signatures are learned from, spread over all
_EXCERPT = 200  # characters


class Box(Protocol):
    """A folder of mails.

    Attributes:
        name: Its name, as messages show it and as it says what it holds.
    """

    name: str

    def places(self) -> Iterator[int]:
        """Where the mails are, in their order: numbers that the other methods take."""

    def head(self, place: int) -> bytes:
        """The headers of a mail, or more of its beginning."""

    def mail(self, place: int) -> bytes:
        """A mail, or its first `LARGEST` bytes."""

    def close(self) -> None:
        """Close what is open; it is opened again when needed."""


def read_boxes(
    boxes: Sequence[Box], me: Sequence[str], source: str, *, likely: Sequence[str] = ()
) -> Found:
    """Yield the texts of the user in some folders of mails, and what is left out.

    Args:
        boxes: The folders, as a program keeps them.
        me: Names and addresses of the user; if none are given, they are found.
        source: What the folders lie in, as sentences name it.
        likely: Addresses that the program says are the user's.

    Raises:
        HistoryError: It is not clear who the user is.
    """
    try:
        index = _Index.of(boxes)
        yield from _Reading(boxes, index, index.senders.me(me, source, likely)).found()
    finally:
        for box in boxes:
            box.close()


@dataclass
class _Index:
    """Of every mail: where it is, who sent it, and a hash of its Message-ID."""

    senders: Senders
    boxes: array[int]
    places: array[int]
    numbers: array[int]
    hashes: array[int]
    has_labels: bool = False

    @classmethod
    def of(cls, boxes: Sequence[Box]) -> _Index:
        index = cls(Senders(), array("I"), array("Q"), array("I"), array("q"))
        for number, box in enumerate(boxes):
            in_sent = is_sent(box.name)
            for place in box.places():
                head = Head(box.head(place))
                labelled = kinds.has_sent_label(head)
                index.has_labels |= labelled
                index.boxes.append(number)
                index.places.append(place)
                index.numbers.append(index.senders.add(head, is_sent=in_sent or labelled))
                index.hashes.append(hash(head.id))
            box.close()
        return index


class _Reading:
    """Reads the mails of the user."""

    def __init__(self, boxes: Sequence[Box], index: _Index, me: Me) -> None:
        self._boxes = boxes
        self._index = index
        self._me = me
        hashes = np.asarray(index.hashes, np.int64)
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]
        self._repeated = self._signatures()
        self._seen: set[int] = set()

    def found(self) -> Found:
        """Yield all mails, in their order."""
        index, at = self._index, 0
        for number, box in enumerate(self._boxes):
            first = at
            while at < len(index.boxes) and index.boxes[at] == number:
                where = f"{box.name}: message {at - first + 1}"
                if index.numbers[at] in self._me.senders:
                    yield self._of_mail(at, where)
                elif sender := index.senders[index.numbers[at]]:
                    yield Dropped("mail by somebody else", where, f"From: {sender}")
                else:
                    yield Dropped("mail without a sender", where)
                at += 1
            box.close()

    def _of_mail(self, at: int, where: str) -> Text | Dropped:
        """One mail of the user: a broken one costs nothing but itself."""
        try:
            return self._read(at, where)
        except HistoryError:
            raise
        except Exception as error:  # `email` raises many, for mails that break its rules
            return Dropped("mail that cannot be read", where, type(error).__name__)

    def _read(self, at: int, where: str) -> Text | Dropped:
        box = self._boxes[self._index.boxes[at]]
        place = self._index.places[at]
        head = Head(box.head(place))
        if reason := self._reason(box, head):
            return Dropped(reason, where, f"Subject: {head.subject}")
        mail = read_mail(box.mail(place))
        if mail.reason:
            return Dropped(mail.reason, where, f"Subject: {head.subject}")
        parts = mail.parted()
        text = parts.text(self._repeated)
        if not text:
            reason = "forwarded mail" if parts.is_forward or head.is_forward else "no own words"
            shown = "\n".join(line.text for line in mail.lines).strip()
            return Dropped(
                f"mail with {reason}" if "own" in reason else reason, where, shown[:_EXCERPT]
            )
        answered = ""
        if not (parts.is_forward or head.is_forward):
            answered = parts.answered or self._parent(head)
        request = request_of(head, answered, self._me.addresses)
        return Text(HistoryItem(text, request), where, head.written)

    def _reason(self, box: Box, head: Head) -> str:
        """Why a mail is left out without being read; empty if it is not."""
        if head.id and hash(head.id) in self._seen:
            return "copy of another mail"
        self._seen.add(hash(head.id))
        if is_drafts(box.name):
            return kinds.DRAFT
        if is_spam(box.name):
            return kinds.SPAM
        if self._index.has_labels and kinds.labels_of(head) and not kinds.has_sent_label(head):
            return kinds.reason_to_drop(head) or "mail that Gmail did not label as sent"
        return kinds.reason_to_drop(head)

    def _parent(self, head: Head) -> str:
        """What the sender of the mail that is answered wrote; empty if it is not here."""
        if not head.answered:
            return ""
        wanted = hash(head.answered)
        found = int(np.searchsorted(self._hashes, wanted))
        if found == len(self._hashes) or self._hashes[found] != wanted:
            return ""
        at = int(self._order[found])
        data = self._boxes[self._index.boxes[at]].mail(self._index.places[at])
        return read_mail(data).parted().text() if Head(data).id == head.answered else ""

    def _signatures(self) -> frozenset[str]:
        """Lines that end many mails of the user."""
        numbers = np.asarray(self._index.numbers)
        own = np.flatnonzero(np.isin(numbers, list(self._me.senders)))
        signatures = Signatures()
        for at in own[:: max(1, len(own) // _SIGNATURE_MAILS)]:
            box = self._boxes[self._index.boxes[at]]
            try:
                parts = read_mail(box.mail(self._index.places[at])).parted()
            except Exception:  # noqa: S112  # it is counted when its turn comes
                continue
            if parts.own:
                signatures.add([line for line in parts.own[-1] if line.strip()])
        return signatures.lines
