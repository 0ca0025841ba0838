"""What the `openai` package sends and reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import openai
import pytest
from openai import OpenAI

from models import TinyModel
from tests.apps.server.conftest import fresh_llama
from tests.support.server import GREEDY, Server
from tests.support.steered_llama import TEXT

MESSAGES: Any = [{"role": "user", "content": TEXT}]
PENALTY = {"repeat_penalty": 1.0}


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_models_are_listed(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [
        "tiny",
        "tiny@ann",
        "tiny@bob",
        "tiny@eve",
    ]


@pytest.mark.parametrize("model", ["tiny", "tiny@bob"])
def test_a_stream_says_what_the_whole_answer_says(
    client: OpenAI, server: Server, model: str
) -> None:
    stream = client.chat.completions.create(
        model=model,
        messages=MESSAGES,
        max_completion_tokens=8,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=PENALTY,
    )
    *chunks, last = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == server.chat(model, TEXT)
    assert chunks[-1].choices[0].finish_reason == "length"
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens >= 8


def test_without_include_usage_no_chunk_has_it(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=2, stream=True
    )
    assert all(chunk.choices and chunk.usage is None for chunk in stream)


def test_log_probabilities_of_a_stream_are_those_of_the_whole(client: OpenAI) -> None:
    asked: Any = {
        "model": "tiny@bob",
        "messages": MESSAGES,
        "max_tokens": 6,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 2,
    }
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True))
    streamed = [
        each
        for chunk in chunks
        for each in (chunk.choices[0].logprobs and chunk.choices[0].logprobs.content) or ()
    ]
    assert whole.choices[0].logprobs is not None
    assert streamed == whole.choices[0].logprobs.content


@pytest.mark.parametrize("model", ["tiny", "tiny@ann"])
def test_a_schema_is_followed(client: OpenAI, model: str) -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"late": {"type": "boolean"}, "who": {"enum": ["Alice", "Rabbit"]}},
        "required": ["late", "who"],
    }
    answer = client.chat.completions.create(
        model=model,
        messages=MESSAGES,
        max_tokens=100,
        seed=3,
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
    )
    found = json.loads(answer.choices[0].message.content or "")
    assert found["who"] in ("Alice", "Rabbit")
    assert isinstance(found["late"], bool)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "go"}}])
def test_a_tool_is_called(client: OpenAI, choice: Any) -> None:
    parameters = {"type": "object", "properties": {"to": {"enum": ["Wonderland"]}}}
    tools: Any = [
        {
            "type": "function",
            "function": {"name": "go", "parameters": {**parameters, "required": ["to"]}},
        }
    ]
    answer = client.chat.completions.create(
        model="tiny@ann", messages=MESSAGES, tools=tools, tool_choice=choice, max_tokens=100
    )
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    (call,) = calls
    assert call.type == "function"
    assert call.function.name == "go"
    assert json.loads(call.function.arguments) == {"to": "Wonderland"}


def test_an_answer_ends_before_a_stop(client: OpenAI, server: Server) -> None:
    text = server.chat("tiny@ann", TEXT, 12)
    stop = text[4:6]
    answer = client.chat.completions.create(
        model="tiny@ann",
        messages=MESSAGES,
        max_tokens=12,
        temperature=0,
        stop=[stop],
        extra_body=PENALTY,
    )
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content == text[: text.index(stop)]


def test_a_seed_gives_the_same_answer_again(client: OpenAI) -> None:
    def answer(seed: int) -> str | None:
        return (
            client.completions.create(
                model="tiny@bob", prompt=TEXT, seed=seed, temperature=2.0, max_tokens=20
            )
            .choices[0]
            .text
        )

    assert answer(1) == answer(1) != answer(2)


def test_a_logit_bias_adds_to_that_of_the_profile(client: OpenAI, server: Server) -> None:
    answer = client.completions.create(
        model="tiny@bob", prompt=TEXT, logit_bias={"305": 1000}, max_tokens=3, temperature=0
    )
    assert answer.choices[0].text == server.complete("tiny", TEXT, 3, logit_bias={"305": 1000})


def test_developer_messages_and_parts_are_read_as_text(server: Server) -> None:
    def answer(system: dict[str, Any], content: Any) -> Any:
        messages = [system, {"role": "user", "content": content}]
        body = {"messages": messages, "max_tokens": 6, **GREEDY}
        return server.post("/v1/chat/completions", body).json()["choices"][0]["message"]

    parts = [{"type": "text", "text": "Alice "}, {"type": "text", "text": "ran."}]
    assert answer({"role": "developer", "content": "Be brief."}, parts) == answer(
        {"role": "system", "content": "Be brief."}, "Alice ran."
    )


def test_errors_are_those_that_the_package_knows(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-4", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "a" * 2000}]
        )
    body: Any = error.value.body
    assert body["type"] == "exceed_context_size_error"
    assert body["n_ctx"] == 512
    assert body["n_prompt_tokens"] > 512


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_ends_with_the_context_within_a_character_too(
    server: Server, tiny_chat: TinyModel, stream: bool
) -> None:
    with closing(fresh_llama(tiny_chat)) as llama:
        (begins,) = (t for t in range(llama.n_vocab()) if llama.detokenize([t]) == b"\xf0")
    body = {"messages": MESSAGES, "logit_bias": {str(begins): 1000}, "stream": stream}
    response = server.post("/v1/chat/completions", body)
    assert response.status_code == 200
    answer = response.text.split("\n\n")[-3].removeprefix("data: ") if stream else response.text
    assert json.loads(answer)["choices"][0]["finish_reason"] == "length"


def test_a_key_is_asked_for(start: Callable[..., Server]) -> None:
    server = start("--api-key", "sésame")
    assert server.client.get("/health").status_code == 200
    for key in ("wrong", "sésame2", "Sésame"):
        refused = server.client.get("/v1/models", headers=bearer(key))
        assert refused.status_code == 401
        assert refused.json()["error"]["type"] == "authentication_error"
    assert server.client.get("/v1/models").status_code == 401
    assert server.client.get("/v1/models", headers=bearer("sésame")).status_code == 200


def bearer(key: str) -> dict[bytes, bytes]:
    return {b"Authorization": f"Bearer {key}".encode()}
