"""Send what a job gives to a client, for as long as the client is there."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from starlette.responses import JSONResponse, Response

from steerx_edge.apps.server.errors import RequestError
from steerx_edge.apps.server.work import Usage

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from steerx_edge.apps.server.dispatcher import Job

_MOST_SECONDS = 60.0
"""That a client may take to read what fills the buffers between us."""


class Form(Protocol):
    """How answers look."""

    media_type: str

    def whole(self, answer: dict[str, Any], usage: Usage) -> dict[str, Any]: ...  # noqa: D102
    def chunk(self, chunk: dict[str, Any]) -> bytes: ...  # noqa: D102
    def end(self, usage: Usage) -> bytes: ...  # noqa: D102
    def failure(self, refusal: RequestError) -> bytes: ...  # noqa: D102
    def error(self, refusal: RequestError) -> dict[str, Any]: ...  # noqa: D102


class Answer(Response):
    """The answer of a job; the job is ended when the client goes."""

    def __init__(self, job: Job, form: Form) -> None:
        super().__init__()
        self._job, self._form = job, form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        answering = asyncio.create_task(self._answer(scope, receive, send))
        leaving = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
        finally:
            self._job.cancel()
            for task in (answering, leaving):
                task.cancel()
                with suppress(asyncio.CancelledError, OSError, asyncio.TimeoutError):
                    await task

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        whole: dict[str, Any] = {}
        has_begun = False
        try:
            async for kind, content in self._job.messages():
                if kind == "whole":
                    whole = content
                elif kind == "chunk":
                    if not has_begun:
                        has_begun = True
                        await self._begin(send)
                    await self._send(send, self._form.chunk(content))
                elif has_begun:
                    await self._send(send, self._form.end(content))
                else:
                    answer = self._form.whole(whole, content)
                    await JSONResponse(answer)(scope, receive, send)
        except RequestError as refusal:
            if has_begun:
                await self._send(send, self._form.failure(refusal))
            else:
                response = JSONResponse(self._form.error(refusal), refusal.status)
                await response(scope, receive, send)
        if has_begun:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _begin(self, send: Send) -> None:
        headers = [
            (b"content-type", self._form.media_type.encode()),
            (b"cache-control", b"no-cache"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _send(self, send: Send, data: bytes) -> None:
        if data:
            message: Message = {"type": "http.response.body", "body": data, "more_body": True}
            await asyncio.wait_for(send(message), _MOST_SECONDS)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
