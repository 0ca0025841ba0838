"""Memory file: a GGUF file beside the profile, `me.memory.gguf`.

It holds what `steering.memory.Memory` needs, and no text: see `docs/profile.md`. Rows are sorted
by token, so that the order of the texts cannot be read from it. It is memory-mapped, and everything
in it is checked before it is used.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steerx_edge.errors import ProfileError
from steerx_edge.profile.files import about, check_file, replacing
from steerx_edge.profile.gguf_contents import Contents, begins_as, contents_of, writing_gguf
from steerx_edge.steering.ledger import Ledger
from steerx_edge.steering.memory import LEVELS, KeySpace, Level, Memory

ARCHITECTURE = "steerx-memory"
SCHEMA = 1
MAX_BYTES = 2**30

_SIZE_RULE = f"a memory is at most {MAX_BYTES // 2**20} MiB"
_LONGEST_MEAN = 1.001  # by rounding
_LEDGER = "read."
_FOREIGN = "not a memory file of steerx-edge"
_DTYPES = {
    "mean": np.dtype(np.float32),
    "basis": np.dtype(np.float16),
    "keys": np.dtype(np.int8),
    "tokens": np.dtype(np.int32),
    "weights": np.dtype(np.float32),
    "single": np.dtype(np.int32),
}


def write_memory(
    path: str | os.PathLike[str], memory: Memory, *, fingerprint: str, level: Level
) -> str:
    """Write a memory file, all of it or nothing.

    Args:
        path: the file to write; new files are private (mode 0600).
        memory: its rows are written in the order of `Memory.sorted`.
        fingerprint: of the model whose rows the keys are.
        level: which tokens it holds.

    Returns:
        The file's SHA-256, 64 hexadecimal digits. The same memory gives the same file.

    Raises:
        ProfileError: the file cannot be written, or the memory could not be read back.
    """
    with about(path, "written"), replacing(Path(os.path.realpath(path))) as (temporary,):
        return write_gguf(temporary, memory, fingerprint=fingerprint, level=level)


def write_gguf(path: Path, memory: Memory, *, fingerprint: str, level: Level) -> str:
    """Write a memory file to a path of which nothing is to be kept; see `write_memory`."""
    check_memory(memory)
    tensors = _tensors_of(memory.sorted())
    tensors["basis"] = tensors["basis"].astype(np.float16)
    if (tensors["basis"] != memory.space.basis).any():
        raise ProfileError("the memory's basis holds values that are not float16: fit it again")
    with writing_gguf(path, ARCHITECTURE) as writer:
        writer.add_uint32(_key("schema"), SCHEMA)
        writer.add_string(_key("level"), level)
        writer.add_string(_key("model"), fingerprint)
        writer.add_uint32(_key("count"), len(memory.tokens))
        writer.add_uint32(_key("end"), memory.end)
        if memory.ledger is not None:
            tensors |= {_read(name): array for name, array in memory.ledger.tensors().items()}
        for name, array in tensors.items():
            if not array.size:
                continue  # GGUF has no empty tensors
            writer.add_tensor(name, np.ascontiguousarray(array))
    with path.open("rb") as file:
        return _digest(np.memmap(file, mode="r"))


def read_memory(
    path: str | os.PathLike[str], sha256: str, *, fingerprint: str | None = None
) -> Memory:
    """Read a memory file and check everything in it; safe for files from strangers.

    Args:
        path: the file to read. It stays mapped as long as the memory is in use.
        sha256: what `write_memory` returned.
        fingerprint: of the model that it must be for; None takes any.

    Returns:
        The memory. Its arrays but the basis are read-only views of the file.

    Raises:
        ProfileError: the file cannot be read, is another one, or is damaged.
    """
    with about(path, "read"):
        check_file(Path(path), MAX_BYTES, _SIZE_RULE)
        with Path(path).open("rb") as file:
            contents = contents_of(
                file, _FOREIGN
            )  # of one open file: what is read is what is hashed
        if _digest(contents.data) != sha256:
            raise ProfileError("not the file saved with the profile")
        return _memory_of(contents, fingerprint)


def is_memory_file(path: Path) -> bool:
    """Whether a file begins as `write_memory` begins one, be the rest damaged or not."""
    return begins_as(path, ARCHITECTURE)


def check_memory(memory: Memory) -> None:
    """Refuse a memory that is damaged.

    Raises:
        ProfileError: says what is wrong.
    """
    tensors = _tensors_of(memory)
    n_rows, n_embd = memory.tokens.size, memory.space.mean.size
    n_dimensions = memory.keys.shape[-1] if memory.keys.ndim else 0
    shapes = {
        "mean": (n_embd,),
        "basis": (n_embd, n_dimensions),
        "keys": (n_rows, n_dimensions),
        "tokens": (n_rows,),
        "weights": (n_rows,),
        "single": (len(memory.single),),
    }
    for name, array in tensors.items():
        dtype = np.dtype(np.float32) if name == "basis" else _DTYPES[name]
        if array.dtype != dtype:
            raise ProfileError(f"damaged memory: {name} is {array.dtype}, not {dtype}")
        if array.shape != shapes[name] or not (array.size or name == "single"):
            raise ProfileError(
                f"damaged memory: {name} has shape {array.shape}, not {shapes[name]}"
            )
    for name in ("mean", "basis"):
        if not np.isfinite(tensors[name]).all():
            raise ProfileError(f"damaged memory: {name} holds a value that is not finite")
    if np.linalg.norm(memory.space.mean.astype(np.float64)) > _LONGEST_MEAN:
        raise ProfileError("damaged memory: mean is longer than the mean of unit vectors can be")
    if (memory.single[1:] <= memory.single[:-1]).any():
        raise ProfileError("damaged memory: single does not strictly increase")
    if memory.tokens.min() < 0:
        raise ProfileError("damaged memory: tokens holds a number below 0")
    if not (memory.weights.min() >= 0 and memory.weights.max() <= 1):  # nan is neither
        raise ProfileError("damaged memory: weights holds a value that is not from 0 to 1")


def _tensors_of(memory: Memory) -> dict[str, NDArray[Any]]:
    return {
        "mean": memory.space.mean,
        "basis": memory.space.basis,
        "keys": memory.keys,
        "tokens": memory.tokens,
        "weights": memory.weights,
        "single": memory.single.view(np.int32),  # GGUF knows no unsigned numbers
    }


def _digest(data: NDArray[np.uint8]) -> str:
    return hashlib.sha256(data.data).hexdigest()


def _key(name: str) -> str:
    return f"{ARCHITECTURE}.{name}"


def _read(name: str) -> str:
    """The name of a tensor of the ledger."""
    return f"{_LEDGER}{name}"


def _memory_of(contents: Contents, fingerprint: str | None) -> Memory:
    keys, tensors = contents.keys, contents.tensors
    if keys.get("general.architecture") != ARCHITECTURE:
        raise ProfileError(_FOREIGN)
    if (schema := keys.get(_key("schema"))) != SCHEMA:
        raise ProfileError(f"a memory file of schema {schema!r}; this one reads schema {SCHEMA}")
    if fingerprint is not None and keys.get(_key("model")) != fingerprint:
        raise ProfileError("the memory of another model")
    if keys.get(_key("level")) not in LEVELS:
        raise ProfileError("damaged memory: its level is unknown")
    tensors = {"single": np.empty(0, np.int32)} | dict(tensors)
    ledger = {
        name.removeprefix(_LEDGER): tensors.pop(name)
        for name in list(tensors)
        if name.startswith(_LEDGER)
    }
    end = keys.get(_key("end"))
    if not isinstance(end, int):
        raise ProfileError("damaged memory: the token that ends a text is missing")
    if {name: array.dtype for name, array in tensors.items()} != _DTYPES:
        raise ProfileError("damaged memory: unexpected or missing tensors")
    memory = Memory(
        KeySpace(tensors["mean"], tensors["basis"].astype(np.float32)),
        tensors["keys"],
        tensors["tokens"],
        tensors["weights"],
        tensors["single"].view(np.uint32),
        end,
        Ledger.of_tensors(ledger) if ledger else None,
    )
    check_memory(memory)
    if keys.get(_key("count")) != len(memory.tokens):
        raise ProfileError("damaged memory: its count is not the number of rows")
    return memory
