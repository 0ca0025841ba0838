"""Every reach into llama-cpp-python or llama.cpp that is not public API.

Public are the functions of `llama.h` as llama-cpp-python binds them, and what `Llama` offers under
names without an underscore, to be called or read. Everything else that this package builds on is
here: names with an underscore, state that is written from outside, and what llama.cpp happens to
do. Each was checked on llama-cpp-python 0.3.36; `tests/llamacpp/test_compat.py` has a test for
each, named like it.
"""

from __future__ import annotations

import ctypes
import re
import warnings
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import llama_cpp
from llama_cpp import Llama, LlamaState, LogitsProcessorList

from steerx_edge import _native
from steerx_edge.errors import ModelError

__all__ = [
    "GENERATE_OPTIONS",
    "LLAMA_CPP_RANGE",
    "LLAMA_CPP_VERSIONS",
    "NO_LOGITS_WITH_ROWS",
    "Llama",
    "LlamaState",
    "LogitsProcessorList",
    "before_model_is_freed",
    "chat_formatter",
    "context_params",
    "devices",
    "empty",
    "end_openmp_threads",
    "evaluate_anew",
    "find_functions",
    "forget_from",
    "hide_from",
    "holds",
    "installed_version",
    "is_tested_version",
    "kind_of_model",
    "may_stop_early",
    "most_tokens",
    "replace_methods",
    "restore_methods",
]

LLAMA_CPP_VERSIONS = ((0, 3, 36), (0, 4))
"""Versions of llama-cpp-python that this package is tested with: from, and below."""

LLAMA_CPP_RANGE = ">={},<{}".format(*(".".join(map(str, v)) for v in LLAMA_CPP_VERSIONS))

GENERATE_OPTIONS = tuple(signature(Llama.generate).parameters)[2:]
"""What `Llama.generate` takes after the tokens, in order."""

NO_LOGITS_WITH_ROWS = ("lfm2", "lfm2moe")
"""Architectures whose graph leaves the output matrix out where embeddings are asked for."""

_OMP_PAUSE_SOFT = 1


def installed_version() -> str:
    """The version of llama-cpp-python."""
    version: str = llama_cpp.__version__
    return version


def is_tested_version() -> bool:
    """Whether the installed llama-cpp-python is one that this package is tested with."""
    version = tuple(int(part) for part in re.findall(r"\d+", llama_cpp.__version__)[:3])
    return LLAMA_CPP_VERSIONS[0] <= version < LLAMA_CPP_VERSIONS[1]


def devices() -> list[str]:
    """What llama.cpp computes on: "CPU: Intel Xeon, 64 GB".

    By `ggml_backend_dev_count` and its relatives, found through `llama_cpp.llama_cpp._lib`; none
    where there are no such functions.
    """
    lib = llama_cpp.llama_cpp._lib
    try:
        count, get = lib.ggml_backend_dev_count, lib.ggml_backend_dev_get
        texts = lib.ggml_backend_dev_name, lib.ggml_backend_dev_description
        memory = lib.ggml_backend_dev_memory
    except AttributeError:
        return []
    count.restype, get.restype, get.argtypes = ctypes.c_size_t, ctypes.c_void_p, [ctypes.c_size_t]
    for function in texts:
        function.restype, function.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    n_bytes = ctypes.POINTER(ctypes.c_size_t)
    memory.restype, memory.argtypes = None, [ctypes.c_void_p, n_bytes, n_bytes]
    found = []
    for place in range(count()):
        device = get(place)
        name, description = (function(device).decode(errors="replace") for function in texts)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        memory(device, ctypes.byref(free), ctypes.byref(total))
        found.append(f"{name}: {description}, {total.value / 1e9:.0f} GB")
    return found


def find_functions() -> _native.LlamaApi:
    """Resolve what the extension calls in the libraries that llama-cpp-python has loaded.

    By the handle of the library, `llama_cpp.llama_cpp._lib`. Which functions these are, and which
    tensors of a graph are read by name, is in `native/`.

    Raises:
        ModelError: a function is missing.
    """
    if not is_tested_version():
        warnings.warn(
            f"llama-cpp-python {llama_cpp.__version__} has not been tested with this steerx-edge; "
            f"{LLAMA_CPP_RANGE} has.",
            stacklevel=5,
        )
    try:
        return _native.LlamaApi([llama_cpp.llama_cpp._lib._handle])
    except RuntimeError as error:
        raise ModelError(
            f"llama-cpp-python {llama_cpp.__version__} is not supported: {error}. "
            f"Install a version in the range {LLAMA_CPP_RANGE}."
        ) from error


