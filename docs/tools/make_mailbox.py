"""Write docs/demo/sent.mbox: a folder of sent mail, as a mail program keeps it, from Mo's texts.

python -m docs.tools.make_mailbox

Thirty of the texts in docs/demo/history.jsonl, with what real mail adds to them: headers, quoted
mails, signatures, transfer encodings; and six messages that are not worth learning from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path

DEMO = Path(__file__).parents[1] / "demo"
MAILBOX = DEMO / "sent.mbox"
ME = "Mo Marlow <mo@marlow-maps.example>"
N_TEXTS = 30
_QUOTED_ABOVE = 18  # the only answer below what it answers
_SIGNATURE = "\n\n-- \nMo Marlow\nMarlow Maps, 3 Chestnut Lane\n+44 113 496 0123\n"
_SUBJECTS = (
    "the printer", "brochure, eight pages", "fridge", "Re: our call", "your parcel",
    "invoice for March", "the bike shed door", "light on the stairs", "deadline is now Tuesday",
    "the big table", "Re: blue or grey?", "train tickets", "head of design!", "two receipts",
    "contact form", "your projector", "new wifi password", "workshop on Thursday", "Re: a cold",
    "your shop sign", "meeting room", "first sketches", "the logo, as a vector", "the old heater",
    "Re: poster contest", "address list, column B", "your talk", "the hedge", "lunch, away day",
    "Re: your order of envelopes",
)  # fmt: skip
_START = datetime(2026, 1, 5, 8, 30, tzinfo=timezone.utc)


def mailbox() -> bytes:
    """Return the mailbox: mail in order of time, each after a line that begins with `From `."""
    return b"".join(map(_as_mbox, sorted(_messages(), key=_date)))


def _messages() -> Iterator[EmailMessage]:
    lines = (DEMO / "history.jsonl").read_text("utf-8").splitlines()
    for number, line in enumerate(lines[:N_TEXTS]):
        item = json.loads(line)
        yield _message(number, item["prompt"], item["response"])
    again = json.loads(lines[2])
    yield _plain(30, _SUBJECTS[2], again["response"] + _SIGNATURE, to="Team")  # sent twice
    yield _plain(31, "Re: lunch?", "yes!")
    yield _plain(32, "Fwd: Invoice 4711", _FORWARDED)
    yield _away(33)
    yield _plain(34, "the printer again", _LOG)
    yield _plain(35, "Re: Umschläge", _GERMAN)


def _message(number: int, prompt: str, response: str) -> EmailMessage:
    """A mail to one person or the team, or an answer with the mail that it answers."""
    asked = re.match(r"Reply to this mail: (.*)", prompt)
    if asked:
        words = re.split(r"(?<=[.?!,]) ", asked[1])
        who = words[-1].rstrip(".")
        closing = words[-2:-1] if words[-2].endswith(",") else []
        text = " ".join(words[1 : -1 - len(closing)])
        quoted = "\n".join(f"> {line}" for line in (words[0], "", text, "", *closing, who))
        day = (_START + timedelta(days=number - 1)).strftime("%a, %d %b %Y")
        quote = f"On {day} at 16:20, {who} wrote:\n{quoted}"
        parts = (quote, response) if number == _QUOTED_ABOVE else (response, quote)
        message = _plain(number, _SUBJECTS[number], "\n\n".join(parts) + _SIGNATURE, to=_name(who))
        message["In-Reply-To"] = f"<asked-{number}@example.org>"
        return message
    match = re.match(r"Write a (?:mail|note) to (?:the )?([^:,]+)", prompt)
    assert match, prompt  # noqa: S101
    signed = response + (_SIGNATURE if number % 3 else "")
    return _plain(number, _SUBJECTS[number], signed, to=_name(match[1]))


def _plain(number: int, subject: str, body: str, *, to: str = "Ana") -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    message["From"] = ME
    message["To"] = f"{to} <{re.sub('[^a-z]', '', to.lower())}@example.org>"
    message["Date"] = format_datetime(_START + timedelta(days=number, minutes=17 * number))
    message["Subject"] = subject
    message["Message-ID"] = f"<{number}.sent@marlow-maps.example>"
    message.set_content(body, cte="quoted-printable" if number % 4 == 0 else None)
    return message


def _away(number: int) -> EmailMessage:
    message = _plain(number, "Automatic reply: brochure", "I am away until Monday.\n\nMo Marlow")
    message["Auto-Submitted"] = "auto-replied"
    return message


def _name(person: str) -> str:
    return re.sub(r"^(Mr|Mrs|Dr) ", "", person).split(" and ")[0].capitalize()


def _date(message: EmailMessage) -> datetime:
    date: datetime = message["Date"].datetime
    return date


def _as_mbox(message: EmailMessage) -> bytes:
    body = message.as_bytes(policy=message.policy.clone(linesep="\n", cte_type="8bit"))
    escaped = re.sub(rb"^(>*From )", rb">\1", body, flags=re.MULTILINE)
    opening = f"From mo@marlow-maps.example {_date(message):%a %b %d %H:%M:%S %Y}\n"
    return opening.encode() + escaped.rstrip(b"\n") + b"\n\n"


_FORWARDED = """\
---------- Forwarded message ---------
From: Carla Stein <carla@paper.example>
Date: Mon, 2 Feb 2026 at 09:12
Subject: Invoice 4711
To: Mo Marlow <mo@marlow-maps.example>

Dear customer,

please find attached our invoice for four boxes of envelopes.

Kind regards
Carla Stein
"""

_LOG = """\
2026-02-07 10:02:11 ERROR usb 1-1.4: device descriptor read/64, error -71
2026-02-07 10:02:12 ERROR usb 1-1.4: device not accepting address 9, error -71
2026-02-07 10:02:12 ERROR usb 1-1-port4: unable to enumerate USB device
2026-02-07 10:02:14 INFO  cups[812]: printer "hall" stopped
"""

_GERMAN = """\
guten morgen,

die umschläge sind angekommen, alle vier kartons, keiner davon nass. vielen dank für die schnelle
lieferung. die rechnung bezahle ich am freitag.

viele grüße
Mo
"""

if __name__ == "__main__":
    MAILBOX.write_bytes(mailbox())
