"""Prefix file: a GGUF file beside the profile, `me.prefix.<8 digits of the fingerprint>.gguf`.

It holds one beginning of prompts, or one for each of two kinds of requests: texts of the user as
they are, with their requests, and the model's KV cells for them. No profile names the file: it is
found by its name. Everything in it is checked before it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steerx_edge.errors import ProfileError
from steerx_edge.history.item import HistoryItem
from steerx_edge.profile.files import about, check_file, replacing, size_of, stem_beside
from steerx_edge.profile.gguf_contents import begins_as, contents_of, writing_gguf

ARCHITECTURE = "steerx-prefix"
SCHEMA = 1
MAX_BYTES = 2**32

_SIZE_RULE = f"a prefix is at most {MAX_BYTES // 2**20} MiB"
_FOREIGN = "not a prefix file of steerx-edge"
_DAMAGED = "the prefix is damaged: learn again with --prefix"


@dataclass(frozen=True, eq=False)
class Beginning:
    """Texts of the user that a prompt begins with, and the KV cells of this beginning.

    Attributes:
        items: the texts and their requests, in the order of the prompt; at least one.
        tokens: (n,) int32, the beginning of the prompt.
        state: (bytes,) uint8, of a sequence that holds these tokens, as llama.cpp gives it out.
    """

    items: tuple[HistoryItem, ...]
    tokens: NDArray[np.int32]
    state: NDArray[np.uint8] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Prefix:
    """What every prompt begins with: of several beginnings, the one that the request calls for.

    Attributes:
        beginnings: at least one.
        fingerprint: of the model.
        made_by: what the cells depend on; see `steerx_edge.llamacpp.kept_prefix.made_by`.
    """

    beginnings: tuple[Beginning, ...]
    fingerprint: str
    made_by: Mapping[str, str]

    @property
    def items(self) -> list[HistoryItem]:
        """The texts of all beginnings."""
        return [item for beginning in self.beginnings for item in beginning.items]

    def save(self, profile: str | os.PathLike[str]) -> Path:
        """Write the prefix file next to a profile, atomically.

        Args:
            profile: path of the profile. A new prefix file is private (mode 0600).

        Returns:
            The path of the prefix file.

        Raises:
            ProfileError: the file cannot be written.
        """
        path = prefix_path(profile, self.fingerprint)
        with about(path, "written"), replacing(Path(os.path.realpath(path))) as (temporary,):
            self._write(temporary)
        return path

    def _write(self, path: Path) -> None:
        texts = [[[item.request, item.response] for item in b.items] for b in self.beginnings]
        encoded = np.frombuffer(json.dumps(texts).encode(), np.int8)
        tensors: dict[str, NDArray[Any]] = {"texts": encoded}
        for i, beginning in enumerate(self.beginnings):
            tensors[f"tokens.{i}"] = beginning.tokens
            tensors[f"state.{i}"] = beginning.state.view(np.int8)
        made_by = json.dumps(dict(self.made_by), sort_keys=True)
        with writing_gguf(path, ARCHITECTURE) as writer:
            writer.add_uint32(f"{ARCHITECTURE}.schema", SCHEMA)
            writer.add_string(f"{ARCHITECTURE}.model", self.fingerprint)
            writer.add_string(f"{ARCHITECTURE}.made_by", made_by)
            writer.add_string(f"{ARCHITECTURE}.sha256", _digest(tensors, made_by))
            for name, array in tensors.items():
                writer.add_tensor(name, array)

    @classmethod
    def load(cls, profile: str | os.PathLike[str], fingerprint: str) -> Prefix | None:
        """Read the prefix file next to a profile and check everything in it.

        Args:
            profile: path of the profile.
            fingerprint: of the model that it must be for.

        Returns:
            The prefix, whose states are views of the file; None where there is no such file.

        Raises:
            ProfileError: the file cannot be read, is another one, or is damaged.
        """
        path = prefix_path(profile, fingerprint)
        return read_prefix(path, fingerprint) if path.exists() else None

    @property
    def size(self) -> str:
        """The size of the states, in words."""
        return size_of(sum(beginning.state.nbytes for beginning in self.beginnings))


def read_prefix(path: Path, fingerprint: str | None = None) -> Prefix:
    """Read a prefix file and check everything in it; see `Prefix.load`."""
    with about(path, "read"):
        check_file(path, MAX_BYTES, _SIZE_RULE)
        with path.open("rb") as file:
            contents = contents_of(file, _FOREIGN)
        return _prefix_of(contents.keys, contents.tensors, fingerprint)


def prefix_path(profile: str | os.PathLike[str], fingerprint: str) -> Path:
    """Where the prefix of a profile for a model lies: next to the file that a link leads to."""
    path = _target(profile)
    return path.with_name(f"{_stem(path)}.{fingerprint.removeprefix('sha256:')[:8]}.gguf")


def prefix_files(profile: str | os.PathLike[str]) -> list[Path]:
    """The prefix files next to a profile, for whatever model, damaged or not.

    Raises:
        ProfileError: the folder cannot be read.
    """
    path = _target(profile)
    name = re.compile(rf"{re.escape(_stem(path))}\.[0-9a-f]{{8}}\.gguf")
    with about(profile, "read"):
        found = [file for file in path.absolute().parent.iterdir() if name.fullmatch(file.name)]
        return sorted(file for file in found if begins_as(file, ARCHITECTURE))


def _target(profile: str | os.PathLike[str]) -> Path:
    path = Path(profile)
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _stem(profile: Path) -> str:
    return f"{stem_beside(profile)}.prefix"


def _digest(tensors: Mapping[str, NDArray[Any]], made_by: str) -> str:
    digest = hashlib.sha256(made_by.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()


def _prefix_of(
    keys: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], fingerprint: str | None
) -> Prefix:
    if keys.get("general.architecture") != ARCHITECTURE:
        raise ProfileError(_FOREIGN)
    if (schema := keys.get(f"{ARCHITECTURE}.schema")) != SCHEMA:
        raise ProfileError(f"a prefix file of schema {schema!r}; this one reads schema {SCHEMA}")
    model = keys.get(f"{ARCHITECTURE}.model")
    if not isinstance(model, str) or fingerprint not in (model, None):
        raise ProfileError("the prefix of another model")
    made_by = keys.get(f"{ARCHITECTURE}.made_by")
    if not isinstance(made_by, str) or _digest(tensors, made_by) != keys.get(
        f"{ARCHITECTURE}.sha256"
    ):
        raise ProfileError(_DAMAGED)
    try:
        groups = [
            tuple(HistoryItem(request=str(request), response=str(text)) for request, text in texts)
            for texts in json.loads(tensors["texts"].tobytes())
        ]
        found = {str(name): str(value) for name, value in json.loads(made_by).items()}
    except (ValueError, TypeError, AttributeError, KeyError) as error:  # written by somebody else
        raise ProfileError(_DAMAGED) from error
    dtypes: dict[str, type] = {"texts": np.int8}
    for i in range(len(groups)):
        dtypes |= {f"tokens.{i}": np.int32, f"state.{i}": np.int8}
    if (
        not groups
        or not all(groups)
        or {name: array.dtype for name, array in tensors.items()} != dtypes
    ):
        raise ProfileError(_DAMAGED)
    beginnings = tuple(
        Beginning(items, tensors[f"tokens.{i}"], tensors[f"state.{i}"].view(np.uint8))
        for i, items in enumerate(groups)
    )
    return Prefix(beginnings, model, found)
