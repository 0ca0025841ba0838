"""The plugin for `llm`, in the real `llm`: its commands, its Python API, sync and async."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llm
import pytest
from click.testing import CliRunner
from llama_cpp import Llama
from llm.cli import cli
from llm.plugins import load_plugins, pm

from docs.tools.blocks import ROOT
from models import TinyModel
from steerx_edge.apps import llm_plugin
from steerx_edge.errors import ProfileError, SteerxError
from steerx_edge.learning.prefix import prefix_of
from steerx_edge.live import steer
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.models import MODEL_VARIABLE
from steerx_edge.profile import Profile, prefix_files
from tests.support.control_vector_files import by_repeng, some_vectors
from tests.support.entries import a_full_entry
from tests.support.histories import HISTORY
from tests.support.steered_llama import TEXT, a_profile, chat, taught

ME = "steerx/tiny-chat@me"
N = 8  # tokens generated
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": N}
ASKED = [{"role": "user", "content": TEXT}]


@pytest.fixture(autouse=True)
def profiles(
    tmp_path: Path, tiny_chat: TinyModel, tiny_chat_llama: Llama, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with a model and a profile for it, as the variable names it."""
    folder = tmp_path / "profiles"
    folder.mkdir()
    (folder / "tiny-chat.gguf").symlink_to(tiny_chat.path)
    prompt = Engine(tiny_chat_llama).prompt([{"role": "user", "content": TEXT}])
    memory = taught(tiny_chat_llama, [(prompt, [305, 310, 311, 320])], 0.8)
    a_profile(tiny_chat_llama, memory=memory).save(folder / "me.json")
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
    monkeypatch.setenv(llm_plugin.FOLDER_VARIABLE, str(folder))
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "512")
    monkeypatch.setenv("LLAMA_ARG_THREADS", "1")
    monkeypatch.setenv(MODEL_VARIABLE, str(tiny_chat.path))
    monkeypatch.delattr(llm, "_called_from_test", raising=False)
    return folder


