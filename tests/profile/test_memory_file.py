"""The memory file: what is written is what is read, and what is damaged is refused."""

from __future__ import annotations

import hashlib
import os
import resource
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter

from steerx_edge.errors import ProfileError
from steerx_edge.profile.memory_file import ARCHITECTURE, read_memory, write_memory
from steerx_edge.steering.ledger import Ledger
from steerx_edge.steering.memory import Memory
from tests.support.entries import a_ledger, a_memory

FINGERPRINT = "sha256:" + "a" * 64
N, N_EMBD, D = 6, 8, 5


EMPTY_LEDGER = {
    "words": (),
    "counts": np.empty(0, np.int32),
    "occurs": np.empty(0, np.int32),
    "effects": np.empty(0, np.float32),
    "several": np.empty(0, np.uint32),
    "usual": (),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "me.memory.gguf"


def write(path: Path, memory: Memory | None = None) -> str:
    return write_memory(path, memory or a_memory(), fingerprint=FINGERPRINT, level="shared")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def said_of(path: Path) -> str:
    """What is said of a file whose SHA-256 is right."""
    with pytest.raises(ProfileError) as caught:
        read_memory(path, digest(path))
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert said.isprintable()
    return said.removeprefix(f"{path}: ")


# ---------------------------------------------------------------- round trip


def test_what_is_read_is_what_was_written_in_the_order_of_the_tokens(path: Path) -> None:
    memory = a_memory()
    assert read_memory(path, write(path, memory)).equals(memory.sorted())


def test_reading_gives_the_same_offers_to_the_last_bit(path: Path) -> None:
    memory = a_memory().sorted()
    read = read_memory(path, write(path, memory))
    rows = np.random.default_rng(1).standard_normal((7, N_EMBD))
    offers = read.offers(rows).of_text(range(7)), memory.offers(rows).of_text(range(7))
    for offered, expected in zip(*offers, strict=True):
        assert offered.tobytes() == expected.tobytes()


def test_the_fit_of_a_key_space_is_what_a_file_holds() -> None:
    basis = a_memory().space.basis
    assert basis.dtype == np.float32
    np.testing.assert_array_equal(basis, basis.astype(np.float16))


def test_the_order_of_the_texts_does_not_lie_in_the_file(path: Path) -> None:
    memory = a_memory()
    memory.keys[:2], memory.tokens[:2] = memory.keys[2:4], memory.tokens[2:4]  # ties
    order = [3, 5, 1, 4, 0, 2]
    shuffled = replace(
        memory,
        keys=memory.keys[order],
        tokens=memory.tokens[order],
        weights=memory.weights[order],
    )
    assert write(path, memory) == write(path.with_name("other.gguf"), shuffled)


@pytest.mark.parametrize("changes", [{}, EMPTY_LEDGER])
def test_what_further_texts_are_added_to_is_kept(path: Path, changes: dict[str, Any]) -> None:
    memory = replace(a_memory(), ledger=replace(a_ledger(), **changes))
    read = read_memory(path, write(path, memory))
    assert read.equals(memory.sorted())
    assert not read.equals(a_memory().sorted())
    assert not read.equals(replace(read, ledger=replace(a_ledger(), texts=np.arange(3))))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"texts": np.arange(3, dtype=np.int32)}, "texts is not a list of int64"),
        ({"used": np.ones((1, 3), np.float32)}, "used is not a list of float32"),
        ({"counts": np.ones(2, np.int32)}, "counts has 2 values, not 3"),
        ({"expected": np.ones(2, np.float32)}, "expected has 2 values, not 3"),
        ({"effects": np.ones(4, np.float32)}, "effects and occurrences differ in number"),
        ({"occurs": np.array([0, 2, 3], np.int32)}, "a word occurs in more texts than it can"),
        ({"texts": np.array([1, 5])}, "a word occurs in more texts than it can"),
        ({"counts": np.array([1, 2, 2], np.int32)}, "a word occurs in more texts than it can"),
        ({"words": ("b", "a", "c")}, "words do not increase"),
        ({"words": ("a", "b", "b")}, "words do not increase"),
        ({"words": ("a", "b\x1b[2J", "c")}, "a word cannot be printed"),
        ({"words": ("", "a", "b")}, "a word cannot be printed"),
        ({"usual": ("to", "a")}, "words do not increase"),
        ({"texts": np.array([5, 5, 6])}, "texts does not strictly increase"),
        ({"several": np.array([7, 7], np.uint32)}, "several does not strictly increase"),
        ({"used": np.array([1, -1, 0], np.float32)}, "used holds a value"),
        ({"expected": np.array([1, np.nan, 0], np.float32)}, "expected holds a value"),
        ({"effects": np.array([1, 1, 1, 1, np.inf], np.float32)}, "effects holds a value"),
    ],
)
def test_a_ledger_that_does_not_fit_together_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ProfileError, match=f"^damaged memory: {said}"):
        replace(a_ledger(), **changes)


