"""`steerx-edge chat`: a conversation with a profile."""

from __future__ import annotations

import shlex
import sys
from codecs import BOM_UTF8
from typing import TYPE_CHECKING

import click

from steerx_edge.apps.cli.common import (
    check_room,
    load_prefix,
    load_profile,
    open_engine,
    say,
    steer_prompt,
    write_text,
)
from steerx_edge.apps.cli.editor import change_in_editor
from steerx_edge.apps.cli.options import PastTexts, writing_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from steerx_edge.history.item import HistoryItem
    from steerx_edge.live_prefix import LivePrefix
    from steerx_edge.llamacpp.engine import Engine
    from steerx_edge.llamacpp.prompts import Message
    from steerx_edge.profile import Profile

HELP = """/strength X    scale steering: 1 is as learned, 0 is off
/profile FILE  switch to another profile
/reset         start a new conversation
/edit          edit the last answer, and keep what you made of it
/good          keep that you take the last answer as it is
/bad           keep that you reject the last answer
/exit          leave (also at the end of input)"""

_FEEDBACK = ("/edit", "/good", "/bad")

_LEAST_ROOM = 64
"""Tokens kept free for an answer. The oldest turns are dropped to make room."""


@click.command()
@writing_options
@click.option(
    "--keep-drafts",
    is_flag=True,
    help="Enable /edit, /good and /bad, which save an answer and your feedback on it next to the "
    "profile, in me.drafts.jsonl for me.json. Learn from them with steerx-edge feedback.",
)
def chat(
    profile_path: str,
    strength: float,
    past: PastTexts | None,
    prefix: bool | None,
    describe: bool,
    n_predict: int,
    temp: float,
    seed: int | None,
    ctx_size: int,
    model: str | None,
    threads: int | None,
    n_gpu_layers: int,
    system: str,
    keep_drafts: bool,
) -> None:
    """Chat with your profile. Type /help for commands.

    With --history, the texts most relevant to your first message stay at the beginning of the
    conversation and take at most half of the context. After /reset they are chosen again.
    """
    profile = load_profile(profile_path, or_vector=True)
    engine = open_engine(model, threads, n_gpu_layers, ctx_size=ctx_size)

    from steerx_edge.errors import SteerxError

    conversation = _Conversation(
        engine,
        profile,
        strength,
        path=profile_path,
        system=system,
        past=past,
        prefix=prefix,
        describe=describe,
    )
    if sys.stdin.isatty():
        say(f"Chatting with {engine.model_id.name} and {profile_path}. Type /help for commands.")
    while (data := _read_line()) is not None:
        try:
            line = data.decode().strip()
            command, _, argument = line.partition(" ")
            if command in ("/exit", "/quit"):
                break
            if command in _FEEDBACK:
                _keep(conversation, command, keep_drafts)
            elif command.startswith("/"):
                _obey(conversation, command, argument)
            elif line:
                conversation.answer(line, n_predict, temp, seed)
        except UnicodeError:
            say("Error: this line is not UTF-8 text.", always=True)
        except SteerxError as error:
            say(f"Error: {error}", always=True)
    conversation.steering.clear()


def _read_line() -> bytes | None:
    """Read the next line; None at the end of input. The prompt goes to standard error.

    Some shells begin what they pipe with a byte order mark.
    """
    if sys.stdin.isatty():
        say("> ", nl=False)
    return sys.stdin.buffer.readline().removeprefix(BOM_UTF8) or None


def _obey(conversation: _Conversation, command: str, argument: str) -> None:
    """Carry out a command, or say which ones there are."""
    if command == "/reset":
        conversation.turns = []
        say("Started a new conversation.")
    elif command == "/strength":
        _set_strength(conversation, argument)
    elif command == "/profile":
        path = argument.strip()
        if not path:
            say("Error: name a profile, such as /profile me.json.", always=True)
            return
        conversation.use(load_profile(path, or_vector=True), path)
        with_prefix = " with its prefix" if conversation.has_prefix else ""
        say(f"Switched to {path}{with_prefix}.")
    else:
        if command != "/help":
            say(f"Error: there is no command {command}.", always=True)
        say(HELP, always=True)


def _keep(conversation: _Conversation, command: str, keep_drafts: bool) -> None:
    """Keep what the person made of the last answer."""
    if not keep_drafts:
        say("Error: nothing is kept. Start the chat with --keep-drafts to allow that.", always=True)
        return
    if not conversation.turns:
        say("Error: there is no answer yet.", always=True)
        return
    request, answer = (turn["content"] for turn in conversation.turns[-2:])
    final = {"/good": answer, "/bad": ""}.get(command)
    if final is None:
        try:
            final = change_in_editor(answer)
        except click.ClickException as error:
            say(f"Error: {error.message}", always=True)
            return
        if not (final or "").strip():
            say("Nothing was saved in the editor: nothing is kept.")
            return

    from steerx_edge.profile import feedback

    draft = feedback(
        conversation.path, proposed=conversation.proposed, final=final, request=request
    )
    if draft.is_edited:
        conversation.turns[-1] = {"role": "assistant", "content": draft.final or ""}
    how = f"steerx-edge feedback {shlex.quote(conversation.path)} --apply"
    say(f"Kept. Learn from your drafts: {how}")


