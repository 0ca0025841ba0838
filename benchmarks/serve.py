"""What serving profiles costs: switching between them, HTTP, and several users side by side.

    python benchmarks/serve.py PROFILE.json... [-m MODEL.gguf] [-t THREADS] [-n TOKENS] [--rounds N]

Four users ask four requests, each with a profile (the given ones in turn, at different scales).
"One after the other" is what the server does: each answer steered on the model's own context. "Side
by side" is `Engine.generate_many`. The request over HTTP is of one token, after the same prompt.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from http.client import HTTPConnection
from itertools import cycle, islice
from pathlib import Path

from in_turns import ratio, seconds_in_turns

from steerx_edge.live import SteeringHandle
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.models import find_model
from steerx_edge.llamacpp.requests import GenerateRequest
from steerx_edge.llamacpp.waiting import wait_briefly
from steerx_edge.profile import Profile
from steerx_edge.steering.requests import by_context, steered

REQUESTS = (
    "Write a mail to Nils: the meeting is moved to Tuesday.",
    "Write a mail to Hanna: thank her for the cake.",
    "Write a note to the team: the printer is out of toner.",
    "Why do leaves change colour in autumn?",
)
SCALES = (1.0, 0.7, 1.3, 0.5)
SWITCHES = 100


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profiles", nargs="+", metavar="PROFILE.json")
    parser.add_argument("-m", "--model")
    parser.add_argument("-t", "--threads", type=int, default=1)
    parser.add_argument("-n", "--n-predict", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    wait_briefly()
    model = find_model(args.model)
    engine = Engine(model, n_ctx=2048, n_threads=args.threads)
    loaded = [Profile.load(path) for path in args.profiles]
    users = list(zip(islice(cycle(loaded), len(REQUESTS)), SCALES, strict=True))
    print_switching(engine, users)
    print_users(engine, users, args.n_predict, args.rounds)
    print_http(engine, model, args.threads, args.rounds * 10)


def print_switching(engine: Engine, users: Sequence[tuple[Profile, float]]) -> None:
    """How long it takes to steer by another profile, apart from llama.cpp's work."""
    times = []
    for profile, scale in islice(cycle(users), SWITCHES):
        begin = time.perf_counter()
        SteeringHandle(engine.llama, profile, scale, with_history=False).clear()
        times.append(1e3 * (time.perf_counter() - begin))
    low, median, high = statistics.quantiles(times, n=4)
    print(f"switching, ms: {median:.2f} [{low:.2f}, {high:.2f}]")


def print_users(
    engine: Engine, users: Sequence[tuple[Profile, float]], n_tokens: int, rounds: int
) -> None:
    """Tokens per second of all users together."""
    prompts = [engine.prompt([{"role": "user", "content": each}]) for each in REQUESTS]
    generated: dict[str, list[int]] = {"one after the other": [], "side by side": []}

    def one_after_the_other() -> None:
        total = 0
        for (profile, scale), prompt in zip(users, prompts, strict=True):
            with SteeringHandle(engine.llama, profile, scale, with_history=False):
                answer = engine.llama.create_completion(
                    prompt, max_tokens=n_tokens, temperature=0.0
                )
                total += answer["usage"]["completion_tokens"]  # type: ignore[index]
        generated["one after the other"].append(total)

    def side_by_side() -> None:
        requests = []
        for (profile, scale), prompt in zip(users, prompts, strict=True):
            steering = profile.entry_for(engine.model_id).steering(scale)
            (chosen,) = by_context(engine, steering, [prompt])
            requests.append(steered(GenerateRequest(prompt, n_tokens), chosen))
        tokens = engine.analysis.generate_many(requests)
        generated["side by side"].append(sum(map(len, tokens)))

    tasks: dict[str, Callable[[], object]] = {
        "one after the other": one_after_the_other,
        "side by side": side_by_side,
    }
    times = seconds_in_turns(tasks, rounds)
    speeds = {
        name: [n / took for n, took in zip(generated[name][1:], times[name], strict=True)]
        for name in tasks
    }
    for name, each in speeds.items():
        print(f"{len(users)} users, {name}: {statistics.median(each):.1f} tokens/s")
    print(
        f"side by side / in turns: {ratio(speeds['side by side'], speeds['one after the other'])}"
    )


def print_http(engine: Engine, model: Path, threads: int, rounds: int) -> None:
    """What a request of one token takes by the server, and in this process."""
    messages = [{"role": "user", "content": REQUESTS[0]}]
    body = json.dumps({"messages": messages, "max_tokens": 1, "temperature": 0})

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "steerx_edge", "serve", "--profiles", folder, "--port=0"]
        command += ["-m", str(model), "-t", str(threads), "-c", "2048"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:  # noqa: S603
            first = server.stderr.readline() if server.stderr else ""
            (port,) = re.findall(r":(\d+)$", first.strip())
            connection = HTTPConnection("127.0.0.1", int(port))

            def by_server() -> None:
                connection.request("POST", "/v1/chat/completions", body)
                connection.getresponse().read()

            def directly() -> None:
                engine.llama.create_chat_completion(messages, max_tokens=1, temperature=0)  # type: ignore[arg-type]

            times = seconds_in_turns({"server": by_server, "direct": directly}, rounds)
            server.terminate()
    added = [
        1e3 * (one - other) for one, other in zip(times["server"], times["direct"], strict=True)
    ]
    print(f"a request by the server, ms added: {statistics.median(added):.1f}")


if __name__ == "__main__":
    main()
