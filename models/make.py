"""From the name of an architecture to a GGUF file."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.gemma3 import Gemma3
from models.gguf_file import Quantization, add_tensors, new_gguf
from models.gpt2 import Gpt2
from models.lfm2 import Lfm2
from models.llama import Llama
from models.mamba2 import Mamba2
from models.phi3 import Phi3
from models.qwen2 import Qwen2
from models.qwen3 import Qwen3
from models.qwen3moe import Qwen3Moe
from models.tiny_model import TinyModel
from models.transformer import Transformer

_NETWORKS: dict[str, type[Transformer]] = {
    network.architecture: network
    for network in (Llama, Qwen2, Qwen3, Gemma3, Phi3, Gpt2, Qwen3Moe, Lfm2, Mamba2)
}
ARCHITECTURES = tuple(_NETWORKS)
REFERENCED = tuple(name for name, network in _NETWORKS.items() if network.has_reference)


def make_tiny(
    path: str | os.PathLike[str],
    architecture: str = "qwen3",
    *,
    quantization: Quantization = "F32",
    seed: int = 0,
    n_layer: int = 4,
    n_embd: int = 64,
    chat_template: str | None = None,
    name: str | None = None,
) -> TinyModel:
    """Write a small model with random weights to a GGUF file.

    Args:
        path: The file to write.
        architecture: One of `ARCHITECTURES`, llama.cpp's names. Only those in `REFERENCED` have a
            forward pass.
        quantization: How matrices are stored; vectors are always float32.
        seed: Decides the weights: equal arguments give equal bytes.
        n_layer: Number of blocks.
        n_embd: Width of the residual stream, a multiple of 32; of 256 for Q4_K.
        chat_template: Jinja template to put into the metadata.
        name: The model's name in the metadata; by default `tiny-` and the architecture.

    Returns:
        The file with its forward pass, which uses the weights as quantized.

    Raises:
        ValueError: If there is no such architecture, or `n_embd` is no such multiple.
    """
    if architecture not in _NETWORKS:
        raise ValueError(f"no such architecture: {architecture!r}; there are {ARCHITECTURES}")
    network_type = _NETWORKS[architecture]
    vocabulary = network_type.train_vocabulary()
    network = network_type(n_vocab=len(vocabulary), n_layer=n_layer, n_embd=n_embd)
    weights = network.draw_weights(np.random.default_rng(seed))
    with new_gguf(
        path,
        architecture=architecture,
        name=f"tiny-{architecture}" if name is None else name,
        quantization=quantization,
        chat_template=chat_template,
    ) as writer:
        network.add_hyperparameters(writer)
        vocabulary.add_to(writer)
        stored_weights = add_tensors(writer, weights, quantization)
    return TinyModel(Path(path), replace(network, weights=stored_weights))


def make_tiny_llama(
    path: str | os.PathLike[str],
    *,
    quantization: Quantization = "F32",
    seed: int = 0,
    n_layer: int = 4,
    n_embd: int = 64,
    chat_template: str | None = None,
    name: str = "tiny-llama",
) -> TinyModel:
    """Write a small llama; see `make_tiny`."""
    return make_tiny(
        path,
        "llama",
        quantization=quantization,
        seed=seed,
        n_layer=n_layer,
        n_embd=n_embd,
        chat_template=chat_template,
        name=name,
    )
