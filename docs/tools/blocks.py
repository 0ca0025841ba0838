"""The fenced blocks of the documentation, and the shell commands in them.

In a `console` block, lines that begin with `$ ` are commands, lines that begin with `> ` are typed
into the one before, and all others are output. `tests/docs` runs these commands, page by page.
In a `sh` or `bash` block, every line is a command. In blocks of other kinds, except data and
Python, lines that begin with a known program are. Of these the tests check that the program
accepts the options.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = tuple(
    sorted(
        page.relative_to(ROOT).as_posix()
        for pattern in ("*.md", "docs/**/*.md", "models/*.md")
        for page in ROOT.glob(pattern)
    )
)
"""Every page, relative to the repository."""

_FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHELL = ("sh", "bash")
_NO_SHELL = ("json", "python", "text", "c", "yaml")
_PROGRAMS = ("steerx-edge ", "python benchmarks/", "make ", "pip install ")
_OPERATORS = {"|", "||", "&&", ";", "&"}


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        line: the number of its first line in the page, from 1.
        language: as named behind the fence; may be empty.
    """

    page: str
    line: int
    language: str
    text: str


class Command(NamedTuple):
    """A command of one program, without what redirects its streams.

    Attributes:
        where: page and line of its block.
        typed: lines for its standard input.
    """

    where: str
    words: tuple[str, ...]
    typed: str = ""


def blocks(page: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    text = (ROOT / page).read_text("utf-8")
    for match in _FENCE.finditer(text):
        yield Block(page, text.count("\n", 0, match.start(2)) + 1, match[1], match[2])


def commands(block: Block) -> Iterator[Command]:
    """Yield the commands in a block; those of a pipe one by one."""
    where = f"{block.page}:{block.line}"
    lines = block.text.replace("\\\n", " ").splitlines()
    for number, line in enumerate(lines):
        if not (text := _command_line(block.language, line)):
            continue
        typed = ""
        if block.language == "console":
            for after in lines[number + 1 :]:
                if after.startswith("$ "):
                    break
                if after.startswith("> "):
                    typed += after[2:] + "\n"
        for words in _split(text):
            yield Command(where, words, typed)


def _command_line(language: str, line: str) -> str:
    """Return a line's command; empty if it is none."""
    if language in _NO_SHELL:
        return ""
    if language == "console":
        return line[2:] if line.startswith("$ ") else ""
    line = line.removeprefix("$ ").strip()
    is_command = language in _SHELL or line.startswith(_PROGRAMS)
    return "" if line.startswith("#") or not is_command else line


def _split(line: str) -> Iterator[tuple[str, ...]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    skip = False
    for word in [*lexer, ";"]:
        if word in _OPERATORS:
            if words:
                yield tuple(words)
            words, skip = [], False
        elif skip or word in (">", "<", "2>"):
            skip = not skip
        elif words or not re.fullmatch(r"\w+=.*", word):  # not a variable for the command
            words.append(word)
