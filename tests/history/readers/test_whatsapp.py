"""WhatsApp: what Android and iOS write, in several languages."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers import whatsapp
from steerx_edge.history.readers.source import Options, Source
from tests.support.exports import Result, write, zipped

ANDROID = """\
12/15/25, 10:30\u202fAM - Messages and calls are end-to-end encrypted. Learn more.
12/15/25, 10:30\u202fAM - Ana created group “Tea: at five”
12/15/25, 10:31\u202fAM - Ana: Are you coming tonight?
12/15/25, 10:31\u202fAM - Ana: <Media omitted>
12/15/25, 10:32\u202fAM - Kim Lee: Yes! But late:
the train is on strike.

Sorry.
12/15/25, 10:33\u202fAM - Kim Lee: IMG-20251215-WA0001.jpg (file attached)
See the platform
12/15/25, 10:33\u202fAM - Kim Lee: \u200eIMG-20251215-WA0002.jpg (file attached)
12/15/25, 10:40\u202fPM - Kim Lee: On my way to you <This message was edited>
12/15/25, 10:41\u202fPM - Kim Lee: null
12/15/25, 10:41\u202fPM - Kim Lee: <省略>
12/15/25, 10:41\u202fPM - Kim Lee: You deleted this message
12/15/25, 10:42\u202fPM - Ana: https://example.org/a: see
12/15/25, 10:43\u202fPM - Kim Lee: https://example.org
12/16/25, 9:00\u202fAM - Kim Lee: @\u2068Ana\u2069 10:30 - is it: fine?
"""
IOS = """\
\ufeff[15.12.25, 10:30:00] Ana: \u200eMessages and calls are end-to-end encrypted.
[15.12.25, 10:31:00] Ana: Kommst du?
\u200e[15.12.25, 10:31:30] Ana: \u200eBild weggelassen
[15.12.25, 10:32:00] ~\u202fKim: Ja
[15.12.25, 10:32:10] ~\u202fKim: aber spät \u200e<Diese Nachricht wurde bearbeitet.>
\u200e[15.12.25, 10:33:00] ~\u202fKim: \u200e<Anhang: 00000012-PHOTO-2025-12-15.jpg>
[15.12.25, 10:34:00] ~\u202fKim: \u200eDu hast diese Nachricht gelöscht.
""".replace("\n", "\r\n")


def test_android(tmp_path: Path) -> None:
    result = Result(whatsapp, write(tmp_path / "chat.txt", ANDROID), "kim lee")
    assert result.kept == [
        (
            "Reply to Ana: Are you coming tonight?",
            "Yes! But late:\nthe train is on strike.\n\nSorry.\n\nSee the platform",
        ),
        ("Write a message to Ana.", "On my way to you"),
        ("Reply to Ana: https://example.org/a: see", "@Ana 10:30 - is it: fine?"),
    ]
    assert result.dropped == {
        "written by the program": 2,
        "written by others": 3,
        "picture, file or call without text": 3,
        "deleted message": 1,
        "link alone": 1,
    }
    assert result.texts[1].written == datetime(2025, 12, 15, 22, 40).astimezone()
    assert result.texts[1].where.endswith("chat.txt: message 8")


def test_ios(tmp_path: Path) -> None:
    result = Result(whatsapp, write(tmp_path / "a", IOS), "Kim")
    assert result.kept == [("Reply to Ana: Kommst du?", "Ja\naber spät")]
    assert result.dropped == {
        "written by others": 3,
        "picture, file or call without text": 2,
    }


@pytest.mark.parametrize(
    "lines",
    [
        "15/12/2025 à 10:31 - Ana : Tu viens ?\n15/12/2025 à 10:32 - Kim : Oui\n",
        "[2025/12/15 10:31:00] Ana: Tu viens ?\n[2025/12/15 10:32:00] Kim: Oui\n",
        "15.12.25, 10:31 - Ana: Tu viens ?\n15.12.25, 10:32 - Kim: Oui\n",
        "[2025. 12. 15. 오전 10:31:00] Ana: Tu viens ?\n[2025. 12. 15. 오전 10:32:00] Kim: Oui\n",
        "\u200f15\u200f/12\u200f/2025، 10:31 - Ana: Tu viens ?\n"
        "\u200f15\u200f/12\u200f/2025، 10:32 - Kim: Oui\n",
        "2025-12-15 10.31 - Ana: Tu viens ?\n2025-12-15 10.32 - Kim: Oui\n",
    ],
)
def test_dates_of_other_languages(tmp_path: Path, lines: str) -> None:
    result = Result(whatsapp, write(tmp_path / "a.txt", lines), "Kim")
    assert result.kept == [("Reply to Ana: Tu viens ?", "Oui")]
    assert result.texts[0].written == datetime(2025, 12, 15, 10, 32).astimezone()


def written(tmp_path: Path, *stamps: str) -> list[datetime | None]:
    lines = "".join(f"{stamp} - Kim: word {n}\n" for n, stamp in enumerate(stamps))
    return [each.written for each in Result(whatsapp, write(tmp_path / "a", lines), "Kim").texts]


@pytest.mark.parametrize(
    ("stamps", "first"),
    [
        (["1/2/25, 10:00 AM", "13/2/25, 10:00 AM"], (2025, 2, 1)),  # no thirteenth month
        (["1/2/25, 10:00", "1/13/25, 10:00"], (2025, 1, 2)),
        (["3/1/25, 10:00", "1/2/25, 10:00"], (2025, 1, 3)),  # else time runs back
        (["1/3/25, 10:00", "2/1/25, 10:00"], (2025, 1, 3)),
        (["3/1/25, 10:00 AM", "4/1/25, 10:00 AM"], (2025, 1, 3)),  # a day, not a month
        (["25/11/23, 10:00", "25/11/24, 10:00"], (2025, 11, 23)),  # a day, not a year
        (["1/2/25, 10:00 AM", "1/2/25, 11:00 AM"], (2025, 1, 2)),  # American
        (["1/2/25, 10:00", "1/2/25, 11:00"], (2025, 2, 1)),
        (["1.2.25, 10:00 AM", "1.2.25, 11:00 AM"], (2025, 2, 1)),
    ],
)
def test_the_order_of_day_and_month_is_that_of_the_whole_chat(
    tmp_path: Path, stamps: list[str], first: tuple[int, int, int]
) -> None:
    found = written(tmp_path, *stamps)[0]
    assert found is not None
    assert (found.year, found.month, found.day) == first


@pytest.mark.parametrize(
    ("stamp", "hour"),
    [
        ("12/31/25, 12:05 AM", 0),
        ("12/31/25, 12:05\u202fp.\xa0m.", 12),
        ("12/31/25, 1:05 PM", 13),
        ("12/31/25, 下午1:05", 13),
        ("12/31/25, 13:05", 13),
    ],
)
def test_hours_that_count_to_twelve(tmp_path: Path, stamp: str, hour: int) -> None:
    found = written(tmp_path, stamp, stamp)[0]
    assert found is not None
    assert found.hour == hour


def test_a_day_that_is_none_has_no_date(tmp_path: Path) -> None:
    assert written(tmp_path, "31/2/99, 10:00", "31/2/99, 10:01") == [None]


@pytest.mark.parametrize("archived", [False, True])
def test_media_beside_a_chat_are_not_read(tmp_path: Path, archived: bool) -> None:
    folder = write(
        tmp_path / "WhatsApp Chat - Ana",
        {"_chat.txt": IOS, "notes.txt": "By Ana, a long note.", "00000012-PHOTO.jpg": b"\xff\xd8"},
    )
    path = zipped(folder) if archived else folder
    assert Result(whatsapp, path, "Kim").kept == [("Reply to Ana: Kommst du?", "Ja\naber spät")]


def test_of_several_chats_the_common_author_is_the_person(tmp_path: Path) -> None:
    ben = "1/2/25, 10:00 - Ben: Tea?\n1/2/25, 10:01 - Kim: Always.\n"
    write(tmp_path / "all" / "WhatsApp Chat with Ben.txt", ben)
    zipped(write(tmp_path / "all" / "WhatsApp Chat - Ana", {"_chat.txt": IOS}))
    (tmp_path / "all" / "WhatsApp Chat - Ana" / "_chat.txt").unlink()
    result = Result(whatsapp, tmp_path / "all")
    assert [text for _, text in result.kept] == ["Ja\naber spät", "Always."]


def test_a_folder_of_many_things_is_left_to_other_readers(tmp_path: Path) -> None:
    write(tmp_path / "home" / "chats" / "ana" / "a.txt", ANDROID)
    assert not whatsapp.recognize(Source(tmp_path / "home"))
    assert whatsapp.recognize(Source(tmp_path / "home" / "chats"))


def test_who_the_person_is_is_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "chat.txt", ANDROID)
    with pytest.raises(HistoryError, match=r"a WhatsApp chat, .* Kim Lee \(9\), Ana \(3\)\."):
        list(whatsapp.read(Source(path), Options()))


def test_a_folder_with_other_texts_is_no_chat(tmp_path: Path) -> None:
    folder = write(tmp_path / "notes", {"a.txt": ANDROID, "b.txt": "A note of my own."})
    assert not whatsapp.recognize(Source(folder))