def test_a_damaged_ledger_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, sound = replace(a_memory(), ledger=a_ledger()), a_ledger().tensors()
    for changes, said in (
        ({"words": np.array([-1, 10, 65, 10, 66], np.int8)}, "words are not UTF-8"),
        ({"usual": np.array([-1], np.int8)}, "words are not UTF-8"),
        ({"more": np.ones(3, np.float32)}, "unexpected or missing tensors"),
        ({"several": np.ones(3, np.int64)}, "unexpected or missing tensors"),
        ({"used": np.ones(2, np.float32)}, "expected has 3 values, not 2"),
    ):
        tensors = sound | changes
        monkeypatch.setattr(Ledger, "tensors", lambda _, tensors=tensors: tensors)
        write(path, memory)
        assert said_of(path) == f"damaged memory: {said}"


def test_rows_are_sorted_by_token(path: Path) -> None:
    assert (np.diff(read_memory(path, write(path)).tokens) >= 0).all()


def test_the_digest_is_that_of_the_file(path: Path) -> None:
    assert write(path) == digest(path)


def test_a_memory_of_one_row_is_kept(path: Path) -> None:
    memory = a_memory(1).sorted()
    assert read_memory(path, write(path, memory)).equals(memory)


def test_rows_are_mapped_and_cannot_be_changed(path: Path) -> None:
    read = read_memory(path, write(path))
    for array in (read.keys, read.tokens, read.weights, read.space.mean):
        assert not array.flags.owndata
        assert not array.flags.writeable


def test_a_memory_outlives_its_file_and_may_replace_it(path: Path) -> None:
    read = read_memory(path, write(path))
    write(path, read)
    path.unlink()
    assert read.equals(a_memory().sorted())


def test_it_is_a_gguf_file_that_says_what_it_is(path: Path) -> None:
    write(path)
    reader = GGUFReader(path)
    keys = {name: field.contents() for name, field in reader.fields.items()}
    assert {name: value for name, value in keys.items() if not name.startswith("GGUF.")} == {
        "general.architecture": "steerx-memory",
        "steerx-memory.schema": 1,
        "steerx-memory.level": "shared",
        "steerx-memory.model": FINGERPRINT,
        "steerx-memory.count": N,
        "steerx-memory.end": 2,
    }
    assert {
        tensor.name: (tensor.tensor_type.name, tensor.data.shape) for tensor in reader.tensors
    } == {
        "mean": ("F32", (N_EMBD,)),
        "basis": ("F16", (N_EMBD, D)),
        "keys": ("I8", (N, D)),
        "tokens": ("I32", (N,)),
        "weights": ("F32", (N,)),
        "single": ("I32", (7,)),
    }


# ---------------------------------------------------------------- writing


def test_a_failure_leaves_the_old_file_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = write(path)

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(GGUFWriter, "write_tensors_to_file", fail)
    with pytest.raises(ProfileError, match=r"\.gguf: cannot be written: No space left on device"):
        write(path, a_memory(seed=1))
    assert read_memory(path, sha256).equals(a_memory().sorted())
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("n_missing", [1, 100, 20_000])
def test_a_full_disk_is_noticed_to_the_last_byte(path: Path, n_missing: int) -> None:
    memory = replace(a_memory(), single=np.arange(8000, dtype=np.uint32))  # no padding follows
    write(path, memory)
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) - n_missing, limits[1]))
    try:
        with pytest.raises(ProfileError, match="cannot be written: the disk may be full"):
            write(path, memory)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before


