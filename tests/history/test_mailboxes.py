"""Mailboxes of the programs that write them: what is kept, what is dropped, and why."""

from __future__ import annotations

import random
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import pytest

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers import mailboxes
from steerx_edge.history.readers.texts import Dropped, Text
from steerx_edge.history.reading import read_history
from tests.support.found import as_its_reader_finds
from tests.support.mails import ANA, MO, SEPARATOR, mail, mbox


class Case(NamedTuple):
    mail: str
    kept: str = ""
    request: str = ""
    reason: str = ""


REPLIED = "Yes.\n\nOn 05/01/2026 10:00, Ana Lee wrote:\n> Tea?\n> Ana"
# In one mailbox, in this order.
TABLE = {
    "written": Case(mail(), "Tea is on the table.\n\ncheers,\nMo", "Write a mail to Ana Lee: Tea"),
    "received": Case(mail("Tea?", sender=ANA, to=MO), reason="mail by somebody else"),
    "answered": Case(
        mail(REPLIED, subject="Re: Tea"), "Yes.", "Reply to this mail: Subject: Tea\n\nTea?\nAna"
    ),
    "received, later answered": Case(
        mail("Cake, or pie?\n\n-- \nAna", "Message-ID: <1@x>", sender=ANA),
        reason="mail by somebody else",
    ),
    "answered without a quote": Case(
        mail("Pie.", "In-Reply-To: <1@x>", subject="Re: Cake"),
        "Pie.",
        "Reply to this mail: Subject: Cake\n\nCake, or pie?",
    ),
    "answers what is not here": Case(
        mail("Pie!", "In-Reply-To: <2@x>", subject="Re: Cake"),
        "Pie!",
        "Write a mail to Ana Lee: Cake",
    ),
    "forwarded": Case(
        mail("---------- Forwarded message ---------\nFrom: A\n\nTea.", subject="Fwd: Tea"),
        reason="forwarded mail",
    ),
    "forwarded with a word": Case(
        mail("See!\n\n---------- Forwarded message ---------\nFrom: A\n\nTea.", subject="Fwd: Tea"),
        "See!",
        "Write a mail to Ana Lee: Tea",
    ),
    "only a quote": Case(mail("> Tea?"), reason="mail with no own words"),
    "automatic": Case(mail("I am away.", "Auto-Submitted: auto-replied"), reason="automatic mail"),
    "no text": Case(mail("", "Content-Type: image/png"), reason="mail without a text"),
    "once": Case(mail("Once.", "Message-ID: <3@x>"), "Once.", "Write a mail to Ana Lee: Tea"),
    "twice": Case(mail("Once.", "Message-ID: <3@x>"), reason="copy of another mail"),
    "without a date": Case(
        mail("Late.").replace("Date: Mon, 5 Jan", "Date: soon, 5"),
        "Late.",
        "Write a mail to Ana Lee: Tea",
    ),
    "8-bit headers": Case(
        mail("Café!", subject="Café", to="Zoë <z@x.org>"), "Café!", "Write a mail to Zoë: Café"
    ),
    "an unknown character set": Case(
        mail("Tee.", "Content-Type: text/plain; charset=x-unknown"),
        "Tee.",
        "Write a mail to Ana Lee: Tea",
    ),
}


def test_the_table(tmp_path: Path) -> None:
    path = tmp_path / "All"
    path.write_text(mbox(*(case.mail for case in TABLE.values())))
    found = list(as_its_reader_finds(path, me="mo@example.org").found)
    for number, (name, case) in enumerate(TABLE.items()):
        each = found[number]
        assert each.where == f"All: message {number + 1}"
        if isinstance(each, Dropped):
            assert each.reason == case.reason, name
        else:
            assert (each.item.response, each.item.request) == (case.kept, case.request), name
            in_time = datetime(2026, 1, 5, 10, tzinfo=timezone.utc)
            assert each.written == (None if name == "without a date" else in_time)
    assert len(found) == len(TABLE)


def kept(path: Path, me: str = "") -> list[str]:
    items, _ = as_its_reader_finds(path, me).sorted()
    return [item.response for item in items]


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        # The names of separators: mutt, Thunderbird until 2023, since then, Gmail, Pine.
        *(
            (mbox(mail("One."), mail("Two."), separator=f"From {line}\n"), ["One.", "Two."])
            for line in (
                "mo@example.org Mon Jan  5 10:00:00 2026",
                "- Mon Jan 05 10:00:00 2026",
                "- Sat Apr 12 2025 15:59:28",
                "",
                "1790000000000000000@xxx Mon Jan 05 10:00:00 +0000 2026",
                "1844347792267117879@xxx",
                "MAILER_DAEMON Mon Jan  5 10:00:00 2026",
                "müller@example.org Mon Jan  5 10:00:00 2026",
            )
        ),
        # Without an empty line before the separator, and with line ends of Windows.
        (SEPARATOR + mail("One.") + SEPARATOR + mail("Two."), ["One.", "Two."]),
        (mbox(mail("One."), mail("Two.")).replace("\n", "\r\n"), ["One.", "Two."]),
        ("\ufeff" + mbox(mail("One."), mail("Two.")), ["One.", "Two."]),
        # Lines of a text are no separators.
        (mbox(mail("One.\n\nFrom here on, tea.")), ["One.\n\nFrom here on, tea."]),
        (mbox(mail("One.\n\nFrom 10:00 on\nNote: tea.")), ["One.\n\nFrom 10:00 on\nNote: tea."]),
        (mbox(mail("One.\n\n>From here on, tea.")), ["One.\n\nFrom here on, tea."]),
        (mbox(mail("One.\n>>From here:\n> tea")), ["One."]),
        # A separator that another program kept.
        (mbox(f">{SEPARATOR}{mail('One.')}", mail("Two.")), ["One.", "Two."]),
    ],
)
def test_mails_of_a_mailbox(tmp_path: Path, content: str, texts: list[str]) -> None:
    path = tmp_path / "Sent"
    path.write_bytes(content.encode())
    assert kept(path) == texts


