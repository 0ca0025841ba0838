"""Models of Hugging Face, as llama.cpp's -hf names them: user/repo[:quantization]."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from steerx_edge.errors import ModelError
from steerx_edge.llamacpp.gguf_header import is_later_part, parts_named
from steerx_edge.llamacpp.model_places import quantization_in

_PREFERRED = "Q4_K_M"


def download(repository: str, say: Callable[[str], object], *, with_progress: bool = True) -> Path:
    """Get a model of Hugging Face; what is in its cache already is not downloaded again.

    Without the network, what is in the cache is used. As in llama.cpp, an access token is taken
    from HF_TOKEN, another server from HF_ENDPOINT.

    Args:
        repository: user/repo, or user/repo:quantization.
        say: called with what is taken.
        with_progress: show a progress bar on standard error.

    Returns:
        The GGUF file; the first of several parts.

    Raises:
        ModelError: huggingface-hub is not installed, the repository cannot be read, or has no such
            model.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise ModelError(
            "-hf needs the package huggingface-hub: pip install 'steerx-edge[hub]'."
        ) from error
    if not with_progress:
        huggingface_hub.utils.disable_progress_bars()  # type: ignore[attr-defined]
    name, _, quantization = repository.partition(":")
    try:
        files = huggingface_hub.HfApi().list_repo_files(name)
        chosen = chosen_file(files, quantization, repository)
        say(f"Using {name}/{chosen}.")
        paths = [huggingface_hub.hf_hub_download(name, part) for part in parts_named(chosen)]
    except ModelError:
        raise
    except Exception as error:  # of several packages
        cached = _cached(name, quantization, repository)
        if cached is None:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ModelError(
                f"'{name}' cannot be downloaded from Hugging Face: {reason[0]}"
            ) from error
        say(f"Hugging Face cannot be reached; using {cached}.")
        return cached
    return Path(paths[0])


def chosen_file(files: Sequence[str], quantization: str, repository: str) -> str:
    """The file of a repository that a quantization means; Q4_K_M or the first where none is given.

    Raises:
        ModelError: there is none: names those that there are.
    """
    models = [file for file in sorted(files) if _is_model(file)]
    kinds = {file: quantization_in(file) for file in models}
    wanted = (quantization or _PREFERRED).upper()
    for file, kind in kinds.items():
        if kind == wanted:
            return file
    if quantization or not models:
        known = ", ".join(sorted(set(filter(None, kinds.values()))))
        raise ModelError(
            f"'{repository}' has no such GGUF file. "
            + (f"It has {known}." if known else "It has no GGUF files that name a quantization.")
        )
    return models[0]


def _is_model(file: str) -> bool:
    name = os.path.basename(file)  # noqa: PTH119 - of a repository, not of this machine
    return name.endswith(".gguf") and not is_later_part(name) and "mmproj" not in name


def _cached(name: str, quantization: str, repository: str) -> Path | None:
    """A model that was downloaded before."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = [each for each in scan_cache_dir().repos if each.repo_id == name]
    except CacheNotFound:
        return None
    paths = {
        file.file_name: file.file_path
        for each in repositories
        for revision in each.revisions
        for file in revision.files
    }
    return paths[chosen_file(list(paths), quantization, repository)] if paths else None