def test_a_basis_that_would_be_rounded_is_refused(path: Path) -> None:
    memory = a_memory()
    space = memory.space._replace(basis=memory.space.basis + np.float32(1e-6))
    with pytest.raises(ProfileError, match="values that are not float16"):
        write(path, replace(memory, space=space))
    assert not path.exists()


DAMAGED: list[tuple[Callable[[Memory], Memory], str]] = [
    (lambda m: replace(m, keys=m.keys[1:]), "keys has shape (5, 5), not (6, 5)"),
    (lambda m: replace(m, keys=m.keys[:, 1:]), "basis has shape (8, 5), not (8, 4)"),
    (lambda m: replace(m, keys=m.keys[:0], tokens=m.tokens[:0], weights=m.weights[:0]), "shape"),
    (lambda m: replace(m, keys=m.keys.astype(np.int16)), "keys is int16, not int8"),
    (lambda m: replace(m, tokens=-m.tokens), "tokens holds a number below 0"),
    (lambda m: replace(m, weights=m.weights[1:]), "weights has shape (5,), not (6,)"),
    (lambda m: replace(m, weights=m.weights - 1), "weights holds a value that is not from 0 to 1"),
    (lambda m: replace(m, weights=m.weights + 1), "weights holds a value that is not from 0 to 1"),
    (lambda m: replace(m, weights=m.weights * np.float32("nan")), "weights holds a value that"),
    (lambda m: replace(m, single=m.single[::-1]), "single does not strictly increase"),
    (lambda m: in_space(m, mean=m.space.mean + 1), "mean is longer than the mean of unit"),
    (lambda m: in_space(m, mean=m.space.mean / np.float32(0)), "mean holds a value that is not f"),
    (lambda m: in_space(m, basis=m.space.basis * np.float32("inf")), "basis holds a value that is"),
]


def in_space(memory: Memory, **changes: Any) -> Memory:
    return replace(memory, space=memory.space._replace(**changes))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("change", "message"), DAMAGED, ids=[each[1] for each in DAMAGED])
def test_a_damaged_memory_is_not_written(
    path: Path, change: Callable[[Memory], Memory], message: str
) -> None:
    with pytest.raises(ProfileError) as caught:
        write(path, change(a_memory()))
    assert message in str(caught.value)
    assert not path.exists()


# ---------------------------------------------------------------- damaged and foreign files


def forge(path: Path, keys: dict[str, Any], tensors: dict[str, Any], arch: str) -> None:
    writer = GGUFWriter(path, arch)
    for name, value in keys.items():
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, list):
            writer.add_array(name, value)
        else:
            writer.add_uint32(name, value)
    for name, array in tensors.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def forged(path: Path, *, arch: str = ARCHITECTURE, **changes: Any) -> str:
    """What is said of a file that is whole, but for what is changed; None leaves a thing out."""
    memory = a_memory()
    keys = {"schema": 1, "level": "shared", "model": FINGERPRINT, "count": N, "end": 2}
    tensors = {
        "mean": memory.space.mean,
        "basis": memory.space.basis.astype(np.float16),
        "keys": memory.keys,
        "tokens": memory.tokens,
        "weights": memory.weights,
        "single": memory.single.view(np.int32),
    }
    for name, value in changes.items():
        chosen: dict[str, Any] = tensors if name in tensors or name == "extra" else keys
        chosen[name] = value
    forge(
        path,
        {f"steerx-memory.{key}": value for key, value in keys.items() if value is not None},
        {name: array for name, array in tensors.items() if array is not None},
        arch,
    )
    return said_of(path)


