"""What a file is, is decided by its content."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem
from steerx_edge.history.readers.mojibake import mended
from steerx_edge.history.readers.source import Source
from steerx_edge.history.reading import read_history, read_users

HEADERS = "From: Ann <a@example.org>\nTo: b@example.org\nSubject: Tea\nMIME-Version: 1.0\n"
MAIL = f"{HEADERS}\nDear Ben,\n\nthe tea is here.\n"
MAILED = "an email, but not as a program keeps it"
KNOWN = {
    "saved mail": ("a.txt", "From: Ann\nSent: Monday\nTo: Ben\nSubject: Tea\n\nHi.\n", MAILED),
    "German mail": (
        "a.txt",
        "Von: Ann\nGesendet: Montag\nAn: Ben\nBetreff: Tee\n\nHi.",
        MAILED,
    ),
    "mail in prose": ("a.txt", f"My mails.\n\n{MAIL}", MAILED),
    "short mail": ("a.txt", "From: a@example.org\nSubject: Tea\n\nHi.", MAILED),
    "part of a web page": ("a", '<div class="a">Hi</div>', "a part of a web page (HTML)"),
    "a drawing": ("a", '<svg width="1"></svg>', "a document with tags (HTML or XML)"),
    "short mail without spaces": ("a", "From:a@b.org\nTo:c@d.org\n\nHi.", MAILED),
    "French mail": ("a", "De : A <a@b.fr>\nEnvoyé : lundi\nÀ : B\n\nOui.", MAILED),
    "Spanish mail": ("a", "De: A\nEnviado el: lunes\nPara: B\n\nSi.", MAILED),
    "Russian mail": ("a", "От: А <a@b.ru>\nОтправлено: 1 мая\nКому: Б\n\nДа.", MAILED),
    "Latin-1 mail": (
        "a",
        "From: Ann\nSent: Monday\nTo: Ben\nSubject: Tea\n\nCafé.".encode("latin1"),
        MAILED,
    ),
    "mail with a zero": ("a", "From: Ann\nSent: Monday\nTo: Ben\nSubject: T\n\n\0", MAILED),
    "MMDF": ("a", f"\1\1\1\1\n{MAIL}\1\1\1\1\n", "a mailbox (MMDF)"),
    "Babyl": ("a", f"BABYL OPTIONS:\n\x1f\x0c\n{MAIL}", "a mailbox (Babyl)"),
    "PGP": ("a", "-----BEGIN PGP MESSAGE-----\n\nhQEMA", "a message or a key of PGP"),
    "IRC": ("a", "[21:05] <ann> hi\n[21:06] <ben> yes\n", "a log of IRC"),
    "LINE": ("a", "[LINE] Chat history with Ana\nSaved on: 2026/01/05 10:00\n", "a chat of LINE"),
    "LINE in Japanese": (
        "a",
        "\ufeff[LINE] Anaとのトーク履歴\n保存日時：2026/01/05 10:00\n\n2026/01/05(月)\n",
        "a chat of LINE",
    ),
    "KakaoTalk": (
        "a.txt",
        "Ana 님과 카카오톡 대화\r\n저장한 날짜 : 2026-01-05 10:00:00\r\n\r\n[Ana] [오전 10:00] Hi",
        "a chat of KakaoTalk",
    ),
    "KakaoTalk in English": (
        "a.txt",
        "KakaoTalk Chats with Ana\nDate Saved : 2026-01-05 10:00:00\n\nHi\n",
        "a chat of KakaoTalk",
    ),
    "commented LaTeX": ("a", "% v2\n\\documentclass{article}", "a LaTeX document"),
    "chat messages": ("a", '[{"role": "user", "content": "hi"}]', "a file of chat messages"),
    "an old image": ("a.txt", b"GIF89a\x80", "an image"),
    "direct messages of X": (
        "direct-messages.js",
        "window.YTD.direct_messages.part0 = [ ]",
        "a file of an X (Twitter) archive",
    ),
    "notebook": (
        "a.ipynb",
        json.dumps({"cells": [], "metadata": {}, "nbformat": 4}, indent=1),
        "a Jupyter notebook",
    ),
    "PDF": ("a.txt", b"%PDF-1.7\n\x00\xff", "a PDF document"),
}


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(("name", "content", "kind"), KNOWN.values(), ids=KNOWN.keys())
def test_a_known_format_is_named(
    tmp_path: Path, name: str, content: str | bytes, kind: str
) -> None:
    with pytest.raises(HistoryError) as caught:
        read_history(write(tmp_path / name, content))
    assert f"{kind}, which is not read." in str(caught.value)


@pytest.mark.parametrize("suffix", [".rtf", ".htm", ".html", ".xml"])
def test_what_is_called_by_another_format_is_not_prose(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", "Tea, and no more.")
    with pytest.raises(HistoryError, match="but does not begin like one"):
        read_history(path)


@pytest.mark.parametrize(
    "text",
    [
        "Subject: tea\n\nDear Ben",
        "From: the desk of Ann\n\nHello.",
        "Note: buy tea\nTime: 10:30\nPlace: home\n\nOk.",
        "[2026-01-01 10:30] woke up\n\n[2026-01-02 10:30] woke up",
        "From: Ann\nTo: Ben\n\nHello.",
        "Flour, 500 g, sieved\nEggs, 3, large\nMilk, 1 l, cold\nSalt, a pinch, fine",
        "<3 you all",
        "Roses, tea\nand thyme, and\nmore of it\nall, in, all",
        "---\nOne.\n---\nTwo.",
        "From here to 2026 it was quiet.\nNote: tea.",
        "From 10:30 on it was quiet.\nNote: tea.",
        "2026-01-05 10:30 - Met Ann: late.\nTea.\n\n2026-01-06 10:30 - Rain: all day.",
        "[5.1.26, 10:30] Ann: late.\n\n[6.1.26, 10:30] Ann: early.",
        "1\nFirst: tea\nSecond: cake\n\nOk.",
        "Author: Ann <a@example.org>\nLicense: none\n\nOk.",
        "la,la,la\nla,la,la\nla,la,la\nla,la,la",
        '["Quoted", she said.',
    ],
)
def test_prose_is_prose(tmp_path: Path, text: str) -> None:
    items = read_history(write(tmp_path / "a.txt", text))
    assert "\n\n".join(item.response for item in items) == text


@pytest.mark.parametrize("name", ["a.txt", "a", "a.csv"])
@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_array_is_read_whatever_its_name(
    tmp_path: Path, name: str, indent: int | None
) -> None:
    path = write(tmp_path / name, json.dumps([{"text": "one"}, {"text": "two"}], indent=indent))
    assert read_history(path) == [HistoryItem("one"), HistoryItem("two")]


def test_a_known_export_is_read_by_the_field_that_is_given(tmp_path: Path) -> None:
    slack = {"type": "message", "ts": "1.0", "user": "U1", "text": "Tea."}
    path = write(tmp_path / "a.json", json.dumps([slack]))
    with pytest.raises(HistoryError, match="a Slack export"):
        read_history(path)
    assert read_history(path, response="text") == [HistoryItem("Tea.")]


def test_one_json_object_on_several_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", json.dumps({"text": "one"}, indent=1))
    assert read_history(path) == [HistoryItem("one")]


@pytest.mark.parametrize("fence", ["---\ntitle: Tea\ntags:\n  - hot\n---\n", '+++\na = "b"\n+++\n'])
def test_front_matter_is_skipped(
    tmp_path: Path, fence: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "a.md", f"{fence}\nOne.\n\nTwo.")
    assert read_history(path) == [HistoryItem("One."), HistoryItem("Two.")]
    lines = fence.count("\n")
    assert caplog.messages == [f"{path}: skipped the front matter, {lines} lines."]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_encodings_that_show_in_the_bytes(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "a.txt", "Grüße, 你好 all\r\n\r\nTwo.".encode(encoding))
    assert read_history(path) == [HistoryItem("Grüße, 你好 all"), HistoryItem("Two.")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_lines_are_those_of_the_text(tmp_path: Path, encoding: str) -> None:
    text = "Grüße\r\nall\rthe\x0bday\u2028\n\n" * 20_000 + "end"
    source = Source(write(tmp_path / "a.txt", text.encode(encoding)))
    assert "".join(source.lines()) == source.text
    assert all("\n" not in line[:-1] for line in source.lines())


@pytest.mark.parametrize("damage", [b"\xff", b"\0", b"\xc3"])
def test_errors_in_lines_are_those_of_the_text(tmp_path: Path, damage: bytes) -> None:
    lines = "Grüße\n".encode() * 20_000
    source = Source(write(tmp_path / "a.txt", lines + damage + lines))
    with pytest.raises(HistoryError, match="on line 20001") as of_text:
        _ = source.text
    with pytest.raises(HistoryError) as of_lines:
        list(source.lines())
    assert str(of_lines.value) == str(of_text.value)


def test_zero_bytes_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="holds a zero byte on line 2, so it is not a text file"):
        read_history(write(tmp_path / "a.txt", b"one\ntwo\0three four"))


@pytest.mark.parametrize("newline", ["\r\n", "\r"])
def test_line_ends_in_json_strings_are_line_feeds(tmp_path: Path, newline: str) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps({"text": f"one{newline}two"}))
    assert read_history(path) == [HistoryItem("one\ntwo")]


BROKEN = ["Déjà vu 😀", "Это чай", "It’s “tea” – ok", "naïve café", "日本語です"]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
@pytest.mark.parametrize("text", BROKEN)
def test_wrongly_decoded_text_is_mended(text: str, encoding: str) -> None:
    # As Windows does: bytes without a character of their own become control characters.
    broken = "".join(
        bytes([byte]).decode(encoding, "ignore") or chr(byte) for byte in text.encode()
    )
    assert mended(broken) == text


@pytest.mark.parametrize(
    "text", [*BROKEN, "AMANHÃ… CAFÉ…", "«\xa0CAFÉ\xa0» à\xa0«\xa0lui\xa0»", "»Spaß«", "¿QUÉ?", "Ãl"]
)
def test_right_text_is_left(text: str) -> None:
    assert mended(text) == text


def test_mending_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"text": "caf\u00c3\u00a9"}, {"text": "café"}, {"text": "caf\ufffd"}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert [item.response for item in read_history(path)] == ["café", "café", "caf\ufffd"]
    assert caplog.messages == [
        f"{path}: mended 1 of 3 texts, whose UTF-8 had been read as Latin-1 or Windows-1252.",
        f"{path}: 1 of 3 texts hold characters that were read in a wrong encoding. Correct the "
        "file, or they are learned as they are.",
    ]


def test_users_are_mended_too(tmp_path: Path) -> None:
    row = {"user_id": "u", "profile": [{"text": "caf\u00c3\u00a9"}]}
    (user,) = read_users(write(tmp_path / "a.jsonl", json.dumps(row)))
    assert user.history == (HistoryItem("café"),)
