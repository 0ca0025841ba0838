"""Mails as bytes: parts, encodings and kinds."""

from __future__ import annotations

import base64

import pytest

from steerx_edge.history.mail import kinds
from steerx_edge.history.mail.head import Head
from steerx_edge.history.mail.message import WITHOUT_TEXT, read_mail

ALTERNATIVE = """Content-Type: multipart/alternative; boundary=b
MIME-Version: 1.0

--b
Content-Type: text/plain; charset=utf-8{flowed}

plain tea

--b
Content-Type: text/html; charset=utf-8

<p>tea in HTML</p>
--b--
"""


def text_of(mail: str | bytes) -> str:
    return read_mail(mail if isinstance(mail, bytes) else mail.encode()).parted().text()


def test_html_is_read_unless_the_plain_text_flows() -> None:
    assert text_of(ALTERNATIVE.format(flowed="")) == "tea in HTML"
    assert text_of(ALTERNATIVE.format(flowed="; format=flowed")) == "plain tea"
    assert text_of(ALTERNATIVE.format(flowed="").replace("<p>tea in HTML</p>", "")) == "plain tea"


def test_what_follows_an_attachment_is_text_too() -> None:
    part = "--b\nContent-Type: {}\n\n{}\n"
    mail = "Content-Type: multipart/mixed; boundary=b\n\n" + "".join(
        part.format(*each)
        for each in (
            ("text/plain", "One."),
            ("image/png", "iVBO"),
            ("text/html", "<p>Two.</p>"),
            ("text/plain; name=notes.txt", "Notes."),
            ("message/rfc822", "Subject: Tea\n\nForwarded."),
        )
    )
    assert text_of(mail) == "One.\n\nTwo."


@pytest.mark.parametrize(
    ("charset", "body"),
    [
        ("utf-8", "Café".encode()),
        ("iso-8859-1", "Café".encode("latin-1")),
        ("iso-8859-1", "Café".encode()),  # says what it is not
        ("windows-1252", "Café".encode("cp1252")),
        ("us-ascii", "Café".encode()),
        ("no-such-charset", "Café".encode()),
        ("utf-8", "Café".encode("cp1252")),
        ("iso-2022-jp", "Café".encode()),
    ],
)
@pytest.mark.parametrize("encoded", [False, True])
def test_characters(charset: str, body: bytes, encoded: bool) -> None:
    coding = "base64" if encoded else "8bit"
    headers = f"Content-Type: text/plain; charset={charset}\nContent-Transfer-Encoding: {coding}\n"
    assert text_of(headers.encode() + b"\n" + (base64.encodebytes(body) if encoded else body)) == (
        "Café"
    )


def test_broken_lines_of_plain_text_are_joined_and_those_of_html_are_not() -> None:
    long = "The tea that you sent arrived on Monday, and there was so much of it"
    plain = f"Content-Type: text/plain\n\n{long}\nthat we gave it away.\n"
    html = f"Content-Type: text/html\n\n{long}<br>\nthat we gave it away.\n"
    assert text_of(plain) == f"{long} that we gave it away."
    assert text_of(html) == f"{long}\nthat we gave it away."


def test_delsp() -> None:
    mail = "Content-Type: text/plain; charset=utf-8; format=flowed; DelSp=yes\n\nお茶を \n飲む\n"
    assert text_of(mail) == "お茶を飲む"


def test_a_signed_text_is_read_without_its_armor() -> None:
    signed = (
        "Subject: Tea\n\n-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nTea is on.\n"
        "- - one tin\n-----BEGIN PGP SIGNATURE-----\n\niQEz\n-----END PGP SIGNATURE-----\n"
    )
    assert text_of(signed) == "Tea is on.\n- one tin"


CALENDAR = ALTERNATIVE.format(flowed="").replace("text/html", "text/calendar; method=REQUEST")


@pytest.mark.parametrize(
    ("mail", "reason"),
    [
        (CALENDAR, kinds.CALENDAR),
        ("Subject: Tea\n\n-----BEGIN PGP MESSAGE-----\n\nhQEMA\n", kinds.ENCRYPTED),
        ("Content-Type: image/png\nContent-Transfer-Encoding: base64\n\niVBO\n", WITHOUT_TEXT),
        ("Content-Disposition: attachment\nContent-Type: text/plain\n\nnotes\n", WITHOUT_TEXT),
    ],
)
def test_content_that_is_not_learned_from(mail: str, reason: str) -> None:
    assert read_mail(mail.encode()).reason == reason


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ("Auto-Submitted: auto-replied", kinds.AUTOMATIC),
        ("Auto-Submitted: no", ""),
        ("Precedence: bulk", kinds.AUTOMATIC),
        ("Precedence: list", ""),
        ("X-Autoreply: yes", kinds.AUTOMATIC),
        ("Subject: Automatische Antwort: Tee", kinds.AUTOMATIC),
        ("Subject: Out of Office: Tea", kinds.AUTOMATIC),
        ("Subject: Re: Out of office next week", ""),
        ("Content-Type: multipart/report; report-type=delivery-status", kinds.DELIVERY),
        ("Content-Type: multipart/encrypted", kinds.ENCRYPTED),
        ("Content-Type: application/pkcs7-mime; smime-type=enveloped-data", kinds.ENCRYPTED),
        ("Content-Type: multipart/signed", ""),
        ("Content-Type: text/calendar; method=REPLY", kinds.CALENDAR),
        ("Content-class: urn:content-classes:calendarmessage", kinds.CALENDAR),
        ("X-Gmail-Labels: Drafts,Opened", kinds.DRAFT),
        ("X-Gmail-Labels: =?utf-8?q?Entw=C3=BCrfe?=", kinds.DRAFT),
        ("X-Status: AT", kinds.DRAFT),
        ("X-Gmail-Labels: Spam,Sent", kinds.SPAM),
        ("X-Gmail-Labels: Sent,Opened", ""),
    ],
)
def test_headers_that_say_what_is_not_learned_from(headers: str, reason: str) -> None:
    assert kinds.reason_to_drop(Head(f"{headers}\n\n".encode())) == reason
