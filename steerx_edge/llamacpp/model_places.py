"""Where other programs keep their models: a function a program.

Each yields names as that program gives them, with the files; nothing is opened. What cannot be read
is yielded as a `ModelError`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from platformdirs import user_data_path

from steerx_edge.errors import ModelError
from steerx_edge.llamacpp.models import DEFAULT_PACKAGE

Found = Iterator[tuple[str, Path] | ModelError]

_QUANTIZATION = re.compile(
    r"[-.]([A-Za-z]{0,3}\d?[QFqf]\d{1,2}[A-Za-z0-9_]*)(?:-\d{5}-of-\d{5})?\.gguf"
)
_MODEL_LAYER = "application/vnd.ollama.image.model"
_OLLAMA_REGISTRY = "registry.ollama.ai"


def in_packages() -> Found:
    """Models that come with an installed Python package."""
    spec = importlib.util.find_spec(DEFAULT_PACKAGE)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        for path in _ggufs(Path(folder)):
            yield path.stem, path


def in_hugging_face() -> Found:
    """The cache of huggingface-hub, which llama.cpp uses too; named as for -hf."""
    yield from _hub(hub_cache())


def in_llama_cpp() -> Found:
    """llama.cpp's own cache: single files of older versions, laid out as a hub by newer ones."""
    folder = _llama_cpp_cache()
    for path in _ggufs(folder, deep=False):
        yield path.stem, path
    if folder != hub_cache():
        yield from _hub(folder)


def in_lm_studio() -> Found:
    """LM Studio: publisher, repository and file."""
    for folder in _lm_studio_folders():
        for path in _ggufs(folder):
            yield path.relative_to(folder).with_suffix("").as_posix(), path


def in_ollama() -> Found:
    """Ollama: manifests that name blobs."""
    for folder in _ollama_folders():
        manifests = folder / "manifests"
        for path in sorted(_files(manifests)):
            if len(path.relative_to(manifests).parts) > 2 and not path.name.startswith("."):
                yield _of_manifest(path, manifests, folder / "blobs")


def in_jan() -> Found:
    """Jan: a folder for each model."""
    data = user_data_path("Jan", appauthor=False, roaming=True) / "data"
    for folder in (data / "llamacpp" / "models", Path.home() / "jan" / "models"):
        for path in _ggufs(folder):
            name = path.relative_to(folder).with_suffix("").as_posix()
            yield name.removesuffix("/model"), path


def in_gpt4all() -> Found:
    """GPT4All, and its Python package."""
    desktop = user_data_path("nomic.ai", appauthor=False) / "GPT4All"
    for folder in (desktop, Path.home() / ".cache" / "gpt4all"):
        for path in _ggufs(folder, deep=False):
            yield path.stem, path


PLACES: dict[str, Callable[[], Found]] = {
    "installed package": in_packages,
    "Hugging Face": in_hugging_face,
    "llama.cpp": in_llama_cpp,
    "LM Studio": in_lm_studio,
    "Ollama": in_ollama,
    "Jan": in_jan,
    "GPT4All": in_gpt4all,
}


def quantization_in(file_name: str) -> str:
    """The quantization that a file is named for, such as `Q4_K_M`; empty if it is for none."""
    found = _QUANTIZATION.search(Path(file_name).name)
    return found[1].upper() if found else ""


def hub_cache() -> Path:
    """The folder of huggingface-hub's cache."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if folder := os.environ.get(variable):
            return Path(folder).expanduser()
    home = os.environ.get("HF_HOME")
    return (Path(home).expanduser() if home else _cache_home() / "huggingface") / "hub"


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def _llama_cpp_cache() -> Path:
    if folder := os.environ.get("LLAMA_CACHE"):
        return Path(folder).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "llama.cpp"
    return _cache_home() / "llama.cpp"


def _hub(cache: Path) -> Found:
    for repository in sorted(_folders(cache, "models--*")):
        name = repository.name.removeprefix("models--").replace("--", "/", 1)
        for revision in sorted(_folders(repository / "snapshots", "*")):
            for path in _ggufs(revision):
                quantization = quantization_in(path.name)
                file = path.relative_to(revision).as_posix()
                yield (f"{name}:{quantization}" if quantization else f"{name}/{file}"), path


def _lm_studio_folders() -> list[Path]:
    home = Path.home()
    homes = [home / ".lmstudio", home / ".cache" / "lm-studio"]
    if pointed := _text(home / ".lmstudio-home-pointer").strip():
        homes.insert(0, Path(pointed))
    folders = [folder / "models" for folder in homes]
    for folder in homes:
        try:
            chosen = json.loads(_text(folder / "settings.json") or "{}").get("downloadsFolder")
        except (ValueError, AttributeError):
            continue
        if isinstance(chosen, str) and chosen:
            folders.append(Path(chosen))
    return list(dict.fromkeys(folders))


def _ollama_folders() -> list[Path]:
    if folder := os.environ.get("OLLAMA_MODELS"):
        return [Path(folder).expanduser()]
    # The second is that of the service on Linux.
    return [Path.home() / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")]


def _of_manifest(path: Path, manifests: Path, blobs: Path) -> tuple[str, Path] | ModelError:
    *parts, tag = path.relative_to(manifests).parts
    if parts[0] == _OLLAMA_REGISTRY:
        parts = parts[1:] if parts[1] != "library" else parts[2:]
    name = f"{'/'.join(parts)}:{tag}"
    try:
        layers = json.loads(path.read_text("utf-8"))["layers"]
        (digest,) = [each["digest"] for each in layers if each["mediaType"] == _MODEL_LAYER]
        return name, blobs / digest.replace(":", "-")
    except OSError as error:
        return ModelError(f"Ollama's {name}: {error.strerror}.")
    except (ValueError, KeyError, TypeError, AttributeError):
        return ModelError(f"Ollama's {name}: its manifest {path} names no model.")


def _ggufs(folder: Path, *, deep: bool = True) -> list[Path]:
    files = _files(folder) if deep else iter(_listed(folder, "*"))
    return sorted(path for path in files if path.suffix == ".gguf" and path.is_file())


def _files(folder: Path) -> Iterator[Path]:
    for parent, _folders_in, names in os.walk(folder):
        for name in names:
            yield Path(parent, name)


def _folders(folder: Path, pattern: str) -> list[Path]:
    return [path for path in _listed(folder, pattern) if path.is_dir()]


def _listed(folder: Path, pattern: str) -> list[Path]:
    try:
        return list(folder.glob(pattern))
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError):
        return ""
