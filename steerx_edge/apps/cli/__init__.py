"""The command line: one module per command, without logic."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

try:
    import click

    from steerx_edge.apps.cli.manual import NOTES, examples
    from steerx_edge.errors import SteerxError
    from steerx_edge.report.visible import visible
except KeyboardInterrupt:  # before a command could catch it
    raise SystemExit(130) from None

INTERRUPTED = 130
"""Exit status after Ctrl-C, as in a shell."""

COMMANDS = (
    *("read", "learn", "generate", "chat", "evaluate", "show", "explain", "edit", "diff"),
    *("serve", "feedback", "forget", "export", "import", "combine", "models", "doctor"),
)

_MODULES = {"import": "import_vector"}
"""Of commands whose name cannot be that of a module."""


class _Commands(click.Group):
    """Import commands on demand, and print our errors and Ctrl-C as one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        name = _MODULES.get(cmd_name, cmd_name)
        command: click.Command = getattr(import_module(f"steerx_edge.apps.cli.{name}"), name)
        command.epilog = examples(cmd_name)
        from steerx_edge.apps.cli.quiet import quiet_option

        if not any("--quiet" in option.opts for option in command.params):
            command.params.append(quiet_option())
        return command

    def main(self, *args: Any, **options: Any) -> Any:
        """Run a command; where a standard stream fails, say so and exit with 1."""
        _prepare_streams()
        try:
            return super().main(*args, **options)
        except OSError as error:
            where = f"'{error.filename}'" if error.filename else "Standard input or output"
            with suppress(OSError):
                click.echo(f"Error: {visible(where)} failed: {error.strerror}.", err=True)
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SteerxError as error:
            raise click.ClickException(visible(str(error))) from error
        except click.ClickException as error:
            error.message = visible(error.message)  # type: ignore[misc]
            raise
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None


def _prepare_streams() -> None:
    """Let no closed stream and no encoding stop a command.

    A closed stream is empty, or takes all; a model or a profile that is opened does not get its
    number. What an encoding does not have is written as `?`.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        stream = getattr(sys, name)
        if stream is None:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123
        elif isinstance(stream, io.TextIOWrapper) and stream.errors != "backslashreplace":
            stream.reconfigure(errors="replace")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=NOTES)
@click.version_option(package_name="steerx-edge", prog_name="steerx-edge")
def main() -> None:
    """Make a local language model write the way you do.

    Learn a profile from your own writing, then generate with it. Nothing leaves your machine.
    """
