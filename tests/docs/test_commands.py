"""Every command in the pages: `console` blocks are run, options of all others are parsed.

`docs.tools.blocks` says which lines are commands.
"""

from __future__ import annotations

import argparse
import re
import runpy
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from docs.tools.blocks import PAGES, ROOT, Block, Command, blocks, commands
from docs.tools.run_console import STARTS_WITHOUT_PROFILE, expanded, prepare
from steerx_edge import read_history
from steerx_edge.apps.cli import COMMANDS, main
from steerx_edge.apps.cli.manual import NOTES

ALL = [command for page in PAGES for block in blocks(page) for command in commands(block)]
RUN = [page for page in PAGES if any(block.language == "console" for block in blocks(page))]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
PYPROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
NOTHING_TO_CHECK = {"cd", "git", "test", ".ci/run"}


class Parsed(Exception):  # noqa: N818
    """A benchmark has accepted its arguments."""


# ---------------------------------------------------------------- parsed


@pytest.mark.parametrize("command", ALL, ids=lambda command: f"{command.where} {command.words[0]}")
def test_its_program_accepts_it(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    check(command.words, monkeypatch)


def check(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    program, arguments = Path(words[0]).name, list(words[1:])
    if program == "steerx-edge":
        parse(arguments)
    elif program in ("python", "python3", "pytest"):
        check_python([*(["-m", "pytest"] if program == "pytest" else []), *arguments], monkeypatch)
    elif program == "make":
        for target in (word for word in arguments if "=" not in word):
            assert re.search(rf"^{re.escape(target)}:", MAKEFILE, re.MULTILINE), target
    elif program == "pip":
        assert arguments[0] == "install"
        for extra in re.findall(r"\.\[([\w,]+)\]", " ".join(arguments)):
            for name in extra.split(","):
                assert re.search(rf"^{name} = \[", PYPROJECT, re.MULTILINE), name
    elif program == "export":
        assert all(word.partition("=")[0] in NOTES for word in arguments)
    else:
        assert words[0] in NOTHING_TO_CHECK, f"say what to check of {words[0]}"


def parse(arguments: list[str]) -> None:
    """Parse the arguments of steerx-edge, as it does before it runs a command."""
    name, *rest = arguments
    with suppress(click.exceptions.Exit), click.Context(main, **main.context_settings) as group:
        if name.startswith("-"):  # --help or --version
            main.make_context("steerx-edge", arguments)
        command = main.get_command(group, name)
        assert command is not None, f"there is no command {name}"
        command.make_context(name, rest, parent=group)


def check_python(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if arguments[0] == "-m":
        assert arguments[1] in ("pytest", "venv") or module_exists(arguments[1])
        paths = [word for word in arguments[2:] if word.startswith("tests/")]
        assert all((ROOT / path).exists() for path in paths)
        return
    program = ROOT / arguments[0]
    if "ArgumentParser" not in program.read_text("utf-8"):
        assert not arguments[1:]
        return
    parse_args = argparse.ArgumentParser.parse_args

    def parse_only(parser: argparse.ArgumentParser) -> None:
        parse_args(parser)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.syspath_prepend(program.parent)
    with pytest.raises(Parsed):
        runpy.run_path(str(program), run_name="__main__")


def module_exists(name: str) -> bool:
    return (ROOT / f"{name.replace('.', '/')}.py").exists()


def test_a_misspelled_option_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(click.NoSuchOption):
        check(("steerx-edge", "chat", "--profile", "me.json", "--strenght", "1"), monkeypatch)
    with pytest.raises(SystemExit):
        check(("python", "benchmarks/waiting.py", "--rownds", "1"), monkeypatch)
    with pytest.raises(AssertionError):
        check(("make", "dmeo"), monkeypatch)


def options_in_prose(page: str) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text("utf-8"), flags=re.M | re.S)
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", " ".join(re.findall(r"`([^`]+)`", text))))


def test_options_in_prose_exist() -> None:
    sources = [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "tests").glob("mutations/*.py")]
    known = set(re.findall(r"--[a-z][\w-]*", " ".join(each.read_text("utf-8") for each in sources)))
    known |= {"--help", "--version", "--native", "--strict", "--no-cache-dir"}
    with click.Context(main) as context:
        for name in COMMANDS:
            command = main.get_command(context, name)
            assert command is not None
            for parameter in command.params:
                known |= {*parameter.opts, *parameter.secondary_opts}
    unknown = {page: options_in_prose(page) - known for page in PAGES}
    assert not {page: names for page, names in unknown.items() if names}


# ---------------------------------------------------------------- run


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_its_commands_run(page: str, work: Path) -> None:
    if page in STARTS_WITHOUT_PROFILE:
        for file in work.glob("me.*"):
            file.unlink()
    for block in console_blocks(page):
        for command in commands(block):
            run(command, work / "home")


def test_the_tutorial_shows_what_its_mailbox_gives(tmp_path: Path) -> None:
    """Otherwise run it again: see `docs.tools.run_console`."""
    items = read_history(prepare(tmp_path) / "Mail" / "Sent")
    shown = re.findall(
        r"Learning from \d+ of (\d+) texts", (ROOT / "docs/tutorial.md").read_text("utf-8")
    )
    assert shown == [str(len(items))]


def console_blocks(page: str) -> list[Block]:
    return [block for block in blocks(page) if block.language == "console"]


def run(command: Command, home: Path) -> None:
    program, *arguments = expanded(command.words, home)
    assert program == "steerx-edge", f"{command.where}: only steerx-edge is run"
    result = CliRunner().invoke(main, arguments, input=command.typed)
    assert result.exit_code == 0, f"{command.where}: {' '.join(command.words)}\n{result.output}"
