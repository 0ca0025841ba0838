"""What llama.cpp is like here, whether a model can be learned from and steered, and how fast."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import llama_cpp

from steerx_edge.errors import ModelError
from steerx_edge.llamacpp import compat
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.models import is_recurrent

_SECONDS = 1.5  # that a speed is measured for, once a first batch was evaluated
_BATCH = 64  # tokens


class Problem(NamedTuple):
    """What is wrong, with what to do.

    Args:
        text: a sentence or two.
        stops: whether something will not work at all.
    """

    text: str
    stops: bool = True


@dataclass
class System:
    """What llama.cpp is like here.

    Attributes:
        llama_cpp_python: its version.
        features: what llama.cpp was built with: SIMD, libraries.
        devices: what it computes on, with their memory.
        gpu_offload: whether layers can be put on a GPU.
        cores: of the processor.
    """

    llama_cpp_python: str
    features: list[str]
    devices: list[str]
    gpu_offload: bool
    cores: int


@dataclass
class Checked:
    """A model that was examined; what could not be found out is None.

    Attributes:
        path: the file.
        name: as the model calls itself.
        architecture: llama.cpp's name of it.
        layers: blocks.
        width: of the residual stream.
        recurrent: whether a part of its layers keeps a state, or all do.
        sliding_window: tokens that some layers attend to; 0 for all.
        steerable: whether its residual stream can be read and steered.
        threads: that it runs on.
        read_per_second: tokens of a prompt.
        written_per_second: tokens of an answer.
    """

    path: str
    name: str
    architecture: str
    layers: int
    width: int
    recurrent: bool
    sliding_window: int
    threads: int
    steerable: bool = False
    read_per_second: float | None = None
    written_per_second: float | None = None
    problems: list[Problem] = field(default_factory=list)


def system() -> tuple[System, list[Problem]]:
    """Look at llama-cpp-python and the machine."""
    llama_cpp.llama_backend_init()
    info = llama_cpp.llama_print_system_info().decode()
    found = System(
        llama_cpp_python=compat.installed_version(),
        features=re.findall(r"(\w+) = [1-9]", info),
        devices=compat.devices(),
        gpu_offload=bool(llama_cpp.llama_supports_gpu_offload()),
        cores=os.cpu_count() or 1,
    )
    problems = []
    if not compat.is_tested_version():
        problems.append(
            Problem(
                f"llama-cpp-python {found.llama_cpp_python} has not been tested with this "
                f"steerx-edge: pip install 'llama-cpp-python{compat.LLAMA_CPP_RANGE}'.",
                stops=False,
            )
        )
    if shutil.which("nvidia-smi") and not found.gpu_offload:
        problems.append(
            Problem(
                "There is an NVIDIA GPU, but llama.cpp was built without it: CMAKE_ARGS="
                "-DGGML_CUDA=on pip install --force-reinstall --no-binary :all: llama-cpp-python, "
                "and then give -ngl all.",
                stops=False,
            )
        )
    if " avx2" in _cpu_flags() and "AVX2" not in found.features:
        problems.append(
            Problem(
                "The processor has AVX2, but llama.cpp was built without it, which is several "
                "times slower: build it on this machine, with pip install --force-reinstall "
                "--no-binary :all: llama-cpp-python.",
                stops=False,
            )
        )
    return found, problems


def examine(engine: Engine) -> Checked:
    """Examine a model: its architecture, its residual stream, its speed; takes a few seconds."""
    llama, model = engine.llama, engine.model_id
    checked = Checked(
        path=str(llama.model_path),
        name=model.name,
        architecture=model.architecture,
        layers=model.n_layer,
        width=model.n_embd,
        recurrent=is_recurrent(llama.model),
        sliding_window=max(0, llama_cpp.llama_model_n_swa(llama.model)),
        threads=int(llama.n_threads),
    )
    try:
        _ = engine.analysis  # which probes it
        checked.steerable = True
    except ModelError as error:
        checked.problems.append(Problem(f"{error} Choose another model with -m."))
    if model.architecture in compat.NO_LOGITS_WITH_ROWS:
        checked.problems.append(
            Problem(
                f"The architecture '{model.architecture}' cannot use a memory: learn with --memory "
                "none.",
                stops=False,
            )
        )
    if "tokenizer.chat_template" not in llama.metadata:
        checked.problems.append(
            Problem(
                "The model has no chat template, so it may not have been trained to answer: "
                "requests are put before answers as plain text. Prefer an instruct model.",
                stops=False,
            )
        )
    cores = os.cpu_count() or 1
    if checked.threads > cores:
        checked.problems.append(
            Problem(
                f"{checked.threads} threads on {cores} cores wait for each other: lower -t.",
                stops=False,
            )
        )
    checked.read_per_second, checked.written_per_second = _speed(engine)
    return checked


def _speed(engine: Engine) -> tuple[float, float]:
    """Tokens a second: read in batches, and written one by one."""
    llama = engine.llama
    tokens = [1 + i % (llama.n_vocab() - 1) for i in range(_BATCH)]
    room = compat.most_tokens(llama) // 2
    llama.reset()  # type: ignore[no-untyped-call]
    llama.eval(tokens[:8])  # the first one allocates
    read = _rate(lambda: llama.eval(tokens), _BATCH, room - 8)
    written = _rate(lambda: llama.eval(tokens[:1]), 1, room)
    llama.reset()  # type: ignore[no-untyped-call]
    return read, written


def _rate(evaluate: Callable[[], object], n_tokens: int, most: int) -> float:
    """Tokens a second of calls that evaluate `n_tokens` each, at most `most` together."""
    n, begin = 0, time.perf_counter()
    while n + n_tokens <= most:
        evaluate()
        n += n_tokens
        if time.perf_counter() - begin > _SECONDS:
            break
    return n / (time.perf_counter() - begin)


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text("utf-8")
    except (OSError, ValueError):
        return ""