def _set_strength(conversation: _Conversation, argument: str) -> None:
    try:
        strength = float(argument)
    except ValueError:
        say(f"Error: '{argument}' is not a number, such as 0.5.", always=True)
        return
    conversation.steering.strength = strength
    say(f"Strength {strength:g}.")


class _Conversation:
    """The turns so far, after the system message, in-context texts and a description.

    What comes before the turns does not change during a conversation, so the KV cache of the prompt
    stays valid.
    """

    def __init__(
        self,
        engine: Engine,
        profile: Profile,
        strength: float,
        *,
        path: str,
        system: str,
        past: PastTexts | None,
        prefix: bool | None,
        describe: bool,
    ) -> None:
        self.turns: list[Message] = []
        self.path = path
        self.proposed = ""  # the last answer, before it was edited
        self._engine = engine
        self._system = system
        self._past = past
        self._describe = describe
        self._wants_prefix = prefix
        self._first = ""  # request of the conversation
        self._retrieved: list[HistoryItem] = []
        self._profile = profile
        self._prefix = self._prefix_of(profile, path)
        self._description = self._described(profile)
        self.steering = steer_prompt(engine, profile, strength, self._in_context, self._prefix)

    @property
    def has_prefix(self) -> bool:
        """Whether prompts begin with the profile's prefix."""
        return self._prefix is not None

    @property
    def _in_context(self) -> list[HistoryItem]:
        return [*self._beginning, *self._retrieved]

    @property
    def _beginning(self) -> Sequence[HistoryItem]:
        return self._prefix.items_for(self._first) if self._prefix else ()

    def use(self, profile: Profile, path: str) -> None:
        """Switch to another profile and its prefix, at the same strength.

        Raises:
            SteerxError: the profile is for another model, or damaged. The old one stays in use.
        """
        from steerx_edge.errors import SteerxError

        description, prefix = self._described(profile), self._prefix_of(profile, path)
        before = self._profile, self._description, self._prefix
        self._profile, self._description, self._prefix = profile, description, prefix
        try:
            self._steer()
        except SteerxError:
            self._profile, self._description, self._prefix = before
            self._steer()
            raise
        self.path = path

    def answer(self, line: str, n_predict: int, temp: float, seed: int | None) -> None:
        """Print the model's turn. The oldest turns are dropped if the context is full."""
        n_ctx = self._engine.llama.n_ctx()
        turns: list[Message] = [*self.turns, {"role": "user", "content": line}]
        if not self.turns:
            self._first = line
        if self._past and not self.turns:
            beginning = self._beginning
            self._retrieved = self._past.in_context(
                line, lambda items: len(self._prompt(turns, [*beginning, *items])) <= n_ctx // 2
            )
            self._steer()
        tokens = self._prompt(turns, self._in_context)
        while len(tokens) + _LEAST_ROOM > n_ctx and len(turns) > 1:
            turns = turns[2:]
            tokens = self._prompt(turns, self._in_context)
        check_room(self._engine, tokens, self._prefix)
        answer = ""
        try:
            for piece in self._engine.stream(
                tokens, max_tokens=n_predict, temperature=temp, seed=seed
            ):
                write_text(piece)
                answer += piece
        except KeyboardInterrupt:  # ends the answer, not the chat
            pass
        click.echo()
        self.proposed = answer
        self.turns = [*turns, {"role": "assistant", "content": answer}]

    def _prefix_of(self, profile: Profile, path: str) -> LivePrefix | None:
        return load_prefix(self._engine, profile, path, self._wants_prefix, self._system)

    def _described(self, profile: Profile) -> str:
        entry = profile.entry_for(self._engine.model_id)
        return entry.description.text if self._describe else ""

    def _steer(self) -> None:
        strength = self.steering.strength
        self.steering.clear()
        self.steering = steer_prompt(
            self._engine, self._profile, strength, self._in_context, self._prefix
        )

    def _prompt(self, turns: Sequence[Message], in_context: Sequence[HistoryItem]) -> list[int]:
        from steerx_edge.llamacpp.prompts import messages_for

        first, *others = turns
        opening = messages_for(
            first["content"],
            history=in_context,
            description=self._description,
            system=self._system,
        )
        return self._engine.prompt([*opening, *others])
