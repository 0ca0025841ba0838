"""The commands `export`, `import` and `combine`, and a control vector in the place of a profile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from models import TinyModel
from steerx_edge.apps.cli import main
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.models import MODEL_VARIABLE
from steerx_edge.profile import Profile
from tests.support.control_vector_files import (
    by_cvector_generator,
    by_jukofyork,
    by_repeng,
    some_vectors,
)
from tests.support.entries import a_full_entry, a_model, an_entry


def run(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(autouse=True)
def _model(tiny_chat: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODEL_VARIABLE, str(tiny_chat.path))
    monkeypatch.setenv("LLAMA_ARG_THREADS", "1")


@pytest.fixture
def me(tmp_path: Path, tiny_chat_engine: Engine) -> Path:
    """A profile for the model."""
    model = tiny_chat_engine.model_id
    directions = np.stack(list(some_vectors((1, 2), model.n_embd).values()))
    norms = np.full(2, 20, np.float32)
    Profile((an_entry(model, (1, 2), directions, norms=norms),)).save(tmp_path / "me.json")
    return tmp_path / "me.json"


@pytest.fixture
def width(tiny_chat_engine: Engine) -> int:
    return tiny_chat_engine.model_id.n_embd


def test_export_names_what_it_leaves_out(tmp_path: Path) -> None:
    Profile((a_full_entry(),)).save(tmp_path / "me.json")
    said = run("export", tmp_path / "me.json", tmp_path / "me.gguf")
    assert said.stdout == ""
    for part in ("the logit bias (4 tokens)", "the memory (6 rows)", "the request gate", "2 words"):
        assert part in said.stderr
    assert "adds a control vector to every token of the prompt too" in said.stderr


def test_export_replaces_no_file(me: Path) -> None:
    before = me.read_bytes()
    assert f"'{me}' exists" in run("export", me, me, code=2).stderr
    assert me.read_bytes() == before


def test_export_takes_the_entry_that_is_named(me: Path, tmp_path: Path) -> None:
    profile = Profile.load(me).with_entry(a_full_entry())
    profile.save(me)
    several = run("export", me, tmp_path / "v.gguf", code=1)
    assert "Choose one of the profile's models with -m or --model-id" in several.stderr
    for name in ("Tiny Llama", "sha256:aaaa", "aaaaaa"):
        said = run("export", me, tmp_path / f"{name}.gguf", "--model-id", name)
        assert str(a_model()) in said.stderr
    unknown = run("export", me, tmp_path / "v.gguf", "--model-id", "Qwen", code=1)
    assert "no entry for that model" in unknown.stderr


def test_export_takes_the_entry_of_a_model_file(
    me: Path, tmp_path: Path, tiny_chat: TinyModel
) -> None:
    Profile.load(me).with_entry(a_full_entry()).save(me)
    assert "tiny-chat" in run("export", me, tmp_path / "v.gguf", "-m", tiny_chat.path).stderr


@pytest.mark.parametrize(
    "words",
    [
        ("export", "v.gguf", "w.gguf"),
        ("show", "v.gguf"),
        ("diff", "v.gguf", "v.gguf"),
        ("edit", "v.gguf", "--drop", "x"),
        ("explain", "--profile", "v.gguf", "-p", "x"),
    ],
)
def test_commands_on_what_was_learned_take_no_control_vector(
    words: tuple[str, ...], tmp_path: Path, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    by_repeng(tmp_path / "v.gguf", some_vectors((1,), width))
    said = run(*words, code=1)
    assert said.stderr == "Error: v.gguf is a control vector. Import it for a model first.\n"


def test_what_is_exported_generates_as_the_profile_does(me: Path, tmp_path: Path) -> None:
    run("export", me, tmp_path / "me.gguf")
    run("import", tmp_path / "me.gguf", "-o", tmp_path / "again.json")
    options = ("-p", "Alice was late", "--temp", "0", "-n", "12")
    answers = {
        run("generate", "--profile", path, *options).stdout
        for path in (me, tmp_path / "me.gguf", tmp_path / "again.json")
    }
    assert len(answers) == 1
    unsteered = run("generate", "--profile", me, *options, "--no-steer").stdout
    assert answers != {unsteered}


def test_import_says_who_wrote_the_file_and_what_that_means(tmp_path: Path, width: int) -> None:
    path = by_cvector_generator(tmp_path / "v.gguf", some_vectors((1, 2, 3), width))
    said = run("import", path, "-o", tmp_path / "v.json").stderr
    assert "was written by llama.cpp's cvector-generator" in said
    assert "one block later" in said
    assert "with 3 directions" in said


def test_import_names_what_the_model_does_not_have(tmp_path: Path, width: int) -> None:
    path = by_jukofyork(tmp_path / "v.gguf", some_vectors((2, 4), width), n_layer=6)
    said = run("import", path, "-o", tmp_path / "v.json").stderr
    assert "Left out direction.4, as llama.cpp does: tiny-chat has blocks 0 to 3." in said
    assert "Its model hint is 'mistral'; this model is 'llama'." in said


def test_import_of_a_vector_of_another_model_file_says_so(tmp_path: Path, width: int) -> None:
    entry = a_full_entry(model=a_model(n_embd=width), gate=None)
    Profile((entry,)).save(tmp_path / "me.json")
    run("export", tmp_path / "me.json", tmp_path / "me.gguf")
    said = run("import", tmp_path / "me.gguf", "-o", tmp_path / "v.json").stderr
    assert "It was exported for another model file" in said


@pytest.mark.parametrize("command", ["import", "combine"])
def test_no_file_is_replaced(command: str, me: Path, tmp_path: Path, width: int) -> None:
    vector = by_repeng(tmp_path / "v.gguf", some_vectors((1,), width))
    words = [vector] if command == "import" else [me, vector, "--weights", "1,1"]
    before = me.read_bytes()
    assert f"'{me}' exists" in run(command, *words, "-o", me, code=2).stderr
    assert me.read_bytes() == before


def test_import_of_another_width_is_one_sentence(tmp_path: Path) -> None:
    path = by_repeng(tmp_path / "v.gguf", some_vectors((1,), 4096))
    said = run("import", path, "-o", tmp_path / "v.json", code=1).stderr
    assert "This control vector has width 4096, but tiny-chat" in said
    assert not (tmp_path / "v.json").exists()


def test_combine_saves_the_sum(me: Path, tmp_path: Path, width: int) -> None:
    vectors = some_vectors((3,), width, 2.0)
    vector = by_repeng(tmp_path / "v.gguf", vectors)
    said = run("combine", me, vector, "--weights", "0.7,-0.3", "-o", tmp_path / "c.json").stderr
    assert f"Saved {tmp_path / 'c.json'} for tiny-chat" in said
    (entry,) = Profile.load(tmp_path / "c.json").entries
    assert entry.layers == (1, 2, 3)
    np.testing.assert_allclose(entry.vectors()[2], -0.3 * vectors[3], rtol=1e-6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--weights", "1"), "--weights has 1 numbers for 2 profiles"),
        (("--weights", "1,x"), "'1,x' is not a list of numbers"),
        (("--weights", "1,inf"), "'1,inf' is not a list of numbers"),
    ],
)
def test_wrong_weights_are_wrong_usage(
    words: tuple[str, ...], said: str, me: Path, tmp_path: Path
) -> None:
    assert said in run("combine", me, me, *words, "-o", tmp_path / "c.json", code=2).stderr


def test_nothing_is_learned_into_a_control_vector(tmp_path: Path, width: int) -> None:
    path = by_repeng(tmp_path / "v.gguf", some_vectors((1,), width))
    (tmp_path / "sent.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    before = path.read_bytes()
    said = run("learn", tmp_path / "sent.jsonl", "-o", path, code=1).stderr
    assert "this is a control vector. Choose another file with -o." in said
    assert path.read_bytes() == before


def test_a_control_vector_chats(tmp_path: Path, width: int) -> None:
    path = by_repeng(tmp_path / "v.gguf", some_vectors((1, 2), width, 20.0))
    result = CliRunner().invoke(
        main, ["chat", "--profile", str(path), "--temp", "0", "-n", "4"], input="Hello\n"
    )
    assert result.exit_code == 0
    assert result.stdout.strip()
