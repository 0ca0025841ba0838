"""The command line, `steerx-edge learn` and so on. One file a command; no logic."""

from __future__ import annotations

from importlib import import_module
from typing import Any

try:
    import click

    from steerx_edge.errors import SteerxError
except KeyboardInterrupt:  # there is nobody yet to turn it into a sentence
    raise SystemExit(130) from None

INTERRUPTED = 130
"""Exit status, as of a shell's command that Ctrl-C ended."""

COMMANDS = ("learn", "generate", "chat", "evaluate", "forget")


class _Commands(click.Group):
    """Imports a command when it is asked for, and turns our errors and Ctrl-C into one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(
            import_module(f"steerx_edge.apps.cli.{cmd_name}"), cmd_name
        )
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SteerxError as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="steerx-edge", prog_name="steerx-edge")
def main() -> None:
    """Make a language model on this machine write the way you do.

    Learn a profile from your own writing, then generate with it. Nothing leaves the machine.
    """
