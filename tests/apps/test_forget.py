"""`steerx-edge forget`: what it removes, what it keeps, and what it prints."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from models import TinyModel
from steerx_edge.apps.cli import main
from steerx_edge.forgetting import Forgotten, forget_texts, rows_of
from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.effects import Effects
from steerx_edge.learning.memory_rows import MemoryRows
from steerx_edge.learning.texts import shortened
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.models import MODEL_VARIABLE
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import ScoreRequest, asked_for
from steerx_edge.profile import Entry, MemoryPart, Profile
from steerx_edge.steering.gate import Gate
from steerx_edge.steering.memory import LEVELS, SINGLE_RUN, KeySpace, Level, Memory, run_hashes
from tests.support.entries import an_entry

TEXTS = (
    HistoryItem("Alice was late again, and the watch said so.", "Write text 0."),
    HistoryItem("The White Rabbit ran on, oh dear, oh dear!", "Write text 1."),
    HistoryItem("She was quiet for once, the watch said nothing.", "Write text 2."),
)


def memory_of(
    engine: Engine, items: Sequence[HistoryItem], level: Level = "all"
) -> tuple[Memory, list[int]]:
    """The memory of some texts, and the place of the text that each row is of."""
    jobs = [
        ScoreRequest(
            engine.prompt(messages_for(each.request)), engine.tokenize(each.response), final=True
        )
        for each in items
    ]
    # Side by side and rounded, as learn reads them.
    finals = [asked_for(each.final).astype(np.float16) for each in engine.run_many(jobs)]
    rows = MemoryRows(KeySpace.fit(np.concatenate(finals)), level, engine.end_of_turn)
    for job, item, final in zip(jobs, items, finals, strict=True):
        nats = np.linspace(-1, 1, len(job.response), dtype=np.float32)
        effects = Effects(list(job.response), engine.pieces(job.response), nats)
        rows.add(effects, item.request, rows.keys(final))
    owners = [place for place, final in enumerate(finals) for _ in final]
    return rows.memory(), owners


def entry_of(engine: Engine, level: Level = "all") -> Entry:
    memory, _ = memory_of(engine, TEXTS, level)
    n_embd = engine.model_id.n_embd
    return an_entry(
        engine.model_id,
        (2,),
        np.eye(1, n_embd),
        contrast_methods=("context-contrast",),
        memory=MemoryPart.of(memory, strength=0.3, level=level),
        gate=Gate(np.ones(n_embd, np.float32), 0.25),
    )


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_chat: TinyModel) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(MODEL_VARIABLE, str(tiny_chat.path))
    return tmp_path


@pytest.fixture
def engine(tiny_chat: TinyModel) -> Iterator[Engine]:
    with closing(Engine(tiny_chat.path, n_ctx=256, n_threads=1).llama) as llama:
        yield Engine(llama)


@pytest.fixture
def profile(folder: Path, engine: Engine) -> Profile:
    """Saved as me.json."""
    profile = Profile((entry_of(engine),))
    profile.save(folder / "me.json")
    return profile


@pytest.fixture
def two_models(folder: Path, profile: Profile, tiny_f32: TinyModel) -> Profile:
    """Saved as me.json: memories for the tiny chat model, and for the tiny one without a chat."""
    with closing(Engine(tiny_f32.path, n_ctx=256, n_threads=1).llama) as llama:
        both = profile.with_entry(entry_of(Engine(llama)))
    both.save(folder / "me.json")
    return both


def write_texts(path: Path, items: Sequence[HistoryItem]) -> Path:
    lines = ({"prompt": item.request, "response": item.response} for item in items)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def run(*arguments: str | Path, code: int = 0) -> Result:
    given = ["forget", "--profile", "me.json", *map(str, arguments)]
    result = CliRunner().invoke(main, given, catch_exceptions=False)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    return result


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def part_of(profile: Profile, entry: int = 0) -> MemoryPart:
    part = profile.entries[entry].memory
    assert part is not None
    return part


def held_by(profile: Profile, entry: int = 0) -> Memory:
    memory = part_of(profile, entry).memory
    assert memory is not None
    return memory


# ---------------------------------------------------------------- everything


@pytest.mark.parametrize("content", [b"", b"damaged"])
def test_the_memory_file_is_removed(folder: Path, profile: Profile, content: bytes) -> None:
    (folder / "me.memory.gguf").write_bytes(content or (folder / "me.memory.gguf").read_bytes())
    assert run().stderr == "Removed me.memory.gguf. me.json has no memory now.\n"
    assert names_in(folder) == ["me.json"]
    (entry,) = profile.entries
    assert Profile.load("me.json") == Profile((replace(entry, memory=None),))
    before = (folder / "me.json").read_bytes()
    assert run().stderr == "Found no memory file. me.json has no memory now.\n"
    assert (folder / "me.json").read_bytes() == before


def test_the_memories_of_all_models_are_removed(folder: Path, two_models: Profile) -> None:
    result = run()
    assert names_in(folder) == ["me.json"]
    other = two_models.entries[1].model.fingerprint[7:15]
    assert f"Removed me.memory.{other}.gguf and me.memory.gguf." in result.stderr
    assert [entry.memory for entry in Profile.load("me.json").entries] == [None, None]


@pytest.mark.usefixtures("profile")
def test_a_memory_file_that_is_no_longer_named_is_removed(folder: Path) -> None:
    document = json.loads(Path("me.json").read_text())
    document["entries"][0]["memory"] = None
    Path("me.json").write_text(json.dumps(document))
    assert "Removed me.memory.gguf." in run().stderr
    assert names_in(folder) == ["me.json"]


@pytest.mark.usefixtures("profile")
def test_the_memory_of_a_profile_that_was_renamed_is_removed(folder: Path) -> None:
    Path("me.json").rename("you.json")
    result = CliRunner().invoke(main, ["forget", "--profile", "you.json"])
    assert result.stderr == "Removed me.memory.gguf. you.json has no memory now.\n"
    assert names_in(folder) == ["you.json"]


@pytest.mark.usefixtures("profile")
def test_other_files_stay_even_if_the_profile_names_them(folder: Path) -> None:
    others = ["me.memory.txt", "you.memory.gguf", "me.memory.old.gguf", "thesis.gguf"]
    others.append("me.memory.01234567.gguf")  # named like a memory, which the profile does not name
    for name in others:
        (folder / name).write_text("mine")
    text = Path("me.json").read_text().replace("me.memory.gguf", "thesis.gguf")
    Path("me.json").write_text(text)
    run()
    assert names_in(folder) == sorted([*others, "me.json"])


@pytest.mark.parametrize(
    "options", [["-m", "a.gguf"], ["--user", "x"], ["--response", "x"], ["--prompt", "x"]]
)
def test_options_for_texts_need_a_text(profile: Profile, options: list[str]) -> None:
    assert "need --text." in run(*options, code=2).stderr
    assert part_of(Profile.load("me.json")) == part_of(profile)


# ---------------------------------------------------------------- the rows of a text


@pytest.mark.parametrize("forgotten", [[1], [0, 1]])
def test_the_rows_of_the_texts_are_removed_and_the_rest_stays(
    folder: Path, profile: Profile, engine: Engine, forgotten: list[int]
) -> None:
    texts = [TEXTS[place] for place in forgotten]
    removed = rows_of(engine, held_by(profile), texts)
    file = (folder / "me.memory.gguf").read_bytes()
    said = run("--text", write_texts(folder / "text.jsonl", texts)).stderr
    n_tokens = sum(len(engine.tokenize(text.response)) + 1 for text in texts)
    assert said.startswith(f"Removed {n_tokens} of {len(removed)} rows. The words, the descript")
    left = Profile.load("me.json")
    part = part_of(left)
    before, after = held_by(profile), held_by(left)
    assert removed.sum() == n_tokens
    np.testing.assert_array_equal(after.keys, before.keys[~removed])
    np.testing.assert_array_equal(after.tokens, before.tokens[~removed])
    np.testing.assert_array_equal(after.weights, before.weights[~removed])
    same = replace(part_of(profile), rows=part.rows, memory=part.memory)
    assert left == Profile((replace(profile.entries[0], memory=same),))
    assert names_in(folder) == ["me.json", "me.memory.gguf", "text.jsonl"]
    assert (folder / "me.memory.gguf").read_bytes() != file


@pytest.mark.parametrize("level", LEVELS)
def test_the_rows_of_a_text_are_found_and_no_others(engine: Engine, level: Level) -> None:
    memory, owners = memory_of(engine, TEXTS, level)
    for place, text in enumerate(TEXTS):
        found = rows_of(engine, memory, [text])
        assert found.tolist() == [owner == place for owner in owners]


def test_the_hashes_of_the_runs_are_removed(engine: Engine, profile: Profile) -> None:
    left = forget_texts(engine, profile, TEXTS[1:2]).profile
    tokens = [*engine.tokenize(TEXTS[1].response), engine.end_of_turn]
    own = run_hashes(np.lib.stride_tricks.sliding_window_view(tokens, SINGLE_RUN))
    before = set(held_by(profile).single.tolist())
    assert before & set(own.tolist())
    assert set(held_by(left).single.tolist()) == before - set(own.tolist())


@pytest.mark.usefixtures("profile")
def test_when_all_texts_are_forgotten_there_is_no_memory(folder: Path) -> None:
    run("--text", write_texts(folder / "text.jsonl", TEXTS))
    assert names_in(folder) == ["me.json", "text.jsonl"]
    assert Profile.load("me.json").entries[0].memory is None


@pytest.mark.usefixtures("profile")
def test_a_text_that_is_not_in_the_memory_is_an_error(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    other = HistoryItem("Nobody has ever written anything like it.", "Write text 0.")
    text = write_texts(folder / "text.jsonl", [other])
    said = run("--text", text, code=1).stderr
    assert said.startswith(f"Error: No rows of {text} were found in the memory.")
    assert {path: path.read_bytes() for path in before} == before


def test_with_another_request_a_text_is_not_found(profile: Profile, engine: Engine) -> None:
    other = replace(TEXTS[1], request="An altogether different request: tell me of the weather.")
    n_rows = len(engine.tokenize(other.response)) + 1
    assert rows_of(engine, held_by(profile), [other]).sum() < n_rows / 2


def test_a_long_text_is_cut_as_learn_cuts_it(engine: Engine) -> None:
    long = HistoryItem("oh dear " * engine.analysis.n_ctx, "Write text 3.")
    memory, owners = memory_of(engine, [*TEXTS, shortened(engine, long)])
    assert rows_of(engine, memory, [long])[owners.index(3) :].all()


def test_each_model_forgets_its_own_rows(
    folder: Path, two_models: Profile, tiny_chat: TinyModel, tiny_f32: TinyModel
) -> None:
    text = write_texts(folder / "text.jsonl", TEXTS[1:2])
    run("--text", text, "-m", tiny_f32.path, "-m", tiny_chat.path)
    left = Profile.load("me.json")
    for place, model in enumerate((tiny_chat, tiny_f32)):
        with closing(Engine(model.path, n_ctx=256, n_threads=1).llama) as llama:
            assert not rows_of(Engine(llama), held_by(left, place), TEXTS[1:2]).any()
        assert 0 < part_of(left, place).rows < part_of(two_models, place).rows


def test_a_memory_without_its_model_is_an_error_and_nothing_is_removed(
    folder: Path, two_models: Profile
) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    text = write_texts(folder / "text.jsonl", TEXTS[1:2])
    said = run("--text", text, code=1).stderr
    assert f"also has a memory for {two_models.entries[1].model}. Name that model" in said
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.usefixtures("profile")
def test_texts_are_not_forgotten_by_halves_where_a_memory_cannot_be_read(folder: Path) -> None:
    Path("me.memory.gguf").unlink()
    said = run("--text", write_texts(folder / "text.jsonl", TEXTS), code=1).stderr
    assert "The memory is not used (" in said
    assert said.endswith(
        "Nothing was removed. Without --text, forget removes the memory as a whole.\n"
    )


def test_a_profile_without_a_memory_forgets_nothing(
    folder: Path, engine: Engine, profile: Profile
) -> None:
    bare = Profile((replace(profile.entries[0], memory=None),))
    assert forget_texts(engine, bare, TEXTS) == Forgotten(bare)
    bare.save("me.json")
    said = run("--text", write_texts(folder / "text.jsonl", TEXTS), code=1).stderr
    assert "me.json has no memory to remove texts from." in said


@pytest.mark.usefixtures("profile")
def test_a_text_that_was_not_found_as_a_whole_is_said(folder: Path) -> None:
    found = run("--text", write_texts(folder / "text.jsonl", TEXTS[:1])).stderr
    assert "Warning" not in found
    longer = replace(TEXTS[1], response=f"{TEXTS[1].response} Nobody has ever written so.")
    said = run("--text", write_texts(folder / "text.jsonl", [longer])).stderr
    assert re.search(r"Warning: no rows were found for \d+ of the \d+ tokens", said)


# ---------------------------------------------------------------- the other commands


@pytest.mark.parametrize(
    ("command", "options"),
    [("generate", ["-p", "Alice", "-n", "2"]), ("chat", [])],
    ids=["generate", "chat"],
)
@pytest.mark.usefixtures("profile")
def test_commands_warn_once_that_a_memory_is_not_used(
    command: str, options: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "me.memory.gguf"
    file.unlink()
    given = [command, "--profile", "me.json", "-c", "256", "-t", "1", *options]
    result = CliRunner().invoke(main, given, input="", catch_exceptions=False)
    assert result.exit_code == 0, result.output
    said = f"Warning: The memory is not used ({file}: cannot be read: No such file or directory)"
    assert result.stderr.count(said) == 1
    assert said not in result.stdout


def test_switching_profiles_in_a_chat_warns_too(profile: Profile) -> None:
    profile.save("you.json")
    Path("you.memory.gguf").unlink()
    given = ["chat", "--profile", "me.json", "-c", "256", "-t", "1"]
    result = CliRunner().invoke(main, given, input="/profile you.json\n", catch_exceptions=False)
    assert "you.memory.gguf: cannot be read" in result.stderr
    assert "Switched to you.json." in result.stderr
