"""The process that holds the model and answers one request after the other."""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import signal
import sys
import threading
from contextlib import ExitStack, nullcontext, suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from steerx_edge.apps.server.errors import RequestError, too_long
from steerx_edge.apps.server.work import Message, ModelInfo, ModelOptions, Usage, Work
from steerx_edge.errors import ModelError, SteerxError
from steerx_edge.llamacpp.waiting import wait_briefly

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from steerx_edge.apps.server.recording import Recording


_CONTROL_TOKEN = 64
"""Bytes of the name of a control token, such as `<|im_start|>`, at most."""


def work_for(connection: Connection, options: ModelOptions) -> None:
    """Load the model, and do what comes through a connection until it is closed.

    The answers are `Message`s. All that is read from the connection while an answer is generated is
    a wish to end it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["GGML_NO_BACKTRACE"] = "1"  # nothing of a request is printed, nor kept, in a crash
    if sys.platform != "win32":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    wait_briefly()
    try:
        worker = _Worker(connection, options)
    except SteerxError as error:
        connection.send(("refused", RequestError(500, str(error))))
        return
    # llama.cpp prints grammars that it cannot read, and Python what fails in a callback.
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        connection.send(("ready", worker.info()))
        gc.freeze()
        while True:
            if isinstance(work := connection.recv(), Work):  # else it is done already
                connection.send(worker.result(work))
                # llama-cpp-python's samplers are in cycles with what they call: the profile, its
                # files and arrays of the request. Python would keep them for hundreds of requests.
                gc.collect()
    worker.close()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class _Worker:
    def __init__(self, connection: Connection, options: ModelOptions) -> None:
        from steerx_edge.apps.server.profiles import read_profiles
        from steerx_edge.llamacpp import compat
        from steerx_edge.llamacpp.engine import Engine
        from steerx_edge.llamacpp.log import log_errors
        from steerx_edge.llamacpp.models import find_model

        self._connection, self._options = connection, options
        self._path = find_model(options.model)
        log_errors(lambda _text: None)
        self._engine = Engine(
            self._path,
            n_ctx=options.n_ctx,
            n_threads=options.n_threads,
            n_gpu_layers=options.n_gpu_layers,
        )
        self._eval = self._engine.llama.eval
        compat.replace_methods(self._engine.llama, eval=self._eval_by_batches)
        pieces = self._engine.pieces(range(self._engine.llama.n_vocab()))
        self._longest_token = max(_CONTROL_TOKEN, *map(len, pieces))
        self._read = read_profiles
        self._read_profiles()

    def close(self) -> None:
        self._engine.llama.close()

    def info(self) -> ModelInfo:
        llama, model = self._engine.llama, self._engine.model_id
        return ModelInfo(
            name=self._options.alias or self._path.stem,
            n_ctx=llama.n_ctx(),
            n_params=model.n_params,
            n_bytes=self._path.stat().st_size,
            longest_token=self._longest_token,
            architecture=model.architecture,
            quantization=model.quantization,
            fingerprint=model.fingerprint,
            template=llama.metadata.get("tokenizer.chat_template", ""),
            profiles=tuple(self._profiles),
            problems=tuple(self._problems),
        )

    def result(self, work: Work) -> Message:
        """Do what is asked, send what comes of it, and return the last message."""
        from steerx_edge.apps.server.recording import StoppedError

        try:
            if work.kind == "reload":
                self._read_profiles()
                return ("ready", self.info())
            return ("done", self._answer(work))
        except RequestError as refusal:
            return ("refused", refusal)
        except StoppedError:
            return ("done", Usage())
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except SteerxError as error:
            return ("refused", RequestError(400, str(error)))
        except Exception as error:
            return ("refused", _refusal_of(error, self._engine.llama.n_ctx()))

    def _read_profiles(self) -> None:
        llama, model = self._engine.llama, self._engine.model_id
        self._profiles, self._problems = self._read(self._options.profiles, llama, model)

    def _answer(self, work: Work) -> Usage:
        from steerx_edge.apps.server.recording import Recording

        llama, options = self._engine.llama, self._checked(work)
        with ExitStack() as stack:
            stack.enter_context(self._steered(work))
            recording = stack.enter_context(Recording(self._engine, work, self._is_cancelled))
            is_chat = work.kind == "chat"
            generate: Any = llama.create_chat_completion if is_chat else llama.create_completion
            answer = generate(**options)
            if isinstance(answer, dict):
                self._connection.send(("whole", _completed(answer, work, recording)))
            else:
                for chunk in answer:
                    self._connection.send(("chunk", _completed(chunk, work, recording)))
            return recording.usage

    def _steered(self, work: Work) -> Any:
        from steerx_edge.live import SteeringHandle

        if work.profile is None:
            return nullcontext()
        served = self._profiles.get(work.profile)
        if served is None:
            raise RequestError(404, "The profile of this request was removed.")
        return SteeringHandle(
            self._engine.llama,
            served.profile,
            work.scale,
            with_history=False,
            prefix=served.prefix if work.kind == "chat" else None,
        )

    def _checked(self, work: Work) -> dict[str, Any]:
        """The options, with what only the model can tell."""
        from steerx_edge.llamacpp.engine import llama_seed
        from steerx_edge.llamacpp.grammars import checked_grammar, grammar_of_schema

        n_vocab = self._engine.llama.n_vocab()
        for token in work.logit_bias:
            if not 0 <= token < n_vocab:
                raise RequestError(400, f"logit_bias names token {token}; the model has {n_vocab}.")
        options = {**work.options, "seed": llama_seed(work.options.get("seed"))}
        grammar = work.grammar if work.schema is None else grammar_of_schema(work.schema)
        if grammar is not None:
            options["grammar"] = checked_grammar(self._engine.llama, grammar)
        return options

    def _is_cancelled(self) -> bool:
        """Whether the other process has said so, or has ended."""
        if not self._connection.poll():
            return False
        self._connection.recv()
        return True

    def _eval_by_batches(self, tokens: Sequence[int]) -> None:
        """`Llama.eval`, with a sign of life and a chance to end before each batch of a prompt."""
        from steerx_edge.apps.server.recording import StoppedError

        n_batch = self._engine.llama.n_batch
        for start in range(0, len(tokens), n_batch):
            if len(tokens) > 1:
                self._connection.send(("alive", None))
                if self._is_cancelled():
                    raise StoppedError
            self._eval(tokens[start : start + n_batch])


def _completed(answer: Any, work: Work, recording: Recording) -> Any:
    """An answer or a chunk, with the log-probabilities of its tokens and the reason of its end."""
    choice = answer["choices"][0]
    if recording.is_full and choice["finish_reason"]:
        choice["finish_reason"] = "length"
    if work.top_logprobs is None or "role" in choice.get("delta", ()):
        return answer
    noted = recording.logprobs()
    if work.kind == "chat":
        choice["logprobs"] = {"content": noted, "refusal": None} if noted else None
    elif noted:
        offset = 0
        offsets = []
        for each in noted:
            offsets.append(offset)
            offset += len(each["token"])
        choice["logprobs"] = {
            "tokens": [each["token"] for each in noted],
            "token_logprobs": [each["logprob"] for each in noted],
            "top_logprobs": [
                {other["token"]: other["logprob"] for other in each["top_logprobs"]}
                for each in noted
            ],
            "text_offset": offsets,
        }
    return answer


def _refusal_of(error: Exception, n_ctx: int) -> RequestError:
    """What llama-cpp-python or a chat template means; their messages may hold the request."""
    if found := re.search(r"Requested tokens \((\d+)\) exceed context window", str(error)):
        return too_long(int(found[1]), n_ctx)
    if type(error).__module__.startswith("jinja2"):
        return RequestError(400, "The model's chat template does not take these messages.")
    if isinstance(error, ModelError | RuntimeError):
        return RequestError(500, "llama.cpp failed while it generated the answer.")
    return RequestError(500, f"The answer failed ({type(error).__name__}).")
