"""What a mail answers, in the words of the demo's requests."""

from __future__ import annotations

import pytest

from steerx_edge.history.mail.head import Head
from steerx_edge.history.mail.request import LONGEST, request_of, shortened


@pytest.mark.parametrize(
    ("headers", "answered", "request_text"),
    [
        ("To: Ana <a@x.org>\nSubject: Re: Tea", "Tea?", "Reply to this mail: Subject: Tea\n\nTea?"),
        ("To: Ana <a@x.org>", "Tea?", "Reply to this mail: Tea?"),
        ("To: Ana Lee <a@x.org>\nSubject: Re: Tea", "", "Write a mail to Ana Lee: Tea"),
        ("To: a.lee@x.org\nSubject: Fwd: Tea", "", "Write a mail to a.lee: Tea"),
        ("To: Ana <a@x.org>, Ben <b@x.org>", "", "Write a mail to Ana and Ben."),
        ("To: A <a@x>, B <b@x>, C <c@x>\nSubject: T", "", "Write a mail to A, B and C: T"),
        ("To: A <a@x>, B <b@x>, C <c@x>, D <d@x>", "", "Write a mail to A, B and 2 others."),
        ("To: Mo <mo@x.org>, Ana <a@x.org>\nSubject: Tea", "", "Write a mail to Ana: Tea"),
        ("Subject: Tea", "", "Write a mail: Tea"),
        ("", "", "Write a mail."),
    ],
)
def test_request(headers: str, answered: str, request_text: str) -> None:
    head = Head(f"{headers}\n\n".encode())
    assert request_of(head, answered, frozenset({"mo@x.org"})) == request_text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a" * LONGEST, "a" * LONGEST),
        ("One. Two " + "a" * LONGEST, "One. ..."),
        ("One.\n\nTwo " + "a" * LONGEST, "One.\n\n ..."),
        ("One two" + " a" * LONGEST, ("One two" + " a" * LONGEST)[: LONGEST - 1] + " ..."),
        ("a" * (LONGEST + 1), "a" * LONGEST + " ..."),
    ],
)
def test_a_long_mail_is_cut_at_a_sentence_or_a_word(text: str, kept: str) -> None:
    assert shortened(text).split() == kept.split()
    assert len(shortened(text)) <= max(LONGEST + 4, len(kept))
