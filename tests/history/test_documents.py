"""Documents, notes and folders of them: what is kept of each, and what is not."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import docx
import pytest
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls

from steerx_edge.errors import HistoryError
from steerx_edge.history.opening import open_history
from steerx_edge.history.readers.sections import title_in_name
from steerx_edge.history.readers.texts import Dropped
from steerx_edge.history.reading import Survey, survey

NOTE = """\
---
title: Norway by train
date: 2024-06-01
---
#travel #norway

We took the **slow** train to [[Bergen|the city]], and _it_ was `worth` it. ![map](map.png)

## Day one ##

> A quotation of somebody else.

- [ ] buy *proper* boots
- [x] return 2 * 3 * 4 tents
1. eat fish, see [the site](http://example.org)

```python
# not a heading

print("x")
```

<!-- a remark --> Then it rained[^1] and
rained.

Day two
-------

| a | b |
|---|---|

It rained again.

***

## Empty

# Another title

The end of it.
"""


def kept(found: Survey) -> list[tuple[str, str]]:
    return [(item.request, item.response) for item in found.items]


def test_markdown(tmp_path: Path) -> None:
    path = tmp_path / "2024-06-01 trip.md"
    path.write_text(NOTE)
    found = survey(path)
    assert (found.format, found.why) == ("Markdown", "its name ends in .md, and it has headings")
    assert kept(found) == [
        ("Write about Norway by train", "We took the slow train to the city, and it was worth it."),
        (
            "Write about Norway by train: Day one",
            "- buy proper boots\n- return 2 * 3 * 4 tents\n1. eat fish, see the site\n\n"
            "Then it rained and\nrained.",
        ),
        ("Write about Norway by train: Day two", "It rained again."),
        ("Write about Another title", "The end of it."),
    ]
    assert {text.written for text in found.texts} == {datetime(2024, 6, 1, tzinfo=timezone.utc)}
    assert found.dropped == {
        "front matter": 1,
        "tags": 1,
        "quotation": 1,
        "pasted code or log": 1,
        "table": 1,
    }


def test_the_address_of_a_link_may_hold_brackets(tmp_path: Path) -> None:
    path = tmp_path / "tea.md"
    path.write_text(
        "# Tea\n\nSee [the page](http://example.org/Tea_(drink)) and [this](x) [sic].\n"
    )
    assert kept(survey(path)) == [("Write about Tea", "See the page and this [sic].")]


@pytest.mark.parametrize("opened", ["[a ", "![a ", "[a](", "[[a|", "[^a ", "<!-- a "])
def test_what_is_opened_often_and_never_closed_is_read_at_once(tmp_path: Path, opened: str) -> None:
    # With a search from every one to the end, this would take hours.
    path = tmp_path / "tea.md"
    path.write_text(f"# Tea\n\n{opened * 100_000}\n")
    assert survey(path).items[0].response.startswith(opened.strip())


def test_markdown_is_known_by_its_first_line_too(tmp_path: Path) -> None:
    path = tmp_path / "note"
    path.write_text("# Tea\n\nI like it hot.\n\nVery hot.\n")
    assert open_history(path).why == "it begins with a heading"
    assert kept(survey(path)) == [("Write about Tea", "I like it hot.\n\nVery hot.")]


def inserted(author: str, text: str) -> Any:
    return parse_xml(
        f'<w:ins {nsdecls("w")} w:id="1" w:author="{author}"><w:r><w:t>{text}</w:t></w:r></w:ins>'
    )


def deleted(text: str) -> Any:
    return parse_xml(
        f'<w:del {nsdecls("w")} w:id="2" w:author="Kim"><w:r><w:delText>{text}</w:delText>'
        "<w:tab/></w:r>"
        "</w:del>"
    )


@pytest.fixture
def report(tmp_path: Path) -> Path:
    document = docx.Document()
    document.core_properties.modified = datetime(2024, 6, 1, 12)
    document.sections[0].header.paragraphs[0].text = "A header."
    document.add_paragraph("Tea", "Title")
    document.add_paragraph("It is warm.\tVery\nwarm.")
    document.add_heading("Making it", 2)
    for item in ("boil water", "wait a bit"):
        document.add_paragraph(item, "List Bullet")
    document.add_paragraph("To be or not.", "Intense Quote")
    document.add_table(1, 1).cell(0, 0).text = "a cell"
    changed = document.add_paragraph("I pour it")
    changed._p.append(deleted(" at once"))  # noqa: SLF001
    changed._p.append(inserted("Kim", " slowly"))  # noqa: SLF001
    changed._p.append(inserted("Ana", " and quickly"))  # noqa: SLF001
    document.add_comment(changed.runs, text="Why slowly?", author="Ana")
    path = tmp_path / "report.docx"
    document.save(str(path))
    return path


@pytest.mark.parametrize(("me", "others"), [((), " and quickly"), (("Kim",), "")])
def test_word(report: Path, me: tuple[str, ...], others: str) -> None:
    found = survey(report, me=me)
    assert (found.format, found.why) == ("a Word document", "it holds word/document.xml")
    assert kept(found) == [
        ("Write about Tea", "It is warm.\tVery\nwarm."),
        (
            "Write about Tea: Making it",
            f"- boil water\n- wait a bit\n\nI pour it slowly{others}",
        ),
    ]
    assert found.texts[0].written == datetime(2024, 6, 1, 12, tzinfo=timezone.utc)
    assert found.dropped == {"quotation": 1, "table": 1, "comment": 1}


ODT = """\
<office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"
 xmlns:style="urn:oasis:names:tc:opendocument:xmlns:style:1.0"
 xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0">
<office:automatic-styles><style:style style:name="P1" style:parent-style-name="Title"/>
</office:automatic-styles>
<office:body><office:text>
<text:tracked-changes><text:deletion><text:p>A deleted line.</text:p></text:deletion>
</text:tracked-changes>
<text:p text:style-name="P1">Tea</text:p>
<text:p>It is<text:s text:c="2"/>warm.<text:note><text:note-body><text:p>A note.</text:p>
</text:note-body></text:note><text:line-break/>Very<text:tab/><text:span>warm</text:span>.
<office:annotation><text:p>Why?</text:p></office:annotation></text:p>
<text:h text:outline-level="1">Making it</text:h>
<text:list><text:list-item><text:p>boil water</text:p></text:list-item>
<text:list-item><text:p>wait a bit</text:p></text:list-item></text:list>
<text:p text:style-name="Quotations">To be or not.</text:p>
<table:table><table:table-row><table:table-cell><text:p>a cell</text:p></table:table-cell>
</table:table-row></table:table>
<text:section><text:p>I pour it slowly.</text:p></text:section>
</office:text></office:body></office:document-content>
"""
META = '<m xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:date>2024-06-01T12:00:00.123456789</dc:date></m>'
DEEP = ODT.replace("<text:section>", "<text:span>" * 5000).replace(
    "</text:section>", "</text:span>" * 5000
)


def write_odt(path: Path, content: str = ODT) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.text")
        archive.writestr("content.xml", content)
        archive.writestr("meta.xml", META)
    return path


def test_open_document(tmp_path: Path) -> None:
    found = survey(write_odt(tmp_path / "a.odt"))
    assert found.format == "an OpenDocument text"
    assert kept(found) == [
        ("Write about Tea", "It is  warm.\nVery\twarm."),
        ("Write about Tea: Making it", "- boil water\n- wait a bit\n\nI pour it slowly."),
    ]
    assert found.texts[0].written == datetime(2024, 6, 1, 12, tzinfo=timezone.utc)
    assert found.dropped == {"quotation": 1, "table": 1, "comment": 1}


def test_rich_text(tmp_path: Path) -> None:
    path = tmp_path / "To the landlord.rtf"
    path.write_bytes(
        rb"{\rtf1\ansi\ansicpg1252{\fonttbl\f0 Arial;}\f0 Gr\'fc\'dfe \u8364?5,\par\par "
        rb"{\b warm} ones.\par}"
    )
    found = survey(path)
    assert (found.format, found.why) == ("a Rich Text document", r"it begins with '{\rtf'")
    assert kept(found) == [("Write about To the landlord", "Grüße €5,\n\nwarm ones.")]


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.docx", lambda path: damaged_docx(path), "a.docx is a damaged Word document."),
        ("a.odt", lambda path: write_odt(path, "<p>"), "a.odt is a damaged or encrypted document."),
        ("b.odt", lambda path: write_odt(path, DEEP), "b.odt is a damaged or encrypted document."),
        ("a.rtf", lambda path: path.write_bytes(b"{\\rtf1\\u99999999999 x}"), "a.rtf is a damaged"),
    ],
)
def test_a_damaged_document_is_named(
    tmp_path: Path, name: str, content: Callable[[Path], object], error: str
) -> None:
    content(tmp_path / name)
    with pytest.raises(HistoryError, match=error):
        survey(tmp_path / name)


def damaged_docx(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", "<w:document/>")


@pytest.mark.parametrize(
    ("name", "content", "module"),
    [
        ("a.docx", None, "docx"),
        ("a.rtf", b"{\\rtf1 x}", "striprtf.striprtf"),
        ("a.txt", b"\xfc b", "charset_normalizer"),
    ],
)
def test_a_missing_package_is_named_with_the_command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    report: Path,
    name: str,
    content: bytes | None,
    module: str,
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / name).write_bytes(content or report.read_bytes())
    monkeypatch.setitem(sys.modules, module, None)
    (dropped,) = open_history(folder).found
    assert isinstance(dropped, Dropped)
    assert dropped.excerpt.endswith("Install it with: pip install 'steerx-edge[documents]'")


def test_a_folder_of_notes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "vault"
    (folder / ".obsidian").mkdir(parents=True)
    (folder / ".obsidian" / "app.json").write_text("{}")
    (folder / "2024-01-05 Letter to the landlord.txt").write_text("Dear Sir,\n\nit is cold.\n")
    (folder / "3.txt").write_bytes("Für die Küche: warme Grüße und viel Tee.".encode("cp1252"))
    (folder / "Tea.md").write_text("It is warm.\n\nVery warm.")
    (folder / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (folder / "mine.jsonl").write_text('{"text": "Ok."}\n')  # made for us: kept to the letter
    with zipfile.ZipFile(folder / "old.zip", "w") as archive:
        archive.writestr("Milk.txt", "It is cold today.")
    found = survey(folder)
    assert found.format == "a folder of files"
    assert kept(found) == [
        ("Write about Letter to the landlord", "Dear Sir,\n\nit is cold."),
        ("", "Für die Küche: warme Grüße und viel Tee."),
        ("Write about Tea", "It is warm.\n\nVery warm."),
        ("", "Ok."),
        ("Write about Milk", "It is cold today."),
    ]
    assert found.dropped == {"hidden file": 1, "file that could not be read": 1}
    assert caplog.messages == [f"{folder}/3.txt is not in UTF-8; read as cp1252."]


@pytest.mark.parametrize("encoding", ["cp1251", "koi8_r", "shift_jis", "gb18030"])
def test_older_encodings(tmp_path: Path, encoding: str) -> None:
    text = {
        "shift_jis": "明日の会議は十時からです。よろしくお願いします。今日はとても寒いですね。",
        "gb18030": "今天天气很冷，我们在家里喝茶，看书，然后出去走走，你觉得怎么样？",
    }.get(encoding, "Сегодня холодно, и мы пьём чай дома, а потом пойдём гулять в парк.")
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    assert [item.response for item in survey(tmp_path).items] == [text]


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("Letter to Ana.txt", "Letter to Ana"),
        ("2024-01-05_letter-to-ana.txt", "letter to ana"),
        ("202401051230 Tea.md", "Tea"),
        ("my-trip-to-norway.md", "my trip to norway"),
        ("Untitled 3.txt", ""),
        ("note-12.txt", ""),
        ("Document (2).docx", ""),
        ("IMG_1234.txt", ""),
        ("20240105.txt", ""),
        ("Notes on tea.txt", "Notes on tea"),
        ("Draft v2 copy.docx", ""),
    ],
)
def test_what_the_name_of_a_file_says(name: str, title: str) -> None:
    assert title_in_name(name) == title


def test_a_link_to_nothing_and_a_pipe_cost_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "b.txt")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "c.txt").write_text("Tea is ready, do come.\n")
    found = survey(tmp_path)
    assert [text for _, text in kept(found)] == ["Tea is ready, do come."]
    assert found.dropped == {"file that could not be read": 3}
    with pytest.raises(HistoryError, match="is a pipe, which can be read only once"):
        survey(tmp_path / "b.txt")


def test_a_link_to_nothing_costs_no_mail_of_its_folder(tmp_path: Path) -> None:
    for folder, first in (("boxes", "From mo Mon Jan  5 10:00:00 2026\n"), ("mails", "")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a").symlink_to(tmp_path / "gone")
        mail = f"{first}From: mo@example.org\nTo: ana@example.org\nMIME-Version: 1.0\n\nDo come.\n"
        (tmp_path / folder / "b.eml").write_text(mail)
        found = survey(tmp_path / folder)
        assert kept(found) == [("Write a mail to ana.", "Do come.")]
        assert found.dropped == {"file that could not be read": 1}


def test_what_an_archive_puts_outside_of_it_is_not_hidden(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../outside.txt", "A text outside.")
        archive.writestr("inside.txt", "A text inside.")
    found = survey(path)
    assert "A text inside." in [item.response for item in found.items]
    assert "hidden file" not in found.dropped
