"""The directions of a profile as a GGUF control vector for llama.cpp."""

from __future__ import annotations

import os
from pathlib import Path

from steerx_edge.errors import ProfileError
from steerx_edge.profile.control_vector_file import ARCHITECTURE
from steerx_edge.profile.entry import Entry
from steerx_edge.profile.files import about, replacing
from steerx_edge.profile.gguf_contents import begins_as, writing_gguf
from steerx_edge.version import __version__


def write_control_vector(path: str | os.PathLike[str], entry: Entry) -> list[str]:
    """Write what an entry adds to the residual stream, atomically.

    Args:
        path: a new file, or a control vector that is replaced. A new file is private (mode 0600).
        entry: its directions at relative strength 1.

    Returns:
        What a control vector cannot hold and was left out, in a few words each.

    Raises:
        ProfileError: the file cannot be written, another file has its name, or the entry adds
            nothing.
    """
    vectors = entry.vectors()
    steered = [i for i in range(len(entry.layers)) if vectors[i].any()]
    if not steered:
        raise ProfileError(
            "This profile adds no direction: the strength of all its directions is 0, and a "
            "control vector can hold nothing else."
        )
    omitted = left_out(entry)
    with about(path, "written"):
        target = Path(os.path.realpath(path))
        if target.exists() and not begins_as(target, ARCHITECTURE):
            raise ProfileError("exists and is no control vector: choose another name, or remove it")
        with replacing(target) as (temporary,), writing_gguf(temporary, ARCHITECTURE) as writer:
            writer.add_string("controlvector.model_hint", entry.model.architecture)
            writer.add_uint32("controlvector.layer_count", len(steered))
            writer.add_string("steerx.version", __version__)
            writer.add_string("steerx.model", entry.model.fingerprint)
            writer.add_string("steerx.model_name", str(entry.model))
            writer.add_string("steerx.positions", entry.positions)
            writer.add_string("steerx.created", entry.created)
            writer.add_string("steerx.left_out", ", ".join(omitted))
            for i in steered:
                layer = entry.layers[i]
                writer.add_float32(f"steerx.norm.{layer}", float(entry.norms[i]))
                writer.add_tensor(f"direction.{layer}", vectors[i])
    return omitted


def left_out(entry: Entry) -> list[str]:
    """What of an entry a control vector cannot hold, in a few words each."""
    parts = []
    if entry.logit_bias is not None:
        parts.append(f"the logit bias ({len(entry.logit_bias.tokens)} tokens)")
    if entry.memory is not None:
        parts.append(f"the memory ({entry.memory.rows} rows)")
    if entry.gate is not None:
        parts.append("the request gate")
    if entry.with_history is not None:
        parts.append("the strengths for prompts with texts")
    parts.append("the description")
    if entry.words:
        parts.append(f"{len(entry.words)} words")
    return parts
