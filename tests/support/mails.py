"""Mails of Mo, as text."""

from __future__ import annotations

MO = "Mo Adler <mo@example.org>"
ANA = "Ana Lee <ana@example.org>"
SEPARATOR = "From mo@example.org Mon Jan  5 10:00:00 2026\n"


def mail(
    body: str = "Tea is on the table.\n\ncheers,\nMo",
    *headers: str,
    sender: str = MO,
    to: str = ANA,
    subject: str = "Tea",
) -> str:
    first = f"From: {sender}\nTo: {to}\nSubject: {subject}\nDate: Mon, 5 Jan 2026 10:00:00 +0000\n"
    return f"{first}{''.join(f'{header}{chr(10)}' for header in headers)}\n{body}\n"


def mbox(*mails: str, separator: str = SEPARATOR) -> str:
    return "".join(f"{separator}{each}\n" for each in mails)