FORGERIES: list[tuple[dict[str, Any], str]] = [
    ({"arch": "llama"}, "not a memory file of steerx-edge"),
    ({"schema": 2}, "a memory file of schema 2; this one reads schema 1"),
    ({"schema": None}, "a memory file of schema None; this one reads schema 1"),
    ({"level": "most"}, "damaged memory: its level is unknown"),
    ({"count": N - 1}, "damaged memory: its count is not the number of rows"),
    ({"end": None}, "damaged memory: the token that ends a text is missing"),
    ({"count": [N, N]}, "not a memory file of steerx-edge"),
    ({"mean": None}, "damaged memory: unexpected or missing tensors"),
    ({"extra": np.ones(3, np.float32)}, "damaged memory: unexpected or missing tensors"),
    ({"basis": np.ones((N_EMBD, D), np.float32)}, "unexpected or missing tensors"),
    ({"basis": np.ones((N_EMBD, D + 1), np.float16)}, "basis has shape (8, 6), not (8, 5)"),
    ({"keys": np.ones(N * D, np.int8)}, "has shape"),
    ({"tokens": np.ones((N, 1), np.int32)}, "tokens has shape (6, 1), not (6,)"),
    ({"weights": np.full(N, 1.1, np.float32)}, "weights holds a value that is not from 0 to 1"),
]


@pytest.mark.parametrize(("changes", "message"), FORGERIES, ids=[str(f[0])[:40] for f in FORGERIES])
def test_a_forged_file_is_refused(path: Path, changes: dict[str, Any], message: str) -> None:
    assert message in forged(path, **changes)


def test_another_file_is_refused(path: Path) -> None:
    sha256 = write(path)
    write(path, a_memory(seed=1))
    with pytest.raises(ProfileError, match=r"\.gguf: not the file saved with"):
        read_memory(path, sha256)


def test_the_memory_of_another_model_is_refused(path: Path) -> None:
    sha256 = write(path)
    assert read_memory(path, sha256, fingerprint=FINGERPRINT)
    with pytest.raises(ProfileError, match=r"\.gguf: the memory of another model$"):
        read_memory(path, sha256, fingerprint="sha256:" + "b" * 64)


@pytest.mark.parametrize("data", [b"", b"GGUF", b"GGUF" + bytes(20), bytes(1000)])
def test_what_is_no_gguf_file_is_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    assert said_of(path) == "not a memory file of steerx-edge"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("place", "claimed"),
    [("tensors", 2**62), ("keys", 2**32), ("string", 2**62), ("array", 2**32), ("array", 10**6)],
)
def test_lengths_beyond_the_end_are_refused_at_once(path: Path, place: str, claimed: int) -> None:
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, 1)
    data = {
        "tensors": b"GGUF" + struct.pack("<IQQ", 3, claimed, 0),
        "keys": b"GGUF" + struct.pack("<IQQ", 3, 0, claimed),
        "string": header + struct.pack("<Q", claimed) + b"key",
        "array": header + struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 0, claimed),
    }[place]
    path.write_bytes(data)
    assert said_of(path) == "not a memory file of steerx-edge"


def test_no_truncation_is_read(path: Path) -> None:
    write(path)
    data = path.read_bytes()
    for length in range(0, len(data) - 32, 29):  # the file ends with up to 31 bytes of nothing
        path.write_bytes(data[:length])
        said_of(path)


@pytest.mark.slow
def test_accidents_are_noticed_or_harmless(path: Path) -> None:
    write(path)
    valid = path.read_bytes()
    rng = np.random.default_rng(3)
    refusals = []
    for _ in range(500):
        data = bytearray(valid)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            read_memory(path, digest(path)).offers(np.ones((1, N_EMBD)))
        except ProfileError as error:
            refusals.append(str(error))
    assert all(said.isprintable() for said in refusals)
    assert 100 < len(refusals) < 500


def test_what_is_no_file_is_refused(path: Path) -> None:
    with pytest.raises(ProfileError, match=r"\.gguf: cannot be read: No such file or directory$"):
        read_memory(path, "0" * 64)
    os.mkfifo(path)  # opening it would wait for ever
    with pytest.raises(ProfileError, match=r"\.gguf: cannot be read: not a file$"):
        read_memory(path, "0" * 64)


def test_a_huge_file_is_refused_unread(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(ProfileError, match=r"1048576\.0 MiB; a memory is at most 1024 MiB$"):
        read_memory(path, "0" * 64)
