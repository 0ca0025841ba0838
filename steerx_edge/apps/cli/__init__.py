"""The command line: one module per command, without logic."""

from __future__ import annotations

from importlib import import_module
from typing import Any

try:
    import click

    from steerx_edge.errors import SteerxError
except KeyboardInterrupt:  # before a command could catch it
    raise SystemExit(130) from None

INTERRUPTED = 130
"""Exit status after Ctrl-C, as in a shell."""

COMMANDS = ("learn", "generate", "chat", "evaluate", "forget")


class _Commands(click.Group):
    """Import commands on demand, and print our errors and Ctrl-C as one sentence."""

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
    """Make a local language model write the way you do.

    Learn a profile from your own writing, then generate with it. Nothing leaves your machine.
    """
