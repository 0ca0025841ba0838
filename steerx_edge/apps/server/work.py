"""What the two processes of the server tell each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias


@dataclass(frozen=True)
class ModelOptions:
    """How the model is loaded, and where the profiles are."""

    model: str | None
    profiles: Path
    alias: str | None = None
    n_ctx: int = 4096
    n_threads: int | None = None
    n_gpu_layers: int = 0


@dataclass(frozen=True)
class Work:
    """One request to the model.

    Attributes:
        kind: a chat, a completion, or to read the profiles anew.
        options: arguments of `Llama.create_chat_completion` or `create_completion`.
        profile: the id of a profile; None for the model itself.
        scale: relative strength of the profile.
        grammar: GBNF that the answer follows.
        schema: a JSON schema that it follows, as JSON.
        logit_bias: what is added to logits, by token.
        min_tokens: no end of the answer before.
        top_logprobs: how many alternatives to give for each token; None gives no logprobs.
    """

    kind: Literal["chat", "completion", "reload"]
    options: dict[str, Any] = field(default_factory=dict)
    profile: str | None = None
    scale: float = 1.0
    grammar: str | None = None
    schema: str | None = None
    logit_bias: dict[int, float] = field(default_factory=dict)
    min_tokens: int = 0
    top_logprobs: int | None = None


@dataclass(frozen=True)
class Usage:
    """What an answer took.

    Attributes:
        prompt_tokens: in the prompt.
        completion_tokens: in the answer, without the one that ended it.
        cached_tokens: of the prompt, whose KV cells were there already.
        prompt_seconds: until the first token.
        answer_seconds: from there on.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    prompt_seconds: float = 0.0
    answer_seconds: float = 0.0


@dataclass(frozen=True)
class ModelInfo:
    """What the HTTP side knows of the model and of the profiles that fit it.

    Attributes:
        name: of the model, as clients ask for it.
        profiles: ids, in order.
        longest_token: bytes of a text that one token stands for at most.
        problems: why other profiles are left out, or parts of one: a sentence each.
    """

    name: str
    n_ctx: int
    n_params: int
    n_bytes: int
    longest_token: int
    architecture: str
    quantization: str
    fingerprint: str
    template: str
    profiles: tuple[str, ...]
    problems: tuple[str, ...]


Message: TypeAlias = tuple[Literal["ready", "alive", "chunk", "whole", "done", "refused"], Any]
"""From the model's process: what it is, and its ModelInfo, chunk, answer, Usage or RequestError."""
