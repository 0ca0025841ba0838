"""Whether a server stays as it is under an hour of mixed load. Linux only.

    python benchmarks/mixed_load.py FOLDER [-m MODEL.gguf] [-t THREADS] [--minutes N] [--rest S]

`steerx-edge serve` gets the profiles of FOLDER. Several users ask it at the same time, each request
of a kind drawn at random, and rest in between for some seconds. Memory is what each process has for
itself: pages of the model's file come and go with the rest of the machine. The slope is that of a
line through the minutes after the first ten.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np

USERS = 3
N_TOKENS = 8
N_CTX = 2048
WARM_UP = 10  # minutes
REQUESTS = (
    "Write a mail to Nils: the meeting is moved to Tuesday.",
    "Write a note to the team: the printer is out of toner.",
    "Why do leaves change colour in autumn?",
    "Thank Hanna for the cake. " * 20,
)
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
HOSTILE: tuple[bytes, ...] = (
    b"",
    b"[" * 100_000,
    b'{"messages": [{"role": "user", "content": "\xff"}]}',
    b'{"model": "m@../../etc/passwd", "messages": []}',
    b'{"messages": [{"role": "user", "content": "' + b"a" * 3_000_000 + b'"}]}',
    b'{"messages": [{"role": "user", "content": "a"}], "grammar": "root ::= root"}',
    b'{"messages": [{"role": "user", "content": "a"}], "temperature": -1}',
    b'{"messages": [{"role": "user", "content": "a"}], "logit_bias": {"a": {}}}',
    b"{" + b" " * (5 << 20) + b"}",
)


class User:
    """Asks the server, one request after the other.

    Args:
        port: of the server.
        models: their names.
        seed: of what is drawn.
    """

    def __init__(self, port: int, models: list[str], seed: int) -> None:
        self._port, self._models = port, models
        self._random = random.Random(seed)  # noqa: S311
        self.asked: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self._kinds: dict[str, tuple[int, Callable[[], int]]] = {
            "chat": (6, lambda: self._chat()),
            "chat, streamed": (6, lambda: self._chat(stream=True)),
            "chat, JSON Schema": (
                2,
                lambda: self._chat(response_format={"type": "json_object", "schema": SCHEMA}),
            ),
            "chat, log-probabilities": (2, lambda: self._chat(logprobs=True, top_logprobs=3)),
            "chat, profile as a field": (3, self._field),
            "completion": (3, self._completion),
            "Ollama chat, streamed": (4, self._ollama),
            "Ollama tags": (2, lambda: self._ask("GET", "/api/tags")),
            "models": (2, lambda: self._ask("GET", "/v1/models")),
            "profiles read anew": (1, lambda: self._ask("POST", "/profiles", b"[]")),
            "hostile": (6, self._hostile),
            "left in mid-stream": (3, lambda: self._leave(after_first=True)),
            "left before the answer": (2, lambda: self._leave(after_first=False)),
            "left in the body": (2, self._half),
        }

    def work(self, seconds: float, rest: float) -> None:
        """Ask until the time is over, and rest in between for so many seconds on average."""
        end = time.monotonic() + seconds
        names = list(self._kinds)
        weights = [weight for weight, _ in self._kinds.values()]
        while time.monotonic() < end:
            (name,) = self._random.choices(names, weights)
            try:
                status = self._kinds[name][1]()
            except OSError as error:
                self.wrong[f"{name}: {type(error).__name__}"] += 1
            else:
                # To Ollama's interface, a wrong value of a field it does not know is no fault.
                if status not in ((200, 400, 404, 413) if name == "hostile" else (200,)):
                    self.wrong[f"{name}: {status}"] += 1
            self.asked[name] += 1
            time.sleep(self._random.uniform(0, 2 * rest))

    def _body(self, **fields: Any) -> dict[str, Any]:
        text = self._random.choice(REQUESTS)
        return {
            "model": self._random.choice(self._models),
            "messages": [{"role": "user", "content": text}],
            "max_tokens": N_TOKENS,
            **fields,
        }

    def _chat(self, **fields: Any) -> int:
        return self._ask("POST", "/v1/chat/completions", self._body(**fields))

    def _field(self) -> int:
        _, _, id_ = self._random.choice(self._models).partition("@")
        chosen = [{"id": id_, "scale": self._random.uniform(-1, 2)}] if id_ else []
        return self._chat(model=self._models[0], profile=chosen)

    def _completion(self) -> int:
        body = self._body(prompt=self._random.choice(REQUESTS))
        return self._ask("POST", "/v1/completions", body)

    def _ollama(self) -> int:
        return self._ask("POST", "/api/chat", self._body(options={"num_predict": N_TOKENS}))

    def _hostile(self) -> int:
        path = self._random.choice(("/v1/chat/completions", "/api/chat", "/profiles"))
        return self._ask("POST", path, self._random.choice(HOSTILE))

    def _ask(self, method: str, path: str, body: bytes | dict[str, Any] = b"") -> int:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=600)
        try:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, content)
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def _leave(self, *, after_first: bool) -> int:
        with self._sent(self._body(stream=True, max_tokens=200)) as connection:
            return 200 if not after_first or b" 200 " in connection.recv(4096) else 500

    def _half(self) -> int:
        with self._sent(self._body(), missing=10):
            return 200

    def _sent(self, body: dict[str, Any], missing: int = 0) -> socket.socket:
        content = json.dumps(body).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Length: {len(content) + missing}\r\n\r\n"
        )
        connection = socket.create_connection(("127.0.0.1", self._port), 600)
        connection.sendall(head.encode() + content)
        return connection


def processes(pid: int) -> list[int]:
    """The server and the process of its model."""
    children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [pid, max(children, key=private_mib)]


def private_mib(pid: int) -> float:
    """What a process has in memory for itself, in MiB."""
    return status_of(pid, "RssAnon")


def status_of(pid: int, name: str) -> float:
    """A size of a process, in MiB."""
    (found,) = re.findall(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
    return int(found) / 1024


def cpu_seconds(pid: int) -> float:
    """That a process has worked."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def slope(minutes: list[list[float]]) -> list[float]:
    """MiB per hour of each process, after the warm-up."""
    rows = np.array(minutes[WARM_UP if len(minutes) > 2 * WARM_UP else 0 :])
    return [float(np.polyfit(np.arange(len(rows)) / 60, column, 1)[0]) for column in rows.T]