def test_a_mailbox_is_split_alike_wherever_its_pieces_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "Sent"
    texts = [f"Text {number}. {'Tea. ' * (number % 7)}".strip() for number in range(60)]
    path.write_text(mbox(*map(mail, texts)))
    for size in (7, 64, 1000):
        monkeypatch.setattr("steerx_edge.history.readers.mbox._CHUNK", size)
        monkeypatch.setattr("steerx_edge.history.readers.mbox._LONGEST", 300)
        monkeypatch.setattr("steerx_edge.history.readers.mbox._HEAD", size)
        assert kept(path) == texts


def test_a_large_attachment_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "Sent"
    parts = 'Content-Type: multipart/mixed; boundary="b"'
    body = "--b\nContent-Type: text/plain\n\nTea.\n--b\nContent-Type: image/png\n\n" + "iVBO" * 5000
    path.write_text(mbox(mail(body, parts), mail("Two.")))
    monkeypatch.setattr("steerx_edge.history.readers.mbox.LARGEST", 1000)
    assert kept(path) == ["Tea.", "Two."]


def test_damaged_mails_cost_only_themselves(tmp_path: Path) -> None:
    generator = random.Random(1)  # noqa: S311
    mails = []
    whole = mail(
        "--b\nContent-Type: text/plain; charset=utf-8; format=flowed\n\nplain tea\n\n"
        "--b\nContent-Type: text/html; charset=utf-8\n\n<p>tea <b>in</b> HTML</p>\n--b--",
        "MIME-Version: 1.0",
        "Content-Type: multipart/alternative; boundary=b",
    ).encode()
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(generator.randrange(1, 12)):
            at = generator.randrange(len(data))
            data[at : at + generator.randrange(3)] = generator.randbytes(generator.randrange(3))
        mails.append(SEPARATOR.encode() + b"X-Whole: no\n" + bytes(data) + b"\n")
    path = tmp_path / "Sent"
    path.write_bytes(b"".join(mails) + mbox(mail("The last one.")).encode())
    found = list(as_its_reader_finds(path, me="mo@example.org").found)
    assert len(found) == 301
    assert isinstance(found[-1], Text)
    assert found[-1].item.response == "The last one."


def test_a_mail_that_python_cannot_read_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(data: bytes) -> object:
        raise KeyError(data)

    monkeypatch.setattr(mailboxes, "read_mail", read)
    path = tmp_path / "Sent"
    path.write_text(mbox(mail("One.")))
    (found,) = as_its_reader_finds(path).found
    assert isinstance(found, Dropped)
    assert (found.reason, found.excerpt) == ("mail that cannot be read", "KeyError")


def test_the_demo_as_mails(tmp_path: Path) -> None:
    """What a person asks a model for, and what is learned from mails, has the same shape."""
    items = read_history(Path("docs/demo/history.jsonl"))
    mails, requests = [], []
    for item in items:
        kind, _, told = item.request.partition(": ")
        if kind == "Reply to this mail":
            quoted = "".join(f"> {line}\n" for line in told.split("\n"))
            body = f"{item.response}\n\nOn 05/01/2026 10:00, Ana Lee wrote:\n{quoted}"
            mails.append(mail(body, to=ANA, subject="Re:"))
        else:
            name = kind.removeprefix("Write a mail to ").removeprefix("Write a note to ")
            mails.append(mail(item.response, to=f'"{name}" <x@example.org>', subject=told))
        requests.append(item.request.replace("Write a note", "Write a mail"))
    path = tmp_path / "Sent"
    path.write_text(mbox(*mails))
    found, _ = as_its_reader_finds(path).sorted()
    assert [item.response for item in found] == [item.response for item in items]
    assert [item.request for item in found] == requests


def test_a_repeated_signature_is_learned_over_the_mailbox(tmp_path: Path) -> None:
    path = tmp_path / "Sent"
    ending = "cheers,\nMo\n\nMo Adler, Studio\n+44 1904 123456"
    path.write_text(mbox(*(mail(f"Text {number}.\n\n{ending}") for number in range(4))))
    assert kept(path) == [f"Text {number}.\n\ncheers,\nMo" for number in range(4)]


def test_a_mixed_mailbox_asks_who_the_user_is(tmp_path: Path) -> None:
    path = tmp_path / "All"
    path.write_text(mbox(mail("One."), mail("Two.", sender=ANA)))
    with pytest.raises(HistoryError, match=r"Mo Adler <mo@example.org> \(1\), Ana Lee .* --me"):
        kept(path)
    assert kept(path, "Ana Lee") == ["Two."]
