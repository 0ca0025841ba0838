"""Who may ask: keys, and web pages that are open in a browser on the same machine."""

from __future__ import annotations

import secrets
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from steerx_edge.apps.server.errors import RequestError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOCAL = ("localhost", "127.0.0.1", "::1")
_OPEN = ("/health", "/v1/health")


class Guard:
    """Lets a request through to the application, or answers it.

    Without a key, a request must come by a local name and from no web site: else any page that is
    open in a browser could read answers, by a request of its own or by a name of its own that leads
    to this machine.

    Args:
        app: the application.
        key: which requests must bring; None for any.
    """

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self._app, self._key = app, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        has_begun = False

        async def begin(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                if origin:
                    allowed = MutableHeaders(scope=message)
                    allowed["access-control-allow-origin"] = origin
                    allowed["access-control-allow-headers"] = "authorization, content-type"
                    allowed["access-control-allow-methods"] = "GET, POST, OPTIONS"
                    allowed["vary"] = "origin"
            await send(message)

        try:
            self._check_source(headers, origin)
            if scope["method"] == "OPTIONS" and origin:
                await JSONResponse({})(scope, receive, begin)
                return
            if scope["path"] not in _OPEN:
                self._check_key(headers)
            await self._app(scope, receive, begin)
        except RequestError as refusal:
            await JSONResponse(refusal.body(), refusal.status)(scope, receive, send)
        except Exception as error:
            print(f"Error: {type(error).__name__} in the server.", file=sys.stderr)  # noqa: T201
            if not has_begun:
                failure = RequestError(500, "The server failed to answer this request.")
                await JSONResponse(failure.body(), 500)(scope, receive, send)

    def _check_source(self, headers: Headers, origin: str) -> None:
        if self._key is not None:
            return
        if _host("//" + headers.get("host", "localhost")) not in _LOCAL:
            raise RequestError(403, "Without --api-key, only requests to localhost are answered.")
        is_page = origin == "null" or origin.startswith(("http://", "https://"))
        if is_page and _host(origin) not in _LOCAL:
            raise RequestError(403, "Without --api-key, requests of web sites are not answered.")

    def _check_key(self, headers: Headers) -> None:
        if self._key is None:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not secrets.compare_digest(
            given.strip().encode("latin-1"), self._key.encode()
        ):
            raise RequestError(401, "The API key is missing or wrong.")


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
