"""Where a mail repeats another one: what introduces quotes, and what needs no mark of quotation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from steerx_edge.history.mail.lines import Line

_WROTE = re.compile(
    r"\b(?:wrote|writes|said|schrieb|schreibt|a écrit|écrit|escribió|escribi[oó]|escreveu|"
    r"ha scritto|scrisse|schreef|geschreven|skrev|skreiv|kirjoitti|napisał\(?a?\)?|napsal\(?a?\)?|"
    r"napísal|írta|yazdı|пишет|писал\(?а?\)?|написал\(?а?\)?|написав|έγραψε|a scris|citerar|"
    r"cytat|quoting|zitat von)\b"
    r"|написал\(а\)|napisał\(a\)|napsal\(a\)|写道|寫道|のメール|님이 작성",
    re.IGNORECASE,
)
_ADDRESS = r"[<(\[](?:mailto:)?[^\s<>()\[\]]+@[^\s<>()\[\]]+[>)\]]"
_TIME = re.compile(r"\d{1,2}[:.h]\s?\d{2}")
# A day, or somebody: what else an introduction to a quote may hold.
_NAMED = re.compile(r"\d{1,2}[:.h]\s?\d{2}|\d{4}|\d{1,2}[/.-]\d{1,2}[/.-]|@")
_COLONS = (":", "：")
_LONGEST = 4  # lines of an introduction

_RULE = re.compile(r"[-_=*]{5,}")
_MARKER = re.compile(r"\s*[-_=]{2,}\s*(?P<words>[^\W_][^<>@]{4,60}?)\s*[-_=]{2,}\s*")
_FORWARDED = re.compile(
    r"forwarded|weitergeleitet|transféré|réexpédié|reenviad|encaminhad|inoltrat|doorgestuurd|"
    r"vidarebefordr|videresend|videresendt|edelleen|välitetty|przekazan|přeposlan|пересыла|"
    r"пересланн|переслано|iletilen|転送|转发|轉寄|전달",
    re.IGNORECASE,
)
_ORIGINAL = re.compile(
    r"original|ursprüngliche|d'origine|oorspronkelijk|origineel|opprinnelig|oprindelig|"
    r"alkuperäinen|oryginaln|původní|исходное|元のメッセージ|原始邮件|原始郵件|원본",
    re.IGNORECASE,
)
_BEGIN = re.compile(
    r"(?:Begin forwarded message|Anfang der weitergeleiteten (?:Nachricht|E-Mail)|Début du message "
    r"(?:transféré|réexpédié)|Inicio del mensaje reenviado|Inizio messaggio inoltrato|Begin "
    r"doorgestuurd bericht|Início da mensagem (?:re)?encaminhada|Vidarebefordrat brev|"
    r"Start på videresendt besked)\s?:",
    re.IGNORECASE,
)
# Headers as Outlook and others put them before a mail: those of the sender in many languages.
_FROM = re.compile(
    r"\s*\*?(?:From|Von|De|Da|Van|Från|Fra|Lähettäjä|Od|Feladó|Kimden|От|Від|Από|Odesílatel|"
    r"差出人|送信者|发件人|寄件者|보낸 사람)\s?[:：]\*?\s*\S",
    re.IGNORECASE,
)
_LABEL = re.compile(r"\s*\*?[^\W\d_][^\n:：@<>]{0,24}?\s?[:：]\*?(?:\s|$)")
_FEWEST, _MOST = 3, 30  # of such headers


class Repeated(NamedTuple):
    """From where on a mail repeats another one without marks of quotation.

    Attributes:
        own: The lines before.
        lines: The other mail's, without what introduces it.
        is_forward: Whether they are passed on, rather than answered.
    """

    own: Sequence[Line]
    lines: Sequence[Line]
    is_forward: bool


def repeated_mail(lines: Sequence[Line]) -> Repeated:
    """Find the mail that is repeated at the end, if there is one."""
    for at, line in enumerate(lines):
        if line.depth or not line.text.strip():
            continue
        if (marker := _marker(lines, at)) is not None:
            end = _after_headers(lines, at + 1)
            return Repeated(lines[:at], lines[end:], marker)
        if (end := _headers(lines, at)) > at:
            return Repeated(_without_rule(lines[:at]), lines[end:], False)
        if (end := _attribution(lines, at)) > at:
            return Repeated(lines[:at], lines[end:], False)
    return Repeated(lines, [], False)


def without_introduction(lines: Sequence[str]) -> list[str]:
    """Remove what introduces the quote after these lines: `On Monday, Ana wrote:`."""
    kept = list(lines)
    while kept and not kept[-1].strip():
        kept.pop()
    ending = kept[-1].rstrip() if kept else ""
    if not ending.endswith(_COLONS) and not (ending.endswith("---") and _WROTE.search(ending)):
        return list(lines)
    start = len(kept) - 1
    while start > 0 and len(kept) - start < _LONGEST and _NAMED.search(kept[start - 1]):
        if not kept[start - 1].strip() or _names_all(kept[start:]):
            break
        start -= 1
    told = " ".join(kept[start:])
    return kept[:start] if _WROTE.search(told) or _NAMED.search(told) else list(lines)


def _names_all(lines: Sequence[str]) -> bool:
    """Whether these lines name both a day and somebody, so that the line before is no part."""
    told = " ".join(lines)
    return bool(_TIME.search(told) and (re.search(_ADDRESS, told) or _WROTE.search(told)))


def _marker(lines: Sequence[Line], at: int) -> bool | None:
    """Whether the other mail is passed on, if a line says that it begins; else None."""
    text = lines[at].text.strip().strip("*")
    if _BEGIN.fullmatch(text):
        return True
    found = _MARKER.fullmatch(text)
    if found and _FORWARDED.search(found["words"]):
        return True
    if found and (_ORIGINAL.search(found["words"]) or _after_headers(lines, at + 1) > at + _FEWEST):
        return False
    return None


def _headers(lines: Sequence[Line], at: int) -> int:
    """The end of headers that begin at a line with the sender; the line itself if none do."""
    if not _LABEL.match(lines[at].text):
        return at
    end = _after_headers(lines, at)
    if end - at < _FEWEST or not any(_FROM.match(line.text) for line in lines[at:end]):
        return at
    told = " ".join(line.text for line in lines[at:end])
    # The sender comes first; where it does not, there must be an address.
    return end if re.search(r"\d|@" if _FROM.match(lines[at].text) else "@", told) else at


def _after_headers(lines: Sequence[Line], at: int) -> int:
    """The end of lines with labels, after empty ones; the given line if there are none."""
    start = at
    while at < len(lines) and not lines[at].text.strip():
        at += 1
    first = at
    for _ in range(_MOST):
        if at == len(lines) or lines[at].depth or not _LABEL.match(lines[at].text):
            break
        at += 1
        # A list of recipients goes on in the next line.
        while at < len(lines) and "@" in lines[at].text and not _LABEL.match(lines[at].text):
            at += 1
    return at if at > first else start


def _attribution(lines: Sequence[Line], at: int) -> int:
    """The end of an introduction that begins at a line and is followed by an unmarked quote."""
    for end in range(at + 1, min(at + 1 + _LONGEST, len(lines) + 1)):
        last = lines[end - 1]
        if last.depth or not last.text.strip():
            return at
        if not last.text.rstrip().endswith(_COLONS):
            continue
        told = " ".join(line.text for line in lines[at:end])
        is_full = bool(_TIME.search(told) and re.search(r"\d{4}|\d[/.]\d", told))
        is_full = is_full and bool(re.search(_ADDRESS, told) or _WROTE.search(told))
        following = next((line for line in lines[end:] if line.text.strip()), None)
        return end if is_full and following and not following.depth else at
    return at


def _without_rule(lines: Sequence[Line]) -> Sequence[Line]:
    """Remove the line of dashes before the headers."""
    end = len(lines)
    while end and (not lines[end - 1].text.strip() or _RULE.fullmatch(lines[end - 1].text.strip())):
        end -= 1
    return lines[:end]
