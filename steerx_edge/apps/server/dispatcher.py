"""The queue of requests, and the process of the model that they are given to, one at a time."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from steerx_edge.apps.server.errors import RequestError
from steerx_edge.apps.server.work import Message, ModelInfo, ModelOptions, Work
from steerx_edge.apps.server.worker import work_for

_CRASHED = "llama.cpp ended while it worked on this request. It was started anew."
_SILENCE = 300.0
"""Seconds without a token or a batch of the prompt after which the process is replaced."""
_PATIENCE = 120.0
"""Seconds that an answer may go on after its client has gone: a batch of a prompt is not ended."""


class Job:
    """One request to the model, and what comes of it."""

    def __init__(self, work: Work, cancel: Callable[[Job], None]) -> None:
        self.work = work
        self.is_cancelled = False
        self._cancel = cancel
        self._messages: asyncio.Queue[Message] = asyncio.Queue()

    def put(self, message: Message) -> None:
        """Give what came from the model."""
        self._messages.put_nowait(message)

    async def messages(self) -> AsyncIterator[Message]:
        """What comes, up to and with the end.

        Raises:
            RequestError: the request cannot be answered, or not further.
        """
        while True:
            message = await self._messages.get()
            if message[0] == "refused":
                raise message[1]
            yield message
            if message[0] in ("done", "ready"):
                return

    def cancel(self) -> None:
        """End it, wherever it is. Safe to call again, and after it has ended."""
        if not self.is_cancelled:
            self.is_cancelled = True
            self._cancel(self)


class Dispatcher:
    """Gives requests to the model in the order in which they came.

    Args:
        options: of the model.
        most_waiting: requests that wait; a further one is refused.

    Attributes:
        info: of the model and the profiles, since the process last said so.
    """

    def __init__(self, options: ModelOptions, most_waiting: int) -> None:
        self._options, self._most_waiting = options, most_waiting
        self._waiting: deque[Job] = deque()
        self._arrived = asyncio.Event()
        self._running: Job | None = None
        self._stop_later: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self.info: ModelInfo

    @property
    def n_waiting(self) -> int:
        """How many requests wait for their turn."""
        return len(self._waiting)

    async def start(self) -> None:
        """Start the process and wait until it has loaded the model.

        Raises:
            RequestError: it cannot be loaded, or the folder of profiles cannot be read.
        """
        await self._start_process()
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """End all requests and the process."""
        if self._task is not None:
            self._task.cancel()
        for job in [*self._waiting, *([self._running] if self._running else [])]:
            job.put(("refused", RequestError(503, "The server is shutting down.")))
        self._process.kill()  # it writes nothing
        await asyncio.to_thread(self._process.join)

    def submit(self, work: Work) -> Job:
        """Queue a request.

        Raises:
            RequestError: too many wait already.
        """
        if len(self._waiting) >= self._most_waiting:
            raise RequestError(
                503, f"{self._most_waiting} requests are waiting already. Try again later."
            )
        job = Job(work, self._cancel)
        self._waiting.append(job)
        self._arrived.set()
        return job

    def _cancel(self, job: Job) -> None:
        if job is self._running:
            with suppress(OSError):
                self._connection.send(None)
            loop = asyncio.get_running_loop()
            self._stop_later = loop.call_later(_PATIENCE, self._process.kill)
        else:
            with suppress(ValueError):
                self._waiting.remove(job)

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            if not self._waiting:
                self._arrived.clear()
                continue
            job = self._running = self._waiting.popleft()
            try:
                self._connection.send(job.work)
                await self._follow(job)
            except (EOFError, OSError):
                await self._replace(job)
            finally:
                self._running = None
                if self._stop_later is not None:
                    self._stop_later.cancel()
                    self._stop_later = None

    async def _follow(self, job: Job) -> None:
        """Pass on what comes from the process until the request is done."""
        loop = asyncio.get_running_loop()
        while True:
            silence = loop.call_later(_SILENCE, self._process.kill)
            try:
                message: Message = await asyncio.to_thread(self._connection.recv)
            finally:
                silence.cancel()
            if message[0] == "ready":
                self.info = message[1]
            if message[0] != "alive":
                job.put(message)
            if message[0] in ("done", "ready", "refused"):
                return

    async def _replace(self, job: Job) -> None:
        """Start another process in the place of one that has ended."""
        self._process.kill()
        await asyncio.to_thread(self._process.join)
        self._connection.close()
        job.put(("refused", RequestError(500, _CRASHED)))
        try:
            await self._start_process()
        except RequestError as refusal:  # the next request tries again
            while self._waiting:
                self._waiting.popleft().put(("refused", refusal))

    async def _start_process(self) -> None:
        context = multiprocessing.get_context("spawn")  # llama.cpp does not survive a fork
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=work_for, args=(theirs, self._options), name="steerx-edge model", daemon=True
        )
        self._process.start()
        theirs.close()
        try:
            kind, content = await asyncio.to_thread(self._connection.recv)
        except EOFError:
            raise RequestError(500, "The process of the model ended while it loaded it.") from None
        if kind == "refused":
            raise content
        self.info = content
