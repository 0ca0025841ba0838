"""A server of llama.cpp's RPC backend, with the CPU as two devices: `rpc_server.py host:port`.

It ends when its standard input does, so it never outlives the tests, however they end.
"""

import ctypes
import os
import sys
import threading

from llama_cpp.llama_cpp import _lib

N_DEVICES = 2
CPU = 0  # GGML_BACKEND_DEVICE_TYPE_CPU


def serve(endpoint: str) -> None:
    """Return only if the server cannot be started, having said why on standard error."""
    _lib.ggml_backend_dev_by_type.restype = ctypes.c_void_p
    cpu = _lib.ggml_backend_dev_by_type(ctypes.c_int(CPU))
    _lib.ggml_backend_rpc_start_server(
        ctypes.c_char_p(endpoint.encode()),
        None,  # no cache of weights on the disk
        ctypes.c_size_t(1),  # thread
        ctypes.c_size_t(N_DEVICES),
        (ctypes.c_void_p * N_DEVICES)(*[cpu] * N_DEVICES),
    )


def end_with_standard_input() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_standard_input, daemon=True).start()
    serve(sys.argv[1])
    sys.exit("The RPC server could not be started.")
