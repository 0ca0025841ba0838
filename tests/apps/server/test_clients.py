"""Several clients at once, clients that leave, and the end of the server."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import Server
from tests.support.steered_llama import TEXT

ENDLESS = {"max_tokens": -1, "stream": True, "grammar": 'root ::= "a" root'}
"""An answer that fills a context of 32,768 tokens, which takes minutes."""
_PATIENCE = 60.0


@pytest.fixture(scope="module")
def server(start: Callable[..., Server]) -> Server:
    return start(n_ctx=32768)


def ask(server: Server, **fields: Any) -> socket.socket:
    """Send a request over a socket of its own."""
    body = {"messages": [{"role": "user", "content": TEXT}], "max_tokens": 2, **fields}
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}"
    connection = socket.create_connection(("127.0.0.1", server.port), _PATIENCE)
    connection.sendall(head.encode() + b"\r\nConnection: close\r\n\r\n" + data)
    return connection


def read_all(connection: socket.socket) -> bytes:
    with closing(connection):
        return b"".join(iter(lambda: connection.recv(65536), b""))


def until_waiting(server: Server, n: int) -> None:
    """Wait until so many requests are queued."""
    for _ in range(int(_PATIENCE / 0.02)):
        if server.client.get("/health").json()["waiting"] == n:
            return
        time.sleep(0.02)
    raise AssertionError(server.client.get("/health").json())


@pytest.fixture
def running(server: Server) -> Iterator[socket.socket]:
    """A client whose endless answer has begun."""
    with closing(ask(server, **ENDLESS)) as connection:
        assert b"200 OK" in connection.recv(100)
        yield connection


@pytest.mark.parametrize("stream", [True, False])
def test_when_a_client_leaves_its_answer_ends_and_the_next_begins(
    server: Server, stream: bool
) -> None:
    first = ask(server, **{**ENDLESS, "stream": stream})
    with ThreadPoolExecutor() as threads:
        second = threads.submit(server.chat, "tiny@ann", TEXT)
        until_waiting(server, 1)
        first.close()
        assert second.result(_PATIENCE) == server.chat("tiny@ann", TEXT)


def test_requests_are_answered_in_the_order_in_which_they_come(
    server: Server, running: socket.socket
) -> None:
    waiting = []
    for number in range(4):
        waiting.append(ask(server, model=("tiny", "tiny@ann")[number % 2], **ENDLESS))
        until_waiting(server, number + 1)
    before = running
    while waiting:
        assert select.select(waiting, (), (), 0)[0] == []
        before.close()
        before = waiting.pop(0)
        assert b"200 OK" in before.recv(100)
    before.close()


def test_a_client_that_leaves_the_queue_is_not_answered(
    server: Server, running: socket.socket
) -> None:
    waiting = [ask(server) for _ in range(3)]
    until_waiting(server, 3)
    waiting[1].close()
    until_waiting(server, 2)
    running.close()
    assert all(b"200 OK" in read_all(waiting[i]) for i in (0, 2))


def test_when_too_many_wait_the_next_is_refused(server: Server, running: socket.socket) -> None:
    waiting = [ask(server) for _ in range(32)]
    until_waiting(server, 32)
    answer = read_all(ask(server))
    assert b" 503 " in answer.splitlines()[0]
    assert b"unavailable_error" in answer
    for connection in waiting[1:]:
        connection.close()
    until_waiting(server, 1)
    running.close()
    assert b"200 OK" in read_all(waiting[0])


def test_what_is_not_http_does_not_hold_up_others(server: Server) -> None:
    heads = (
        b"\x00\xff\xfe",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 100_000,
    )
    for head in heads:
        with socket.create_connection(("127.0.0.1", server.port), _PATIENCE) as connection:
            connection.sendall(head)
            connection.shutdown(socket.SHUT_WR)
            assert b" 200 " not in connection.recv(4096).partition(b"\r\n")[0]
    assert server.chat("tiny", TEXT)


@pytest.mark.slow
def test_a_connection_without_a_request_is_closed(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), _PATIENCE) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost:")
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_a_signal_ends_it_in_mid_stream(
    start: Callable[..., Server], number: signal.Signals, status: int
) -> None:
    server = start(n_ctx=32768)
    with closing(ask(server, **ENDLESS)) as connection:
        assert b"200 OK" in connection.recv(100)
        server.process.send_signal(number)
        assert server.process.wait(_PATIENCE) == status
    assert "Traceback" not in server.log


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
def test_the_process_of_the_model_ends_with_the_server(start: Callable[..., Server]) -> None:
    server = start(n_ctx=32768)
    pid = server.process.pid
    children = [
        int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ]
    with closing(ask(server, **ENDLESS)) as connection:
        assert b"200 OK" in connection.recv(100)
        server.process.kill()
    server.process.wait(_PATIENCE)
    for child in children:
        until_gone(child)


def until_gone(pid: int) -> None:
    for _ in range(int(_PATIENCE / 0.05)):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError(pid)
