"""`steerx-edge edit`: what it changes, and what it prints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from models import TinyModel
from steerx_edge.apps.cli import main
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.models import MODEL_VARIABLE
from steerx_edge.llamacpp.vocabulary import Vocabulary, open_vocabulary
from steerx_edge.profile import Description, Edit, Entry, LogitBias, MemoryPart, Profile, Word
from steerx_edge.profile.editing import with_edits
from steerx_edge.steering.barred import spellings
from tests.support.entries import a_memory, an_entry

WORDS = (Word("Rabbit", 3, 1, 4, 5, 4), Word("oh", 2, 1, 3, 5, 4))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_chat: TinyModel) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(MODEL_VARIABLE, str(tiny_chat.path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("EDITOR", "VISUAL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def engine(tiny_chat: TinyModel) -> Iterator[Engine]:
    with closing(Engine(tiny_chat.path, n_ctx=64, n_threads=1).llama) as llama:
        yield Engine(llama)


@pytest.fixture
def entry(engine: Engine, folder: Path) -> Entry:
    """That of me.json."""
    tokens = Vocabulary(engine.llama.model).tokens_of(["Rabbit"])
    entry = an_entry(
        engine.model_id,
        (2,),
        np.eye(1, engine.model_id.n_embd),
        description=Description("You often write 'rabbit'.", "model"),
        words=WORDS,
        logit_bias=LogitBias(np.array(tokens), np.full(len(tokens), 0.5), 1.0),
    )
    Profile((entry,)).save(folder / "me.json")
    return entry


def run(*arguments: str, code: int = 0, given: str = "") -> Result:
    result = CliRunner().invoke(
        main, ["edit", "me.json", *arguments], given, catch_exceptions=False
    )
    assert result.exit_code == code, result.output
    return result


def edited() -> Entry:
    (entry,) = Profile.load("me.json").entries
    return entry


def test_words_are_edited_with_the_tokens_of_all_spellings(
    entry: Entry, tiny_chat: TinyModel
) -> None:
    run("--drop", " rabbit ", "--never", "Kind  Regards", "--pin", "oh")
    with open_vocabulary(tiny_chat.path) as vocabulary:
        rabbit, oh = (vocabulary.tokens_of(spellings(word)) for word in ("rabbit", "oh"))
    edits = Edit("drop", "rabbit", rabbit), Edit("never", "Kind Regards"), Edit("pin", "oh", oh)
    assert edited() == with_edits(entry, edits)
    assert edited().edits[0].learned == WORDS[:1]


@pytest.mark.usefixtures("entry")
def test_it_says_what_each_edit_changes() -> None:
    assert run("--drop", "rabbit").stderr == (
        "Dropped 'rabbit': 1 listed word, 1 biased token, 0 rows of the memory.\n"
        "The description still mentions 'rabbit': change it with --description.\n"
    )
    assert run("--never", "kind regards").stderr == "No answer will contain 'kind regards'.\n"
    assert "You never used" not in run("--pin", "zzz").stderr  # not known without a memory
    assert run("--undo", "RABBIT").stderr == "Undid the edit of 'RABBIT'.\n"
    assert run("--list", "--drop", "oh").stdout.splitlines()[1:] == [
        "  description by model",
        "  never kind regards",
        "  pin   zzz",
        "  drop  oh",
    ]


def test_a_word_that_was_never_used_may_be_misspelled(entry: Entry, folder: Path) -> None:
    memory = MemoryPart.of(a_memory(n_embd=entry.model.n_embd), strength=0.3, level="shared")
    Profile((replace(entry, memory=memory),)).save(folder / "me.json")
    assert "You never used 'zzz'" in run("--pin", "zzz").stderr


def test_undoing_all_edits_gives_back_the_profile(entry: Entry, folder: Path) -> None:
    before = (folder / "me.json").read_bytes()
    run("--drop", "rabbit", "--never", "oh")
    assert edited().words == ()
    run("--undo", "rabbit", "--undo", "oh")
    assert (folder / "me.json").read_bytes() == before
    assert edited() == entry


@pytest.mark.parametrize(
    ("arguments", "given", "description"),
    [
        (["I am brief."], "", Description("I am brief.", "user")),
        (["-"], "I am\nbrief.\n", Description("I am\nbrief.", "user")),
        ([" "], "", Description("You often write 'rabbit'.", "statistics")),
    ],
)
@pytest.mark.usefixtures("entry")
def test_the_description(arguments: list[str], given: str, description: Description) -> None:
    run("--description", *arguments, given=given)
    assert edited().description == description


@pytest.mark.usefixtures("entry")
def test_the_editor_shows_the_words_and_what_is_written_there_is_done(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("--pin", "oh")
    script = folder / "ed.py"
    script.write_text(
        "import sys, pathlib\n"
        "sheet = pathlib.Path(sys.argv[1])\n"
        "text = sheet.read_text()\n"
        "pathlib.Path('seen').write_text(text)\n"
        "text = text.replace('keep   Rabbit', 'drop Rabbit\\nnever good bye')\n"
        "text = text.replace('pin    oh', 'keep oh').replace('You often', 'You never')\n"
        "sheet.write_text(text)\n"
    )
    monkeypatch.setenv("EDITOR", f"python3 {script}")
    run()
    assert "keep   Rabbit\npin    oh\n" in (folder / "seen").read_text()
    actions = [(edit.action, edit.word) for edit in edited().edits]
    assert actions == [("drop", "Rabbit"), ("never", "good bye")]
    assert edited().description == Description("You never write 'rabbit'.", "user")
    monkeypatch.setenv("EDITOR", "true")
    assert run().stderr == "Nothing was changed.\n"
    monkeypatch.setenv("EDITOR", "sed -i s/^keep/kepe/")
    assert "'kepe   oh' is not a line such as 'drop cheers'" in run(code=1).stderr


@pytest.mark.parametrize("program", ["/no/such/editor", "false"])
@pytest.mark.usefixtures("entry")
def test_an_editor_that_fails_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    before = (folder / "me.json").read_bytes()
    monkeypatch.setenv("EDITOR", program)
    assert run(code=1).stderr == (
        f"Error: The editor '{program}' failed, so nothing was changed. Set VISUAL or EDITOR to "
        "another one, such as nano.\n"
    )
    assert (folder / "me.json").read_bytes() == before


@pytest.mark.usefixtures("entry")
def test_the_editor_keeps_a_description_with_number_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    run("--description", "I use hashtags:\n#sea #sun")
    monkeypatch.setenv("EDITOR", "sed -i 's/^keep   oh/drop oh/'")
    run()
    assert edited().description.text == "I use hashtags:\n#sea #sun"
    assert [edit.word for edit in edited().edits] == ["oh"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--drop", " "], 1, "The word for 'drop' is empty."),
        (["--never", "Oh", "--pin", "oh"], 2, "'oh' has two of --drop, --never and --pin."),
        (["--description", "-"], 2, "Standard input is empty."),
        (["--pin", "a b"], 1, "'a b' is several words."),
        (["--never", "a\x07b"], 1, "cannot be edited"),
        (["--drop", "x" * 101], 1, "at most 100 characters"),
        (["--undo", "x"], 1, "There is no edit of 'x' to undo. No word was edited."),
        (["--user", "x"], 2, "need --text."),
        ([], 2, "Without a terminal, say what to edit"),
        (["--drop", "x", "-m", "no-such-model"], 1, "no model of that name"),
        (["--description", "a\x07b"], 1, "without control characters"),
    ],
)
@pytest.mark.usefixtures("entry")
def test_what_is_wrong_is_said_and_nothing_is_changed(
    folder: Path, arguments: list[str], code: int, message: str
) -> None:
    before = (folder / "me.json").read_bytes()
    assert message in run(*arguments, code=code).stderr
    assert (folder / "me.json").read_bytes() == before


def test_without_its_model_words_cannot_be_looked_up(entry: Entry, tiny_f32: TinyModel) -> None:
    sentence = f"The file of {entry.model} was not found. Name it with -m."
    assert sentence in run("--drop", "oh", "-m", str(tiny_f32.path), code=1).stderr


def test_the_models_of_all_entries_are_used(
    entry: Entry, folder: Path, tiny_chat: TinyModel, tiny_f32: TinyModel
) -> None:
    with closing(Engine(tiny_f32.path, n_ctx=64, n_threads=1).llama) as llama:
        other = replace(entry, model=Engine(llama).model_id)
    Profile((entry, other)).save(folder / "me.json")
    run("--never", "oh", "-m", str(tiny_f32.path), "-m", str(tiny_chat.path))
    assert [len(each.edits) for each in Profile.load("me.json").entries] == [1, 1]


@pytest.mark.usefixtures("entry")
def test_a_text_is_forgotten_as_by_forget(folder: Path) -> None:
    (folder / "text.txt").write_text("Oh dear.\n")
    result = run("--drop", "oh", "--text", "text.txt", code=1)
    assert "Dropped 'oh'" in result.stderr
    assert "me.json has no memory to remove texts from." in result.stderr
