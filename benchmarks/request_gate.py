"""The request gate on requests that it was not made of: a person's own, and neutral ones.

Made as `learn` makes it, of every other one of a user's last requests and of the neutral requests
of calibration; asked about the rest, and about the neutral requests that are kept for `evaluate`.
With --system, these come after a system message, which those that it was made of do not.

    python benchmarks/request_gate.py DATA -m MODEL.gguf [--first 6] [--items 40] [--system TEXT]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from steerx_edge.llamacpp.waiting import wait_briefly

wait_briefly()

import numpy as np
from numpy.typing import NDArray

from steerx_edge import Engine, HistoryItem, read_users
from steerx_edge.learning.neutral import neutral_items
from steerx_edge.learning.texts import shortened
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.steering.gate import Gate
from steerx_edge.steering.requests import opening_rows


def main() -> None:
    """Print a row for each user."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a per-author file")
    parser.add_argument("-m", "--model", required=True, help="GGUF")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--first", type=int, default=6, help="users with a request for each text")
    parser.add_argument("--items", type=int, default=40, help="use only the latest N texts")
    parser.add_argument("--system", default="", help="before what the gate is asked about")
    args = parser.parse_args()
    engine = Engine(args.model, n_threads=args.threads)
    neutral = rows_before_answers(engine, neutral_items("calibration"))
    unlike = rows_before_answers(engine, neutral_items("evaluation"), args.system)
    users = [u for u in read_users(args.data) if all(item.request for item in u.history)]
    shares = []
    print("user        own requests let through   neutral requests let through")
    for user in users[: args.first]:
        items = user.history[-args.items :]
        gate = Gate.fit(rows_before_answers(engine, items[::2]), neutral)
        own = gate.is_open(rows_before_answers(engine, items[1::2], args.system))
        others = gate.is_open(unlike)
        shares.append((own.mean(), others.mean()))
        print(
            f"{user.id:11} {own.sum():3} of {len(own):3}                 "
            f"{others.sum():3} of {len(others):3}",
            flush=True,
        )
    let_through = np.mean(shares, axis=0)
    print(f"mean        {let_through[0]:.1%}                     {let_through[1]:.1%}")


def rows_before_answers(
    engine: Engine, items: Sequence[HistoryItem], system: str = ""
) -> NDArray[np.float32]:
    """(n, n_embd) final normed rows that predict the first tokens of answers."""
    requests = [shortened(engine, item).request for item in items]
    prompts = [engine.prompt(messages_for(request, system=system)) for request in requests]
    return opening_rows(engine, prompts)


if __name__ == "__main__":
    main()
