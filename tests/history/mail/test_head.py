"""Headers as programs write them, mistakes included."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from steerx_edge.history.mail.head import Address, Head

CET = timezone(timedelta(hours=1))


@pytest.mark.parametrize(
    ("field", "people"),
    [
        ("ana@example.org", [Address("", "ana@example.org")]),
        ("Ana Lee <Ana@Example.org>", [Address("Ana Lee", "ana@example.org")]),
        ('"Lee, Ana" <a@example.org>', [Address("Ana Lee", "a@example.org")]),
        ("Lee, Ana <a@example.org>", [Address("Ana Lee", "a@example.org")]),
        ('"Mr Lee, the baker" <a@example.org>', [Address("Mr Lee, the baker", "a@example.org")]),
        ("a@example.org (Ana Lee)", [Address("Ana Lee", "a@example.org")]),
        ("'ana@example.org' <ana@example.org>", [Address("", "ana@example.org")]),
        ("=?utf-8?q?Zo=C3=AB?= <z@example.org>", [Address("Zoë", "z@example.org")]),
        ("=?utf-8?b?TGVlLCBBbmE=?= <a@example.org>", [Address("Ana Lee", "a@example.org")]),
        ("=?no-such?q?Zo=C3=AB?= <z@example.org>", [Address("Zoë", "z@example.org")]),
        ("a@x.org; Ben\r\n <b@x.org>", [Address("", "a@x.org"), Address("Ben", "b@x.org")]),
        ("undisclosed-recipients:;", []),
        ("Friends: a@x.org, b@x.org;", [Address("", "a@x.org"), Address("", "b@x.org")]),
        ("<<broken@", []),
    ],
)
def test_addresses(field: str, people: list[Address]) -> None:
    assert Head(f"To: {field}\r\n\r\n".encode()).addresses("to") == people


@pytest.mark.parametrize(
    ("field", "subject", "is_forward"),
    [
        (b"Tea", "Tea", False),
        (b"Re: AW: RE[2]: Tea", "Tea", False),
        (b"Fwd: Tea: the facts", "Tea: the facts", True),
        (b"WG: Tee", "Tee", True),
        (b"[list] Tea", "[list] Tea", False),
        (b"Re:", "", False),
        (b"Rest: it is late", "Rest: it is late", False),
        (b"Your order: 12 tins", "Your order: 12 tins", False),
        (b"Tea, re: more of it", "Tea, re: more of it", False),
        (b"Tea at\r\n\tten", "Tea at ten", False),
        ("Café".encode(), "Café", False),
        ("Café".encode("latin-1"), "Café", False),
        (b"=?iso-8859-1?q?Caf=E9?= =?iso-8859-1?q?_late?=", "Café late", False),
        (b"=?utf-8?b?broken", "=?utf-8?b?broken", False),
        ("回复：茶".encode(), "茶", False),
    ],
)
def test_subject(field: bytes, subject: str, is_forward: bool) -> None:
    head = Head(b"Subject: " + field + b"\n\nSubject: of the body\n")
    assert (head.subject, head.is_forward) == (subject, is_forward)


@pytest.mark.parametrize(
    ("field", "written"),
    [
        ("Mon, 5 Jan 2026 10:00:00 +0100", datetime(2026, 1, 5, 10, tzinfo=CET)),
        ("5 Jan 2026 10:00:00", datetime(2026, 1, 5, 10, tzinfo=timezone.utc)),
        ("Mon, 5 Jan 2026 10:00:00 -0000", datetime(2026, 1, 5, 10, tzinfo=timezone.utc)),
        ("Thu, 1 Jan 1970 00:00:00 +0000", None),
        ("yesterday", None),
        ("Mon, 45 Jan 2026 10:00:00", None),
        ("Mon, 5 Jan 99999 10:00:00 +0000", None),
        ("", None),
    ],
)
def test_date(field: str, written: datetime | None) -> None:
    assert Head(f"Date: {field}\n\n".encode()).written == written


def test_the_mail_that_is_answered() -> None:
    both = b"Message-ID: <3@x>\nIn-Reply-To: <2@x> (Ana)\nReferences: <1@x> <2@x>\n\n"
    assert (Head(both).id, Head(both).answered) == ("3@x", "2@x")
    assert Head(b"References: <1@x>\n <2@x>\n\n").answered == "2@x"
    assert Head(b"Subject: Tea\n\n").answered == ""


def test_lines_of_a_mailbox_before_the_headers_are_none() -> None:
    head = Head(b"From - Mon Jan  5 10:00:00 2026\n>From - Mon\nSubject: Tea\n\n")
    assert head.subject == "Tea"


def test_a_huge_header_takes_no_long_time() -> None:
    head = Head(b"To: " + b"a" * 10**6 + b"\nSubject: " + b"=?utf-8?q?" * 10**5 + b"\n\n")
    assert head.addresses("to") == []
    assert head.subject.startswith("=?utf-8")


def test_a_huge_line_that_is_no_header_takes_no_long_time() -> None:
    # With a search from every character to the end of the line, this would take hours.
    head = Head(b"Subject: Tea\n" + 2_000_000 * b"a" + b"\nTo: ana@example.org\n\n")
    assert (head.subject, head.get("to")) == ("Tea", "ana@example.org")
