"""`--prefix`: texts that every prompt begins with, saved by `learn` and used by the others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from models import TinyModel
from steerx_edge.apps.cli import main
from steerx_edge.learning.prefix import chosen_prefixes, prefix_of
from steerx_edge.live import steer
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.models import MODEL_VARIABLE
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.profile import Profile, prefix_files
from tests.support.histories import TEXTS

PROMPT = "Write about the hatter."
GENERATE = ("generate", "--profile", "me.json", "--temp", "0", "-n", "6", "-p", PROMPT)
LEARN = ("learn", "history.jsonl", "-o", "me.json", "--strength", "0.1", "--memory", "none")


def run(*arguments: str, code: int = 0, stdin: str = "") -> Result:
    result = CliRunner().invoke(main, [*arguments], input=stdin)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_chat: TinyModel) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(MODEL_VARIABLE, str(tiny_chat.path))
    monkeypatch.setenv("LLAMA_ARG_THREADS", "1")
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "512")
    lines = [{"prompt": item.request, "response": item.response} for item in TEXTS]
    Path("history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


@pytest.fixture
def engine(tiny_chat: TinyModel) -> Iterator[Engine]:
    engine = Engine(tiny_chat.path, n_ctx=512, n_threads=1)
    yield engine
    engine.llama.close()


def answer(engine: Engine, texts: int, **options: bool) -> str:
    history = chosen_prefixes(engine, TEXTS, 224)[0] if texts else []
    with steer(engine.llama, "me.json", **options):
        tokens = engine.prompt(messages_for(PROMPT, history=history))
        return engine.generate(tokens, max_tokens=6, temperature=0)


def test_learn_saves_a_prefix_and_generate_and_chat_begin_with_it(engine: Engine) -> None:
    report = run(*LEARN, "--prefix", "224").stderr
    (path,) = prefix_files("me.json")
    n_texts = len(chosen_prefixes(engine, TEXTS, 224)[0])
    assert 1 < n_texts < len(TEXTS)
    assert "The prefix will take up to" in report
    assert f"Saved {path.name}: {n_texts} texts in" in report
    with_prefix = answer(engine, n_texts, with_history=True)
    assert run(*GENERATE).stdout == with_prefix + "\n"
    assert run(*GENERATE, "--no-prefix").stdout == answer(engine, 0) + "\n"
    chatting = ("chat", "--profile", "me.json", "--temp", "0", "-n", "6")
    assert run(*chatting, stdin=PROMPT).stdout == with_prefix + "\n"


def test_a_prefix_goes_with_the_profile_it_was_learned_with() -> None:
    run(*LEARN, "--prefix", "224")
    report = run(*LEARN).stderr
    assert "the prefix of the profile that was replaced" in report
    assert prefix_files("me.json") == []


def test_a_prefix_goes_if_no_text_fits_a_new_one() -> None:
    run(*LEARN, "--prefix", "224")
    long = [{"prompt": "", "response": f"{i} oh dear " * 40} for i in range(3)]
    Path("long.jsonl").write_text("".join(json.dumps(line) + "\n" for line in long))
    report = run(LEARN[0], "long.jsonl", *LEARN[2:], "--prefix", "64").stderr
    assert "No text is short enough for a prefix of 64 tokens" in report
    assert prefix_files("me.json") == []


def test_a_prefix_lies_next_to_the_file_that_a_link_leads_to() -> None:
    Path("real").mkdir()
    Path("me.json").symlink_to("real/me.json")
    run(*LEARN, "--prefix", "224")
    with_prefix = run(*GENERATE).stdout
    (path,) = prefix_files("real/me.json")
    assert [each.samefile(path) for each in prefix_files("me.json")] == [True]
    run("forget", "--profile", "me.json")
    assert not path.exists()
    assert run(*GENERATE).stdout != with_prefix


def test_forget_removes_a_prefix() -> None:
    run(*LEARN, "--prefix", "224")
    (path,) = prefix_files("me.json")
    assert f"Removed {path.name}" in run("forget", "--profile", "me.json").stderr
    assert not path.exists()


def test_forget_of_texts_removes_a_prefix_that_holds_one(engine: Engine) -> None:
    run(*LEARN, "--prefix", "224")
    (path,) = prefix_files("me.json")
    held = chosen_prefixes(engine, TEXTS, 224)[0]
    other = next(item for item in TEXTS if item.response not in {each.response for each in held})
    for item, is_held in [(other, False), (held[0], True)]:
        line = {"prompt": item.request, "response": item.response}
        Path("text.jsonl").write_text(json.dumps(line))
        forget = ("forget", "--profile", "me.json", "--text", "text.jsonl")
        result = run(*forget, code=0 if is_held else 1)
        assert path.exists() != is_held
        if is_held:
            assert f"Removed {path.name}" in result.stderr


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--prefix", "20"), 2, "'--prefix': 20 cannot be used. Give 64 to 1024, or 0."),
        (("--prefix", "100000"), 2, "'--prefix': 100000 cannot be used."),
        (("--prefix", "1024"), 2, "--prefix is 1024. Give 64 to"),
        (("--prefix", "history.jsonl"), 2, "'history.jsonl' is not a number of tokens."),
        (("--prefix", "224", "--add"), 2, "--prefix cannot be combined with --add"),
    ],
)
def test_a_prefix_that_cannot_be_is_refused_before_any_work(
    options: tuple[str, ...], code: int, said: str
) -> None:
    assert said in run(*LEARN[:4], *options, code=code).stderr
    assert not Path("me.json").exists()


def test_the_size_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steerx_edge.learning.prefix.prefix_bytes", lambda *_: 2_000_000)
    report = run(*LEARN, "--prefix", "224", "--max-size", "1", code=2).stderr
    assert "would take 2 MB with this model, and --max-size is 1" in report


def test_a_prefix_that_is_wanted_and_missing_or_damaged_is_said() -> None:
    run(*LEARN, "--prefix", "224")
    (path,) = prefix_files("me.json")
    expected = run(*GENERATE, "--no-prefix").stdout
    path.write_bytes(path.read_bytes()[:-600])
    result = run(*GENERATE)
    assert result.stdout == expected
    assert "Warning: The prefix is not used (" in result.stderr
    assert "not a prefix file" in run(*GENERATE, "--prefix", code=1).stderr
    path.unlink()
    assert "There is no prefix next to 'me.json'" in run(*GENERATE, "--prefix", code=1).stderr


def test_a_system_message_and_texts_from_a_history_go_with_it(engine: Engine) -> None:
    run(*LEARN, "--prefix", "224")
    prefix = chosen_prefixes(engine, TEXTS, 224)[0]
    result = run(*GENERATE, "--system", "be brief", "--history", "history.jsonl", "--retrieve", "1")
    with steer(engine.llama, "me.json", with_history=True):
        tokens = engine.prompt(messages_for(PROMPT, history=[*prefix, TEXTS[5]], system="be brief"))
        assert result.stdout == engine.generate(tokens, max_tokens=6, temperature=0) + "\n"


def test_without_steering_a_prefix_that_is_wanted_stays_in_the_prompt(engine: Engine) -> None:
    run(*LEARN, "--prefix", "224")
    texts = chosen_prefixes(engine, TEXTS, 224)[0]
    plain, with_texts = (
        engine.generate(
            engine.prompt(messages_for(PROMPT, history=history)), max_tokens=6, temperature=0
        )
        for history in ([], texts)
    )
    assert run(*GENERATE, "--no-steer").stdout == plain + "\n"
    assert run(*GENERATE, "--no-steer", "--prefix").stdout == with_texts + "\n"


def test_a_profile_that_steers_the_prompt_is_used_without_its_prefix(engine: Engine) -> None:
    run(*LEARN, "--prefix", "224")
    (entry,) = Profile.load("me.json").entries
    Profile((replace(entry, positions="all"),)).save("me.json")
    result = run(*GENERATE)
    assert "Warning: The prefix is not used, as this profile steers the prompt" in result.stderr
    assert result.stdout == answer(engine, 0) + "\n"
    assert "Leave out the prefix" in run(*GENERATE, "--prefix", code=1).stderr


def test_a_prefix_that_leaves_no_room_is_said() -> None:
    run(*LEARN, "--prefix", "224")
    small = run(*GENERATE, "-c", "128")
    assert small.stdout == run(*GENERATE, "-c", "128", "--no-prefix").stdout
    assert re.search(r"The prefix is not used \(.*the context 128: raise it", small.stderr)
    assert "learn a shorter prefix" in run(*GENERATE, "-c", "128", "--prefix", code=1).stderr
    long = "oh dear " * 20
    for command in (GENERATE[:-1], ("explain", "--profile", "me.json", "-p")):
        said = run(*command, long, "-c", "256", code=1).stderr
        assert "tokens with the profile's prefix, and the context 256. Raise it with -c" in said
        assert "--no-prefix" in said


def test_in_a_chat_each_profile_comes_with_its_own_prefix() -> None:
    run(*LEARN, "--prefix", "224")
    run("learn", "history.jsonl", "-o", "plain.json", *LEARN[4:])
    chat = ("--temp", "0", "-n", "6")

    def last_answer(first: str, *lines: str) -> tuple[str, str]:
        result = run("chat", "--profile", first, *chat, stdin="\n".join([*lines, PROMPT]))
        return result.stdout, result.stderr

    plain, _ = last_answer("plain.json")
    begun, _ = last_answer("me.json")
    assert begun != plain
    assert last_answer("me.json", "/profile plain.json")[0] == plain
    switched, said = last_answer("plain.json", "/profile me.json")
    assert switched == begun
    assert "Switched to me.json with its prefix." in said
    # One that cannot be used changes nothing.
    (entry,) = Profile.load("plain.json").entries
    Profile((replace(entry, positions="all"),)).save("all.json")
    run("learn", "history.jsonl", "-o", "all.json", *LEARN[4:], "--prefix", "224")
    Profile((replace(entry, positions="all"),)).save("all.json")
    kept = run(
        "chat", "--profile", "me.json", "--prefix", *chat, stdin=f"/profile all.json\n{PROMPT}"
    )
    assert "Leave out the prefix." in kept.stderr
    assert kept.stdout == begun


def test_only_the_strengths_for_texts_in_the_prompt_apply() -> None:
    run(*LEARN, "--prefix", "224")
    plain = run(*GENERATE, "--strength", "0").stdout
    profile = Profile.load("me.json")
    (entry,) = profile.entries
    Profile((replace(entry, strengths=entry.strengths * 100),)).save("me.json")
    assert run(*GENERATE).stdout != plain


def test_the_request_chooses_between_two_beginnings(engine: Engine) -> None:
    run(*LEARN, "--prefix", "224")
    groups = TEXTS[:2], TEXTS[4:6]
    prefix_of(engine, *groups).save("me.json")
    shown = " ".join(run("show", "me.json").stdout.split())
    assert "or, depending on the request, 2 texts" in shown
    for texts, request in zip(groups, ("And the kettle?", "How was the queen?"), strict=True):
        with steer(engine.llama, "me.json", with_history=True):
            tokens = engine.prompt(messages_for(request, history=texts))
            expected = engine.generate(tokens, max_tokens=6, temperature=0) + "\n"
        assert run(*GENERATE[:-1], request).stdout == expected
        chatting = ("chat", "--profile", "me.json", "--temp", "0", "-n", "6")
        assert run(*chatting, stdin=request).stdout == expected
