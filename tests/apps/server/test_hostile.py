"""Requests that mean no good: each gets one sentence, and the next one its answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.server import Server
from tests.support.steered_llama import TEXT

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": TEXT}]
MARK = "Xyzzy"  # what must not be found in the log
ENDS_LLAMA_CPP = f"root ::= [\\x00]+ # {MARK}"  # no token fits, which llama.cpp answers by abort()


def refused(server: Server, content: bytes, path: str = CHAT, **headers: str) -> tuple[int, Any]:
    response = server.client.post(path, content=content, headers=headers)
    error = response.json()["error"]
    assert set(error) >= {"code", "message", "type"}
    assert error["code"] == response.status_code
    assert error["message"].endswith(".")
    assert "\n" not in error["message"]
    return response.status_code, error


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"1",
        b'"' + MARK.encode() + b'"',
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"\\udfff": 1}',
        b'{"temperature": NaN}',
        b'{"temperature": 1' + b"0" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 70 + b"]" * 70,
    ],
)
def test_what_is_not_json_is_refused(server: Server, content: bytes) -> None:
    assert refused(server, content)[0] == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": []},
        {"messages": "a"},
        {"messages": [1]},
        {"messages": [{"role": "judge", "content": MARK}]},
        {"messages": [{"role": "user", "content": 1}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"max_tokens": 0},
        {"max_tokens": MARK},
        {"temperature": -1},
        {"temperature": 1e999},
        {"top_p": 2},
        {"top_k": 2**40},
        {"repeat_penalty": 0},
        {"seed": 2**70},
        {"n": 2},
        {"stop": ["a"] * 65},
        {"logprobs": True, "top_logprobs": 21},
        {"logit_bias": {"a": 1}},
        {"logit_bias": {"a\nb": {}}},
        {"logit_bias": {"-1": 1}},
        {"logit_bias": {"100000": 1}},
        {"logit_bias": {"5": -1e30}},
        {"profile": "ann"},
        {"profile": [{"id": "ann", "scale": 1e30}]},
        {"profile": [{"id": "ann", "scale": "1"}]},
        {"profile": [{"id": "ann"}, {"id": "bob"}]},
        {"grammar": f"root ::= ( {MARK}"},
        {"grammar": "root ::= " + "(" * 50_000},
        {"grammar": "root ::= root"},
        {"grammar": " "},
        {"min_tokens": 5, "grammar": 'root ::= "a"'},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "yaml"}},
        {"response_format": {"type": "json_object", "schema": {"$ref": "https://a.example/b"}}},
        {"response_format": {"type": "json_object", "schema": {"type": MARK}}},
        {"response_format": {"type": "json_object", "schema": {"maxItems": 10**9}}},
        {"response_format": {"type": "json_object", "schema": {"pattern": "^a{1000000000}$"}}},
        {"tool_choice": "required"},
        {
            "tool_choice": "required",
            "tools": [
                {
                    "type": "function",
                    "function": {"name": "go", "parameters": {"minLength": 10**9}},
                }
            ],
        },
        {"tool_choice": {"type": "function", "function": {"name": "go"}}},
        {"tools": [{"type": "function"}]},
    ],
)
def test_a_field_that_is_wrong_is_refused(server: Server, fields: dict[str, Any]) -> None:
    status, error = refused(server, json.dumps({"messages": MESSAGES, **fields}).encode())
    assert status == 400
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("prompt", ["", ["a", "b"], [1, 2], {"a": 1}])
def test_a_prompt_that_is_no_text_is_refused(server: Server, prompt: Any) -> None:
    content = json.dumps({"prompt": prompt}).encode()
    assert refused(server, content, "/v1/completions")[0] == 400


def test_a_body_that_is_too_large_is_refused(server: Server) -> None:
    large = json.dumps({"messages": [{"role": "user", "content": "a" * (5 << 20)}]}).encode()
    assert refused(server, large)[0] == 413


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": "a" * 3_000_000}]},
        {"messages": [{"role": "user", "content": ""}] * 50_000},
        {"tools": [{"type": "function", "function": {"name": "a" * 3_000_000, "parameters": {}}}]},
    ],
)
def test_what_cannot_fit_is_refused_before_it_is_read(
    server: Server, fields: dict[str, Any]
) -> None:
    content = json.dumps({"messages": MESSAGES, **fields}).encode()
    status, error = refused(server, content)
    assert (status, error["type"]) == (400, "exceed_context_size_error")
    assert "at least" in error["message"]


def test_a_long_prompt_is_refused_in_a_stream_too(server: Server) -> None:
    messages = [{"role": "user", "content": TEXT * 50}]
    status, error = refused(server, json.dumps({"messages": messages, "stream": True}).encode())
    assert (status, error["type"]) == (400, "exceed_context_size_error")
    assert error["n_prompt_tokens"] > error["n_ctx"] == 512


@pytest.mark.parametrize("path", ["/nothing", "/profiles/../../etc/passwd", "/%2e%2e/etc/passwd"])
def test_unknown_addresses_are_not_there(server: Server, path: str) -> None:
    assert server.client.get(path).json()["error"]["type"] == "not_found_error"


def test_no_other_method_is_allowed(server: Server) -> None:
    assert server.client.get(CHAT).json()["error"]["code"] == 405


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "rebound.example"},
        {"host": "localhost.example:8080"},
        {"origin": "https://site.example"},
        {"origin": "http://localhost.example"},
        {"origin": "null"},
    ],
)
def test_web_sites_are_not_answered(server: Server, headers: dict[str, str]) -> None:
    status, _ = refused(server, json.dumps({"messages": MESSAGES}).encode(), CHAT, **headers)
    assert status == 403


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1", "app://desk"])
def test_programs_on_this_machine_may_read_answers(server: Server, origin: str) -> None:
    asked = server.client.options(CHAT, headers={"origin": origin})
    answer = server.client.get("/v1/models", headers={"origin": origin})
    for response in (asked, answer):
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == origin
    assert "access-control-allow-origin" not in server.client.get("/v1/models").headers


def test_a_request_that_ends_llama_cpp_ends_alone(server: Server) -> None:
    before = server.chat("tiny@ann", TEXT)
    body = {"messages": MESSAGES, "grammar": ENDS_LLAMA_CPP}
    status, error = refused(server, json.dumps(body).encode())
    assert (status, error["type"]) == (500, "server_error")
    assert server.chat("tiny@ann", TEXT) == before


def test_nothing_of_a_request_is_logged(server: Server) -> None:
    """After what the other tests have sent, and this."""
    for grammar in (f"root ::= ( {MARK}", ENDS_LLAMA_CPP):
        server.post(CHAT, {"messages": MESSAGES, "grammar": grammar})
    server.client.post(f"/{MARK}?{MARK}", content=MARK)
    assert server.client.get("/health").json() == {"status": "ok", "waiting": 0}
    assert server.log.splitlines()[1:] == ["  tiny", "  tiny@ann", "  tiny@bob", "  tiny@eve"]
