"""Who the user is, among the senders of a mailbox."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from steerx_edge.errors import HistoryError
from steerx_edge.history.mail.head import Head
from steerx_edge.history.mail.senders import Senders

MO, WORK, ANA, BEN = "Mo <mo@example.org>", "Mo <m@work.org>", "Ana <ana@x.org>", "b@x.org"


def senders(*mails: tuple[str, int], sent: Sequence[str] = (), to: str = "") -> Senders:
    """Count mails by their sender, in a folder of sent mail for some."""
    counted = Senders()
    for sender, count in mails:
        delivered = f"Delivered-To: {to}\n" if to and to not in sender else ""
        head = Head(f"From: {sender}\n{delivered}\n".encode())
        for _ in range(count):
            counted.add(head, is_sent=sender in sent)
    return counted


@pytest.mark.parametrize(
    ("counted", "addresses"),
    [
        # Most of the sent mails; the same name is the same person.
        (senders((ANA, 9), (MO, 3), (BEN, 1), sent=[MO, BEN]), {"mo@example.org"}),
        (senders((ANA, 9), (MO, 3), (WORK, 1), sent=[MO]), {"mo@example.org", "m@work.org"}),
        # Whom received mails were delivered to.
        (senders((ANA, 9), (MO, 1), (BEN, 5), to="mo@example.org"), {"mo@example.org"}),
        # Three quarters of all.
        (senders((MO, 2), (WORK, 1), (ANA, 0), (MO, 1)), {"mo@example.org", "m@work.org"}),
    ],
)
def test_the_user_is_found(counted: Senders, addresses: set[str]) -> None:
    assert counted.me((), "Mail").addresses == addresses


@pytest.mark.parametrize(
    "given", [["mo@example.org", "m@work.org"], ["MO"], ["Ana", "M@work.org", "nobody@x.org"]]
)
def test_the_user_is_who_is_given(given: list[str]) -> None:
    counted = senders((ANA, 9), (MO, 1), (WORK, 1), sent=[ANA])
    people = {0: "Ana", 1: "mo@example.org", 2: "m@work.org"}
    names = {text.casefold() for text in given}
    wanted = {n for n, name in people.items() if {name.casefold()} & names}
    assert counted.me(given, "Mail").senders == ({1, 2} if given == ["MO"] else wanted)


def test_an_identity_of_the_program_is_the_user_if_it_sent_something() -> None:
    counted = senders((ANA, 9), (MO, 1))
    assert counted.me((), "Mail", ["mo@example.org"]).addresses == {"mo@example.org"}
    assert counted.me((), "Mail", ["unused@example.org"]).addresses == {"ana@x.org"}


@pytest.mark.parametrize(
    ("counted", "given", "message"),
    [
        (
            senders((ANA, 5), (MO, 4), (BEN, 1)),
            (),
            r"Mail does not tell who you are. The most frequent senders are Ana <ana@x.org> "
            r"\(5\), Mo <mo@example.org> \(4\), b@x.org \(1\). Give your name or address with",
        ),
        (senders((ANA, 5)), ("Kim",), r"no mail by Kim. .* Ana <ana@x.org> \(5\). Give one of"),
        (senders(), (), "It holds no mail"),
    ],
)
def test_if_it_is_not_clear_the_senders_are_named(
    counted: Senders, given: tuple[str, ...], message: str
) -> None:
    with pytest.raises(HistoryError, match=message):
        counted.me(given, "Mail")


def test_mails_that_were_received_do_not_make_their_sender_the_user() -> None:
    counted = senders((ANA, 9), to="mo@example.org")
    counted.add(Head(f"From: {BEN}\n\n".encode()), is_sent=False)
    with pytest.raises(HistoryError, match="does not tell who you are"):
        counted.me((), "Mail")
