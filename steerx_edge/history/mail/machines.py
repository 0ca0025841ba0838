"""Lines that a machine wrote: logs, code, and what PGP puts around a text."""

from __future__ import annotations

import re
from collections.abc import Sequence

_FENCE = re.compile(r"\s*(?:```|~~~)")
_MACHINE = re.compile(
    r"\s*\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d|\s*\[?\d\d:\d\d:\d\d\b|\s*(?:\w{3} [ \d]\d \d\d:\d\d:\d\d)"
    r"|\s*\[?(?:DEBUG|INFO|WARN|WARNING|ERROR|FATAL|TRACE)\b[\]: ]|\s*Traceback \(most recent"
    r"|\s+File \"|\s+at [\w.$<>/]+[(:]|\s*(?:\+\+\+|---|@@|diff) |\s*[$#%] \w"
    r"|\s*\w+@[\w-]+:\S*[$#] |.*[{};]\s*$"
    r"|\s*(?:def|class|import|from|return|if|for|while|else|elif|try|except|with)\b.*:$"
    r"|\s*(?:import|from|return|#include|const|let|var|public|private|static)\s\S+.*[^.!?,]$"
    r"|\s{2,}[\w.\[\]]+(?: =|\().*|[\w.]+(?:Error|Exception)\b.*"
)
_FEWEST = 3  # lines
_LETTERS = 0.5  # of all characters, in prose

_SIGNED = re.compile(
    r"-----BEGIN PGP SIGNED MESSAGE-----\n(?:[A-Za-z]+:[^\n]*\n)*\n?(?P<text>.*?)"
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


def without_machines(lines: Sequence[str]) -> list[str]:
    """Remove fenced blocks, and three or more lines in a row that look like a log or code.

    A line looks like one if it begins with a time, a log level or a prompt, ends with a brace or a
    semicolon, is a statement of a programming language, or if less than half of it is letters.
    """
    kept: list[str] = []
    run: list[str] = []
    is_fenced = False
    for line in lines:
        if _FENCE.match(line):
            is_fenced = not is_fenced
        elif is_fenced:
            continue
        elif _is_machine(line):
            run.append(line)
        else:
            kept += _few(run)
            run = []
            kept.append(line)
    return kept + _few(run)


def _few(run: list[str]) -> list[str]:
    return run if len(run) < _FEWEST else []


def _is_machine(line: str) -> bool:
    bare = line.replace(" ", "")
    if not bare:
        return False
    letters = sum(map(str.isalpha, bare))
    return bool(_MACHINE.match(line)) or (len(bare) > 8 and letters < _LETTERS * len(bare))
