"""Mailboxes of Outlook, as it writes them."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from typing import Any

import pypff
import pytest

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem
from steerx_edge.history.mail.head import Head
from steerx_edge.history.readers import pst
from steerx_edge.history.reading import survey
from tests.support.exports import zipped

DATA = gzip.decompress((Path(__file__).parent / "data/submessage.pst.gz").read_bytes())
SUBJECT = "This is a message which has an embedded message attached"


@pytest.fixture
def mailbox(tmp_path: Path) -> Path:
    path = tmp_path / "outlook" / "backup"
    path.parent.mkdir()
    path.write_bytes(DATA)
    return path


@pytest.mark.parametrize("archived", [False, True])
def test_a_mailbox_of_outlook(mailbox: Path, archived: bool) -> None:
    found = survey(zipped(mailbox.parent) if archived else mailbox)
    item = HistoryItem("This is the body of the regular message", f"Write a mail: {SUBJECT}")
    assert found.items == [item]
    assert str(found.texts[0].written) == "2010-03-17 16:02:09-07:00"
    assert "Top of Outlook data file/submessage: message 1" in found.texts[0].where
    if not archived:
        assert (found.format, found.why) == (pst.NAME, "it begins with '!BDN'")


class _Sent:
    """A message without the headers of a server, as one that was sent."""

    def __init__(self, message: Any) -> None:
        self._message = message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)

    def get_transport_headers(self) -> None:
        return None


def test_the_headers_of_what_was_sent_are_properties(mailbox: Path) -> None:
    file = pypff.file()
    file.open(str(mailbox))
    (message,) = (
        folder.get_sub_message(number)
        for _, folder in pst.folders_below(file.get_root_folder())
        for number in range(folder.number_of_sub_messages)
    )
    came, sent = (Head(pst.headers_of(each)) for each in (message, _Sent(message)))
    assert "received" in came
    assert "received" not in sent
    for name in ("from", "to"):
        assert came.addresses(name) == sent.addresses(name)
    assert (came.subject, came.id, came.written) == (sent.subject, sent.id, sent.written)


def test_a_damaged_mailbox_is_named(mailbox: Path) -> None:
    mailbox.write_bytes(DATA[:5000])
    with pytest.raises(HistoryError, match="backup is a damaged mailbox of Outlook"):
        survey(mailbox)


def test_without_the_library_the_error_says_how_to_install_it(
    mailbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pypff", None)
    with pytest.raises(HistoryError, match=r"with: pip install 'steerx-edge\[outlook\]'"):
        survey(mailbox)
