"""Of a mail, only what its sender wrote for it is kept; what is quoted is what it answers."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from steerx_edge.history.mail.endings import Signatures
from steerx_edge.history.mail.lines import fixed_lines
from steerx_edge.history.mail.own_words import parted


class Case(NamedTuple):
    mail: str
    own: str
    answered: str = ""
    is_forward: bool = False


INTRODUCED = {
    "Gmail": "On Mon, Jan 5, 2026 at 10:00 AM Ana Lee <ana@example.org> wrote:",
    "Gmail, broken": "On Mon, Jan 5, 2026 at 10:00 AM Ana Lee <\nana@example.org>\nwrote:",
    "Thunderbird": "On 05/01/2026 10:00, Ana Lee wrote:",
    "mutt": "On Mon, Jan 05, 2026 at 10:00:00AM +0100, Ana Lee wrote:",
    "mailing list": "Ana Lee wrote:",
    "quoting": "Quoting Ana Lee <ana@example.org>:",
    "German": "Am Mo., 5. Jan. 2026 um 10:00 Uhr schrieb Ana Lee <ana@example.org>:",
    "German, Thunderbird": "Am 05.01.26 um 10:00 schrieb Ana Lee:",
    "French": "Le lun. 5 janv. 2026 à 10:00, Ana Lee <ana@example.org> a écrit :",
    "Spanish": "El lun, 5 ene 2026 a las 10:00, Ana Lee (<ana@example.org>) escribió:",
    "Portuguese": "Em seg., 5 de jan. de 2026 às 10:00, Ana <ana@example.org> escreveu:",
    "Italian": "Il giorno lun 5 gen 2026 alle ore 10:00 Ana <ana@example.org> ha scritto:",
    "Dutch": "Op ma 5 jan 2026 om 10:00 schreef Ana Lee <ana@example.org>:",
    "Swedish": "Den mån 5 jan. 2026 kl 10:00 skrev Ana Lee <ana@example.org>:",
    "Finnish": "ma 5. tammik. 2026 klo 10.00 Ana Lee (ana@example.org) kirjoitti:",
    "Polish": "pon., 5 sty 2026 o 10:00 Ana Lee <ana@example.org> napisał(a):",
    "Russian": "пн, 5 янв. 2026 г. в 10:00, Ana Lee <ana@example.org>:",
    "Japanese": "2026年1月5日(月) 10:00 Ana Lee <ana@example.org>:",
    "Zoho": "---- On Mon, 05 Jan 2026 10:00:00 +0100 Ana Lee <ana@example.org> wrote ---",
    "Chinese": "Ana Lee <ana@example.org> 于2026年1月5日周一 10:00写道：",
}
OUTLOOK = {
    "English": "From: Ana Lee <ana@example.org>\nSent: Monday, January 5, 2026 10:00 AM\n"
    "To: Mo Adler\nSubject: Tea",
    "with a line": "________________________________\nFrom: Ana Lee\n"
    "Sent: Monday, January 5, 2026 10:00 AM\nTo: Mo Adler\nSubject: Tea",
    "bold": "*From:* Ana Lee <ana@example.org>\n*Sent:* Monday\n*To:* Mo Adler\n*Subject:* Tea",
    "original message": "-----Original Message-----\nFrom: Ana Lee\nSent: Monday\nTo: Mo\n"
    "Subject: Tea",
    "German": "Von: Ana Lee <ana@example.org>\nGesendet: Montag, 5. Januar 2026 10:00\n"
    "An: Mo Adler\nBetreff: Tee",
    "French": "De : Ana Lee <ana@example.org>\nEnvoyé : lundi 5 janvier 2026 10:00\n"
    "À : Mo Adler\nObjet : Thé",
    "Hotmail": "Date: Mon, 5 Jan 2026 10:00:00 +0100\nSubject: Tea\nFrom: ana@example.org\n"
    "To: mo@example.org",
    "Apple's phone": "On Jan 5, 2026, at 10:00, Ana Lee <ana@example.org> wrote:",
}
CASES = {
    "below the quote": Case(
        "On 2026-01-05, Ana Lee wrote:\n> Tea or coffee?\n\nTea, as ever.\n\nMo\n",
        "Tea, as ever.\n\nMo",
        "Tea or coffee?",
    ),
    "between quotes": Case(
        "Hi Ana,\n\nOn 2026-01-05, Ana wrote:\n> Tea?\n\nYes.\n\n> Cake?\n\nNo, thanks.\n\nMo",
        "Hi Ana,\n\nYes.\n\nNo, thanks.\n\nMo",
        "Tea?\n\nCake?",
    ),
    "only the last mail is answered": Case(
        "Yes.\n\nAna wrote:\n> Tea then?\n>\n> Mo wrote:\n>> Not coffee.\n>\n> Ana\n",
        "Yes.",
        "Tea then?\n\nAna",
    ),
    "the introduction is in the quote": Case(
        "Yes.\n> On 5 Jan 2026, at 10:00, Ana Lee <a@example.org> wrote:\n>\n> Tea?\n",
        "Yes.",
        "Tea?",
    ),
    "an own sentence before a quote stays": Case(
        "I do not agree with this:\n\n> Tea is for mornings.\n\nIt never was.",
        "I do not agree with this:\n\nIt never was.",
        "Tea is for mornings.",
    ),
    "a sentence with a verb of saying is no introduction": Case(
        "On Monday I wrote:\nto the council, twice.", "On Monday I wrote:\nto the council, twice."
    ),
    "two lines like headers are prose": Case(
        "From: here to there.\nSubject: to change.\n\nSee you.",
        "From: here to there.\nSubject: to change.\n\nSee you.",
    ),
    "forward of Gmail": Case(
        "What do you think?\n\n---------- Forwarded message ---------\nFrom: Ana <a@example.org>\n"
        "Date: Mon, 5 Jan 2026 at 10:00\nSubject: Tea\nTo: Mo <mo@example.org>\n\nTea is late.",
        "What do you think?",
        "Tea is late.",
        is_forward=True,
    ),
    "forward of Apple Mail": Case(
        "See below.\n\nBegin forwarded message:\n\nFrom: Ana <a@example.org>\nSubject: Tea\n"
        "Date: 5 January 2026\nTo: Mo\n\nTea is late.",
        "See below.",
        "Tea is late.",
        is_forward=True,
    ),
    "forward without a word": Case(
        "\n\n-------- Weitergeleitete Nachricht --------\nBetreff: Tee\nVon: Ana\n\nTee kommt.",
        "",
        "Tee kommt.",
        is_forward=True,
    ),
    "signature": Case(
        "Tea is on.\n\ncheers,\nMo\n\n-- \nMo Adler\nStudio", "Tea is on.\n\ncheers,\nMo"
    ),
    "signature without its space": Case("Tea is on.\n--\nMo Adler", "Tea is on."),
    "signature before a quote": Case(
        "Tea is on.\n\n-- \nMo Adler\n\nAna wrote:\n> Tea?", "Tea is on.", "Tea?"
    ),
    "dashes in a sentence": Case("Tea -- at last.\n\nMo", "Tea -- at last.\n\nMo"),
    "telephone": Case("Tea is on.\n\nSent from my iPhone", "Tea is on."),
    "telephone, German": Case("Tee.\n\nVon meinem iPhone gesendet\n", "Tee."),
    "a sentence like it": Case(
        "Hello.\n\nSent from my desk, for a change!", "Hello.\n\nSent from my desk, for a change!"
    ),
    "lawyers": Case(
        "Tea is on.\n\nMo\n\nThis e-mail is confidential and may be privileged. If you are not\n"
        "the intended recipient, delete it.\n\nCompany of record: Tea Ltd",
        "Tea is on.\n\nMo",
    ),
    "lawyers, German": Case(
        "Tee.\n\nDiese E-Mail enthält vertrauliche Informationen. Wenn Sie nicht der richtige "
        "Adressat sind, informieren Sie den Absender.",
        "Tee.",
    ),
    "a confidence": Case(
        "This is confidential, but the tea is late.", "This is confidential, but the tea is late."
    ),
    "mailing list": Case(
        "Tea is on.\n\n_______________________________________________\nTea mailing list\n"
        "tea@lists.example.org\nhttps://lists.example.org/listinfo/tea",
        "Tea is on.",
    ),
    "group of Google": Case(
        "Tea is on.\n\n-------------------------\nYou received this message because you are "
        "subscribed to the group.",
        "Tea is on.",
    ),
    "log": Case(
        "It broke again:\n\n2026-01-05 10:00:01 start\n2026-01-05 10:00:02 heat\n"
        "2026-01-05 10:00:03 ERROR no water\n\nAny idea?",
        "It broke again:\n\nAny idea?",
    ),
    "an added line in German": Case(
        "Ja, gern.\n\nHolen Sie sich Outlook für iOS<https://aka.ms/o0ukef>", "Ja, gern."
    ),
    "an added line in French": Case("Oui, merci.\n\nObtenez Outlook pour Android", "Oui, merci."),
    "own words about a program": Case(
        "Which one?\n\nI use Outlook for mail", "Which one?\n\nI use Outlook for mail"
    ),
    "code": Case(
        "Try this:\n\nfor (int i = 0; i < n; i++) {\n    pour(cup[i]);\n}\n\nIt works here.",
        "Try this:\n\nIt works here.",
    ),
    "fenced code": Case("Try this:\n\n```\nmake tea\n```\n\nDone.", "Try this:\n\nDone."),
    "one line of a log is told": Case(
        "It says:\n2026-01-05 10:00:01 no water\nSo I gave up.",
        "It says:\n2026-01-05 10:00:01 no water\nSo I gave up.",
    ),
    "broken lines": Case(
        "The tea that you sent arrived on Monday, and there was so much of it that\nwe gave half "
        "to the neighbours.\n- one tin for Ben\n- one for Ida\n\ncheers,\nMo",
        "The tea that you sent arrived on Monday, and there was so much of it that we gave half "
        "to the neighbours.\n- one tin for Ben\n- one for Ida\n\ncheers,\nMo",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_parts(case: Case) -> None:
    parts = parted(fixed_lines(case.mail), is_wrapped=True)
    assert (parts.text(), parts.answered, parts.is_forward) == case[1:]


@pytest.mark.parametrize("line", INTRODUCED.values(), ids=INTRODUCED.keys())
def test_what_introduces_a_quote_is_no_own_word(line: str) -> None:
    parts = parted(fixed_lines(f"Yes, please.\n\n{line}\n\n> Tea?\n"), is_wrapped=True)
    assert (parts.text(), parts.answered) == ("Yes, please.", "Tea?")


@pytest.mark.parametrize("headers", OUTLOOK.values(), ids=OUTLOOK.keys())
def test_after_the_headers_of_a_mail_all_is_quoted(headers: str) -> None:
    parts = parted(
        fixed_lines(f"Yes, please.\n\nMo\n\n{headers}\n\nTea?\n\nAna\n"), is_wrapped=True
    )
    assert (parts.text(), parts.answered) == ("Yes, please.\n\nMo", "Tea?\n\nAna")
    assert not parts.is_forward


MAIL = "{text}\n\ncheers,\nMo\nMo Adler, Studio Adler\nLong Street 1, York\n+44 1904 123456"


def test_a_repeated_ending_with_a_number_is_a_signature_and_a_sign_off_is_not() -> None:
    signatures = Signatures()
    for text in ("One.", "Two.", "Three."):
        signatures.add(MAIL.format(text=text).split("\n"))
    parts = parted(fixed_lines(MAIL.format(text="Four.")), is_wrapped=True)
    assert parts.text(signatures.lines) == "Four.\n\ncheers,\nMo"
    assert parts.text() == MAIL.format(text="Four.")
    # Without a number or an address, what is repeated is how the person writes.
    ending = parted(fixed_lines("Five.\n\ncheers,\nMo"), is_wrapped=True)
    assert ending.text(signatures.lines) == "Five.\n\ncheers,\nMo"


def test_a_line_that_is_rarely_last_is_no_signature() -> None:
    signatures = Signatures()
    for number in range(100):
        signatures.add([f"Text {number}.", "+44 1904 123456" if number < 4 else "Mo"])
    assert signatures.lines == {"Mo"}


@pytest.mark.parametrize("line", ["Tea: hot", "From: Ana"])
def test_a_very_long_list_with_colons_is_read_at_once(line: str) -> None:
    # With a search from every line to the end, this would take hours.
    mail = "Yes, please.\n\n" + f"{line}\n" * 60_000
    parts = parted(fixed_lines(mail), is_wrapped=True)
    assert parts.own == [mail.split("\n")]
