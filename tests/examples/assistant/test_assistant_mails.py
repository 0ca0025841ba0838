from __future__ import annotations

from pathlib import Path

import pytest

from examples.assistant.mails import mail_in, request_for
from steerx_edge import read_history
from steerx_edge.errors import HistoryError
from steerx_edge.history.mail.request import LONGEST

ASKED = """\
From: Ana Weber <ana@example.org>
To: Mo <mo@example.org>
Date: Mon, 3 Mar 2025 09:00:00 +0000
Message-ID: <1@example.org>
Subject: Re: The lamp
Content-Type: text/plain; charset=utf-8

Dear Mo,

the lamp is broken again. Can you come on Tuesday?

Ana

On Sun, 2 Mar 2025 at 10:00, Mo <mo@example.org> wrote:
> right then, I mended it.
"""
ANSWERED = """\
From: Mo <mo@example.org>
To: Ana Weber <ana@example.org>
Date: Mon, 3 Mar 2025 10:00:00 +0000
Message-ID: <2@example.org>
In-Reply-To: <1@example.org>
Subject: Re: The lamp
Content-Type: text/plain; charset=utf-8

morning,

Tuesday is fine. Toodle-oo for now,
Mo
"""


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    path = tmp_path / "asked.eml"
    path.write_text(ASKED, "utf-8")
    return path


def test_a_mail_is_asked_about_as_the_profile_was_learned(asked: Path) -> None:
    (asked.parent / "answered.eml").write_text(ANSWERED, "utf-8")
    (item,) = read_history(asked.parent, me=("mo@example.org",))
    assert request_for(mail_in(asked)) == item.request
    assert request_for(ASKED) == item.request  # pasted with its headers


def test_an_opened_mail_is_shown_without_quotes(asked: Path) -> None:
    shown = mail_in(asked)
    assert shown.startswith("Subject: The lamp\n\nDear Mo,")
    assert "mended" not in shown


def test_of_pasted_text_the_quotes_are_left_out() -> None:
    text = "is Tuesday fine?\n\nOn Sun, 2 Mar 2025 at 10:00, Mo <mo@example.org> wrote:\n> yes\n"
    assert request_for(text) == "Reply to this mail: is Tuesday fine?"


def test_of_a_mail_of_a_megabyte_the_beginning_is_asked_about(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("It rained all day. " * 60_000, "utf-8")
    request = request_for(mail_in(path))
    assert request.endswith("It rained all day. ...")
    assert len(request) < len("Reply to this mail: ") + LONGEST + len(" ...")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (None, "'a.eml' cannot be read: No such file or directory."),
        (b"GIF89a\0\0", "'a.eml' is neither a mail nor text. Save the mail as .eml or .txt."),
        (b" \n", "'a.eml' is empty."),
        (
            b"From: a@example.org\nDate: Mon, 3 Mar 2025 09:00:00 +0000\nSubject: Photo\n"
            b"Content-Type: image/png\n\nabcd",
            "'a.eml' cannot be answered: mail without a text.",
        ),
    ],
)
def test_a_file_that_cannot_be_answered_is_named(
    data: bytes | None, sentence: str, tmp_path: Path
) -> None:
    if data is not None:
        (tmp_path / "a.eml").write_bytes(data)
    with pytest.raises(HistoryError) as caught:
        mail_in(tmp_path / "a.eml")
    assert str(caught.value) == sentence
