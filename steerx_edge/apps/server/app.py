"""The addresses of the server."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from steerx_edge.apps.server import ollama, openai
from steerx_edge.apps.server.answers import Answer, Form
from steerx_edge.apps.server.bodies import read_json, read_value
from steerx_edge.apps.server.catalogue import Catalogue
from steerx_edge.apps.server.dispatcher import Dispatcher
from steerx_edge.apps.server.errors import RequestError
from steerx_edge.apps.server.guard import Guard
from steerx_edge.apps.server.sse import Sse
from steerx_edge.apps.server.work import Work
from steerx_edge.version import __version__


def make_app(dispatcher: Dispatcher, api_key: str | None) -> Starlette:
    """The application; it ends the dispatcher, which was started before, where it ends."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await dispatcher.stop()

    pages = _Pages(dispatcher)
    routes = [
        Route("/", pages.root),
        Route("/health", pages.health),
        Route("/v1/health", pages.health),
        Route("/props", pages.props),
        Route("/v1/models", pages.models),
        Route("/models", pages.models),
        Route("/profiles", pages.profiles),
        Route("/profiles", pages.set_profiles, methods=["POST"]),
        Route("/v1/chat/completions", pages.chat, methods=["POST"]),
        Route("/chat/completions", pages.chat, methods=["POST"]),
        Route("/v1/completions", pages.completion, methods=["POST"]),
        Route("/api/version", pages.ollama_version),
        Route("/api/tags", pages.ollama_tags),
        Route("/api/show", _as_ollama(pages.ollama_show), methods=["POST"]),
        Route("/api/chat", _as_ollama(pages.ollama_chat), methods=["POST"]),
        Route("/api/generate", _as_ollama(pages.ollama_generate), methods=["POST"]),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, key=api_key)],
        exception_handlers={HTTPException: _unknown},
        lifespan=lifespan,
    )


class _Pages:
    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._catalogue = Catalogue()
        self._created = int(time.time())

    async def root(self, _request: Request) -> Response:
        return PlainTextResponse("steerx-edge is running\n")  # programs look for Ollama's words

    async def health(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok", "waiting": self._dispatcher.n_waiting})

    async def props(self, _request: Request) -> Response:
        info = self._dispatcher.info
        return JSONResponse(
            {
                "default_generation_settings": {"n_ctx": info.n_ctx},
                "total_slots": 1,
                "model_alias": info.name,
                "chat_template": info.template,
                "modalities": {"vision": False, "audio": False},
                "build_info": f"steerx-edge {__version__}",
            }
        )

    async def models(self, _request: Request) -> Response:
        return JSONResponse(openai.model_list(self._names(), self._created))

    async def profiles(self, _request: Request) -> Response:
        info = self._dispatcher.info
        return JSONResponse(
            [{"id": profile, "scale": self._catalogue.scale(profile)} for profile in info.profiles]
        )

    async def set_profiles(self, request: Request) -> Response:
        """Read the folder anew, then take over scales."""
        value = await read_value(request)
        async for _ in self._dispatcher.submit(Work("reload")).messages():
            pass
        self._catalogue.set_scales(value, self._dispatcher.info)
        return await self.profiles(request)

    async def chat(self, request: Request) -> Response:
        body = await read_json(request)
        return self._answer(body, Sse(with_usage=openai.wants_usage(body)))

    async def completion(self, request: Request) -> Response:
        body = {**await read_json(request)}
        body.pop("messages", None)
        return self._answer(body, Sse(with_usage=openai.wants_usage(body)), chat=False)

    async def ollama_version(self, _request: Request) -> Response:
        return JSONResponse({"version": ollama.VERSION})

    async def ollama_tags(self, _request: Request) -> Response:
        return JSONResponse(ollama.tags(self._names(), self._dispatcher.info, self._created))

    async def ollama_show(self, request: Request) -> Response:
        info = self._dispatcher.info
        self._catalogue.choice({"model": ollama.model_name(await read_json(request))}, info)
        return JSONResponse(ollama.show(info))

    async def ollama_chat(self, request: Request) -> Response:
        body = await read_json(request)
        return self._ollama({"messages": [], **body}, is_chat=True)

    async def ollama_generate(self, request: Request) -> Response:
        body = await read_json(request)
        body.pop("messages", None)
        return self._ollama(body, is_chat=False)

    def _ollama(self, body: dict[str, Any], *, is_chat: bool) -> Response:
        found = ollama.as_openai(body)
        name, _, _ = self._catalogue.choice(found, self._dispatcher.info)
        form = ollama.Ndjson(name, is_chat=is_chat)
        if not body.get("messages" if is_chat else "prompt"):
            return JSONResponse(form.loaded())
        return self._answer(found, form, chat="messages" in found)

    def _answer(self, body: dict[str, Any], form: Form, *, chat: bool = True) -> Response:
        name, profile, scale = self._catalogue.choice(body, self._dispatcher.info)
        openai.check_length(body, self._dispatcher.info)
        make = openai.chat_work if chat else openai.completion_work
        work = make({**body, "model": name}, profile, scale)
        return Answer(self._dispatcher.submit(work), form)

    def _names(self) -> list[str]:
        return self._catalogue.models(self._dispatcher.info)


def _as_ollama(
    page: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    async def answered(request: Request) -> Response:
        try:
            return await page(request)
        except RequestError as refusal:
            return JSONResponse({"error": refusal.message}, refusal.status)

    return answered


async def _unknown(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    what = "takes no such method" if status == 405 else "is not there"
    return JSONResponse(RequestError(status, f"This address {what}.").body(), status)
