"""Programs that write GGUF control vectors, told apart by what they write.

llama.cpp adds `direction.N` to the output of 0-based block N. Some programs read the rows behind
`direction.N` at another block; see docs/vectors.md for where each of them says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Producer:
    """A program that writes control vectors.

    Attributes:
        name: for people.
        meaning: one sentence on the block that its `direction.N` was read at.
    """

    name: str
    meaning: str


_RIGHT = "It reads direction.N at the output of block N, where llama.cpp adds it."
_LATE = (
    "It reads {what} of block N - 1 for direction.N, and llama.cpp adds it to the output of block "
    "N, one block later; it is applied as llama.cpp applies it."
)

STEERX_EDGE = Producer("steerx-edge", _RIGHT)
REPENG = Producer("repeng", _RIGHT)
EASYSTEER = Producer("EasySteer", _RIGHT)
CVECTOR_GENERATOR = Producer(
    "llama.cpp's cvector-generator", _LATE.format(what="the output") + " Its vectors have length 1."
)
JUKOFYORK = Producer(
    "jukofyork's control-vectors", _LATE.format(what="what is added by the output")
)
UNKNOWN = Producer(
    "an unknown program", "It is applied as llama.cpp applies it: direction.N to block N's output."
)


def producer_of(keys: Mapping[str, Any], types: Mapping[str, str], n_directions: int) -> Producer:
    """Tell who wrote a control vector.

    Args:
        keys: of the GGUF file.
        types: of these keys, as GGUF names them.
        n_directions: how many directions the file holds.

    Returns:
        The program that writes such files. Scripts that write as it does cannot be told from it.
    """
    if any(key.startswith("steerx.") for key in keys):
        return STEERX_EDGE
    if "controlvector.method" in keys:
        return EASYSTEER
    if "controlvector.model_hint" not in keys:
        return UNKNOWN
    count, kind = keys.get("controlvector.layer_count"), types.get("controlvector.layer_count")
    if kind == "INT32":
        return CVECTOR_GENERATOR if count == n_directions else UNKNOWN
    if kind == "UINT32" and isinstance(count, int):
        # repeng counts the directions; the other the layers of the model, of which it skips some.
        return REPENG if count == n_directions else JUKOFYORK if count > n_directions else UNKNOWN
    return UNKNOWN
