"""What the sender of a mail wrote for it, and what the mail answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from steerx_edge.history.mail.endings import without_ending
from steerx_edge.history.mail.lines import Line, unwrapped
from steerx_edge.history.mail.quotes import repeated_mail, without_introduction
from steerx_edge.history.pasted import without_code


@dataclass(frozen=True)
class Parts:
    """A mail, taken apart.

    Attributes:
        own: The sender's lines: one list for each stretch between quotes.
        quoted: What the mail repeats of another one, one level less deep.
        is_forward: Whether that is passed on, rather than answered.
        is_wrapped: Whether a program may have broken the lines.
    """

    own: list[list[str]]
    quoted: list[Line]
    is_forward: bool = False
    is_wrapped: bool = False

    def text(self, repeated: frozenset[str] = frozenset()) -> str:
        """The sender's own words; empty if there are none.

        Args:
            repeated: Lines that end many mails of the sender.
        """
        pieces = (self._piece(lines, repeated) for lines in self.own)
        return "\n\n".join(piece for piece in pieces if piece)

    def _piece(self, lines: list[str], repeated: frozenset[str]) -> str:
        text, _ = without_code("\n".join(without_ending(lines, repeated)))
        text = "\n".join(unwrapped(text.split("\n"))) if self.is_wrapped else text
        return re.sub(r"\n(?:[ \t]*\n){2,}", "\n\n", text).strip()

    @property
    def answered(self) -> str:
        """What the sender of the quoted mail wrote; empty if nothing is quoted."""
        if not any(line.text.strip() for line in self.quoted):
            return ""
        inner = parted(self.quoted, is_wrapped=self.is_wrapped)
        return inner.text() or inner.answered  # its headers, or its introduction, may come first


def parted(lines: Sequence[Line], *, is_wrapped: bool) -> Parts:
    """Take the lines of a mail apart.

    Quotes are what is marked as one, and all that follows the headers of another mail, a line such
    as `-----Original Message-----`, or an introduction with its time and sender.

    Args:
        lines: The lines of a mail.
        is_wrapped: Whether a program may have broken them.
    """
    found = repeated_mail(lines)
    own: list[list[str]] = []
    quoted: list[Line] = []
    follows_own = False
    for is_quote, group in groupby(found.own, key=lambda line: line.depth > 0):
        run = list(group)
        if is_quote:
            if follows_own:
                own[-1] = without_introduction(own[-1])
            follows_own = False
            quoted += [Line(line.text, line.depth - 1) for line in run]
            quoted.append(Line(""))
        elif any(line.text.strip() for line in run):
            own.append([line.text for line in run])
            follows_own = True
    return Parts(own, [*quoted, *found.lines], found.is_forward, is_wrapped)
