"""The first keys of a GGUF file: what it holds, without loading it."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from steerx_edge.errors import ModelError

_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING = 8
_MOST_KEYS = 200
_LONGEST = 1 << 16  # bytes of a string
_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


class Header(NamedTuple):
    """What a GGUF file says of itself.

    Args:
        architecture: llama.cpp's name of it, such as `llama`.
        name: the model's name; may be empty.
        kind: `general.type`, such as `model`, `adapter` or `mmproj`.
    """

    architecture: str
    name: str
    kind: str

    @property
    def is_model(self) -> bool:
        """Whether it is a language model, and not a projector, an adapter, or a file of ours."""
        other = self.architecture in ("clip", "controlvector", "imatrix")
        return self.kind == "model" and not other and not self.architecture.startswith("steerx-")


def read_header(path: Path) -> Header:
    """Read the keys that come before the vocabulary; takes no longer for a large file.

    Raises:
        ModelError: it cannot be read, or is no GGUF file: says why, without the path.
    """
    keys: dict[str, str] = {}
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError("not a GGUF file")
            _version, _n_tensors, n_keys = struct.unpack("<IQQ", _exactly(file, 20))
            for _ in range(min(n_keys, _MOST_KEYS)):
                key = _string(file)
                (kind,) = struct.unpack("<I", _exactly(file, 4))
                if key.startswith("tokenizer.") or not (kind == _STRING or kind in _SCALARS):
                    break  # arrays, such as the vocabulary
                if kind == _STRING:
                    keys[key] = _string(file)
                else:
                    _exactly(file, struct.calcsize(_SCALARS[kind]))
    except OSError as error:
        raise ModelError(error.strerror or "cannot be read") from error
    architecture = keys.get("general.architecture")
    if not architecture:
        raise ModelError("a damaged GGUF file: it names no architecture")
    return Header(architecture, keys.get("general.name", ""), keys.get("general.type", "model"))


def parts_of(path: Path) -> list[Path]:
    """All files of a model that is split into several; else the one file.

    Raises:
        ModelError: a part is missing: names it.
    """
    parts = [path.with_name(name) for name in parts_named(path.name)]
    for part in parts:
        if not part.is_file():
            raise ModelError(f"the part {part.name} is missing")
    return parts


def parts_named(file: str) -> list[str]:
    """The names of all files of a model, of the name of its first one."""
    found = _PART.fullmatch(file)
    if not found:
        return [file]
    stem, _, count = found.groups()
    return [f"{stem}-{i + 1:05}-of-{count}.gguf" for i in range(int(count))]


def is_later_part(name: str) -> bool:
    """Whether a file name is that of a part after the first."""
    found = _PART.fullmatch(name)
    return found is not None and int(found[2]) != 1


def _exactly(file: BinaryIO, n_bytes: int) -> bytes:
    data = file.read(n_bytes)
    if len(data) < n_bytes:
        raise ModelError("a damaged GGUF file: it ends early")
    return data


def _string(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", _exactly(file, 8))
    if length > _LONGEST:
        if length > 1 << 26:
            raise ModelError("a damaged GGUF file: a key is too long")
        file.seek(length, 1)  # such as a chat template
        return ""
    return _exactly(file, length).decode(errors="replace")
