"""Mail as programs keep it: where, and in what form."""

from __future__ import annotations

import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.found import as_its_reader_finds
from tests.support.mails import ANA, MO, mail, mbox

# Programs: each writes Mo's mail to where it keeps what was sent, a mail by Ana, and a draft.
SENT, RECEIVED, DRAFT = mail("Sent."), mail("Received.", sender=ANA, to=MO), mail("Draft.")


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())


def maildir(folder: Path) -> Path:
    for name, content in (
        ("cur/1:2,S", RECEIVED),
        (".Sent/cur/2:2,S", SENT),
        (".Sent/cur/3:2,DS", DRAFT),
        (".Drafts/new/4", DRAFT),
    ):
        write(folder / name, content)
    for name in ("cur", "new", "tmp"):
        for box in ("", ".Sent", ".Drafts"):
            (folder / box / name).mkdir(parents=True, exist_ok=True)
    return folder


def maildirs(folder: Path) -> Path:
    """As mbsync and offlineimap write them."""
    for name, content in (("INBOX", RECEIVED), ("Gesendet", SENT), ("Entwürfe", DRAFT)):
        write(folder / name / "cur/1:2,S", content)
        (folder / name / "new").mkdir()
    return folder


def eml_files(folder: Path) -> Path:
    write(folder / "Inbox/1.eml", RECEIVED)
    write(folder / "Sent/2.eml", SENT.replace("\n", "\r\n"))
    write(folder / "Drafts/3.eml", DRAFT)
    write(folder / "notes.txt", "No mail at all.")
    return folder


def apple_mail(folder: Path) -> Path:
    plist = '<?xml version="1.0" encoding="UTF-8"?>\n<plist version="1.0"><dict/></plist>\n'
    for box, content in (("INBOX", RECEIVED), ("Sent Messages", SENT), ("Drafts", DRAFT)):
        size = f"{len(content.encode())}\n"
        write(folder / f"{box}.mbox/1A2B/Data/Messages/1.emlx", f"{size}{content}{plist}")
    return folder


def apple_export(folder: Path) -> Path:
    write(folder / "Sent Messages.mbox/mbox", mbox(SENT))
    write(folder / "Sent Messages.mbox/table_of_contents", "\0")
    return folder / "Sent Messages.mbox"


def mailboxes_of_mutt(folder: Path) -> Path:
    for name, content in (("inbox", mbox(RECEIVED)), ("sent", mbox(SENT)), ("postponed", "")):
        write(folder / name, content)
    return folder


def gmail(folder: Path) -> Path:
    labels = {"Inbox,Opened": RECEIVED, "Sent,Opened": SENT, "Drafts": DRAFT, "Inbox": SENT}
    mails = [
        f"X-GM-THRID: 1\r\nX-Gmail-Labels: {label}\r\n{each}" for label, each in labels.items()
    ]
    name = "Takeout/Mail/All mail Including Spam and Trash.mbox"
    line = "From 1790000000000000000@xxx Mon Jan 05 10:00:00 +0000 2026\r\n"
    write(folder / name, mbox(*mails, separator=line))
    write(folder / "Takeout/archive_browser.html", "<html>")
    return folder


def gmail_as_downloaded(folder: Path) -> Path:
    unpacked = gmail(folder / "unpacked")
    path = folder / "takeout-20260105T100000Z-001.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(unpacked.rglob("*.*")):
            if file.is_file():
                archive.write(file, str(file.relative_to(unpacked)))
    return path


