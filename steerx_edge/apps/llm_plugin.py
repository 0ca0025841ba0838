"""A plugin for the `llm` program: `llm -m steerx/MODEL@PROFILE "..."`.

Only `llm` imports this module. See docs/llm.md.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import llm
from llm.parts import TextPart
from pydantic import Field

from steerx_edge.apps.profile_folder import Pair, pairs_in
from steerx_edge.apps.steered_chat import ChatOptions, SteeredChat, Usage

if TYPE_CHECKING:
    from steerx_edge.llamacpp.prompts import Message

FOLDER_VARIABLE = "STEERX_EDGE_PROFILES"

_chat_of = cache(SteeredChat)
"""One for each model file, however often `llm` asks for its models."""


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """Offer every profile in the folder with every model that it is for."""
    for pair in pairs_in(folder()):
        register(SteeredModel(pair), AsyncSteeredModel(pair))


def folder() -> Path:
    """Where the profiles lie: $STEERX_EDGE_PROFILES, else `steerx` in the folder of llm."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named).expanduser()
    return Path(llm.user_dir()) / "steerx"  # type: ignore[no-untyped-call]


class Options(llm.Options):
    """What `llm -o NAME VALUE` sets."""

    strength: float = Field(
        default=1.0,
        allow_inf_nan=False,
        description="Scale steering: 1 is as learned, 0 is off, below 0 steers away",
    )
    memory: bool = Field(default=True, description="Use the memory of the profile")
    prefix: bool | None = Field(
        default=None,
        description="Begin with the texts that learn --prefix saved; by default if there are any",
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="Maximum number of tokens to generate"
    )
    temperature: float = Field(
        default=0.8, ge=0, allow_inf_nan=False, description="0 takes the most probable token"
    )
    seed: int | None = Field(
        default=None, ge=0, lt=2**32 - 1, description="Sampling seed; by default a random one"
    )


class _Steered:
    """What both kinds of model share."""

    can_stream = True
    supports_schema = True

    def __init__(self, pair: Pair) -> None:
        self.model_id = f"steerx/{pair.name}"
        self._pair = pair

    def _pieces(self, prompt: llm.Prompt, response: Any, *, stream: bool) -> Iterator[str]:
        """The answer to a prompt, piece by piece; the tokens are told to `response`."""
        usage = Usage()
        options = ChatOptions(
            **prompt.options.model_dump(),
            schema=cast("dict[str, Any] | None", prompt.schema),
            stream=stream,
        )
        yield from _chat_of(self._pair.model).answer(
            self._pair.profile, _messages(prompt), options, usage
        )
        response.set_usage(input=usage.prompt, output=usage.answer)


class SteeredModel(_Steered, llm.Model):
    """A model that writes as the user of a profile does."""

    Options = Options  # type: ignore[assignment]  # as llm's plugins do

    def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: llm.Response,
        conversation: llm.Conversation | None,  # noqa: ARG002
    ) -> Iterator[str]:
        """Yield the answer."""
        yield from self._pieces(prompt, response, stream=stream)


class AsyncSteeredModel(_Steered, llm.AsyncModel):
    """The same for asyncio: each answer is generated in a thread of its own."""

    Options = Options  # type: ignore[assignment]  # as llm's plugins do

    async def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: llm.AsyncResponse,
        conversation: llm.AsyncConversation | None,  # noqa: ARG002
    ) -> AsyncGenerator[str, None]:
        """Yield the answer."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | BaseException | None] = asyncio.Queue()
        stopped = threading.Event()

        def generate() -> None:
            end: BaseException | None = None
            try:
                for piece in self._pieces(prompt, response, stream=stream):
                    if stopped.is_set():
                        return
                    loop.call_soon_threadsafe(pieces.put_nowait, piece)
            except Exception as error:  # raised below, by who waits for it
                end = error
            with suppress(RuntimeError):  # the loop has ended, and nobody waits
                loop.call_soon_threadsafe(pieces.put_nowait, end)

        threading.Thread(target=generate, daemon=True).start()
        try:
            while (piece := await pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            stopped.set()


def _messages(prompt: llm.Prompt) -> list[Message]:
    """The whole chain of a conversation, its system message first."""
    return [
        {
            "role": message.role,
            "content": "".join(part.text for part in message.parts if isinstance(part, TextPart)),
        }
        for message in prompt.messages
    ]