@pytest.fixture(autouse=True)
def _plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugin is there, whether the package was installed with its entry point or not."""
    monkeypatch.setattr(sys, "_called_from_test", True, raising=False)
    load_plugins()  # type: ignore[no-untyped-call]
    is_missing = not pm.is_registered(llm_plugin)
    if is_missing:
        pm.register(llm_plugin, "steerx")
    yield
    if is_missing:
        pm.unregister(llm_plugin)


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli, list(words))
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def expected(llama: Llama, profile: Profile | Path, **how: Any) -> str:
    """What `steer` gives."""
    with steer(llama, profile, **how):
        return chat(llama, ASKED, N)


def without_memory(profile: Path) -> Path:
    document = json.loads(profile.read_text())
    document["entries"][0]["memory"] = None
    path = profile.with_name("bare.json")
    path.write_text(json.dumps(document))
    return path


# ---------------------------------------------------------------- which there are


def test_every_profile_is_offered_with_every_model_that_it_is_for(
    profiles: Path, tiny_q8: TinyModel, tiny_chat_llama: Llama
) -> None:
    width = tiny_chat_llama.n_embd()
    shutil.copy(tiny_q8.path, profiles / "other.gguf")
    by_repeng(profiles / "happy.gguf", some_vectors((1,), width))
    by_repeng(profiles / "me.gguf", some_vectors((1,), width))
    Profile((a_full_entry(memory=None),)).save(profiles / "for-no-model.json")
    (profiles / "notes.json").write_text('{"format": "x"}')
    (profiles / "broken.json").write_text("{")
    (profiles / "folder.json").mkdir()
    offered = {model.model_id for model in llm.get_models() if "steerx" in model.model_id}
    assert offered == {
        ME,
        "steerx/tiny-chat@me.gguf",
        "steerx/tiny-chat@happy",
        "steerx/other@me.gguf",
        "steerx/other@happy",
    }
    assert ME in run("models")


def test_profiles_lie_in_the_folder_of_llm_unless_a_variable_says_otherwise(
    profiles: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert llm_plugin.folder() == profiles
    monkeypatch.delenv(llm_plugin.FOLDER_VARIABLE)
    assert llm_plugin.folder() == tmp_path / "llm" / "steerx"
    assert not any("steerx" in model.model_id for model in llm.get_models())


def test_the_default_model_need_not_lie_there(profiles: Path) -> None:
    (profiles / "tiny-chat.gguf").unlink()
    assert llm.get_model(ME).model_id == ME


def test_to_be_listed_llama_cpp_is_not_loaded() -> None:
    code = (
        "import sys, llm\n"
        "from steerx_edge.apps import llm_plugin\n"
        "models = []\n"
        "llm_plugin.register_models(lambda *both: models.extend(both))\n"
        "assert len(models) == 2\n"
        "assert 'llama_cpp' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------- what they answer


def test_it_answers_as_steer_does(profiles: Path, tiny_chat_llama: Llama) -> None:
    answer = expected(tiny_chat_llama, profiles / "me.json")
    model = llm.get_model(ME)
    assert model.prompt(TEXT, **GREEDY).text() == answer
    assert model.prompt(TEXT, stream=False, **GREEDY).text() == answer
    assert answer != chat(tiny_chat_llama, ASKED, N)


def test_the_command_prints_the_answer(profiles: Path, tiny_chat_llama: Llama) -> None:
    options = ("-o", "temperature", "0", "-o", "max_tokens", str(N))
    printed = run("-m", ME, TEXT, *options, "--no-log")
    assert printed == expected(tiny_chat_llama, profiles / "me.json") + "\n"


@pytest.mark.parametrize("strength", [0.0, 0.5, -1.0])
def test_strength_is_an_option(strength: float, profiles: Path, tiny_chat_llama: Llama) -> None:
    answer = llm.get_model(ME).prompt(TEXT, strength=strength, **GREEDY).text()
    assert answer == expected(tiny_chat_llama, profiles / "me.json", strength=strength)


def test_memory_is_an_option(profiles: Path, tiny_chat_llama: Llama) -> None:
    bare = without_memory(profiles / "me.json")
    answer = llm.get_model(ME).prompt(TEXT, memory=False, **GREEDY).text()
    assert answer == expected(tiny_chat_llama, bare)
    assert answer != expected(tiny_chat_llama, profiles / "me.json")


def test_a_prefix_is_used_unless_it_is_not_wanted(profiles: Path, tiny_chat_llama: Llama) -> None:
    path = profiles / "me.json"
    plain = expected(tiny_chat_llama, path)
    prefix_of(Engine(tiny_chat_llama), HISTORY).save(path)
    begun = expected(tiny_chat_llama, path, prefix=True)
    assert begun != plain
    model = llm.get_model(ME)
    assert model.prompt(TEXT, **GREEDY).text() == begun
    assert model.prompt(TEXT, prefix=False, **GREEDY).text() == plain
    (file,) = prefix_files(path)
    file.write_bytes(file.read_bytes()[:-600])
    with pytest.warns(UserWarning, match="The prefix is not used"):
        assert model.prompt(TEXT, **GREEDY).text() == plain


def test_a_control_vector_is_a_profile(profiles: Path, tiny_chat_llama: Llama) -> None:
    path = by_repeng(profiles / "happy.gguf", some_vectors((1, 2), tiny_chat_llama.n_embd(), 20))
    answer = llm.get_model("steerx/tiny-chat@happy").prompt(TEXT, **GREEDY).text()
    assert answer == expected(tiny_chat_llama, path)


def test_a_seed_repeats_an_answer() -> None:
    model = llm.get_model(ME)
    options: dict[str, Any] = {"temperature": 2.0, "max_tokens": 12}
    answers = [model.prompt(TEXT, seed=seed, **options).text() for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]


def test_a_schema_is_followed() -> None:
    schema = {
        "type": "object",
        "properties": {"late": {"type": "boolean"}},
        "required": ["late"],
        "additionalProperties": False,
    }
    answer = llm.get_model(ME).prompt(TEXT, schema=schema, temperature=0, max_tokens=60).text()
    assert isinstance(json.loads(answer)["late"], bool)


def test_a_conversation_goes_on(profiles: Path, tiny_chat_llama: Llama) -> None:
    conversation = llm.get_model(ME).conversation()
    first = conversation.prompt(TEXT, system="Be brief.", **GREEDY).text()
    second = conversation.prompt("And then?", **GREEDY).text()
    messages = [
        {"role": "system", "content": "Be brief."},
        *ASKED,
        {"role": "assistant", "content": first},
        {"role": "user", "content": "And then?"},
    ]
    with steer(tiny_chat_llama, profiles / "me.json"):
        assert second == chat(tiny_chat_llama, messages, N, stream=True)


@pytest.mark.parametrize(("most", "n_generated"), [(N, 4), (3, 3)])  # the memory ends it after 4
def test_tokens_are_counted(
    most: int, n_generated: int, profiles: Path, tiny_chat_llama: Llama
) -> None:
    with steer(tiny_chat_llama, profiles / "me.json"):
        whole: Any = tiny_chat_llama.create_chat_completion(
            [{"role": "user", "content": TEXT}], max_tokens=most, temperature=0.0
        )
    counts = whole["usage"]["prompt_tokens"], whole["usage"]["completion_tokens"]
    assert counts[1] == n_generated
    for stream in (True, False):
        response = llm.get_model(ME).prompt(TEXT, stream=stream, temperature=0, max_tokens=most)
        response.text()
        assert (response.input_tokens, response.output_tokens) == counts


def test_async_answers_are_the_same_and_wait_for_each_other(
    profiles: Path, tiny_chat_llama: Llama
) -> None:
    by_repeng(profiles / "happy.gguf", some_vectors((1, 2), tiny_chat_llama.n_embd(), 20))
    names = [ME, "steerx/tiny-chat@happy"] * 4

    async def ask() -> list[str]:
        return await asyncio.gather(
            *(llm.get_async_model(name).prompt(TEXT, **GREEDY).text() for name in names)
        )

    each = [expected(tiny_chat_llama, profiles / name) for name in ("me.json", "happy.gguf")]
    assert asyncio.run(ask()) == each * 4


def test_an_async_answer_may_be_left_unread(profiles: Path, tiny_chat_llama: Llama) -> None:
    async def ask() -> str:
        async for _ in llm.get_async_model(ME).prompt(TEXT, temperature=0, max_tokens=200):
            break
        return await llm.get_async_model(ME).prompt(TEXT, **GREEDY).text()

    assert asyncio.run(ask()) == expected(tiny_chat_llama, profiles / "me.json")


# ---------------------------------------------------------------- what goes wrong


def test_an_answer_that_is_not_read_to_its_end_is_named() -> None:
    model = llm.get_model(ME)
    unread = iter(model.prompt(TEXT, **GREEDY))
    next(unread)
    with pytest.raises(SteerxError, match="Read the other answer to its end first"):
        model.prompt(TEXT, **GREEDY).text()
    "".join(unread)
    assert model.prompt(TEXT, **GREEDY).text()


def test_a_damaged_profile_is_one_sentence(profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (profiles / "me.json").read_text()
    (profiles / "me.json").write_text(text.replace('"positions": "generated"', '"positions": "x"'))
    with pytest.raises(ProfileError, match="positions is 'x'"):
        llm.get_model(ME).prompt(TEXT).text()
    with pytest.raises(ProfileError, match="positions is 'x'"):
        asyncio.run(llm.get_async_model(ME).prompt(TEXT).text())
    monkeypatch.delattr(sys, "_called_from_test")
    said = run("-m", ME, TEXT, code=1)
    assert re.fullmatch(r"Error: .*me\.json: .*positions is 'x'.*\n", said)


def test_a_memory_that_is_missing_is_said(profiles: Path) -> None:
    (profiles / "me.memory.gguf").unlink()
    with pytest.warns(UserWarning, match="The memory is not used"):
        llm.get_model(ME).prompt(TEXT, **GREEDY).text()


@pytest.mark.parametrize(
    ("name", "value"), [("strength", "nan"), ("temperature", "-1"), ("x", "1")]
)
def test_wrong_options_are_refused(name: str, value: str) -> None:
    assert name in run("-m", ME, TEXT, "-o", name, value, code=1)


def test_a_prefix_that_is_wanted_must_be_there() -> None:
    with pytest.raises(ProfileError, match="There is no prefix next to"):
        llm.get_model(ME).prompt(TEXT, prefix=True).text()


# ---------------------------------------------------------------- as it is installed


def test_llm_finds_it_by_its_entry_point(tmp_path: Path) -> None:
    """In a process of its own, with the entry point that the package declares."""
    section = re.search(
        r"\[project\.entry-points\.llm\]\n(.*?)\n\n", (ROOT / "pyproject.toml").read_text(), re.S
    )
    assert section
    info = tmp_path / "site" / "steerx_test-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: steerx-test\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[llm]\n" + section[1].replace('"', ""))
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "llm", "-m", ME, TEXT, "-o", "max_tokens", "4"],
        env=os.environ | {"PYTHONPATH": path, "LLM_LOAD_PLUGINS": "steerx-test"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()
