"""Profiles as models: each answer as of a fresh process, and nothing passes from one to another."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import TinyModel
from models.operations import log_softmax
from steerx_edge.learning.prefix import prefix_of
from steerx_edge.live import steer
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.prompts import messages_for
from tests.apps.server.conftest import fresh_llama
from tests.apps.server.fuzz import SECRET
from tests.support.histories import HISTORY
from tests.support.server import Server
from tests.support.steered_llama import TEXT, Recorder, a_profile, chat, processors

ROUNDING = 0.05  # of KV cells in 16 bits, where a prompt is evaluated in other parts
NAMES = ("tiny", "tiny@ann", "tiny", "tiny@bob", "tiny@ann", "tiny@eve", "tiny")
REQUESTS = ("Alice was late again.", "Alice was late again. Why?", "The White Rabbit ran on.")


def fresh_answer(model: TinyModel, profiles: Path, name: str, request: str, n: int = 8) -> Any:
    """What a new model that is steered for the first time says, and its log-probabilities."""
    _, _, profile = name.partition("@")
    with closing(fresh_llama(model)) as llama:
        steering = steer(llama, profiles / f"{profile}.json") if profile else nullcontext()
        with steering:
            recorder = Recorder(llama)
            options = {"logits_processor": processors(recorder)}
            text = chat(llama, [{"role": "user", "content": request}], n, **options)
        return text, log_softmax(np.stack(recorder.given).astype(np.float64))


def test_each_answer_is_that_of_a_fresh_process(
    server: Server, tiny_chat: TinyModel, profiles: Path
) -> None:
    for request in REQUESTS:
        expected = {
            name: fresh_answer(tiny_chat, profiles, name, request)[0] for name in set(NAMES)
        }
        assert len(set(expected.values())) == len(expected)
        assert [server.chat(name, request) for name in NAMES] == [expected[name] for name in NAMES]


@pytest.mark.parametrize("name", ["tiny", "tiny@ann", "tiny@bob"])
def test_log_probabilities_are_those_of_a_fresh_process(
    server: Server, tiny_chat: TinyModel, profiles: Path, name: str
) -> None:
    server.chat("tiny@bob", REQUESTS[0])  # so that the cells are another's
    _, expected = fresh_answer(tiny_chat, profiles, name, REQUESTS[1], 4)
    body = {
        "model": name,
        "messages": [{"role": "user", "content": REQUESTS[1]}],
        "max_tokens": 4,
        "temperature": 0,
        "repeat_penalty": 1.0,
        "logprobs": True,
        "top_logprobs": 3,
    }
    answer = server.post("/v1/chat/completions", body).json()
    given = answer["choices"][0]["logprobs"]["content"]
    assert len(given) == len(expected) == answer["usage"]["completion_tokens"]
    for each, row in zip(given, expected, strict=True):
        best = np.sort(row)[::-1][:3]
        assert [other["logprob"] for other in each["top_logprobs"]] == pytest.approx(
            best, abs=ROUNDING
        )
        assert each["logprob"] == each["top_logprobs"][0]["logprob"]  # greedy


def test_the_cells_of_a_prompt_are_kept_from_profile_to_profile(server: Server) -> None:
    for name in ("tiny", "tiny@ann", "tiny@bob", "tiny"):
        body = {"model": name, "messages": [{"role": "user", "content": TEXT}], "max_tokens": 3}
        usage = server.post("/v1/chat/completions", body).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"] - 1


def test_nobody_else_gives_the_texts_of_a_profile(server: Server, tiny_chat: TinyModel) -> None:
    with closing(fresh_llama(tiny_chat)) as llama:
        secret = llama.detokenize(list(SECRET)).decode()
    assert server.complete("tiny@eve", TEXT, 4) == secret
    for name in ("tiny", "tiny@ann", "tiny@bob"):
        for prompt in (TEXT, TEXT + secret[:3], f"Repeat what you said: {TEXT}"):
            assert secret not in server.complete(name, prompt, 40)
            server.complete("tiny@eve", TEXT, 4)


def test_users_who_ask_at_the_same_time_get_nothing_of_each_other(
    start: Callable[..., Server], tiny_chat: TinyModel, profiles: Path, tmp_path: Path
) -> None:
    """A direction, a memory of level `all`, a prefix, and none: each answer is as if alone."""
    for path in (*profiles.glob("ann.*"), *profiles.glob("eve.*")):
        shutil.copy(path, tmp_path)
    with closing(fresh_llama(tiny_chat)) as llama:
        a_profile(llama, strength=0.0).save(tmp_path / "me.json")
        prefix_of(Engine(llama), HISTORY).save(tmp_path / "me.json")
    server = start(folder=tmp_path)
    asked = [(name, request) for name in ("tiny", "tiny@ann", "tiny@eve") for request in REQUESTS]
    alone = {
        (name, request): fresh_answer(tiny_chat, tmp_path, name, request)[0]
        for name, request in asked
    }
    with_prefix = [("tiny@me", request) for request in REQUESTS]
    alone |= {(name, request): server.chat(name, request) for name, request in with_prefix}
    for request in REQUESTS:
        assert len({alone[each] for each in alone if each[1] == request}) == 4
    everything = [*asked, *with_prefix] * 3
    random.Random(3).shuffle(everything)  # noqa: S311
    with ThreadPoolExecutor(6) as users:
        answers = users.map(lambda each: server.chat(*each), everything)
        assert list(answers) == [alone[each] for each in everything]


def test_chats_of_a_profile_begin_with_its_prefix(
    start: Callable[..., Server], tiny_chat: TinyModel, tmp_path: Path
) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": TEXT}]
    with closing(fresh_llama(tiny_chat)) as llama:
        a_profile(llama, strength=0.0).save(tmp_path / "me.json")
        prefix_of(Engine(llama), HISTORY).save(tmp_path / "me.json")
        plain = chat(llama, messages, 8)
    with closing(fresh_llama(tiny_chat)) as llama:
        with_texts = [messages[0], *messages_for("", history=HISTORY)[:-1], messages[1]]
        expected = chat(llama, with_texts, 8)
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    server = start(folder=tmp_path)
    for _ in range(2):
        assert server.chat("tiny@me", "", messages=messages) == expected != plain
        assert server.chat("tiny", "", messages=messages) == plain
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_a_profile_is_also_a_field_with_a_scale(server: Server) -> None:
    plain, ann = server.chat("tiny", TEXT), server.chat("tiny@ann", TEXT)
    assert plain != ann

    def by_field(*profiles: dict[str, Any]) -> str:
        return server.chat("tiny", TEXT, profile=list(profiles))

    assert by_field({"id": "ann"}) == by_field({"id": "ann", "scale": 1.0}) == ann
    assert by_field({"id": "ann", "scale": 0}) == by_field() == plain
    assert by_field({"id": "ann", "scale": -1.0}) not in (plain, ann)


@pytest.fixture
def own(profiles: Path, tmp_path: Path, start: Callable[..., Server]) -> tuple[Server, Path]:
    """A server with the profile ann alone, and its folder."""
    folder = tmp_path / "profiles"
    folder.mkdir()
    shutil.copy(profiles / "ann.json", folder)
    return start(folder=folder), folder


def test_profiles_are_listed_read_anew_and_scaled(
    own: tuple[Server, Path], profiles: Path, tmp_path: Path
) -> None:
    server, folder = own
    ann, plain = server.chat("tiny@ann", TEXT), server.chat("tiny", TEXT)
    assert server.client.get("/profiles").json() == [{"id": "ann", "scale": 1.0}]
    shutil.copy(profiles / "ann.json", folder / "zoe.json")
    (folder / "notes.json").write_text("{}")
    (folder / "link.json").symlink_to(profiles / "bob.json")
    (folder / "ann.json").rename(tmp_path / "ann.json")
    listed = server.post("/profiles", []).json()
    assert listed == [{"id": "zoe", "scale": 1.0}]
    assert server.chat("tiny@zoe", TEXT) == ann
    assert server.post("/profiles", [{"id": "zoe", "scale": 0}]).json() == [
        {"id": "zoe", "scale": 0.0}
    ]
    assert server.chat("tiny@zoe", TEXT) == plain
    gone = server.post("/v1/chat/completions", {"model": "tiny@ann", "messages": []})
    assert gone.status_code == 404


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
def test_profiles_that_were_read_anew_are_closed(
    start: Callable[..., Server], profiles: Path
) -> None:
    server = start()
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()

    def n_open() -> int:
        links = [link for child in children for link in Path(f"/proc/{child}/fd").iterdir()]
        return sum(link.resolve().parent == profiles for link in links)

    first = n_open()
    assert first > 0
    for _ in range(5):
        server.chat("tiny@bob", TEXT)
        server.post("/profiles", [])
    server.chat("tiny", TEXT)
    ends = time.monotonic() + 20
    while n_open() != first and time.monotonic() < ends:
        time.sleep(0.05)  # what an answer needed is let go after the answer
    assert n_open() == first


@pytest.mark.parametrize(
    "name",
    [
        "tiny@nobody",
        "tiny@../ann",
        "tiny@ann.json",
        "tiny@",
        "tiny@ann\0",
        "ann",
        "tiny@/etc/passwd",
    ],
)
def test_only_listed_profiles_are_served(server: Server, name: str) -> None:
    messages = [{"role": "user", "content": TEXT}]
    by_model = server.post("/v1/chat/completions", {"model": name, "messages": messages})
    id_ = name.partition("@")[2]
    by_field = server.post(
        "/v1/chat/completions", {"messages": messages, "profile": [{"id": id_ + " "}]}
    )
    for response in (by_model, by_field):
        assert response.status_code == 404
        assert response.json()["error"]["type"] == "not_found_error"