def end_openmp_threads() -> None:
    """End the threads of the OpenMP that llama.cpp was linked with, if it was with one.

    By `omp_pause_resource_all` of OpenMP 5, found through `llama_cpp.llama_cpp._lib`. The next
    parallel region makes new ones.
    """
    pause = getattr(llama_cpp.llama_cpp._lib, "omp_pause_resource_all", None)
    if pause is not None:
        pause(_OMP_PAUSE_SOFT)


def before_model_is_freed(llama: Llama, call: Callable[[], object]) -> None:
    """Call `call` where the model is closed, while it is still there.

    By `Llama._model._exit_stack`, whose callbacks are called from the last to the first, which is
    the one that frees the model.
    """
    llama._model._exit_stack.callback(call)


def context_params(llama: Llama) -> Any:
    """A copy of the parameters of a model's own context, a ctypes struct."""
    return type(llama.context_params).from_buffer_copy(llama.context_params)


def most_tokens(llama: Llama) -> int:
    """How many tokens a model's own context takes.

    llama.cpp may round the context up, where the buffer of `Llama.input_ids` stays as it is.
    """
    return min(llama.n_ctx(), len(llama.input_ids))


def kind_of_model(llama: Llama) -> tuple[str, str]:
    """Architecture and quantization as `llama_model_desc` words them: "llama 1B Q4_K - Medium".

    Returns:
        Both, without the size in between; empty where the wording is another.
    """
    buffer = ctypes.create_string_buffer(1024)
    llama_cpp.llama_model_desc(llama.model, buffer, len(buffer))
    architecture, _, rest = buffer.value.decode().partition(" ")
    return architecture, rest.partition(" ")[2].removeprefix("all ")


def chat_formatter(template: str, *, bos: str, eos: str) -> Callable[..., Any]:
    """A chat template; called with `messages`, it gives an object whose `prompt` is the text.

    `llama_cpp.llama_chat_format` is not in llama-cpp-python's reference.
    """
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    return Jinja2ChatFormatter(template=template, eos_token=eos, bos_token=bos)


def may_stop_early(llama: Llama) -> bool:
    """Whether the evaluation of a graph may be ended by its callback before its end.

    After an early exit the first node of each later part of a graph is computed all the same. Where
    that takes experts by a choice that was never made, llama.cpp crashes.
    """
    architecture = llama.metadata.get("general.architecture", "")
    has_experts = llama.metadata.get(f"{architecture}.expert_count", "0") != "0"
    return not (has_experts and llama_cpp.llama_supports_gpu_offload())


def replace_methods(llama: Llama, **methods: Callable[..., Any]) -> dict[str, Any]:
    """Let everything that generates through `llama` call these in place of its own methods.

    By attributes of the object, which come before its class's: completions call `self.generate`,
    and that calls `self.eval` for all that it evaluates and `self.sample`; chats call
    `llama.create_completion`, and prompt caches `self.save_state` and `self.load_state`.

    Args:
        llama: the model.
        methods: by the names of the methods that they replace.

    Returns:
        What `restore_methods` takes.
    """
    replaced = {name: vars(llama).get(name) for name in methods}
    for name, method in methods.items():
        setattr(llama, name, method)
    return replaced


def restore_methods(llama: Llama, replaced: dict[str, Any]) -> None:
    """Undo `replace_methods`."""
    for name, method in replaced.items():
        vars(llama).pop(name, None)
        if method is not None:
            setattr(llama, name, method)


def evaluate_anew(llama: Llama) -> None:
    """Let the next prompt be evaluated even if it is the one in the context.

    `Llama.generate` samples from the logits that are there unless `Llama._requires_eval` is set.
    """
    llama._requires_eval = True


def forget_from(llama: Llama, n_tokens: int) -> None:
    """Take the context back to its first `n_tokens` tokens.

    `Llama.eval` begins by emptying the KV cells from `Llama.n_tokens` on. A recurrent state cannot
    be taken back.
    """
    llama.n_tokens = n_tokens


def hide_from(llama: Llama | LlamaState, cell: int) -> None:
    """Let no prompt match the context, or a saved one, from a cell on; it can go on as it is.

    `Llama.generate` and prompt caches compare a prompt with `input_ids`; -1 is no token.
    """
    llama.input_ids[cell] = -1


def empty(llama: Llama) -> None:
    """Empty the context: its KV cells, and what `Llama` knows of them."""
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(llama.ctx), True)
    llama.n_tokens = 0


def holds(llama: Llama, tokens: Sequence[int]) -> None:
    """Note which tokens the context holds, after its cells were put there from outside.

    `Llama.generate` compares a prompt with `Llama.input_ids`, and there are no logits.
    """
    llama.input_ids[: len(tokens)] = tokens
    llama.n_tokens = len(tokens)
    llama._requires_eval = True
