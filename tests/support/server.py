"""The real server, in a process of its own, and requests to it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

_PATIENCE = 120.0


class Server:
    """`steerx-edge serve` on a free port; what it prints is in `log`."""

    def __init__(self, model: Path, folder: Path, log: Path, *options: str, n_ctx: int = 512):
        self.log_path = log
        command = [sys.executable, "-m", "steerx_edge", "serve", "--profiles", str(folder)]
        command += ["-m", str(model), "--alias", "tiny", "-t", "1", "-c", str(n_ctx)]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--port", "0", *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "OMP_WAIT_POLICY": "passive"},
            )
        self.port = self._port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.url, timeout=_PATIENCE)

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def _port(self) -> int:
        for _ in range(int(_PATIENCE / 0.1)):
            if found := re.search(r"Listening on http://\S+:(\d+)\n", self.log):
                return int(found[1])
            assert self.process.poll() is None, self.log
            time.sleep(0.1)
        raise AssertionError(self.log)

    def close(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(_PATIENCE)

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return self.client.post(path, json=body, **options)

    def chat(self, model: str, text: str, n: int = 8, **fields: Any) -> str:
        """The text of a greedy chat."""
        messages = [{"role": "user", "content": text}]
        body = {"model": model, "messages": messages, "max_tokens": n, **GREEDY, **fields}
        response = self.post("/v1/chat/completions", body)
        assert response.status_code == 200, response.text
        return str(response.json()["choices"][0]["message"]["content"])

    def complete(self, model: str, prompt: str, n: int = 8, **fields: Any) -> str:
        """The text of a greedy completion."""
        body = {"model": model, "prompt": prompt, "max_tokens": n, **GREEDY, **fields}
        response = self.post("/v1/completions", body)
        assert response.status_code == 200, response.text
        return str(response.json()["choices"][0]["text"])


GREEDY = {"temperature": 0.0, "repeat_penalty": 1.0}
