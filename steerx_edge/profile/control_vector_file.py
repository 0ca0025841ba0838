"""GGUF control vectors of any program, read as llama.cpp reads them; `exporting.py` writes them.

`direction.N` is added to the output of 0-based block N of every row. The file holds nothing else
that llama.cpp reads: what else there is to say is written in keys that begin with `steerx.`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from steerx_edge.errors import ProfileError
from steerx_edge.model_id import ModelId
from steerx_edge.profile.entry import Entry, now
from steerx_edge.profile.files import about, check_file
from steerx_edge.profile.gguf_contents import Contents, contents_of
from steerx_edge.profile.producers import STEERX_EDGE, Producer, producer_of
from steerx_edge.profile.words import Description
from steerx_edge.steering.steering import Positions
from steerx_edge.version import __version__

ARCHITECTURE = "controlvector"
MAX_BYTES = 2**28

_SIZE_RULE = f"a control vector is at most {MAX_BYTES // 2**20} MiB"
_FOREIGN = "not a GGUF control vector"
_NOTHING, _TOO_LONG = 1e-30, 1e30  # lengths, in units of the residual stream
_MOST_NORM = 1e6
_NAME = re.compile(r"direction\.([0-9]{1,9})")


@dataclass(frozen=True, eq=False)
class ControlVectorFile:
    """What a GGUF control vector says.

    Attributes:
        layers: 0-based blocks to whose output a vector is added, strictly increasing, from 1.
        vectors: what is added, float32, shape (layer, n_embd), in units of the residual stream.
        producer: who wrote the file.
        model_hint: the file's own word for the model, on one line; may be empty.
        fingerprint: of the model, if steerx-edge wrote the file; else empty.
        positions: the rows that the producer means.
        norms: typical norms of the residual stream by layer, if steerx-edge wrote the file.
    """

    layers: tuple[int, ...]
    vectors: NDArray[np.float32]  # (layer, n_embd)
    producer: Producer
    model_hint: str
    fingerprint: str
    positions: Positions
    norms: Mapping[int, float]

    def entry_for(self, model: ModelId) -> Entry:
        """An entry that adds to a model what llama.cpp adds with this file.

        `Entry.vectors()` gives `vectors` back to within one rounding of float32.

        Raises:
            ProfileError: the vectors have another width than the model, or none of them is for a
                block that the model has.
        """
        width = self.vectors.shape[1]
        if width != model.n_embd:
            raise ProfileError(
                f"This control vector has width {width}, but {model} has {model.n_embd}: it was "
                "made for another model."
            )
        lengths = np.linalg.norm(self.vectors.astype(np.float64), axis=1)
        # As llama.cpp does, leave out what is for blocks that the model does not have.
        kept = [
            i
            for i, layer in enumerate(self.layers)
            if layer < model.n_layer and lengths[i] > _NOTHING
        ]
        if not kept:
            raise ProfileError(
                f"This control vector adds nothing to {model}: it has no direction other than 0 "
                f"for blocks 1 to {model.n_layer - 1}."
            )
        layers = tuple(self.layers[i] for i in kept)
        lengths = lengths[kept]
        norms = np.array(
            [self.norms.get(layer, lengths[i]) for i, layer in enumerate(layers)], np.float32
        )
        strengths = (lengths / norms).astype(np.float32)
        # Of the rounded strength, so that the product is right.
        scales = strengths.astype(np.float64) * norms
        return Entry(
            model=model,
            description=Description(
                f"Imported from a control vector of {self.producer.name}.", "statistics"
            ),
            words=(),
            layers=layers,
            directions=(self.vectors[kept] / scales[:, np.newaxis]).astype(np.float32),
            norms=norms,
            contrast_methods=("imported",) * len(layers),
            strengths=strengths,
            logit_bias=None,
            memory=None,
            gate=None,
            gain=None,
            with_history=None,
            positions=self.positions,
            counts={},
            settings={"producer": self.producer.name, "model_hint": self.model_hint},
            versions={"steerx_edge": __version__},
            created=now(),
        )

    def too_high(self, model: ModelId) -> list[int]:
        """The layers that the model does not have, whose directions llama.cpp ignores."""
        return [layer for layer in self.layers if layer >= model.n_layer]


def read_control_vector(path: str | os.PathLike[str]) -> ControlVectorFile:
    """Read a GGUF control vector of any program; safe for files from strangers.

    A file is refused if llama.cpp refuses it.

    Raises:
        ProfileError: the file cannot be read, or is no control vector: says what is wrong.
    """
    with about(path, "read"):
        check_file(Path(path), MAX_BYTES, _SIZE_RULE)
        with Path(path).open("rb") as file:
            return _parsed(contents_of(file, _FOREIGN))


def _parsed(contents: Contents) -> ControlVectorFile:
    keys = contents.keys
    architecture = keys.get("general.architecture", ARCHITECTURE)
    if architecture != ARCHITECTURE:
        raise ProfileError(
            f"{_FOREIGN}: its architecture is {_shown(architecture)}, not '{ARCHITECTURE}'"
        )
    by_layer = _summed(contents.tensors)
    layers = tuple(sorted(by_layer))
    producer = producer_of(keys, contents.types, len(contents.tensors))
    is_ours = producer is STEERX_EDGE
    # llama.cpp, and with it all other programs, steers every row.
    positions = "generated" if is_ours and keys.get("steerx.positions") == "generated" else "all"
    hint, fingerprint = keys.get("controlvector.model_hint"), keys.get("steerx.model")
    return ControlVectorFile(
        layers=layers,
        vectors=np.stack([by_layer[layer] for layer in layers]),
        producer=producer,
        model_hint=_one_line(hint) if isinstance(hint, str) else "",
        fingerprint=fingerprint if isinstance(fingerprint, str) else "",
        positions=cast("Positions", positions),
        norms=_norms(keys, layers) if is_ours else {},
    )


def _summed(tensors: Mapping[str, NDArray[Any]]) -> dict[int, NDArray[np.float32]]:
    """The vectors by layer, as llama.cpp's loader puts them together: duplicates are summed."""
    if not tensors:
        raise ProfileError("the control vector holds no direction")
    by_layer: dict[int, NDArray[np.float32]] = {}
    width = None
    for name, array in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise ProfileError(
                f"the tensor {_shown(name)} is no direction: llama.cpp takes direction.1, "
                "direction.2, ... and no others"
            )
        layer = int(match[1])
        if layer == 0:
            raise ProfileError(
                "it holds direction.0, and llama.cpp refuses such a file, as block 0 cannot be "
                "steered: write it again without layer 0"
            )
        if array.dtype != np.float32:
            raise ProfileError(f"{name} is not F32, and llama.cpp takes no other type")
        if array.size == 0 or array.size != array.shape[-1]:
            raise ProfileError(f"{name} has shape {array.shape}; expected one row")
        width = array.size if width is None else width
        if array.size != width:
            raise ProfileError(f"{name} has width {array.size}, others have {width}")
        row = array.reshape(-1)
        if not (np.isfinite(row).all() and np.linalg.norm(row.astype(np.float64)) < _TOO_LONG):
            raise ProfileError(f"{name} holds a value that is not finite, or is too large")
        by_layer[layer] = by_layer[layer] + row if layer in by_layer else row
    return by_layer


def _norms(keys: Mapping[str, Any], layers: Sequence[int]) -> dict[int, float]:
    norms = {layer: keys.get(f"steerx.norm.{layer}") for layer in layers}
    return {
        layer: float(norm)
        for layer, norm in norms.items()
        if isinstance(norm, float) and 1 / _MOST_NORM < norm < _MOST_NORM
    }


def _shown(value: object) -> str:
    return repr(_one_line(value)) if isinstance(value, str) else repr(value)[:40]


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:100].strip()
