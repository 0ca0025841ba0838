"""What programs send that speak Ollama only."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.server import Server
from tests.support.steered_llama import TEXT

GREEDY = {"temperature": 0, "num_predict": 8, "repeat_penalty": 1.0}


def lines(server: Server, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    response = server.post(path, body)
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def test_the_version_and_the_models_are_listed(server: Server) -> None:
    major, minor, _ = server.client.get("/api/version").json()["version"].split(".")
    assert (int(major), int(minor)) >= (0, 6)
    models = server.client.get("/api/tags").json()["models"]
    assert [model["name"] for model in models] == ["tiny", "tiny@ann", "tiny@bob", "tiny@eve"]
    shown = server.post("/api/show", {"model": "tiny@ann:latest"}).json()
    assert shown["details"] == models[1]["details"]
    assert shown["model_info"]["llama.context_length"] == 512


@pytest.mark.parametrize("model", ["tiny", "tiny@bob"])
def test_a_chat_says_what_one_of_openai_says(server: Server, model: str) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": TEXT}]
    body = {"model": f"{model}:latest", "messages": messages, "options": GREEDY}
    *parts, last = lines(server, "/api/chat", body)
    said = "".join(part["message"]["content"] for part in parts)
    whole = server.post("/api/chat", {**body, "stream": False}).json()
    openai = server.chat(model, "", messages=messages)
    assert said == whole["message"]["content"] == openai
    assert {part["done"] for part in parts} == {False}
    assert last["done"] is True
    assert last["done_reason"] == whole["done_reason"]
    assert last["eval_count"] == whole["eval_count"] > 0
    assert last["prompt_eval_count"] == whole["prompt_eval_count"] > 8


def test_generate_takes_a_system_message_or_a_raw_prompt(server: Server) -> None:
    body = {"model": "tiny@ann", "prompt": TEXT, "options": GREEDY}
    *parts, last = lines(server, "/api/generate", {**body, "system": "Be brief."})
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": TEXT}]
    said = "".join(part["response"] for part in parts)
    assert said == server.chat("tiny@ann", "", messages=messages)
    assert last["done"] is True
    raw = server.post("/api/generate", {**body, "raw": True, "stream": False}).json()
    assert raw["response"] == server.complete("tiny@ann", TEXT)


def test_a_format_is_followed(server: Server) -> None:
    schema = {"type": "object", "properties": {"late": {"const": True}}, "required": ["late"]}
    body = {"model": "tiny", "prompt": TEXT, "format": schema, "stream": False}
    assert json.loads(server.post("/api/generate", body).json()["response"]) == {"late": True}


def test_the_end_of_an_answer_has_its_reason(server: Server) -> None:
    body = {
        "model": "tiny@ann",
        "prompt": TEXT,
        "raw": True,
        "options": {**GREEDY, "num_predict": 2},
    }
    assert lines(server, "/api/generate", body)[-1]["done_reason"] == "length"
    body = {"model": "tiny", "prompt": TEXT, "format": {"const": 1}}
    ended = lines(server, "/api/generate", body)
    assert ended[-1]["done_reason"] == "stop"


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_a_request_without_a_prompt_loads_the_model(server: Server, path: str) -> None:
    answer = server.post(path, {"model": "tiny"}).json()
    assert (answer["done"], answer["done_reason"]) == (True, "load")


def test_errors_are_one_sentence(server: Server) -> None:
    for body, status in (
        ({"model": "gpt", "prompt": "a"}, 404),
        ({"model": "tiny", "prompt": "a", "images": ["aGk="]}, 400),
        ({"model": "tiny", "prompt": "a", "options": 1}, 400),
        ({"model": "tiny", "prompt": "a" * 2000}, 400),
    ):
        response = server.post("/api/generate", body)
        assert response.status_code == status
        (message,) = response.json().values()
        assert message.endswith(".")
