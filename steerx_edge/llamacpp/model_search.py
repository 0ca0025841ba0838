"""Which models are on this machine, and the one that a name means."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from steerx_edge.errors import ModelError
from steerx_edge.llamacpp.gguf_header import is_later_part, parts_of, read_header
from steerx_edge.llamacpp.model_places import PLACES
from steerx_edge.llamacpp.models import MODEL_VARIABLE, find_model, fingerprint
from steerx_edge.model_id import ModelId


class FoundModel(NamedTuple):
    """A GGUF file that llama.cpp may load.

    Args:
        name: what -m takes.
        path: the file; the first one of a model in several parts.
        bytes: the size of all its files.
        architecture: llama.cpp's name of it.
        place: whose it is: `-m`, `STEERX_EDGE_MODEL`, or a program.
        is_default: whether it is used where none is given.
    """

    name: str
    path: Path
    bytes: int
    architecture: str
    place: str
    is_default: bool


class Search(NamedTuple):
    """What was found, and sentences about what could not be used."""

    models: list[FoundModel]
    notes: list[str]


def search(given: str | None = None) -> Search:
    """Find models: the one given, that of the environment, and those of other programs.

    Every file is there once, under the first of these. Projectors of images, adapters and parts
    after the first are no models.

    Args:
        given: of -m, or None.
    """
    result = Search([], [])
    seen: set[str] = set()
    default = _default_file(given, result.notes)
    for place, name, path in _candidates(given, result.notes):
        real = os.path.realpath(path)
        if real in seen or is_later_part(path.name):
            continue
        seen.add(real)
        try:
            header = read_header(path)
            if not header.is_model or path.name.startswith("mmproj"):
                continue
            size = sum(part.stat().st_size for part in parts_of(path))
        except (ModelError, OSError) as error:
            result.notes.append(f"Skipped {path} ({place}): {error}.")
            continue
        is_default = default is not None and os.path.realpath(default) == real
        found = FoundModel(name, path, size, header.architecture, place, is_default)
        result.models.append(found)
    return result


def named(name: str) -> FoundModel:
    """The model of this name, or the only one whose name begins so; case makes no difference.

    Raises:
        ModelError: there is none, or several.
    """
    models = search().models
    wanted = name.casefold()
    found = [each for each in models if each.name.casefold() == wanted]
    found = found or [each for each in models if each.name.casefold().startswith(wanted)]
    if not found:
        raise ModelError(
            f"There is no file '{name}', and no model of that name. `steerx-edge models` lists "
            "those that were found."
        )
    if len(found) > 1:
        names = ", ".join(f"{each.name} ({each.path})" for each in found)
        raise ModelError(f"'{name}' is the beginning of several names: {names}. Give more of one.")
    return found[0]


def model_file(model: ModelId, given: Sequence[str] = ()) -> Path:
    """The file of a model that a profile was learned on.

    Args:
        model: the model.
        given: names or paths of -m; where there are none, all models are looked through.

    Raises:
        ModelError: none of them is it.
    """
    paths = [chosen_model(each)[0] for each in given]
    if not given:
        paths = [each.path for each in sorted(search().models, key=lambda m: not m.is_default)]
    for path in paths:
        if fingerprint(path) == model.fingerprint:
            return path
    raise ModelError(f"The file of {model} was not found. Name it with -m.")


def chosen_model(given: str | None) -> tuple[Path, FoundModel | None]:
    """The file that -m means, a path before a name; and the model, if it was found by its name.

    Raises:
        ModelError: there is none.
    """
    if not given or os.path.lexists(given):
        return find_model(given), None
    try:
        found = named(given)
    except ModelError:
        if given.endswith(".gguf"):
            return find_model(given), None
        raise
    return found.path, found


def reason_for(given: str | None) -> str:
    """Why a model is the one that is used, after `chosen_model` took it."""
    if given:
        return "given with -m or -hf"
    return f"from {MODEL_VARIABLE}" if os.environ.get(MODEL_VARIABLE) else "the installed package"


def _default_file(given: str | None, notes: list[str]) -> Path | None:
    try:
        return chosen_model(given)[0]
    except ModelError as error:
        notes.append(str(error))
        return None


def _candidates(given: str | None, notes: list[str]) -> Iterator[tuple[str, str, Path]]:
    for place, path in (("-m", given), (MODEL_VARIABLE, os.environ.get(MODEL_VARIABLE))):
        if path and Path(path).is_file():
            yield place, path, Path(path)
    for place, models_in in PLACES.items():
        for found in models_in():
            if isinstance(found, ModelError):
                notes.append(str(found))
            else:
                yield place, *found
