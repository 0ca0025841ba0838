"""Characters of mails, which often are in another encoding than they say, or than exists."""

from __future__ import annotations

from email.errors import HeaderParseError
from email.header import decode_header

# What is called ASCII or Latin-1 is Windows-1252 in practice: https://encoding.spec.whatwg.org
_GUESSED = {"", "ascii", "us-ascii", "iso-8859-1", "latin-1", "latin1", "unknown-8bit", "8bit"}


def decoded_bytes(data: bytes, charset: str | None) -> str:
    """Decode bytes as they say, else as UTF-8, else as Windows-1252; without an error."""
    named = (charset or "").strip().strip("\"'").lower()
    for encoding in ((named,) if named not in _GUESSED else ()) + ("utf-8", "cp1252"):
        try:
            return data.decode(encoding)
        except (LookupError, ValueError):  # unknown, or not in this encoding
            continue
    return data.decode("cp1252", "replace")


def decoded_words(text: str) -> str:
    """Decode the encoded words (RFC 2047) of a header; what is broken stays as it is."""
    if "=?" not in text:
        return text
    try:
        pieces = decode_header(text)
    except (HeaderParseError, ValueError):
        return text
    # Between encoded words, `decode_header` gives bytes of its own encoding.
    return "".join(
        piece
        if isinstance(piece, str)
        else piece.decode("raw-unicode-escape", "replace")
        if charset is None
        else decoded_bytes(piece, charset)
        for piece, charset in pieces
    )
