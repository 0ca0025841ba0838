"""Whose mails they are: the senders of a mailbox, and which of them is the user."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from steerx_edge.errors import HistoryError
from steerx_edge.history.mail.head import Address, Head

_CLEAR = 0.75  # of all mails, or the user is asked
_LISTED = 8


class Me(NamedTuple):
    """The user: which senders, by number, their addresses, and how that was found."""

    senders: frozenset[int]
    addresses: frozenset[str]


class Senders:
    """The senders of a mailbox, in the order in which they come."""

    def __init__(self) -> None:
        self._numbers: dict[Address, int] = {}
        self._people: list[Address] = []
        self._mails = array("Q")
        self._sent = array("Q")
        self._received = array("Q")  # by somebody else than who sent them
        self._recipients: Counter[str] = Counter()

    def __getitem__(self, number: int) -> str:
        return _shown(self._people[number])

    def add(self, head: Head, *, is_sent: bool) -> int:
        """Count a mail, and return the number of its sender.

        Args:
            head: Its headers.
            is_sent: Whether it lies where its user's program puts what was sent.
        """
        sender = head.sender
        number = self._numbers.setdefault(sender, len(self._people))
        if number == len(self._people):
            self._people.append(sender)
            for counts in (self._mails, self._sent, self._received):
                counts.append(0)
        self._mails[number] += 1
        self._sent[number] += is_sent
        delivered = head.addresses("delivered-to") or head.addresses("x-original-to")
        if delivered and delivered[0].address != sender.address:
            self._received[number] += 1
            self._recipients[delivered[0].address] += 1
        return number

    def me(self, given: Sequence[str], source: str, likely: Sequence[str] = ()) -> Me:
        """Find the user among the senders.

        It is who is given, else who is likely; else who sent most of the mails in folders of sent
        mail; else whom received mails were delivered to; else who sent three quarters of all. If it
        was not given, other addresses with the same name are the same person's.

        Args:
            given: Names and addresses that the user gave.
            source: What the mails are read from, as sentences name it.
            likely: Names and addresses that may be the user's, and may have sent nothing.

        Raises:
            HistoryError: It is not clear, or none of the senders has a given name or address.
        """
        if given:
            found = self._named(given)
            if not found:
                raise HistoryError(
                    f"{source} has no mail by {', '.join(given)}. {self._most_frequent()} Give one "
                    "of these names or addresses with --me."
                )
            return self._all_of(found)
        if found := self._named(likely):
            return self._all_of(found)
        if (most := self._clear()) is None:
            raise HistoryError(
                f"{source} does not tell who you are. {self._most_frequent()} Give your name or "
                "address with --me, once for each."
            )
        names = {each.name.casefold() for each in self._people if _who(each) == most} - {""}
        same = {
            n
            for n, each in enumerate(self._people)
            if _who(each) == most or each.name.casefold() in names
        }
        return self._all_of(same)

    def _named(self, given: Sequence[str]) -> set[int]:
        wanted = {text.strip().casefold() for text in given}
        return {n for n, each in enumerate(self._people) if wanted & _keys(each)}

    def _clear(self) -> str | None:
        """The address, or the name, that must be the user's; None if that is not clear."""
        if sent := self._by_address(self._sent).most_common(1):
            return sent[0][0]
        mails, received = (self._by_address(counts) for counts in (self._mails, self._received))
        for address, _ in self._recipients.most_common():
            if address in mails:
                return address
        address, count = (mails - received).most_common(1)[0] if mails - received else ("", 0)
        return address if address and count >= _CLEAR * sum(mails.values()) else None

    def _by_address(self, counts: Sequence[int]) -> Counter[str]:
        """What was counted, by address; without those of which there is nothing."""
        summed: Counter[str] = Counter()
        for person, count in zip(self._people, counts, strict=True):
            summed[_who(person)] += count
        del summed[""]
        return +summed

    def _all_of(self, numbers: set[int]) -> Me:
        addresses = frozenset(self._people[n].address for n in numbers)
        return Me(frozenset(numbers), addresses)

    def _most_frequent(self) -> str:
        order = sorted(range(len(self._people)), key=self._mails.__getitem__, reverse=True)
        shown = ", ".join(f"{self[n]} ({self._mails[n]})" for n in order[:_LISTED])
        return f"The most frequent senders are {shown}." if shown else "It holds no mail."


def _who(person: Address) -> str:
    return person.address or person.name


def _keys(person: Address) -> set[str]:
    return {person.name.casefold(), person.address} - {""}


def _shown(person: Address) -> str:
    return f"{person.name} <{person.address}>" if person.name and person.address else _who(person)
