"""Mails that Outlook saved."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem
from steerx_edge.history.reading import survey
from tests.support.found import as_its_reader_finds
from tests.support.outlook import write_msg

BODY = (
    "Yes.\r\n\r\nMo\r\n\r\nFrom: Ana Lee\r\nSent: Monday, January 5, 2026 10:00 AM\r\n"
    "To: Mo Adler\r\nSubject: Tea\r\n\r\nTea?\r\n"
)
MO, ANA = ("Mo Adler", "mo@example.org"), ("Ana Lee", "ana@example.org")
ANSWER = HistoryItem("Yes.\n\nMo", "Reply to this mail: Subject: Tea\n\nTea?")


def test_a_mail_of_outlook(tmp_path: Path) -> None:
    path = tmp_path / "RE Tea.msg"
    write_msg(path, body=BODY, subject="RE: Tea", sender=MO, to=ANA, sent=1_767_607_200)
    found = survey(path)
    assert found.format == "mail of Outlook (.msg)"
    assert found.items == [ANSWER]
    assert str(found.texts[0].written) == "2026-01-05 10:00:00+00:00"


def test_a_folder_of_them(tmp_path: Path) -> None:
    write_msg(tmp_path / "1.msg", body=BODY, subject="Tea", sender=MO, to=ANA, sent=10**9)
    write_msg(tmp_path / "2.msg", body="Tea?", subject="Tea", sender=ANA, to=MO, sent=10**9)
    (tmp_path / "3.msg").write_bytes((tmp_path / "1.msg").read_bytes()[:2000])
    # What Exchange has instead of an address.
    local = ("Mo Adler", "/O=EXAMPLE/CN=RECIPIENTS/CN=MO")
    write_msg(tmp_path / "4.msg", body="Hm.", subject="Tea", sender=local, to=ANA, sent=10**9)
    write_msg(
        tmp_path / "5.msg", body="", subject="", sender=MO, to=ANA, sent=1, kind="IPM.Contact"
    )
    items, dropped = as_its_reader_finds(tmp_path, me="Mo Adler").sorted()
    assert items == [ANSWER, HistoryItem("Hm.", "Write a mail to Ana Lee: Tea")]
    assert dropped == {"mail by somebody else": 1, "mail without a sender": 2}


def test_without_the_library_the_error_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "1.msg"
    write_msg(path, body=BODY, subject="Tea", sender=MO, to=ANA, sent=10**9)
    monkeypatch.setitem(sys.modules, "extract_msg", None)
    with pytest.raises(HistoryError, match=r"with: pip install 'steerx-edge\[outlook\]'"):
        survey(path)
