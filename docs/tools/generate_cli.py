"""Write docs/cli.md: the help of every command, from the commands themselves.

python -m docs.tools.generate_cli
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

from steerx_edge.apps.cli import COMMANDS, main

PAGE = Path(__file__).parents[1] / "cli.md"

_HEAD = """\
# Commands

What `steerx-edge COMMAND --help` prints, for every command. This page is generated (`make docs`).
"""


def cli_page() -> str:
    """Return the page as Markdown."""
    with click.Context(main, info_name="steerx-edge", **main.context_settings) as group:
        sections = [_HEAD, _paragraphs(main.help or ""), _paragraphs(main.epilog or "")]
        for name in COMMANDS:
            command = main.get_command(group, name)
            assert command is not None  # noqa: S101
            sections += _section(command, group)
    return "\n".join(section for section in sections if section)


def _section(command: click.Command, group: click.Context) -> Iterator[str]:
    with click.Context(command, info_name=command.name, parent=group) as context:
        usage = " ".join(command.collect_usage_pieces(context))
        yield f"## steerx-edge {command.name}\n"
        yield f"```text\n{context.command_path} {usage}\n```\n"
        yield _paragraphs(command.help or "")
        lines = [_option(each, context) for each in command.get_params(context)]
        yield "\n".join(line for line in lines if line) + "\n"
        yield _paragraphs(command.epilog or "")


def _option(parameter: click.Parameter, context: click.Context) -> str:
    """One option as a list item: its names, and the help with default and environment variable."""
    record = parameter.get_help_record(context)
    if record is None or isinstance(parameter, click.Argument) or parameter.name == "help":
        return ""  # the text above explains arguments
    names, text = record
    return f"- `{names}`<br>{_escaped(' '.join(text.split()))}"


def _paragraphs(text: str) -> str:
    r"""Click's help as Markdown; a block after `\b` is kept as it is."""
    blocks = inspect.cleandoc(text).split("\n\n") if text else []
    return "".join(f"{_block(block)}\n\n" for block in blocks).removesuffix("\n")


def _block(block: str) -> str:
    if not block.startswith("\b"):
        return _escaped(" ".join(block.split()))
    lines = block.removeprefix("\b").strip()
    return f"```{'sh' if 'steerx-edge ' in lines else 'text'}\n{lines}\n```"


def _escaped(text: str) -> str:
    """Keep Markdown from reading what a terminal shows as it is."""
    escaped = re.sub(r"([*_\[\]{}])(?![^`]*`[^`]*$)", r"\\\1", text)
    return escaped.replace("<", "&lt;").replace(">", "&gt;")


if __name__ == "__main__":
    PAGE.write_text(cli_page(), "utf-8")
