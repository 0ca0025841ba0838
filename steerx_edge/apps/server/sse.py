"""OpenAI's answers, and its streams of server-sent events."""

from __future__ import annotations

import json
from typing import Any

from steerx_edge.apps.server.errors import RequestError
from steerx_edge.apps.server.work import Usage


class Sse:
    """Answers as OpenAI's, streams as server-sent events.

    Args:
        with_usage: end a stream with what it took.
    """

    media_type = "text/event-stream"

    def __init__(self, *, with_usage: bool) -> None:
        self._with_usage = with_usage
        self._last: dict[str, Any] = {"object": "chat.completion.chunk", "created": 0}

    def whole(self, answer: dict[str, Any], usage: Usage) -> dict[str, Any]:
        """An answer that is not streamed."""
        return {**answer, "usage": usage_of(usage)}

    def chunk(self, chunk: dict[str, Any]) -> bytes:
        """A part of a stream."""
        self._last = chunk
        return _event(chunk)

    def end(self, usage: Usage) -> bytes:
        """The end of a stream."""
        last = b""
        if self._with_usage:
            last = _event({**self._last, "choices": [], "usage": usage_of(usage)})
        return last + b"data: [DONE]\n\n"

    def failure(self, refusal: RequestError) -> bytes:
        """The end of a stream that fails."""
        return _event(refusal.body())

    def error(self, refusal: RequestError) -> dict[str, Any]:
        """The body of an answer that fails."""
        return refusal.body()


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def usage_of(usage: Usage) -> dict[str, Any]:
    """What an answer took."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
