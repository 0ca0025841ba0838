"""A folder with profiles, and perhaps models: which of them go together.

Nothing here loads llama.cpp, so that a program can list what there is at once.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from steerx_edge.errors import SteerxError
from steerx_edge.llamacpp.models import find_model, fingerprint
from steerx_edge.profile.control_vector_file import ARCHITECTURE as CONTROL_VECTOR
from steerx_edge.profile.gguf_contents import begins_as, is_gguf
from steerx_edge.profile.json_structs import FORMAT
from steerx_edge.profile.memory_file import ARCHITECTURE as MEMORY
from steerx_edge.profile.prefix_file import ARCHITECTURE as PREFIX
from steerx_edge.profile.store import MAX_BYTES


class Pair(NamedTuple):
    """A model and a profile for it.

    Attributes:
        name: `MODEL@PROFILE`, of the names of the files without suffix.
        model: a GGUF file.
        profile: a profile or a control vector.
    """

    name: str
    model: Path
    profile: Path


def pairs_in(folder: Path) -> list[Pair]:
    """The pairs that a folder offers, by their names.

    Models are the GGUF files in the folder and the default model (see `find_model`). A control
    vector goes with every model; beside a profile of the same name it keeps its suffix. Files that
    cannot be read are left out.
    """
    if not folder.is_dir():
        return []
    files = sorted(path for path in folder.iterdir() if path.is_file())
    vectors = [path for path in files if begins_as(path, CONTROL_VECTOR)]
    learned = {path: models for path in files if (models := _models_of(path))}
    names = {path: path.stem for path in learned}
    for path in vectors:
        names[path] = path.name if path.stem in names.values() else path.stem
    pairs: dict[str, Pair] = {}
    for model, digest in _models(files).items():
        for path, name in names.items():
            if path in vectors or digest in learned[path]:
                pair = Pair(f"{model.stem}@{name}", model, path)
                pairs.setdefault(pair.name, pair)
    return [pairs[name] for name in sorted(pairs)]


def _models(files: list[Path]) -> dict[Path, str]:
    """The model files and their fingerprints."""
    others = (CONTROL_VECTOR, MEMORY, PREFIX)
    models = [
        path for path in files if is_gguf(path) and not any(begins_as(path, it) for it in others)
    ]
    found: dict[Path, str] = {}
    with suppress(SteerxError):  # those in the folder are enough
        models.append(find_model())
    for path in models:
        with suppress(SteerxError):
            digest = fingerprint(path)
            if digest not in found.values():
                found[path] = digest
    return found


def _models_of(path: Path) -> set[str]:
    """The fingerprints of the models that a profile is for; none of another file."""
    if path.suffix != ".json" or path.stat().st_size > MAX_BYTES:
        return set()
    try:
        document = json.loads(path.read_bytes())
        if document["format"] != FORMAT:
            return set()
        return {str(entry["model"]["fingerprint"]) for entry in document["entries"]}
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return set()