def main() -> None:
    """Ask, print the memory each minute, and what was asked at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("-m", "--model")
    parser.add_argument("-t", "--threads", type=int, default=1)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--rest", type=float, default=4.0, help="seconds of a user, on average")
    args = parser.parse_args()
    command = [sys.executable, "-m", "steerx_edge", "serve", "--profiles", args.folder, "--port=0"]
    command += ["-t", str(args.threads), "-c", str(N_CTX), "--alias", "m"]
    command += ["-m", args.model] if args.model else []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:  # noqa: S603
        try:
            watch(server, args.minutes, args.rest)
        finally:
            server.terminate()


def watch(server: subprocess.Popen[str], minutes: int, rest: float) -> None:
    """Let the users work, and print what becomes of the server."""
    port = 0
    while not port:
        line = server.stderr.readline() if server.stderr else ""
        if not line:
            raise SystemExit("The server did not start.")
        if found := re.search(r"Listening on .*:(\d+)$", line.strip()):
            port = int(found[1])
    models = [each["id"] for each in listed(port)]
    users = [User(port, models, seed) for seed in range(USERS)]
    threads = [
        threading.Thread(target=user.work, args=(60 * minutes, rest), daemon=True) for user in users
    ]
    first = processes(server.pid)
    for thread in threads:
        thread.start()
    begin = time.monotonic()
    rows: list[list[float]] = []
    print("| minute | requests | server, MiB | model, MiB | open files | threads |")
    print("|---|---|---|---|---|---|")
    for minute in range(minutes + 1):
        time.sleep(max(0.0, begin + 60 * minute - time.monotonic()))
        pids = processes(server.pid)
        rows.append([private_mib(pid) for pid in pids])
        asked = sum(sum(user.asked.values()) for user in users)
        files = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
        n_threads = sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in pids)
        print(
            f"| {minute} | {asked} | {rows[-1][0]:.1f} | {rows[-1][1]:.1f} | {files} "
            f"| {n_threads} |",
            flush=True,
        )
    for thread in threads:
        thread.join()
    elapsed = time.monotonic() - begin
    busy = sum(map(cpu_seconds, processes(server.pid))) / elapsed
    print(f"MiB per hour: server {slope(rows)[0]:+.2f}, model {slope(rows)[1]:+.2f}")
    print(f"processes replaced: {int(processes(server.pid) != first)}; of a core: {busy:.0%}")
    for name, n in sum((user.asked for user in users), Counter[str]()).most_common():
        print(f"  {name}: {n}")
    wrong = sum((user.wrong for user in users), Counter[str]())
    print("wrong answers:", dict(wrong) or "none")


def listed(port: int) -> list[Any]:
    """The models that a server lists."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/v1/models")
    models: list[Any] = json.loads(connection.getresponse().read())["data"]
    connection.close()
    return models


if __name__ == "__main__":
    main()
