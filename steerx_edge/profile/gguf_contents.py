"""GGUF files of our own: written completely, and read though they may come from a stranger."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from steerx_edge.errors import ProfileError

if TYPE_CHECKING:
    from pathlib import Path

    from gguf import GGUFWriter

MAGIC = b"GGUF"


class Contents(NamedTuple):
    """The contents of a GGUF file, unchecked."""

    data: NDArray[np.uint8]
    keys: Mapping[str, Any]
    types: Mapping[str, str]  # of the keys, as GGUF names them, such as UINT32
    tensors: Mapping[str, NDArray[Any]]


def is_gguf(path: Path) -> bool:
    """Whether a file begins as a GGUF file does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def begins_as(path: Path, architecture: str) -> bool:
    """Whether a file begins as a GGUF file of an architecture, be the rest damaged or not."""
    if not path.is_file():
        return False
    # Up to the end of a GGUF file's first value, which is its architecture.
    n_bytes = 24 + (8 + len("general.architecture")) + 4 + (8 + len(architecture))
    with path.open("rb") as file:
        head = file.read(n_bytes)
    return head.startswith(MAGIC) and head.endswith(architecture.encode())


@contextmanager
def writing_gguf(path: Path, architecture: str) -> Iterator[GGUFWriter]:
    """Write a GGUF file with the keys and tensors that are added to the writer.

    Raises:
        ProfileError: the file was cut off while it was written.
    """
    from gguf import GGUFWriter

    writer = GGUFWriter(os.fspath(path), architecture)
    try:
        yield writer
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    # On a full disk, NumPy's `tofile`, which gguf writes with, loses the last bytes without an
    # error.
    with path.open("rb") as file:
        contents_of(file, "cannot be written: the disk may be full")


def contents_of(file: BinaryIO, foreign: str) -> Contents:
    """Map a GGUF file.

    Args:
        file: an open file. It stays memory-mapped while any of its arrays is in use.
        foreign: says that it is no such file.

    Raises:
        ProfileError: the file is no GGUF file, or damaged.
    """
    from gguf import GGUFReader, GGUFValueType

    class Reader(GGUFReader):
        """Refuses arrays among the keys: GGUFReader believes any length they claim."""

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if raw_type == GGUFValueType.ARRAY:
                raise ValueError("an array among the keys")
            return super()._get_field_parts(orig_offs, raw_type)

    try:
        reader = Reader(cast("os.PathLike[str]", file))  # numpy maps what is open already
        return Contents(
            data=reader.data,
            keys={name: field.contents() for name, field in reader.fields.items()},
            types={name: field.types[0].name for name, field in reader.fields.items()},
            tensors={tensor.name: np.asarray(tensor.data) for tensor in reader.tensors},
        )
    except Exception as error:  # of many types
        raise ProfileError(foreign) from error