def thunderbird(folder: Path) -> Path:
    profile = folder / "abc.default-release"
    write(profile / "prefs.js", 'user_pref("mail.identity.id1.useremail", "mo@example.org");\n')
    status = "X-Mozilla-Status: 0001\nX-Mozilla-Status2: 00000000\n"
    for name, content in (
        ("ImapMail/imap.example.org/INBOX", RECEIVED),
        ("ImapMail/imap.example.org/INBOX.sbd/Archive", SENT),
        ("Mail/Local Folders/Drafts", DRAFT),
    ):
        write(profile / name, mbox(status + content, separator="From - Mon Jan 05 10:00:00 2026\n"))
        write(profile / f"{name}.msf", "// <!-- <mdb:mork:z v='1.4'/> -->")
    write(profile / "Mail/Local Folders/Trash", "")
    write(folder / "profiles.ini", "[Profile0]\nPath=abc.default-release\n")
    return folder


def thunderbird_profile(folder: Path) -> Path:
    return thunderbird(folder) / "abc.default-release"


def thunderbird_folders(folder: Path) -> Path:
    mails = thunderbird_profile(folder) / "ImapMail"
    (mails / "imap.example.org/INBOX.sbd/Archive").rename(mails / "imap.example.org/Sent")
    (mails / "imap.example.org/INBOX.sbd/Archive.msf").rename(mails / "imap.example.org/Sent.msf")
    return mails


PROGRAMS: dict[Callable[[Path], Path], tuple[str, dict[str, int]]] = {
    maildir: ("mail folders (Maildir)", {"mail by somebody else": 1, "draft": 2}),
    maildirs: ("mail folders (Maildir)", {"mail by somebody else": 1, "draft": 1}),
    eml_files: (
        "mail (.eml)",
        {"mail by somebody else": 1, "draft": 1, "file without a mail": 1},
    ),
    apple_mail: ("mail of Apple Mail (.emlx)", {"mail by somebody else": 1, "draft": 1}),
    apple_export: ("a mailbox (mbox)", {"file without a mail": 1}),
    mailboxes_of_mutt: ("a mailbox (mbox)", {"mail by somebody else": 1}),
    gmail: (
        "mail from Gmail (Takeout)",
        {"mail by somebody else": 1, "draft": 1, "mail that Gmail did not label as sent": 1},
    ),
    gmail_as_downloaded: (
        "mail from Gmail (Takeout)",
        {"mail by somebody else": 1, "draft": 1, "mail that Gmail did not label as sent": 1},
    ),
    thunderbird: ("a profile of Thunderbird", {"mail by somebody else": 1, "draft": 1}),
    thunderbird_profile: ("a profile of Thunderbird", {"mail by somebody else": 1, "draft": 1}),
    thunderbird_folders: ("a profile of Thunderbird", {"mail by somebody else": 1}),
}


@pytest.mark.parametrize(
    ("program", "name", "dropped"),
    [(program, *expected) for program, expected in PROGRAMS.items()],
    ids=[program.__name__ for program in PROGRAMS],
)
def test_what_programs_keep(
    tmp_path: Path, program: Callable[[Path], Path], name: str, dropped: dict[str, int]
) -> None:
    read = as_its_reader_finds(program(tmp_path))
    items, left_out = read.sorted()
    assert read.format == name
    assert [item.response for item in items] == ["Sent."]
    assert left_out == dropped


def test_a_single_mail(tmp_path: Path) -> None:
    write(tmp_path / "1.eml", SENT)
    ((item,), _) = as_its_reader_finds(tmp_path / "1.eml").sorted()
    assert item.response == "Sent."


def test_a_maildir_in_an_archive(tmp_path: Path) -> None:
    folder = maildir(tmp_path / "Mail")
    path = tmp_path / "mail.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, str(file.relative_to(tmp_path)))
    ((item,), _) = as_its_reader_finds(path).sorted()
    assert item.response == "Sent."


def test_many_files_take_no_more_memory_than_one(tmp_path: Path) -> None:
    for number in range(100):
        write(tmp_path / f"{number}.eml", mail(f"Text {number}.\n\n-- \n{'Mo. ' * 30_000}"))
    found = as_its_reader_finds(tmp_path).found
    tracemalloc.start()
    try:
        assert sum(1 for _ in found) == 100
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000  # the files have 12 MB
