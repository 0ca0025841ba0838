"""A device whose memory is not the host's: a GPU, or llama.cpp's RPC backend in place of one."""

from __future__ import annotations

import ctypes
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import llama_cpp
import pytest
from llama_cpp.llama_cpp import _lib

GPU, INTEGRATED_GPU = 1, 2  # of enum ggml_backend_dev_type
SERVER = Path(__file__).with_name("rpc_server.py")
SECONDS_TO_START = 60


def has_gpu() -> bool:
    _lib.ggml_backend_dev_by_type.restype = ctypes.c_void_p
    return any(_lib.ggml_backend_dev_by_type(ctypes.c_int(kind)) for kind in (GPU, INTEGRATED_GPU))


@pytest.fixture(scope="session")
def is_rpc() -> Iterator[bool]:
    """Makes sure that there is a device, before a model is loaded; whether it is the RPC backend's.

    Its server computes on the CPU as well, so that results can be equal bit for bit.
    """
    llama_cpp.llama_backend_init()  # finds the devices
    if has_gpu():
        yield False
    elif not llama_cpp.llama_supports_rpc():
        pytest.skip(
            "no GPU was found, and llama-cpp-python was built without GGML_RPC: see docs/gpu.md"
        )
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            host, port = free.getsockname()
        command = [sys.executable, str(SERVER), f"{host}:{port}"]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        try:
            wait_for(server, host, port)
            add_rpc_server(f"{host}:{port}")
            yield True
        finally:
            server.kill()
            server.communicate()


def wait_for(server: subprocess.Popen[bytes], host: str, port: int) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(OSError):
            socket.create_connection((host, port), timeout=1).close()
            return
        time.sleep(0.1)
    ending = "does not answer" if server.poll() is None else f"ended with {server.returncode}"
    pytest.fail(f"The RPC server on {host}:{port} {ending}, so no device can be tested.")


def add_rpc_server(endpoint: str) -> None:
    _lib.ggml_backend_rpc_add_server.restype = ctypes.c_void_p
    registered = _lib.ggml_backend_rpc_add_server(ctypes.c_char_p(endpoint.encode()))
    if not registered:
        pytest.fail(f"The RPC server on {endpoint} offers no device, so none can be tested.")
    _lib.ggml_backend_register(ctypes.c_void_p(registered))
