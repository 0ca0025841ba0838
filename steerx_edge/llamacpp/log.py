"""llama.cpp's log."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import llama_cpp

_ERROR = 4  # GGML_LOG_LEVEL_ERROR
_callbacks: list[Any] = []  # llama.cpp keeps the pointer, so these must not be collected


def log_errors(write: Callable[[str], object]) -> None:
    """Give errors in llama.cpp's log to `write`, and nothing else, from now on."""

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def log(level: int, text: bytes, _data: ctypes.c_void_p) -> None:
        if level == _ERROR:
            write(text.decode(errors="replace"))

    _callbacks.append(log)
    llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
