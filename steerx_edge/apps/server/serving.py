"""Run the server: listen, answer, and end."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from steerx_edge.apps.server.app import make_app
from steerx_edge.apps.server.catalogue import Catalogue
from steerx_edge.apps.server.dispatcher import Dispatcher
from steerx_edge.apps.server.errors import RequestError
from steerx_edge.apps.server.work import ModelOptions
from steerx_edge.errors import SteerxError

_MOST_CONNECTIONS = 256
_MOST_WAITING = 32
_SECONDS_TO_ASK = 20
"""That a client may take for the head of its first request."""
_SECONDS_TO_END = 2


def serve(
    options: ModelOptions,
    host: str,
    port: int,
    api_key: str | None,
    say: Callable[[str], object],
) -> None:
    """Serve a model until the process is told to end.

    Args:
        options: of the model.
        host: the address to listen on.
        port: 0 for a free one.
        api_key: which clients must bring; None for anybody on this machine.
        say: told when the server listens, and of profiles that are left out.

    Raises:
        SteerxError: the model or the folder cannot be read, or the address is not free.
    """
    asyncio.run(_serve(options, host, port, api_key, say))


async def _serve(
    options: ModelOptions,
    host: str,
    port: int,
    api_key: str | None,
    say: Callable[[str], object],
) -> None:
    try:
        listening = _bound(host, port)
    except OSError as error:
        raise SteerxError(
            f"The server cannot listen on {host}:{port}: {error.strerror}. Choose another --port."
        ) from error
    dispatcher = Dispatcher(options, _MOST_WAITING)
    try:
        await dispatcher.start()
    except RequestError as refusal:
        listening.close()
        raise SteerxError(refusal.message) from None
    for problem in dispatcher.info.problems:
        say(f"Warning: {problem}")
    config = uvicorn.Config(
        make_app(dispatcher, api_key),
        host=host,
        port=port,
        http=_Protocol,
        ws="none",
        log_config=None,
        log_level="critical",  # a traceback may hold a request
        access_log=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_SECONDS_TO_END,
        h11_max_incomplete_event_size=64 << 10,
    )
    listening.listen()  # a program that waits for the next line may connect at once
    shown = f"[{host}]" if ":" in host else host
    say(f"Listening on http://{shown}:{listening.getsockname()[1]}")
    for name in Catalogue().models(dispatcher.info):
        say(f"  {name}")
    await uvicorn.Server(config).serve(sockets=[listening])


def _bound(host: str, port: int) -> socket.socket:
    """A socket at an address that is free; raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere it lets several programs listen
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError:
        listening.close()
        raise
    return listening


class _Protocol(H11Protocol):
    """Closes connections over which no request comes."""

    _asked: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._asked = self.loop.call_later(_SECONDS_TO_ASK, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.cycle is None:
            self.transport.abort()
