"""Chats of a model that is loaded once and steered by another profile for each answer."""

from __future__ import annotations

import json
import os
import random
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerx_edge.errors import SteerxError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from steerx_edge.llamacpp.compat import Llama
    from steerx_edge.llamacpp.prompts import Message

_CTX_SIZE = 4096


@dataclass(frozen=True)
class ChatOptions:
    """How an answer is generated.

    Attributes:
        strength: relative to what was learned.
        memory: use the memory of the profile.
        prefix: begin with the prefix next to the profile; None if there is one.
        max_tokens: of the answer; None fills the context.
        temperature: 0 takes the most probable token.
        seed: of sampling; None for a random one.
        schema: JSON Schema that the answer follows, or None.
        stream: yield it while it is generated, or at once.
    """

    strength: float = 1.0
    memory: bool = True
    prefix: bool | None = None
    max_tokens: int | None = None
    temperature: float = 0.8
    seed: int | None = None
    schema: dict[str, Any] | None = None
    stream: bool = True


@dataclass
class Usage:
    """Tokens of an answer, once it was read to its end."""

    prompt: int = 0
    answer: int = 0


class SteeredChat:
    """A model that answers one chat after the other, each with a profile of its own.

    Threads wait for each other. The model is loaded for the first answer.
    """

    def __init__(self, model: Path) -> None:
        self._path = model
        self._llama: Llama | None = None
        self._lock = threading.Lock()
        self._owner: int | None = None

    def answer(
        self, profile: Path, messages: Sequence[Message], options: ChatOptions, usage: Usage
    ) -> Iterator[str]:
        """Yield an answer piece by piece; its tokens are counted in `usage`.

        A memory that cannot be used is a `UserWarning`.

        Raises:
            ProfileError: the profile cannot be read, or was made for another model.
            ModelError: the model cannot be loaded, or the schema not be followed.
            SteerxError: this thread has not read another answer to its end.
        """
        from steerx_edge.llamacpp.grammars import checked_grammar, grammar_of_schema

        schema = None if options.schema is None else grammar_of_schema(json.dumps(options.schema))
        with self._held(), self._steered(profile, options) as llama:
            answer: Any = llama.create_chat_completion(
                list(messages),  # type: ignore[arg-type]
                stream=options.stream,
                max_tokens=options.max_tokens,
                temperature=options.temperature,
                seed=random.randrange(2**31) if options.seed is None else options.seed,  # noqa: S311
                grammar=None if schema is None else checked_grammar(llama, schema),
                logits_processor=_counting(usage),
            )
            for part in answer if options.stream else [answer]:
                (choice,) = part["choices"]
                if choice["finish_reason"] == "stop":
                    usage.answer -= 1  # the token that ends an answer
                if text := choice["delta" if options.stream else "message"].get("content"):
                    yield text

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Let one answer be generated at a time."""
        if self._owner == threading.get_ident():
            raise SteerxError(
                "This model is still answering. Read the other answer to its end first."
            )
        with self._lock:
            self._owner = threading.get_ident()
            try:
                yield
            finally:
                self._owner = None

    @contextmanager
    def _steered(self, path: Path, options: ChatOptions) -> Iterator[Llama]:
        from steerx_edge.live import SteeringHandle
        from steerx_edge.live_prefix import LivePrefix
        from steerx_edge.llamacpp.models import identify
        from steerx_edge.profile import Profile

        llama = self._opened()
        model = identify(llama)
        profile = Profile.load(path)
        entry = profile.entry_for(model)
        if not options.memory:
            profile = Profile((replace(entry, memory=None),))
        for problem in profile.problems:
            warnings.warn(problem, stacklevel=2)
        prefix = None
        if options.prefix is not False:
            if options.prefix:
                prefix = LivePrefix.load(llama, path)
            else:
                prefix, problem = LivePrefix.usable(llama, entry, path)
                if problem:
                    warnings.warn(problem, stacklevel=2)
        with SteeringHandle(llama, profile, options.strength, with_history=False, prefix=prefix):
            yield llama

    def _opened(self) -> Llama:
        if self._llama is None:
            from steerx_edge.llamacpp.waiting import wait_briefly

            wait_briefly()

            from steerx_edge.llamacpp.engine import Engine
            from steerx_edge.llamacpp.log import log_errors

            log_errors(lambda _: None)  # what fails is raised
            self._llama = Engine(
                self._path,
                n_ctx=_from_environment("LLAMA_ARG_CTX_SIZE", _CTX_SIZE),
                n_threads=_from_environment("LLAMA_ARG_THREADS", 0),
                n_gpu_layers=_from_environment("LLAMA_ARG_N_GPU_LAYERS", 0),
            ).llama
        return self._llama


def _counting(usage: Usage) -> Any:
    """Logits processors that count: they are called for each token that is sampled."""
    from steerx_edge.llamacpp.compat import LogitsProcessorList

    def count(ids: NDArray[Any], logits: NDArray[Any]) -> NDArray[Any]:
        if not usage.answer:
            usage.prompt = len(ids)
        usage.answer += 1
        return logits

    return LogitsProcessorList([count])


def _from_environment(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip()
    if text in ("all", "auto"):
        return -1
    try:
        return int(text) if text else default
    except ValueError:
        raise SteerxError(f"{name} is '{text}'; expected an integer.") from None
