"""Ollama's requests and answers: what programs need that speak nothing else."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

from steerx_edge.apps.server.errors import RequestError
from steerx_edge.apps.server.work import ModelInfo, Usage

VERSION = "0.6.4"
"""Of Ollama: programs ask for one that has what they use."""

_LATEST = ":latest"
_OPTIONS = {
    "num_predict": "max_tokens",
    **{
        name: name
        for name in (
            "temperature",
            "seed",
            "stop",
            "top_k",
            "top_p",
            "min_p",
            "repeat_penalty",
            "presence_penalty",
            "frequency_penalty",
        )
    },
}


def as_openai(body: dict[str, Any]) -> dict[str, Any]:
    """A request of `/api/chat` or `/api/generate` as a chat of OpenAI's, or a completion if raw.

    Raises:
        RequestError: a field is not what it must be.
    """
    given = body.get("options", {})
    if not isinstance(given, dict):
        raise RequestError(400, "options is not an object.")
    found = {_OPTIONS[name]: each for name, each in given.items() if name in _OPTIONS}
    if isinstance(limit := found.get("max_tokens"), int) and limit < 0:
        found["max_tokens"] = -1
    found |= {name: body[name] for name in ("profile", "tools") if name in body}
    found["stream"] = body.get("stream", True)
    found["model"] = model_name(body)
    if body.get("format"):
        is_schema = isinstance(body["format"], dict)
        found["response_format"] = {
            "type": "json_object",
            **({"schema": body["format"]} if is_schema else {}),
        }
    if "messages" in body:
        return {**found, "messages": _messages(body["messages"])}
    prompt = body.get("prompt", "")
    if body.get("images"):
        raise RequestError(400, "images are not supported. This server reads text only.")
    if body.get("raw"):
        return {"max_tokens": -1, **found, "prompt": prompt}
    system = [{"role": "system", "content": body["system"]}] if body.get("system") else []
    return {**found, "messages": [*system, {"role": "user", "content": prompt}]}


def model_name(body: dict[str, Any]) -> Any:
    """The model that a request names, without the tag that programs add."""
    name = body.get("model", body.get("name"))
    return name.removesuffix(_LATEST) if isinstance(name, str) else name


def tags(names: list[str], info: ModelInfo, created: int) -> dict[str, Any]:
    """`GET /api/tags`."""
    return {
        "models": [
            {
                "name": name,
                "model": name,
                "modified_at": _time(created),
                "size": info.n_bytes,
                "digest": info.fingerprint.removeprefix("sha256:"),
                "details": _details(info),
            }
            for name in names
        ]
    }


def show(info: ModelInfo) -> dict[str, Any]:
    """`POST /api/show`."""
    return {
        "details": _details(info),
        "template": info.template,
        "capabilities": ["completion"],
        "model_info": {
            "general.architecture": info.architecture,
            "general.parameter_count": info.n_params,
            f"{info.architecture}.context_length": info.n_ctx,
        },
    }


class Ndjson:
    """Answers as Ollama's, streams as a JSON object a line.

    Args:
        name: of the model, as the client calls it.
        is_chat: of `/api/chat`; else of `/api/generate`.
    """

    media_type = "application/x-ndjson"

    def __init__(self, name: str, *, is_chat: bool) -> None:
        self._name, self._is_chat = name, is_chat
        self._reason = "stop"

    def whole(self, answer: dict[str, Any], usage: Usage) -> dict[str, Any]:
        """An answer that is not streamed."""
        choice = answer["choices"][0]
        self._reason = choice["finish_reason"] or "stop"
        message = choice.get("message", {"content": choice.get("text")})
        return {**self._said(message.get("content") or ""), **self._last(usage)}

    def chunk(self, chunk: dict[str, Any]) -> bytes:
        """A part of a stream."""
        choice = chunk["choices"][0]
        self._reason = choice["finish_reason"] or self._reason
        text = choice.get("delta", {}).get("content") or choice.get("text") or ""
        return _line({**self._said(text), "done": False}) if text else b""

    def end(self, usage: Usage) -> bytes:
        """The end of a stream."""
        return _line({**self._said(""), **self._last(usage)})

    def failure(self, refusal: RequestError) -> bytes:
        """The end of a stream that fails."""
        return _line(self.error(refusal))

    def error(self, refusal: RequestError) -> dict[str, Any]:
        """The body of an answer that fails."""
        return {"error": refusal.message}

    def loaded(self) -> dict[str, Any]:
        """The answer to an empty request, by which programs have a model loaded."""
        return {**self._said(""), "done": True, "done_reason": "load"}

    def _said(self, text: str) -> dict[str, Any]:
        said = {"message": {"role": "assistant", "content": text}}
        now = _time(datetime.now(timezone.utc).timestamp())
        return {
            "model": self._name,
            "created_at": now,
            **(said if self._is_chat else {"response": text}),
        }

    def _last(self, usage: Usage) -> dict[str, Any]:
        prompt, answer = round(usage.prompt_seconds * 1e9), round(usage.answer_seconds * 1e9)
        return {
            "done": True,
            "done_reason": "length" if self._reason == "length" else "stop",
            "total_duration": prompt + answer,
            "prompt_eval_count": usage.prompt_tokens,
            "prompt_eval_duration": prompt,
            "eval_count": usage.completion_tokens,
            "eval_duration": answer,
        }


def _messages(value: object) -> object:
    """Messages without pictures, which would be ignored; tools' arguments as text."""
    if not isinstance(value, list):
        return value
    messages = []
    for each in value:
        message = dict(each) if isinstance(each, dict) else {}
        if message.pop("images", None):
            raise RequestError(400, "images are not supported. This server reads text only.")
        if isinstance(calls := message.get("tool_calls"), list):
            message["tool_calls"] = [_call(number, call) for number, call in enumerate(calls)]
        messages.append(message)
    return messages


def _call(number: int, call: object) -> object:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise RequestError(400, "tool_calls holds what is not a call of a function.")
    arguments = json.dumps(function.get("arguments", {}))
    return {
        "id": f"call_{number}",
        "type": "function",
        "function": {"name": function.get("name"), "arguments": arguments},
    }


def _details(info: ModelInfo) -> dict[str, Any]:
    return {
        "format": "gguf",
        "family": info.architecture,
        "families": [info.architecture],
        "parameter_size": f"{info.n_params / 1e9:.1f}B",
        "quantization_level": info.quantization,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat().replace("+00:00", "Z")


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"
