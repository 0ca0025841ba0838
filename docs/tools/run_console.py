"""Run the `console` blocks of pages with the default model, and put what is printed into the page.

python -m docs.tools.run_console docs/tutorial.md ...

Each page is run in a folder of its own, in which its files lie (`prepare`). What depends on the
speed of the machine is left out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from docs.tools.blocks import ROOT, Block, Command, blocks, commands

DEMO = ROOT / "docs" / "demo"
N_TEXTS = 10  # of sent.jsonl, so that a page runs in seconds
STARTS_WITHOUT_PROFILE = ("docs/tutorial.md",)

_WIDTH = 88
_VARIES = re.compile(r"^(Estimated time: |.*\u2501).*\n", re.MULTILINE)  # and progress bars


def prepare(folder: Path) -> Path:
    """Put the files that the pages name into a folder; return the home folder in it."""
    home = folder / "home"
    (home / "Mail").mkdir(parents=True)
    shutil.copy(DEMO / "sent.mbox", home / "Mail" / "Sent")
    shutil.copy(DEMO / "held_out.jsonl", folder / "new.jsonl")
    lines = (DEMO / "history.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "sent.jsonl").write_text("".join(lines[-N_TEXTS:]), "utf-8")
    (folder / "email.jsonl").write_text(lines[-1], "utf-8")
    (folder / "mail.txt").write_text("Reply to this mail: Is Tuesday fine? Ana\n", "utf-8")
    return home


def expanded(words: tuple[str, ...], home: Path) -> list[str]:
    """Return the words with the home folder in place of `~`, as a shell does."""
    return [f"{home}{word[1:]}" if word.startswith("~/") else word for word in words]


def _run(command: Command, folder: Path, home: Path) -> str:
    program, *arguments = expanded(command.words, home)
    if program != "steerx-edge":
        sys.exit(f"{command.where}: {program} is not steerx-edge.")
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "steerx_edge", *arguments],
        cwd=folder,
        env=os.environ | {"COLUMNS": str(_WIDTH), "STEERX_EDGE_USER_PATH": str(folder / "user")},
        input=command.typed,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    printed = _VARIES.sub("", done.stdout.replace(str(home), "~"))
    return "\n".join(wrapped for line in printed.splitlines() for wrapped in _wrapped(line))


def _wrapped(line: str) -> list[str]:
    """Wrap what is longer than a terminal is wide."""
    return textwrap.wrap(line, _WIDTH) if len(line) > _WIDTH else [line.rstrip()]


def _with_output(block: Block, folder: Path, home: Path) -> str:
    """Return the block with its commands, what is typed into them, and what they print."""
    lines: list[str] = []
    run = commands(block)
    for line in block.text.splitlines():
        if line.startswith("$ "):
            command = next(run)
            lines += [line, *(f"> {typed}" for typed in command.typed.splitlines())]
            lines += _run(command, folder, home).rstrip().splitlines()
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the pages that are named."""
    for page in sys.argv[1:]:
        text = (ROOT / page).read_text("utf-8")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            home = prepare(folder)
            if page not in STARTS_WITHOUT_PROFILE:
                learn = ("steerx-edge", "learn", "sent.jsonl", "-o", "me.json")
                _run(Command(page, learn), folder, home)
            for block in blocks(page):
                if block.language == "console":
                    text = text.replace(block.text, _with_output(block, folder, home), 1)
        (ROOT / page).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
