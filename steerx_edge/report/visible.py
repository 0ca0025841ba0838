"""Text from files, models and users, for a terminal or a page: shown, never obeyed."""

from __future__ import annotations

import re

_NOT_SHOWN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    r"""Write control characters as escapes, such as `\x1b`; line feeds and tabs stay.

    Lone surrogates, and what reverses the direction of the text after it, are written so too.
    """
    return _NOT_SHOWN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
