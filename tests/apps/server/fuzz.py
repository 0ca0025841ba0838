"""Requests at random, as many as wanted: `python -m tests.apps.server.fuzz 100000`.

They go to a server of the tiny model whose profiles hold secrets; see `check` for what must hold.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from models import make_tiny_llama
from steerx_edge.llamacpp.engine import load_llama
from tests.conftest import CHAT_TEMPLATE
from tests.support.server import Server
from tests.support.steered_llama import TEXT, a_profile, insisting, knowing

SECRET = (305, 310, 311, 320)
"""What the memory of `eve` insists on."""

PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/api/chat",
    "/api/generate",
    "/api/show",
    "/profiles",
)
NAMES = ("tiny", "tiny@ann", "tiny@bob", "tiny@eve", "", "tiny@../ann")
ANSWERED = {200, 400, 404, 405, 413, 503}
MAY_FAIL = (b"mirostat", b"grammar", b"format", b"tool")
"""llama.cpp finds no token where mirostat meets a strong bias, or a grammar refuses them all."""

_texts = st.text(max_size=20) | st.sampled_from([TEXT, "", "\0", "../../etc/passwd", "<|user|>"])
_numbers = st.integers() | st.floats() | st.integers(-3, 50)
_json = st.recursive(
    st.none() | st.booleans() | _numbers | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=8,
)


def _or_any(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A value as it should be, mostly."""
    return st.integers(0, 15).flatmap(lambda n: usual if n else _json)


_roles = st.sampled_from(["user", "assistant", "system", "tool", "judge"])
_message = st.fixed_dictionaries(
    {"role": _roles, "content": _or_any(_texts)},
    optional={"tool_calls": _json, "name": _json, "images": _json},
)
_schema = st.recursive(
    st.sampled_from([{"type": "string"}, {"type": "integer"}, {"enum": ["a", 1]}, {"const": None}]),
    lambda inner: (
        st.builds(
            lambda parts: {"type": "object", "properties": parts},
            st.dictionaries(_texts, inner, max_size=3),
        )
        | st.builds(lambda each: {"type": "array", "items": each, "maxItems": 3}, inner)
    ),
    max_leaves=4,
)
_grammars = (
    st.sampled_from(['root ::= "a"+', "root ::= [a-z]{1,3}", "root ::= (", "x", ""]) | _texts
)
_choice = {"type": "function", "function": {"name": "go"}}
_tools = _or_any(
    st.builds(
        lambda schema: [{"type": "function", "function": {"name": "go", "parameters": schema}}],
        _schema,
    )
)
_limit = st.integers(1, 6)
_fields: dict[str, st.SearchStrategy[Any]] = {
    "model": _or_any(st.sampled_from(NAMES)),
    "messages": _or_any(st.lists(_message, min_size=1, max_size=3)),
    "prompt": _or_any(_texts),
    "profile": _or_any(
        st.lists(
            st.builds(
                lambda i, s: {"id": i, "scale": s}, st.sampled_from(["ann", "eve", "x"]), _numbers
            ),
            max_size=2,
        )
    ),
    "stream": _or_any(st.booleans()),
    "raw": _or_any(st.booleans()),
    "temperature": _or_any(st.floats(0, 3)),
    "top_k": _or_any(st.integers(0, 50)),
    "top_p": _or_any(st.floats(0, 1)),
    "min_p": _or_any(st.floats(0, 1)),
    "repeat_penalty": _or_any(st.floats(0.1, 3)),
    "presence_penalty": _or_any(st.floats(-2, 2)),
    "mirostat_mode": _or_any(st.integers(0, 2)),
    "seed": _or_any(st.integers(-1, 2**32)),
    "stop": _or_any(_texts | st.lists(_texts, max_size=3)),
    "logprobs": _or_any(st.booleans() | st.integers(0, 5)),
    "top_logprobs": _or_any(st.integers(0, 5)),
    "logit_bias": _or_any(
        st.dictionaries(st.integers(0, 600).map(str), st.floats(-100, 100), max_size=3)
    ),
    "min_tokens": _or_any(st.integers(0, 5)),
    "echo": _or_any(st.booleans()),
    "n": _or_any(st.just(1)),
    "grammar": _or_any(_grammars),
    "response_format": _or_any(
        st.builds(lambda schema: {"type": "json_object", "schema": schema}, _schema)
    ),
    "format": _or_any(_schema | st.just("json")),
    "tools": _tools,
    "tool_choice": _or_any(st.sampled_from(["none", "auto", "required", _choice])),
    "stream_options": _or_any(st.just({"include_usage": True})),
    "options": _or_any(st.fixed_dictionaries({"num_predict": _limit})),
}
_bodies = st.fixed_dictionaries({"max_tokens": _limit}, optional=_fields)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, bytes]:
    """A path and a body, which is JSON mostly."""
    path = draw(st.sampled_from(PATHS))
    body = draw(_or_any(_bodies))
    if path in ("/api/chat", "/api/generate") and isinstance(body, dict):
        options = body.setdefault("options", {})
        if isinstance(options, dict):  # else an answer may fill the context
            options.setdefault("num_predict", 4)
    content = json.dumps(body, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")
    if draw(st.integers(0, 20)) == 0:
        content = content[: draw(st.integers(0, len(content)))] + draw(st.binary(max_size=5))
    return path, content


def check(server: Server, path: str, content: bytes, secret: str) -> int:
    """Ask, and return the status.

    Every request is answered by JSON, an error by one sentence; nobody but eve says her secret; the
    process is there.
    """
    response = server.client.post(path, content=content)
    status = response.status_code
    may_fail = any(name in content for name in MAY_FAIL)
    assert status in ANSWERED or (status == 500 and may_fail), (status, path, content)
    if status == 200:
        assert "Traceback" not in response.text
        assert b"eve" in content or secret not in response.text, (path, content)
    else:
        error = response.json()["error"]
        message = error if isinstance(error, str) else error["message"]
        assert message.endswith("."), message
        assert "\n" not in message, message
    return status


def save_profiles(model: Path, folder: Path) -> str:
    """A direction (ann), a memory and a bias (bob), and a memory with a secret (eve).

    Returns:
        The secret.
    """
    with closing(load_llama(model, n_ctx=512, n_threads=1, n_gpu_layers=0, seed=1)) as llama:
        a_profile(llama, seed=1).save(folder / "ann.json")
        knowing(llama, strength=1.0).save(folder / "bob.json")
        insisting(llama, SECRET).save(folder / "eve.json")
        return llama.detokenize(list(SECRET)).decode()


def main() -> None:
    """Ask as many times as the argument says, and print how often which status came."""
    n_requests = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_tiny_llama(folder / "tiny.gguf", chat_template=CHAT_TEMPLATE, name="tiny")
        profiles = folder / "profiles"
        profiles.mkdir()
        secret = save_profiles(model.path, profiles)
        server = Server(model.path, profiles, folder / "log")
        statuses: Counter[int] = Counter()

        @settings(
            max_examples=n_requests,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(requests())
        def ask(request: tuple[str, bytes]) -> None:
            statuses[check(server, *request, secret)] += 1
            if sum(statuses.values()) % 5000 == 0:
                print(dict(sorted(statuses.items())), flush=True)  # noqa: T201

        try:
            ask()
        finally:
            print("statuses", dict(sorted(statuses.items())))  # noqa: T201
            print("log", server.log.splitlines()[1:])  # noqa: T201
            server.close()


if __name__ == "__main__":
    main()
