"""What PGP puts around the text of a mail."""

from __future__ import annotations

import re

_SIGNED = re.compile(
    r"-----BEGIN PGP SIGNED MESSAGE-----\n(?:[A-Za-z]+:[^\n]*\n)*\n?"
    r"(?P<text>[^\n]*(?:\n(?!-----BEGIN PGP SIGN)[^\n]*)*)"  # up to the next one, at most
    r"\n-----BEGIN PGP SIGNATURE-----.*?(?:-----END PGP SIGNATURE-----|\Z)",
    re.DOTALL,
)
_ARMORED = re.compile(
    r"-----BEGIN PGP (?!MESSAGE|SIGNED)[A-Z ]+-----.*?(?:-----END PGP [A-Z ]+-----|\Z)", re.DOTALL
)


def without_armor(text: str) -> str:
    """Remove signatures and keys of PGP from a text."""
    text = _SIGNED.sub(lambda found: re.sub(r"(?m)^- ", "", found["text"]), text)
    return _ARMORED.sub("", text)


def is_encrypted(text: str) -> bool:
    """Whether a text is a message of PGP that only its recipients can read."""
    return text.lstrip().startswith("-----BEGIN PGP MESSAGE-----")
