"""A `Llama` that is steered: profiles for it, what it generates, and what it must generate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, Literal

import llama_cpp
import numpy as np
import numpy.typing as npt
from llama_cpp import Llama, LogitsProcessorList

from models import TinyModel
from models.operations import Array, log_softmax
from steerx_edge.live import steer
from steerx_edge.llamacpp.models import identify
from steerx_edge.profile import LogitBias, MemoryPart, Profile
from tests.support.entries import an_entry
from tests.support.memory_reference import Text, memory_of

Positions = Literal["generated", "all"]
Logits = npt.NDArray[np.float32]

TEXT = "Alice was late again, and the White Rabbit's watch said so: oh dear! She ran on."
N = 10  # tokens generated
EXACT = 1e-4  # float64 in the reference against float32 in llama.cpp; logits deviate by 2
WORD = 305  # a token that the model does not choose by itself
TAUGHT = (  # the person's texts, as tokens
    [WORD, 310, 311, WORD, 310, 312],
    [WORD, 310, 311, 320],
    [310, 311, 320, WORD],
)


# ---------------------------------------------------------------- profiles


def a_profile(
    llama: Llama,
    *,
    strength: float = 1.0,
    layers: tuple[int, ...] = (1, 3),
    norm: float = 10.0,
    seed: int = 0,
    **fields: Any,
) -> Profile:
    """A profile for this model, with random directions and further fields of an `Entry`.

    The norm is that of what is added at strength 1; the residual rows' own norms are near 8.
    """
    model = identify(llama)
    directions = np.random.default_rng(seed).standard_normal((len(layers), model.n_embd))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    entry = an_entry(
        model,
        layers,
        directions,
        norms=np.full(len(layers), norm, np.float32),
        contrast_methods=("context-contrast",) * len(layers),
        strengths=np.full(len(layers), strength, np.float32),
        **fields,
    )
    return Profile((entry,))


def bias_of(values: Mapping[int, float], strength: float = 1.0) -> LogitBias:
    """A logit bias from the values of some tokens."""
    tokens = np.array(sorted(values), np.int32)
    return LogitBias(tokens, np.array([values[t] for t in sorted(values)], np.float32), strength)


def biased(llama: Llama, strength: float = 0.0, **how: Any) -> Profile:
    """A profile with a logit bias; its directions are at strength 0 unless told otherwise."""
    rng = np.random.default_rng(3)
    tokens = rng.choice(llama.n_vocab(), 40, replace=False).tolist()
    bias = bias_of(dict(zip(tokens, rng.normal(0, 3, 40).tolist(), strict=True)), 0.5)
    return a_profile(llama, strength=strength, **{"logit_bias": bias, **how})


def dense(llama: Llama, bias: Mapping[int, float]) -> Logits:
    """A logit bias as a (n_vocab,) array."""
    added = np.zeros(llama.n_vocab(), np.float32)
    added[list(bias)] = list(bias.values())
    return added


def forcing(llama: Llama, token: int = WORD, **how: Any) -> Profile:
    """A profile whose logit bias makes one token certain."""
    return biased(llama, logit_bias=bias_of({token: 1e6}), **how)


def taught(llama: Llama, texts: Sequence[Text], strength: float) -> MemoryPart:
    """A memory of texts, all tokens alike."""
    return MemoryPart.of(memory_of(llama, texts), strength=strength, level="all")


def knowing(llama: Llama, strength: float = 0.0, memory: float = 0.5, **how: Any) -> Profile:
    """A profile with a memory; its directions are at strength 0 unless told otherwise."""
    prompt = llama.tokenize(TEXT.encode())
    part = taught(llama, [(prompt, text) for text in TAUGHT], memory)
    return a_profile(llama, strength=strength, **{"memory": part, **how})


def insisting(llama: Llama, run: Sequence[int] = TAUGHT[1], **how: Any) -> Profile:
    """A profile whose memory makes one answer to the prompt all but certain."""
    memory = taught(llama, [(llama.tokenize(TEXT.encode()), run)], 1e6)
    return a_profile(llama, strength=0.0, **{"memory": memory, **how})


# ---------------------------------------------------------------- what is generated


def greedy(llama: Llama, prompt: Sequence[int], n: int = N, **options: Any) -> list[int]:
    """The first tokens of greedy generation."""
    with closing(llama.generate(prompt, temp=0.0, **options)) as tokens:
        return list(islice(tokens, n))


def greedy_steered(llama: Llama, prompt: Sequence[int], n: int = N, **how: Any) -> list[int]:
    """The same under `a_profile`."""
    with steer(llama, a_profile(llama, **how)):
        return greedy(llama, prompt, n)


def last_logits(llama: Llama) -> Logits:
    """Logits of the token that was evaluated last."""
    row = llama_cpp.llama_get_logits_ith(llama.ctx, -1)
    logits: Logits = np.ctypeslib.as_array(row, (llama.n_vocab(),)).copy()
    return logits


def greedy_with_logits(
    llama: Llama, prompt: Sequence[int], n: int = N
) -> tuple[list[int], npt.NDArray[np.float32]]:
    """Generated tokens, and the (n, n_vocab) logits that each was picked from."""
    tokens, logits = [], []
    with closing(llama.generate(prompt, temp=0.0)) as stream:
        for token in islice(stream, n):
            tokens.append(token)
            logits.append(last_logits(llama))
    return tokens, np.stack(logits)


def complete(llama: Any, prompt: str | Sequence[int], n: int = N, **options: Any) -> str:
    """Greedy `create_completion`, streamed if `stream=True`."""
    answer = llama.create_completion(prompt, max_tokens=n, **{"temperature": 0.0, **options})
    chunks = answer if options.get("stream") else [answer]
    return "".join(chunk["choices"][0]["text"] for chunk in chunks)


def chat(llama: Any, messages: Sequence[Mapping[str, object]], n: int = N, **options: Any) -> str:
    """Greedy `create_chat_completion`, streamed if `stream=True`."""
    answer = llama.create_chat_completion(messages, max_tokens=n, **{"temperature": 0.0, **options})
    if options.get("stream"):
        return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in answer)
    return str(answer["choices"][0]["message"]["content"])


def every_way(llama: Llama, n: int = 4, **options: Any) -> list[str]:
    """What completions and chats answer to the prompt, whole and streamed."""
    messages = [{"role": "user", "content": TEXT}]
    return [
        answer
        for stream in (False, True)
        for answer in (
            complete(llama, TEXT, n, stream=stream, **options),
            chat(llama, messages, n, stream=stream, **options),
        )
    ]


def reset(llama: Any) -> None:
    """Forget all tokens, so that the next prompt is evaluated anew."""
    llama.reset()


def break_off_stream(llama: Any, prompt: Sequence[int]) -> None:
    """Leave a stream after its first chunk."""
    for _ in llama.create_completion(prompt, max_tokens=N, temperature=0.0, stream=True):
        break


class Recorder:
    """A logits processor of the caller's: records what it is given, and the model's own logits."""

    def __init__(self, llama: Llama) -> None:
        self.llama = llama
        self.given: list[Logits] = []
        self.own: list[Logits] = []

    def __call__(self, _ids: npt.NDArray[np.intc], scores: Logits) -> Logits:
        self.given.append(scores.copy())
        self.own.append(last_logits(self.llama))
        return scores


def processors(*each: Callable[..., Any]) -> LogitsProcessorList:
    """As llama-cpp-python takes them."""
    return LogitsProcessorList(list(each))


# ---------------------------------------------------------------- what must be generated


def from_row(first: int, strength: float, n_tokens: int) -> Array:
    """(n_tokens,) strengths: 0 before row `first`."""
    return np.where(np.arange(n_tokens) >= first, strength, 0.0)


def first_steered(prompt: Sequence[int], positions: Positions) -> int:
    """The first row of a prompt that is steered."""
    return 0 if positions == "all" else len(prompt) - 1


def reference_steering(profile: Profile, strengths: Array) -> dict[int, Array]:
    """What is added after each block, each row at its own of (n_tokens,) strengths."""
    (entry,) = profile.entries
    return {
        layer: strengths[:, np.newaxis] * vector.astype(np.float64)
        for layer, vector in zip(entry.layers, entry.vectors(), strict=True)
    }


def reference_logits(
    model: TinyModel, tokens: Sequence[int], profile: Profile, strengths: Array
) -> Array:
    """(n_tokens, n_vocab) logits by NumPy, each row steered at its own of (n_tokens,) strengths."""
    return model.forward(tokens, reference_steering(profile, strengths)).logits


def assert_steered_exactly(
    llama: Llama,
    model: TinyModel,
    prompt: Sequence[int],
    profile: Profile,
    strength: float = 1.0,
) -> None:
    """Generate from a prompt, and compare every logit on the way with the reference."""
    generated, logits = greedy_with_logits(llama, prompt)
    first = first_steered(prompt, profile.entries[0].positions)
    tokens = [*prompt, *generated[:-1]]
    expected = reference_logits(model, tokens, profile, from_row(first, strength, len(tokens)))
    np.testing.assert_allclose(logits, expected[len(prompt) - 1 :], atol=EXACT, rtol=0)


def assert_untouched(llama: Llama, fresh: Llama, prompt: Sequence[int]) -> None:
    """Generate from a prompt, to the last bit as a model does that was never steered."""
    for each in (llama, fresh):
        reset(each)
    tokens, logits = greedy_with_logits(llama, prompt)
    expected, expected_logits = greedy_with_logits(fresh, prompt)
    assert tokens == expected
    np.testing.assert_array_equal(logits, expected_logits)
    recorder = Recorder(llama)
    greedy(llama, prompt, logits_processor=[recorder])
    np.testing.assert_array_equal(recorder.given, recorder.own)


def force_tokens(tokens: Sequence[int], given: list[Array]) -> Callable[..., Logits]:
    """A logits processor that records log-probabilities, and has these tokens generated."""

    def processor(_ids: object, scores: Logits) -> Logits:
        given.append(log_softmax(scores.astype(np.float64)))
        scores[tokens[len(given) - 1]] = 1e9
        return scores

    return processor
