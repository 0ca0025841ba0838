"""Model ID: which model something was learned on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelId:
    """Which model an entry of a profile is for.

    Attributes:
        fingerprint: `sha256:` and 64 hexadecimal digits, of the model file. Decides identity.
        name: the model's name, for people.
        architecture: llama.cpp's name of the architecture, such as `llama`.
        n_layer: number of transformer blocks.
        n_embd: width of the residual stream.
        n_params: number of parameters.
        quantization: llama.cpp's own words, such as `Q4_1`.
    """

    fingerprint: str
    name: str
    architecture: str
    n_layer: int
    n_embd: int
    n_params: int
    quantization: str

    def __str__(self) -> str:
        return f"{self.name} ({self.quantization}, {self.fingerprint[:15]}…)"
