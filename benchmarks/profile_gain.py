"""Does a profile make a person's other texts more probable? Texts it was not learned from.

python benchmarks/profile_gain.py HELD_OUT --profile me.json [-m MODEL]
"""

from __future__ import annotations

import argparse

import numpy as np

from steerx_edge import Engine, Profile, read_history
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import ScoreRequest
from steerx_edge.steering.requests import by_context, steered


def main() -> None:
    """Print one line a text, and the mean."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", help="as steerx-edge learn reads them")
    parser.add_argument("--profile", required=True)
    parser.add_argument("-m", "--model")
    args = parser.parse_args()
    engine = Engine(args.model)
    entry = Profile.load(args.profile).entry_for(engine.model_id)
    print("log-probability, nats/token:  without  with   gain")
    gains = []
    for number, item in enumerate(read_history(args.texts), start=1):
        context = engine.prompt(messages_for(item.request))
        response = engine.tokenize(item.response)
        (steering,) = by_context(engine, entry.steering(), [context])
        unsteered = ScoreRequest(context, response)
        before, after = (
            float(result.scored.mean())
            for result in engine.run_many([unsteered, steered(unsteered, steering)])
        )
        gains.append(after - before)
        print(f"held-out text {number}:              {before:7.3f} {after:7.3f} {gains[-1]:+.3f}")
    print(f"mean gain {np.mean(gains):+.3f}")


if __name__ == "__main__":
    main()
