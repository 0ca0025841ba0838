"""Models of other programs: where they lie, what they are called, and which one a name means."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import pytest

from models import TinyModel
from steerx_edge.errors import ModelError
from steerx_edge.llamacpp import model_places, models
from steerx_edge.llamacpp.gguf_header import parts_named, read_header
from steerx_edge.llamacpp.model_places import quantization_in
from steerx_edge.llamacpp.model_search import chosen_model, model_file, named, search
from steerx_edge.llamacpp.models import MODEL_VARIABLE, fingerprint
from tests.support.entries import a_model

ROOTS = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "LLAMA_CACHE", "OLLAMA_MODELS")
MODEL_LAYER = "application/vnd.ollama.image.model"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, and nothing in the environment."""
    for variable in (*ROOTS, "XDG_CACHE_HOME", "XDG_DATA_HOME", MODEL_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for module in (models, model_places):
        monkeypatch.setattr(module, "DEFAULT_PACKAGE", "no_such_package_of_models")
    return tmp_path


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf(architecture: str = "llama", kind: str = "", *, n_bytes: int = 0) -> bytes:
    """The beginning of a GGUF file, filled with zeros."""
    keys = {"general.architecture": architecture} | ({"general.type": kind} if kind else {})
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys) + 2)
    data += string("general.quantization_version") + struct.pack("<II", 4, 2)
    for key, value in keys.items():
        data += string(key) + struct.pack("<I", 8) + string(value)
    data += string("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2**60)
    return data.ljust(n_bytes, b"\0")


def put(path: Path, data: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gguf() if data is None else data)
    return path


def ollama(home: Path, name: str, data: bytes | None = None, layers: object = None) -> Path:
    """A model of Ollama, by the path of its manifest."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    known = [
        {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:ff"},
        {"mediaType": MODEL_LAYER, "digest": f"sha256:{digest}"},
    ]
    manifest = {"schemaVersion": 2, "layers": known if layers is None else layers}
    put(home / "manifests" / name, json.dumps(manifest).encode())
    return put(home / "blobs" / f"sha256-{digest}", data)


HUB = "models--unsloth--Tiny--GGUF/snapshots/abc"


@pytest.mark.parametrize(
    ("path", "name", "place"),
    [
        (f".cache/huggingface/hub/{HUB}/Tiny-Q4_K_M.gguf", "unsloth/Tiny--GGUF:Q4_K_M", "Hug"),
        (f".cache/huggingface/hub/{HUB}/IQ2/Tiny.gguf", "unsloth/Tiny--GGUF/IQ2/Tiny.gguf", "Hug"),
        (".cache/llama.cpp/org_Tiny-GGUF_tiny-q8_0.gguf", "org_Tiny-GGUF_tiny-q8_0", "llama.cpp"),
        (f".cache/llama.cpp/{HUB}/Tiny-F16.gguf", "unsloth/Tiny--GGUF:F16", "llama.cpp"),
        (".lmstudio/models/org/Tiny/tiny.gguf", "org/Tiny/tiny", "LM Studio"),
        (".cache/lm-studio/models/org/Tiny/tiny.gguf", "org/Tiny/tiny", "LM Studio"),
        (".local/share/Jan/data/llamacpp/models/org/Tiny/model.gguf", "org/Tiny", "Jan"),
        ("jan/models/tiny/tiny.gguf", "tiny/tiny", "Jan"),
        (".local/share/nomic.ai/GPT4All/Tiny.Q4_0.gguf", "Tiny.Q4_0", "GPT4All"),
        (".cache/gpt4all/Tiny.Q4_0.gguf", "Tiny.Q4_0", "GPT4All"),
    ],
)
def test_a_file_is_named_as_its_program_names_it(
    home: Path, path: str, name: str, place: str
) -> None:
    file = put(home / path, gguf("qwen2", n_bytes=500))
    (found,) = search().models
    assert found[:4] == (name, file, 500, "qwen2")
    assert found.place.startswith(place)
    assert not found.is_default
    assert chosen_model(name) == (file, found)


@pytest.mark.parametrize(
    ("manifest", "name"),
    [
        ("registry.ollama.ai/library/llama3.2/1b", "llama3.2:1b"),
        ("registry.ollama.ai/ana/mine/latest", "ana/mine:latest"),
        ("hf.co/org/Tiny-GGUF/Q4_K_M", "hf.co/org/Tiny-GGUF:Q4_K_M"),
    ],
)
def test_ollamas_manifests_lead_to_blobs(home: Path, manifest: str, name: str) -> None:
    blob = ollama(home / ".ollama" / "models", manifest)
    (found,) = search().models
    assert (found.name, found.path, found.place) == (name, blob, "Ollama")


@pytest.mark.parametrize(
    ("variable", "path"),
    [
        ("HF_HUB_CACHE", f"{HUB}/a.gguf"),
        ("HF_HOME", f"hub/{HUB}/a.gguf"),
        ("LLAMA_CACHE", "a.gguf"),
        ("LLAMA_CACHE", f"{HUB}/a.gguf"),
        ("XDG_CACHE_HOME", "llama.cpp/a.gguf"),
        ("XDG_DATA_HOME", "nomic.ai/GPT4All/a.gguf"),
    ],
)
def test_programs_can_be_told_other_folders(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, path: str
) -> None:
    monkeypatch.setenv(variable, str(home / "elsewhere"))
    file = put(home / "elsewhere" / path)
    assert [found.path for found in search().models] == [file]


def test_ollama_and_lm_studio_can_be_told_other_folders(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(home / "o"))
    files = [ollama(home / "o", "registry.ollama.ai/library/a/b")]
    (home / ".lmstudio-home-pointer").write_text(f"{home / 'lm'}\n")
    files.append(put(home / "lm/models/a/b/c.gguf"))
    put(home / "lm/settings.json", json.dumps({"downloadsFolder": str(home / "big")}).encode())
    files.append(put(home / "big/d/e/f.gguf"))
    assert {found.path for found in search().models} == set(files)


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (b"not json", "names no model"),
        (b"[]", "names no model"),
        (b'{"layers": [{"mediaType": "x", "digest": "y"}]}', "names no model"),
        (b'{"layers": null}', "names no model"),
        (json.dumps({"layers": [{"mediaType": MODEL_LAYER, "digest": "sha256:0"}]}).encode(), "No"),
    ],
)
def test_a_broken_manifest_is_skipped_and_named(home: Path, data: bytes, note: str) -> None:
    folder = home / ".ollama" / "models"
    put(folder / "manifests/registry.ollama.ai/library/bad/latest", data)
    good = ollama(folder, "registry.ollama.ai/library/good/latest")
    put(folder / "manifests/.DS_Store", b"\0")
    found = search()
    assert [each.path for each in found.models] == [good]
    (told,) = [each for each in found.notes if "ollama" in each.casefold()]
    assert note in told


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a GGUF file"),
        (b"GGUF\3\0", "ends early"),
        (gguf()[:70], "ends early"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**62), "too long"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "names no architecture"),
    ],
)
def test_a_damaged_file_is_skipped_and_named(home: Path, data: bytes, reason: str) -> None:
    path = put(home / ".cache/llama.cpp/a.gguf", data)
    found = search()
    assert found.models == []
    assert any(str(path) in note and reason in note for note in found.notes)


def test_what_is_no_language_model_is_left_out(home: Path) -> None:
    folder = home / ".lmstudio/models/a/b"
    put(folder / "mmproj-F16.gguf")
    put(folder / "vision.gguf", gguf("clip"))
    put(folder / "lora.gguf", gguf("llama", "adapter"))
    put(folder / "me.memory.gguf", gguf("steerx-memory"))
    put(folder / "vector.gguf", gguf("controlvector"))
    put(folder / "readme.md", b"")
    model = put(folder / "model.gguf", gguf("llama", "model"))
    assert [found.path for found in search().models] == [model]
    assert not [note for note in search().notes if "Skipped" in note]


def test_parts_are_one_model(home: Path) -> None:
    folder = home / ".lmstudio/models/a/b"
    parts = [put(folder / name, gguf(n_bytes=300)) for name in parts_named("x-00001-of-00003.gguf")]
    (found,) = search().models
    assert (found.path, found.bytes) == (parts[0], 900)
    parts[1].unlink()
    assert search().models == []
    assert any("the part x-00002-of-00003.gguf is missing" in note for note in search().notes)


def test_a_file_that_two_programs_have_is_listed_once(home: Path) -> None:
    blob = put(home / "blob")
    for path in (f".cache/huggingface/hub/{HUB}/a.gguf", ".lmstudio/models/a/b/c.gguf"):
        (home / path).parent.mkdir(parents=True)
        (home / path).symlink_to(blob)
    assert [found.place for found in search().models] == ["Hugging Face"]


def test_the_default_is_the_one_that_is_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = put(home / "first.gguf"), put(home / ".lmstudio/models/a/b/second.gguf")
    assert not any(found.is_default for found in search().models)
    monkeypatch.setenv(MODEL_VARIABLE, str(first))
    assert [(m.path, m.is_default) for m in search().models] == [(first, True), (second, False)]
    by_name = search("a/b/sec").models
    assert [(m.path, m.is_default) for m in by_name] == [(first, False), (second, True)]
    given = search(str(second)).models
    assert [(m.place, m.is_default) for m in given] == [("-m", True), (MODEL_VARIABLE, False)]


def test_a_name_may_be_a_unique_beginning(home: Path) -> None:
    folder = home / ".ollama" / "models"
    for name in ("llama3/1b", "llama3/1b-instruct", "qwen/latest"):
        ollama(folder, f"registry.ollama.ai/library/{name}")
    assert named("QW").name == "qwen:latest"
    assert named("llama3:1b").name == "llama3:1b"  # exact, though another one begins so
    with pytest.raises(ModelError, match=r"several names: llama3:1b \(.*llama3:1b-instruct \("):
        named("llama")
    with pytest.raises(ModelError, match="no file 'gemma', and no model of that name"):
        chosen_model("gemma")
    with pytest.raises(ModelError, match=r"'no/x\.gguf' \(from -m\) cannot be read: No such"):
        chosen_model("no/x.gguf")


def test_a_file_comes_before_a_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(home / ".lmstudio/models/a/b/c.gguf")
    monkeypatch.chdir(home)
    file = put(home / "a")
    assert chosen_model("a") == (Path(file.name), None)


def test_the_model_of_a_profile_is_found_by_its_fingerprint(
    home: Path, tiny_f32: TinyModel, tiny_q8: TinyModel
) -> None:
    folder = home / ".lmstudio/models/a/b"
    for model in (tiny_f32, tiny_q8):
        put(folder / model.path.name, model.path.read_bytes())
    wanted = a_model(fingerprint=fingerprint(tiny_q8.path))
    assert model_file(wanted) == folder / tiny_q8.path.name
    assert model_file(wanted, [str(tiny_f32.path), str(tiny_q8.path)]) == tiny_q8.path
    with pytest.raises(ModelError, match=r"The file of Tiny Llama .* was not found"):
        model_file(wanted, [str(tiny_f32.path)])


def test_the_header_of_a_real_model_is_read(smollm2_path: Path) -> None:
    header = read_header(smollm2_path)
    assert (header.architecture, header.is_model) == ("llama", True)


@pytest.mark.parametrize(
    ("name", "quantization"),
    [
        ("Tiny-Q4_K_M.gguf", "Q4_K_M"),
        ("tiny.q8_0.gguf", "Q8_0"),
        ("a-UD-IQ2_XXS.gguf", "IQ2_XXS"),
        ("a-BF16-00001-of-00002.gguf", "BF16"),
        ("dir-Q8_0/a-f32.gguf", "F32"),
        ("llama-3.2-1b.gguf", ""),
        ("Q4.gguf", ""),
    ],
)
def test_the_quantization_in_a_name(name: str, quantization: str) -> None:
    assert quantization_in(name) == quantization
