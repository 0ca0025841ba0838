"""Gates that are known to let an answer through, or not."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import numpy as np
from llama_cpp import Llama

from steerx_edge.llamacpp.analysis import AnalysisContext
from steerx_edge.llamacpp.requests import ScoreRequest, asked_for
from steerx_edge.steering.gate import Gate


def gate_for(llama: Llama, context: Sequence[int], *, is_open: bool = True) -> Gate:
    """A gate that lets through what follows a context and contexts hardly unlike it, or does not.

    Args:
        llama: the model.
        context: at most 512 tokens.
        is_open: whether the context's answer is let through; if not, nothing like it is.
    """
    with closing(AnalysisContext(llama, 512)) as analysis:
        (result,) = analysis.run_many([ScoreRequest(context, (), score=False, final=True)])
    row = asked_for(result.final)[0]
    direction = row / np.linalg.norm(row)
    return Gate(direction if is_open else -direction, 0.99)
