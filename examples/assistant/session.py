"""A loaded model that writes with a profile. No Qt: one thread calls it, and others may stop it."""

from __future__ import annotations

import threading
from codecs import getincrementaldecoder
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

from examples.assistant.origins import Origins, origins_of
from steerx_edge.errors import ModelError
from steerx_edge.explaining.answers import attribute
from steerx_edge.live import SteeringHandle
from steerx_edge.live_prefix import LivePrefix
from steerx_edge.llamacpp import compat
from steerx_edge.llamacpp.engine import Engine, llama_seed
from steerx_edge.llamacpp.log import log_errors
from steerx_edge.llamacpp.model_search import chosen_model, model_file
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.profile import Entry, Profile


@dataclass(frozen=True)
class Options:
    """How texts are generated.

    Attributes:
        model: path or name of a model; None for the one that a profile was learned on.
        n_ctx: context size in tokens.
        n_threads: None for about the physical cores.
        n_gpu_layers: on a GPU; -1 for all.
        max_tokens: of a reply.
        temperature: 0 takes the most probable token.
        seed: of sampling; None for another one each time.
    """

    model: str | None = None
    n_ctx: int = 4096
    n_threads: int | None = None
    n_gpu_layers: int = 0
    max_tokens: int = 400
    temperature: float = 0.8
    seed: int | None = None


@dataclass(frozen=True)
class Opened:
    """A profile, and what of it is for the model that is loaded.

    Attributes:
        path: of the profile.
        problems: why parts of the profile are not used, a sentence each.
    """

    path: Path
    profile: Profile
    entry: Entry
    prefix: LivePrefix | None
    problems: list[str]


@dataclass(frozen=True)
class Reply:
    """What was written for a request.

    Attributes:
        tokens: with the one that ends it, if the model ended it.
        strengths: the steering strength of each token.
    """

    opened: Opened
    request: str
    prompt: list[int]
    seed: int
    tokens: list[int]
    strengths: list[float]
    text: str


class Session:
    """One model at a time.

    Attributes:
        strength: of steering, relative to what was learned; read before every token, so that
            another thread can change it while a reply is written.
    """

    def __init__(self, options: Options) -> None:
        self.strength = 1.0
        self._options = options
        self._stopped = threading.Event()
        self._engine: Engine | None = None
        log_errors(lambda _: None)  # what fails is raised

    def stop(self) -> None:
        """End the text that is being written, from any thread."""
        self._stopped.set()

    def allow(self) -> None:
        """Take back `stop`."""
        self._stopped.clear()

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` was called since `allow`."""
        return self._stopped.is_set()

    def open(self, path: Path) -> Opened:
        """Read a profile, and load its model unless it is loaded already.

        Raises:
            ProfileError: the profile cannot be read, or was made for another model.
            ModelError: the model is not found, or cannot be loaded.
        """
        profile = Profile.load(path)
        engine = self._loaded(self._model_of(profile))
        entry = profile.entry_for(engine.model_id)
        prefix, problem = LivePrefix.usable(engine.llama, entry, path)
        problems = [*profile.problems, *([problem] if problem else [])]
        return Opened(path, profile, entry, prefix, problems)

    def write(self, path: Path, request: str, show: Callable[[str], None]) -> Reply:
        """Write a reply with a profile.

        Args:
            path: of the profile, which is read anew.
            request: what the model is asked.
            show: called with each piece of the text.

        Raises:
            ProfileError, ModelError: as `open`, or the request does not fit the context.
        """
        opened = self.open(path)
        history = opened.prefix.items_for(request) if opened.prefix else ()
        prompt = self._running().prompt(messages_for(request, history=history))
        seed = llama_seed(self._options.seed)
        written = self._write(opened, prompt, seed, show)
        return Reply(opened, request, prompt, seed, *written)

    def write_plainly(self, reply: Reply, show: Callable[[str], None]) -> None:
        """Answer the same request without the profile, with the same random numbers.

        Raises:
            ModelError: llama.cpp fails.
        """
        prompt = self._running().prompt(messages_for(reply.request))
        self._write(None, prompt, reply.seed, show)

    def explain(self, reply: Reply) -> Origins:
        """Say what made each word of a reply probable.

        Raises:
            ModelError: it does not fit the analysis context, or llama.cpp fails.
        """
        opened, engine = reply.opened, self._running()
        strength = reply.strengths[-1] if reply.strengths else self.strength
        steering = opened.entry.steering(strength, with_history=opened.prefix is not None)
        found, _ = attribute(engine, opened.entry, steering, reply.prompt, reply.tokens)
        return origins_of(found, strength, is_mixed=len({*reply.strengths}) > 1)

    def close(self) -> None:
        """Free the model."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
            engine.llama.close()

    def _running(self) -> Engine:
        if self._engine is None:
            raise ModelError("No model is loaded. Choose a profile first.")
        return self._engine

    def _model_of(self, profile: Profile) -> Path:
        """The file of the model that is given, else of one that the profile was learned on."""
        if self._options.model is not None:
            return chosen_model(self._options.model)[0]
        if self._engine is not None:
            loaded = self._engine.model_id.fingerprint
            if any(entry.model.fingerprint == loaded for entry in profile.entries):
                return Path(self._engine.llama.model_path)
        for entry in profile.entries[:-1]:
            try:
                return model_file(entry.model)
            except ModelError:
                continue
        return model_file(profile.entries[-1].model)

    def _loaded(self, model: Path) -> Engine:
        if self._engine is None or Path(self._engine.llama.model_path) != model:
            self.close()
            options = self._options
            self._engine = Engine(
                model,
                n_ctx=options.n_ctx,
                n_threads=options.n_threads,
                n_gpu_layers=options.n_gpu_layers,
            )
        return self._engine

    def _write(
        self, opened: Opened | None, prompt: list[int], seed: int, show: Callable[[str], None]
    ) -> tuple[list[int], list[float], str]:
        """The tokens, the strength of each, and the text."""
        engine = self._running()
        n_tokens = self._room_for(engine, prompt)
        ends = {*engine.end_tokens}
        decoder = getincrementaldecoder("utf-8")("replace")
        tokens: list[int] = []
        strengths: list[float] = []
        pieces: list[str] = []

        def add(piece: str) -> None:
            if piece:
                pieces.append(piece)
                show(piece)

        engine.llama.set_seed(seed)
        with (
            self._steering(engine, opened) as handle,
            closing(engine.llama.generate(prompt, temp=self._options.temperature)) as stream,
        ):
            while len(tokens) < n_tokens and not self._stopped.is_set():
                strength = self.strength
                if handle is not None and handle.strength != strength:
                    handle.strength = strength
                tokens.append(next(stream))
                strengths.append(strength)
                add(decoder.decode(engine.pieces(tokens[-1:])[0]))
                if tokens[-1] in ends:
                    break
        add(decoder.decode(b"", final=True))
        return tokens, strengths, "".join(pieces)

    def _steering(
        self, engine: Engine, opened: Opened | None
    ) -> AbstractContextManager[SteeringHandle | None]:
        if opened is None:
            return nullcontext()
        return SteeringHandle(
            engine.llama, opened.profile, self.strength, with_history=False, prefix=opened.prefix
        )

    def _room_for(self, engine: Engine, prompt: Sequence[int]) -> int:
        n_ctx = compat.most_tokens(engine.llama)
        if len(prompt) >= n_ctx:
            raise ModelError(
                f"The mail takes {len(prompt)} tokens, and the context holds {n_ctx}. Shorten the "
                "mail, or start with a larger context (-c)."
            )
        return min(self._options.max_tokens, n_ctx - len(prompt))
