"""Gemma 3: sliding windows between global layers, norms on both sides, GeGLU, a tied output."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from gguf import GGUFWriter

from models.operations import Array, causal_attention, gelu
from models.qwen3 import Qwen3
from models.transformer import AnyVocabulary
from models.vocabulary import train_vocabulary
from models.weights import GELU_GAIN, random_norm


class Gemma3(Qwen3):
    """What gemma3 does its own way; it norms queries and keys as qwen3 does."""

    architecture = "gemma3"
    rope_base = 1_000_000.0
    window_rope_base: ClassVar[float] = 10_000.0
    window: ClassVar[int] = 16

    @classmethod
    def train_vocabulary(cls) -> AnyVocabulary:
        """Make the vocabulary that the architecture comes with."""
        return train_vocabulary()

    @property
    def head_size(self) -> int:
        """Width of one attention head; all of them together are wider than the residual stream."""
        return 2 * self.n_embd // self.n_head

    def has_window(self, layer: int) -> bool:
        """Say whether 0-based block `layer` sees the last `window` tokens only: every other one."""
        return layer % 2 == 0

    def add_hyperparameters(self, writer: GGUFWriter) -> None:
        """Add the shape to a GGUF file's metadata."""
        super().add_hyperparameters(writer)
        writer.add_key_length(self.head_size)
        writer.add_value_length(self.head_size)
        writer.add_sliding_window(self.window)
        # By their names, since older versions of gguf have no methods for these.
        writer.add_array(
            "gemma3.attention.sliding_window_pattern",
            [self.has_window(layer) for layer in range(self.n_layer)],
        )
        writer.add_float32("gemma3.rope.freq_base_swa", self.window_rope_base)

    def draw_embedding(self, rng: np.random.Generator) -> dict[str, Array]:
        """Draw what `embed` reads, and `logits` too: hence the size."""
        scale = 2 / math.sqrt(self.n_embd)
        return {"token_embd.weight": rng.normal(scale=scale, size=(self.n_vocab, self.n_embd))}

    def draw_attention(self, rng: np.random.Generator) -> dict[str, Array]:
        """Draw what `attention` and the norms around it read."""
        return super().draw_attention(rng) | {
            "post_attention_norm.weight": random_norm(rng, self.n_embd),
        }

    def draw_feed_forward(self, rng: np.random.Generator) -> dict[str, Array]:
        """Draw what `feed_forward` and the norms around it read."""
        return super().draw_feed_forward(rng) | {
            "post_ffw_norm.weight": random_norm(rng, self.n_embd, mean=GELU_GAIN),
        }

    def draw_output(self, rng: np.random.Generator) -> dict[str, Array]:
        """Draw what `logits` reads besides the embedding."""
        return {"output_norm.weight": random_norm(rng, self.n_embd)}

    def embed(self, tokens: npt.NDArray[np.intp]) -> Array:
        """Turn (n_tokens,) token ids into the (n_tokens, n_embd) input of block 0."""
        return super().embed(tokens) * math.sqrt(self.n_embd)

    def block(self, layer: int, residual: Array) -> Array:
        """Apply 0-based block `layer` to the (n_tokens, n_embd) residual stream."""
        name = f"blk.{layer}"
        x = self.attention(layer, self.norm(f"{name}.attn_norm", residual))
        residual = residual + self.norm(f"{name}.post_attention_norm", x)
        x = self.feed_forward(layer, self.norm(f"{name}.ffn_norm", residual))
        return residual + self.norm(f"{name}.post_ffw_norm", x)

    def attention(self, layer: int, x: Array) -> Array:
        """Turn normalised (n_tokens, n_embd) rows into what attention adds, before its norm."""
        base = self.window_rope_base if self.has_window(layer) else self.rope_base
        query, key, value = self.heads(layer, x)
        attended = causal_attention(
            self.rotate(query, base),
            self.rotate(key, base),
            value,
            window=self.window if self.has_window(layer) else None,
        )
        return self.linear(f"blk.{layer}.attn_output", attended)

    def feed_forward(self, layer: int, x: Array) -> Array:
        """Turn normalised (n_tokens, n_embd) rows into what the network adds, before its norm."""
        gate = self.linear(f"blk.{layer}.ffn_gate", x)
        up = self.linear(f"blk.{layer}.ffn_up", x)
        return self.linear(f"blk.{layer}.ffn_down", gelu(gate) * up)
