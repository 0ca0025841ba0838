"""OpenAI's requests, as llama.cpp's server reads them.

The fields of requests are those of `llama_cpp.server`. What it lacks is added here.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from llama_cpp.server.types import CreateChatCompletionRequest, CreateCompletionRequest
from pydantic import BaseModel, ConfigDict, ValidationError

from steerx_edge.apps.server.errors import RequestError, too_long
from steerx_edge.apps.server.work import ModelInfo, Work

_MOST_STOPS = 64
_MOST_LOGPROBS = 20
_COLDEST = 1e-3  # logits divided by less overflow
_MAX_INT = 2**31 - 1
_MOST_BIAS = 1e4
_OURS = {  # what is not passed on to `Llama`
    "n",
    "best_of",
    "user",
    "suffix",
    "min_tokens",
    "logit_bias",
    "logit_bias_type",
    "logprobs",
    "top_logprobs",
    "grammar",
    "response_format",
}


class _Chat(CreateChatCompletionRequest):
    model_config = ConfigDict(allow_inf_nan=False)


class _Completion(CreateCompletionRequest):
    model_config = ConfigDict(allow_inf_nan=False)


def chat_work(body: dict[str, Any], profile: str | None, scale: float) -> Work:
    """The chat that a request asks for.

    Raises:
        RequestError: a field is not what it must be, or asks for what this server does not do.
    """
    body = {**body, "messages": _messages(body.get("messages"))}
    schema = _schema(body.pop("response_format", None))
    body["tool_choice"] = choice = _tool_choice(body)
    if "max_completion_tokens" in body:
        body["max_tokens"] = body.pop("max_completion_tokens")
    body.setdefault("max_tokens", -1)
    checked = _validated(_Chat, body)
    if isinstance(choice, dict):  # llama-cpp-python makes the grammar, unchecked
        (called,) = (tool for tool in body["tools"] if _name(tool) == _name(choice))
        schema = json.dumps(called["function"]["parameters"])
    top = checked.top_logprobs or 0 if checked.logprobs else None
    return _work("chat", checked, profile, scale, schema, top)


def completion_work(body: dict[str, Any], profile: str | None, scale: float) -> Work:
    """The completion that a request asks for; raises as `chat_work` does."""
    if "max_completion_tokens" in body:
        body = {**body, "max_tokens": body["max_completion_tokens"]}
    checked = _validated(_Completion, body)
    prompt = checked.prompt
    if isinstance(prompt, list):
        if len(prompt) != 1:
            raise RequestError(400, f"prompt holds {len(prompt)} texts; this server answers one.")
        checked.prompt = prompt[0]
    if not checked.prompt:
        raise RequestError(400, "prompt is empty: there is nothing to continue.")
    if checked.suffix is not None:
        raise RequestError(400, "suffix is not supported. Leave it out.")
    return _work("completion", checked, profile, scale, None, checked.logprobs)


def check_length(body: dict[str, Any], info: ModelInfo) -> None:
    """Refuse what cannot fit, before a template and a tokenizer take minutes for it.

    Raises:
        RequestError: the texts would not fit even if all tokens were as long as the longest.
    """
    given = [body.get(name) for name in ("messages", "prompt", "tools", "functions")]
    n_bytes = len(json.dumps(given, ensure_ascii=False).encode())
    n_messages = len(given[0]) if isinstance(given[0], list) else 0
    least = max(n_bytes // info.longest_token, n_messages)
    if least > info.n_ctx:
        raise too_long(least, info.n_ctx, at_least=True)


def wants_usage(body: dict[str, Any]) -> bool:
    """Whether a stream is to end with what it took."""
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def model_list(names: list[str], created: int) -> dict[str, Any]:
    """`GET /v1/models`."""
    models = [
        {"id": name, "object": "model", "created": created, "owned_by": "steerx-edge"}
        for name in names
    ]
    return {"object": "list", "data": models}


def _work(
    kind: Literal["chat", "completion"],
    body: CreateChatCompletionRequest | CreateCompletionRequest,
    profile: str | None,
    scale: float,
    schema: str | None,
    top_logprobs: int | None,
) -> Work:
    if (body.n or 1) != 1 or getattr(body, "best_of", 1) not in (1, None):
        raise RequestError(400, "n or best_of is not 1; this server gives one answer.")
    if body.max_tokens is not None and body.max_tokens != -1 and body.max_tokens < 1:
        raise RequestError(400, "max_tokens is below 1. Give -1 to fill the context.")
    if (top_logprobs or 0) > _MOST_LOGPROBS:
        raise RequestError(
            400, f"At most {_MOST_LOGPROBS} log-probabilities are given for a token."
        )
    if body.temperature < 0 or body.repeat_penalty <= 0 or body.top_k > _MAX_INT:
        raise RequestError(400, "temperature, repeat_penalty or top_k is out of range.")
    if body.min_tokens and (body.grammar or schema):
        raise RequestError(400, "min_tokens cannot be used with a grammar or a schema.")
    options = body.model_dump(exclude=_OURS, exclude_none=True)
    if body.temperature < _COLDEST:
        options["temperature"] = 0.0
    options["stop"] = _stops(body.stop)
    options.setdefault("model", "")
    return Work(
        kind=kind,
        options=options,
        profile=profile,
        scale=scale,
        grammar=body.grammar or None,
        schema=schema,
        logit_bias=_logit_bias(body.logit_bias or {}),
        min_tokens=body.min_tokens,
        top_logprobs=top_logprobs,
    )


def _validated(kind: type[BaseModel], body: dict[str, Any]) -> Any:
    try:
        return kind.model_validate({name: each for name, each in body.items() if each is not None})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field, *inside = first["loc"]  # what is inside may have names of the client's
        where = ".".join([str(field), *(str(part) for part in inside if isinstance(part, int))])
        raise RequestError(400, f"{where}: {first['msg'][:200]}.") from None


def _messages(value: object) -> list[dict[str, Any]]:
    """Messages whose content is one text, since few chat templates take parts."""
    if not isinstance(value, list) or not value:
        raise RequestError(400, "messages is not a list of at least one message.")
    messages = []
    for each in value:
        if not isinstance(each, dict) or not isinstance(each.get("role"), str):
            raise RequestError(400, "messages holds what is not an object with a role.")
        role = "system" if each["role"] == "developer" else each["role"]
        kept = {name: part for name, part in each.items() if part is not None}
        messages.append({**kept, "role": role, "content": _text(each.get("content"))})
    return messages


def _text(content: object) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [None]
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise RequestError(400, "A message's content is not text. This server reads text only.")
    return "".join(map(str, texts))


def _schema(value: object) -> str | None:
    """The JSON schema of a `response_format`, of OpenAI's kind or llama.cpp's."""
    if value is None:
        return None
    if not isinstance(value, dict) or value.get("type") not in (
        "text",
        "json_object",
        "json_schema",
    ):
        raise RequestError(400, "response_format has no type of text, json_object or json_schema.")
    if value["type"] == "text":
        return None
    named = value.get("json_schema", {})
    schema = named.get("schema") if isinstance(named, dict) else None
    schema = value.get("schema", schema)
    if schema is None and value["type"] == "json_object":
        schema = {"type": "object"}
    if not isinstance(schema, dict):
        raise RequestError(400, "response_format holds no schema.")
    return json.dumps(schema)


def _tool_choice(body: dict[str, Any]) -> object:
    """A choice that llama-cpp-python carries out, which knows no `required`."""
    choice, tools = body.get("tool_choice"), body.get("tools")
    if choice == "required":
        if not isinstance(tools, list) or len(tools) != 1 or not isinstance(tools[0], dict):
            raise RequestError(400, "tool_choice is 'required'; with several tools, name one.")
        return {"type": "function", "function": {"name": _name(tools[0])}}
    if isinstance(choice, dict):
        known = [_name(tool) for tool in tools] if isinstance(tools, list) else []
        if known.count(_name(choice)) != 1 or None in known:
            raise RequestError(400, "tool_choice does not name one of the tools.")
    return choice


def _name(tool: object) -> object:
    function = tool.get("function") if isinstance(tool, dict) else None
    return function.get("name") if isinstance(function, dict) else None


def _stops(stop: str | list[str] | None) -> list[str]:
    stops = [each for each in ([stop] if isinstance(stop, str) else stop or []) if each]
    if len(stops) > _MOST_STOPS:
        raise RequestError(400, f"stop holds {len(stops)} texts; at most are {_MOST_STOPS}.")
    return stops


def _logit_bias(given: dict[str, float]) -> dict[int, float]:
    try:
        found = {int(token): value for token, value in given.items()}
    except ValueError:
        raise RequestError(400, "logit_bias has a key that is not a token's number.") from None
    if any(not abs(value) <= _MOST_BIAS for value in found.values()):
        raise RequestError(400, f"logit_bias is not from {-_MOST_BIAS:g} to {_MOST_BIAS:g}.")
    return found
