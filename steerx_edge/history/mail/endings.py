"""What stands at the end of mails and is not written for them: signatures and footers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_MARK = "--"  # its space is often lost
_TAIL = 10  # lines that a signature may have
_FEWEST = 3  # mails that a line must end to be one of a signature
_SHARE = 0.05
_CONTACT = re.compile(
    r"https?://|www\.\w|[\w.+-]{1,64}@[\w-]+\.\w|(?:\+|\b00|\(0|\b0)[\d][\d\s()/.-]{6,}\d"
    r"|\b(?:tel|phone|mobile|mobil|fax|telefon|tél)\b\.?\s?:?\s*[+(\d]",
    re.IGNORECASE,
)
_DEVICE = re.compile(
    r"\s*(?:Sent (?:from|via|with|using) |Télécharger Outlook|"
    r"(?:\w+ ){0,3}Outlook (?:\w+ ){1,2}(?:iOS|Android)|"
    r"(?:Von|Aus) mein\w+ .{2,40} gesendet|Gesendet (?:mit|von|über|aus) |"
    r"Diese Nachricht wurde von mein|Envoyé (?:de|depuis|avec|à partir) |"
    r"Enviado (?:desde|do|de|a partir) |Inviato d[ae]|"
    r"Verzonden (?:vanaf|met|vanuit) |Verstuurd vanaf |Skickat från |Sendt fra |Lähetetty |"
    r"Wysłane z |Odesláno z |Отправлено (?:с|из) |"
    r"iPhoneから送信|发自我的|從我的|나의 iPhone에서 )[^,;!?]{0,60}",
    re.IGNORECASE,
)
_LEGAL = re.compile(
    r"(?=.*(?:confidential|privileged|vertraulich|confidentiel|confidencial|riservat|vertrouwelijk|"
    r"konfidentiell|fortrolig|poufn|конфиденциальн))(?=.*(?:e-?mail|message|nachricht|courriel|"
    r"mensaje|mensagem|messaggio|correo|bericht|meddelande|сообщени))(?=.*(?:recipient|addressee|"
    r"intended|empfänger|adressat|destinat|destinatari|geadresseerde|bestemd|mottagare|modtager|"
    r"получател))",
    re.IGNORECASE | re.DOTALL,
)
_LEGAL_TITLE = re.compile(
    r"\s*\W*(?:disclaimer|confidentiality notice|legal notice|haftungsausschluss|"
    r"please consider the environment|think before you print)\b",
    re.IGNORECASE,
)
_VIRUS = re.compile(
    r"(?i).*(?:virus-free|virenfrei|scanned by|checked for viruses|avast|avg\.com).*"
)
_RULE = re.compile(r"\s*[-_=*~]{5,}\s*")
_LIST = re.compile(
    r"mailing list|mailinglist|unsubscribe|listinfo|groups\.google|you received this (?:e-?mail|"
    r"message) because|abmelden|liste de diffusion|désinscri|lista de correo",
    re.IGNORECASE,
)


class Signatures:
    """Learns which lines end many mails of a person.

    A sign-off such as `cheers, Mo` is style. So of the lines that are repeated only those near a
    telephone number, an address of mail or a web address are a signature.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._mails = 0

    def add(self, lines: Sequence[str]) -> None:
        """Count the last lines of a mail."""
        self._mails += 1
        self._counts.update({line.strip() for line in lines[-_TAIL:] if line.strip()})

    @property
    def lines(self) -> frozenset[str]:
        """The lines that are repeated."""
        fewest = max(_FEWEST, _SHARE * self._mails)
        return frozenset(line for line, count in self._counts.items() if count >= fewest)


def without_ending(lines: Sequence[str], repeated: frozenset[str]) -> list[str]:
    """Remove signatures and footers from the end of what a person wrote.

    Args:
        lines: What the person wrote.
        repeated: The lines that are repeated in the mailbox: `Signatures.lines`.
    """
    kept = list(lines)
    for at, line in enumerate(kept):
        if line.rstrip() == _MARK or _is_footer(kept, at):
            kept = kept[:at]
            break
    before = len(kept) + 1
    while len(kept) < before:  # one may stand above the other
        before = len(kept)
        kept = _without_last(_without_repeated(_stripped(kept), repeated))
    return kept


def _stripped(lines: Sequence[str]) -> list[str]:
    end = len(lines)
    while end and not lines[end - 1].strip():
        end -= 1
    return list(lines[:end])


def _without_last(lines: list[str]) -> list[str]:
    """Remove a last line such as `Sent from my iPhone`."""
    is_added = bool(lines) and (_DEVICE.fullmatch(lines[-1]) or _VIRUS.fullmatch(lines[-1]))
    return _stripped(lines[:-1]) if is_added else lines


def _is_footer(lines: Sequence[str], at: int) -> bool:
    """Whether a footer of a list or of lawyers begins at a line."""
    if _RULE.fullmatch(lines[at]):
        return any(_LIST.search(line) for line in lines[at + 1 : at + 6])
    if at and lines[at - 1].strip():
        return False
    end = next((n for n in range(at, len(lines)) if not lines[n].strip()), len(lines))
    paragraph = lines[at:end]
    if not paragraph:
        return False
    is_legal = bool(_LEGAL_TITLE.match(paragraph[0]) or _LEGAL.match(" ".join(paragraph)))
    # A person may write such a sentence too; then more follows than a footer has.
    return is_legal and at > 0


def _without_repeated(lines: list[str], repeated: frozenset[str]) -> list[str]:
    """Remove the repeated last lines from the first one on with a number or an address."""
    start = len(lines)
    while start and (not lines[start - 1].strip() or lines[start - 1].strip() in repeated):
        start -= 1
    contact = next((at for at in range(start, len(lines)) if _CONTACT.search(lines[at])), None)
    if contact is None:
        return lines
    # Names and offices above it belong to it, up to a sign-off and the name after that.
    first = contact
    while first > start and lines[first - 1].strip():
        first -= 1
    for at in range(first, contact):
        if lines[at].rstrip().endswith((",", "!", ".")):
            first = min(at + 2, contact)
    return _stripped(lines[:first])
