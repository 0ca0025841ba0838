"""An application outside the package: `make lint` checks its types against what is installed."""

from llama_cpp import Llama

import steerx_edge as sx


def learn_and_answer(model: str, texts: str, request: str) -> tuple[object, float | None]:
    """Learn a profile, save it, and answer one request with it."""
    llama = Llama(model, n_ctx=4096)
    profile = sx.learn(llama, sx.read_history(texts), sx.Settings(memory="shared"))
    profile.save("me.json")
    with sx.steer(llama, "me.json", strength=0.5) as steering:
        steering.strength = 1.0
        answer = llama(request, max_tokens=64)
    gain: sx.Gain | None = profile.entries[0].gain
    return answer, None if gain is None else gain.mean
