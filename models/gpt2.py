"""GPT-2: LayerNorm, learned positions, biases everywhere, GELU, a tied output."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from gguf import GGUFWriter

from models.byte_pairs import train_byte_pairs
from models.operations import Array, causal_attention, gelu, layer_norm
from models.transformer import AnyVocabulary, Transformer
from models.weights import GELU_GAIN, random_bias, random_matrix, random_norm


class Gpt2(Transformer):
    """What gpt2 does; it has little in common with llama."""

    architecture = "gpt2"
    n_head_kv = 4

    @classmethod
    def train_vocabulary(cls) -> AnyVocabulary:
        """Make the vocabulary that the architecture comes with."""
        return train_byte_pairs("gpt-2")

    def add_hyperparameters(self, writer: GGUFWriter) -> None:
        """Add the shape to a GGUF file's metadata."""
        super().add_hyperparameters(writer)
        writer.add_head_count(self.n_head)
        writer.add_layer_norm_eps(self.epsilon)

    def draw_embedding(self, rng: np.random.Generator) -> dict[str, Array]:
        """Draw what `embed` reads; `logits` reads the tokens' part too, hence the size."""
        scale = 2 / np.sqrt(self.n_embd)
        return {
            "token_embd.weight": rng.normal(scale=scale, size=(self.n_vocab, self.n_embd)),
            "position_embd.weight": rng.normal(scale=0.25, size=(self.n_ctx, self.n_embd)),
        }

    def draw_block(self, _layer: int, rng: np.random.Generator) -> dict[str, Array]:
        """Draw what `block` reads, named without the `blk.<layer>.` in front."""
        n_embd, n_ff = self.n_embd, self.n_ff
        weights = {
            "attn_norm": random_norm(rng, n_embd),
            "attn_qkv": random_matrix(rng, 3 * n_embd, n_embd, gain=1.5),
            "attn_output": random_matrix(rng, n_embd, n_embd),
            "ffn_norm": random_norm(rng, n_embd),
            "ffn_up": random_matrix(rng, n_ff, n_embd),
            "ffn_down": random_matrix(rng, n_embd, n_ff, gain=GELU_GAIN),
        }
        biases = {name: random_bias(rng, len(weight)) for name, weight in weights.items()}
        return _with_suffix("weight", weights) | _with_suffix("bias", biases)

    def draw_output(self, rng: np.random.Generator) -> dict[str, Array]:
        """Draw what `logits` reads besides the embedding."""
        return {
            "output_norm.weight": random_norm(rng, self.n_embd),
            "output_norm.bias": random_bias(rng, self.n_embd),
        }

    def embed(self, tokens: npt.NDArray[np.intp]) -> Array:
        """Turn (n_tokens,) token ids into the (n_tokens, n_embd) input of block 0."""
        return super().embed(tokens) + self.weights["position_embd.weight"][: len(tokens)]

    def attention(self, layer: int, x: Array) -> Array:
        """Turn normalised (n_tokens, n_embd) rows into what attention adds to the residual."""
        fused = self.linear(f"blk.{layer}.attn_qkv", x).reshape(len(x), -1, self.head_size)
        query, key, value = np.split(fused, 3, axis=1)
        return self.linear(f"blk.{layer}.attn_output", causal_attention(query, key, value))

    def feed_forward(self, layer: int, x: Array) -> Array:
        """Turn normalised (n_tokens, n_embd) rows into what the network adds to the residual."""
        return self.linear(f"blk.{layer}.ffn_down", gelu(self.linear(f"blk.{layer}.ffn_up", x)))

    def norm(self, name: str, x: Array) -> Array:
        """Apply norm `name` to (..., n) rows."""
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return layer_norm(x, weight, bias, self.epsilon)


def _with_suffix(suffix: str, weights: dict[str, Array]) -> dict[str, Array]:
    return {f"{name}.{suffix}": weight for name, weight in weights.items()}
