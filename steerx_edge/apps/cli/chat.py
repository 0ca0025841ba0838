"""`steerx-edge chat`: several turns, with the profile's strength at hand."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from steerx_edge.apps.cli.common import (
    PastTexts,
    describe_option,
    history_options,
    load_profile,
    model_options,
    open_engine,
    sampling_options,
    strength_option,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from steerx_edge.history.item import HistoryItem
    from steerx_edge.llamacpp.engine import Engine
    from steerx_edge.llamacpp.prompts import Message
    from steerx_edge.profile import Profile
    from steerx_edge.steering.live import SteeringHandle

HELP = """/strength X    steer X times as strong; 0 is off
/profile FILE  change to another profile
/reset         forget the conversation
/exit          leave (so does end of input)"""

_LEAST_ROOM = 64
"""Tokens kept free for an answer; the oldest turns are dropped to make room."""


@click.command()
@click.option("--profile", "profile_path", required=True, metavar="FILE", help="Your profile.")
@strength_option
@history_options
@describe_option
@sampling_options
@model_options
@click.option("--system", default="", metavar="TEXT", help="System message.")
def chat(
    profile_path: str,
    strength: float,
    past: PastTexts | None,
    describe: bool,
    n_predict: int,
    temp: float,
    seed: int | None,
    ctx_size: int,
    model: str | None,
    threads: int | None,
    n_gpu_layers: int,
    system: str,
) -> None:
    """Chat with a model that writes as you do. Type /help for what can be changed on the way.

    With --history, the texts that fit your first message best stand before the conversation and
    stay there, in half of the context at most; after /reset they are chosen anew.
    """
    profile = load_profile(profile_path)
    engine = open_engine(model, threads, n_gpu_layers, ctx_size=ctx_size)

    from steerx_edge.errors import SteerxError
    from steerx_edge.steering.live import steer

    def description(profile: Profile) -> str:
        entry = profile.entry_for(engine.model_id)
        return entry.description.text if describe else ""

    conversation = _Conversation(engine, system, past, description(profile))
    steering = steer(engine.llama, profile, strength, with_history=past is not None)
    if sys.stdin.isatty():
        click.echo(f"{engine.model_id.name}, as {profile_path} writes. /help helps.", err=True)
    while (data := _read_line()) is not None:
        try:
            line = data.decode().strip()
            command, _, argument = line.partition(" ")
            if command in ("/exit", "/quit"):
                break
            if command == "/reset":
                conversation.turns = []
                click.echo("The conversation is forgotten.", err=True)
            elif command == "/strength":
                _set_strength(steering, argument)
            elif command == "/profile":
                changed = load_profile(argument.strip())
                conversation.description = description(changed)  # refuses other models' profiles
                steering.clear()
                steering = steer(
                    engine.llama, changed, steering.strength, with_history=past is not None
                )
                click.echo(f"Writing as {argument.strip()}.", err=True)
            elif command.startswith("/"):
                click.echo(HELP, err=True)
            elif line:
                conversation.answer(line, n_predict, temp, seed)
        except UnicodeError:
            click.echo("Error: this line is not UTF-8 text.", err=True)
        except SteerxError as error:
            click.echo(f"Error: {error}", err=True)
    steering.clear()


def _read_line() -> bytes | None:
    """The next line, or None at the end of input. The prompt goes to standard error."""
    if sys.stdin.isatty():
        click.echo("> ", nl=False, err=True)
    return sys.stdin.buffer.readline() or None


def _set_strength(steering: SteeringHandle, argument: str) -> None:
    try:
        strength = float(argument)
    except ValueError:
        click.echo(f"Error: '{argument}' is not a number, such as 0.5.", err=True)
        return
    steering.strength = strength
    click.echo(f"Strength {steering.strength:g}.", err=True)


class _Conversation:
    """The turns so far; before them the system message, the user's texts and a description.

    What stands before them stays as it is, so that the prompt's KV cache stays valid.
    """

    def __init__(
        self, engine: Engine, system: str, past: PastTexts | None, description: str
    ) -> None:
        self.turns: list[Message] = []
        self.description = description
        self._engine = engine
        self._system = system
        self._past = past
        self._shown: list[HistoryItem] = []

    def answer(self, line: str, n_predict: int, temp: float, seed: int | None) -> None:
        """Print the model's turn. The oldest turns go, where the context does not hold them."""
        n_ctx = self._engine.llama.n_ctx()
        turns: list[Message] = [*self.turns, {"role": "user", "content": line}]
        if self._past and not self.turns:
            self._shown = self._past.before(
                line, lambda items: len(self._prompt(turns, items)) <= n_ctx // 2
            )
        tokens = self._prompt(turns, self._shown)
        while len(tokens) + _LEAST_ROOM > n_ctx and len(turns) > 1:
            turns = turns[2:]
            tokens = self._prompt(turns, self._shown)
        answer = ""
        try:
            for piece in self._engine.stream(
                tokens, max_tokens=n_predict, temperature=temp, seed=seed
            ):
                click.echo(piece, nl=False)
                answer += piece
        except KeyboardInterrupt:  # stops the answer, not the chat
            pass
        click.echo()
        self.turns = [*turns, {"role": "assistant", "content": answer}]

    def _prompt(self, turns: Sequence[Message], shown: Sequence[HistoryItem]) -> list[int]:
        from steerx_edge.llamacpp.prompts import messages_for

        first, *others = turns
        opening = messages_for(
            first["content"], history=shown, description=self.description, system=self._system
        )
        return self._engine.prompt([*opening, *others])
